"""On a GPU, what is exported from a model gives what the model gives, for images of any size."""

import pytest
import torch

from detectron2.export import TracingAdapter, export_aoti, scripting_with_instances
from detectron2.export._predictions import predictions
from detectron2.export.flatten import flatten_to_tuple

from .tiny_detectors import (
    FIELDS_OF_MASK_RCNN,
    SIZES,
    assert_alike,
    exported_detector,
    image,
    make_detector,
)

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning"),
]


@pytest.fixture(autouse=True)
def _full_precision(monkeypatch):
    """Convolutions of different algorithms would round to TF32 differently."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


def batch(size):
    return [{"image": image(size).cuda()}]


def predict(model, size):
    with torch.no_grad():
        leaves = flatten_to_tuple(predictions(model, batch(size)))[0]
    assert len(leaves[0]) > 0
    return leaves


def check(function, model):
    """``function`` of an image gives the flat predictions, on the GPU."""
    for size in SIZES:
        outputs = function(image(size).cuda())
        # How large the image is, is a tensor on the CPU.
        assert all(x.is_cuda for x in outputs if x.shape != (2,))
        assert_alike([x.cpu() for x in outputs], [x.cpu() for x in predict(model, size)])


@pytest.mark.parametrize("kind", ["mask", "keypoint", "panoptic", "retinanet", "fcos"])
def test_one_program_for_all_sizes(kind):
    model, exported = exported_detector(kind, "cuda")
    check(exported.program.module(), model)


def test_program_from_a_file(tmp_path):
    model, exported = exported_detector("mask", "cuda")
    torch.export.save(exported.program, tmp_path / "model.pt2")
    check(torch.export.load(tmp_path / "model.pt2").module(), model)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["retinanet", "mask", "panoptic"])
def test_package_of_aotinductor(kind, tmp_path):
    model, exported = exported_detector(kind, "cuda")
    path = export_aoti(exported, tmp_path / "model.pt2")
    check(torch._inductor.aoti_load_package(path), model)


@pytest.mark.parametrize("kind", ["mask", "retinanet"])
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_trace(kind, tmp_path):
    model = make_detector(kind).cuda()
    adapter = TracingAdapter(model, batch(SIZES[0]), predictions).eval()
    with torch.no_grad():
        torch.jit.trace(adapter, adapter.flattened_inputs).save(tmp_path / "model.ts")
        check(torch.jit.load(tmp_path / "model.ts"), model)


def test_script_of_a_two_stage_detector(tmp_path):
    model = make_detector("mask").cuda()
    scripting_with_instances(model, FIELDS_OF_MASK_RCNN).save(tmp_path / "model.ts")
    script = torch.jit.load(tmp_path / "model.ts")
    for size in SIZES:
        with torch.no_grad():
            (result,) = script.inference(batch(size), do_postprocess=False)
            (wanted,) = model.inference(batch(size), do_postprocess=False)
        assert len(wanted) > 0
        # A loaded script gives objects without properties.
        assert_alike(
            [result._pred_boxes.tensor, result._scores, result._pred_classes, result._pred_masks],
            [wanted.pred_boxes.tensor, wanted.scores, wanted.pred_classes, wanted.pred_masks],
        )


def test_script_of_a_dense_detector():
    model = make_detector("retinanet").cuda()
    fields = {name: FIELDS_OF_MASK_RCNN[name] for name in ("pred_boxes", "scores", "pred_classes")}
    script = scripting_with_instances(model, fields)
    for size in SIZES:
        with torch.no_grad():
            (result,) = script(batch(size))
            wanted = model(batch(size))[0]["instances"]
        assert len(wanted) > 0
        assert_alike(
            [result.pred_boxes.tensor, result.scores, result.pred_classes],
            [wanted.pred_boxes.tensor, wanted.scores, wanted.pred_classes],
        )
