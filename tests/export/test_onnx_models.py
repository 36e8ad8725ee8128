"""ONNX models of detectors, run by ONNX Runtime, give what the detectors give."""

import sys

import pytest
import torch

from detectron2.export import export_onnx, export_program
from detectron2.export._predictions import predictions
from detectron2.export.flatten import flatten_to_tuple

from .tiny_detectors import SIZES, assert_alike, exported_detector, image

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")


def test_missing_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportError, match="needs the package onnx"):
        export_onnx(None)


class TestWithOnnx:
    @pytest.fixture(autouse=True)
    def _packages(self):
        pytest.importorskip("onnx")
        pytest.importorskip("onnxscript")
        self.onnxruntime = pytest.importorskip("onnxruntime")

    def run(self, path, *inputs):
        session = self.onnxruntime.InferenceSession(path)
        names = [x.name for x in session.get_inputs()]
        feed = {name: x.numpy() for name, x in zip(names, inputs, strict=True)}
        outputs = [torch.from_numpy(x) for x in session.run(None, feed)]
        return dict(zip([x.name for x in session.get_outputs()], outputs, strict=True))

    @pytest.mark.parametrize(
        "kind",
        [
            "retinanet",
            pytest.param("fcos", marks=pytest.mark.slow),
            pytest.param("mask", marks=pytest.mark.slow),
        ],
    )
    def test_one_model_for_all_sizes(self, kind, tmp_path):
        model, exported = exported_detector(kind)
        path = str(tmp_path / "model.onnx")
        export_onnx(exported, path)
        assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]
        for size in SIZES:
            outputs = self.run(path, image(size))
            assert tuple(outputs) == exported.output_names
            with torch.no_grad():
                wanted = flatten_to_tuple(predictions(model, [{"image": image(size)}]))[0]
            assert len(outputs["scores"]) > 0
            assert_alike(list(outputs.values()), wanted)

    def test_many_weights_go_into_a_file_of_their_own(self, monkeypatch):
        _, exported = exported_detector("retinanet")
        seen = []
        monkeypatch.setattr(torch.onnx, "export", lambda *_, **kw: seen.append(kw["external_data"]))
        export_onnx(exported)
        weights = sum(x.nbytes for x in exported.program.state_dict.values())
        monkeypatch.setattr("detectron2.export.onnx._MOST_IN_FILE", weights)
        export_onnx(exported)
        export_onnx(exported, external_data=False)
        assert seen == [False, True, False]

    @pytest.mark.parametrize("has_classes", [False, True])
    def test_nms_of_groups(self, has_classes, tmp_path):
        class Suppress(torch.nn.Module):
            def forward(self, boxes, valid, classes):
                of_boxes = classes if has_classes else None
                kept = torch.ops.detectron2.nms_groups(boxes, valid, of_boxes, 0.4)
                return kept, classes.sum()

        def inputs(groups, count):
            corners = torch.rand(groups, count, 2) * 20
            boxes = torch.cat([corners, corners + torch.rand(groups, count, 2) * 20], dim=2)
            return boxes, torch.rand(groups, count) < 0.8, torch.randint(3, (groups, count))

        dims = {"0": (1,), "1": (1,), "2": (1,)}
        exported = export_program(
            Suppress().eval(), inputs(2, 8), lambda model, *x: model(*x), dynamic_dims=dims
        )
        path = str(tmp_path / "nms.onnx")
        export_onnx(exported, path)
        for count in (0, 1, 60):
            arguments = inputs(2, count)
            kept = self.run(path, *arguments)["output.0"]
            wanted = Suppress()(*arguments)[0]
            assert torch.equal(kept, wanted)
        assert 0 < wanted.sum() < arguments[1].sum()

    def test_operators_without_counterpart(self):
        _, exported = exported_detector("keypoint")
        with pytest.raises(ValueError, match=r"\['detectron2.heatmaps_to_keypoints.default'\]"):
            export_onnx(exported)
        with pytest.raises(ValueError, match="18 or newer, got 11"):
            export_onnx(exported, opset_version=11)
