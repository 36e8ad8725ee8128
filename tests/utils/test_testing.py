"""The helpers for tests, where they need no model."""

import sys
import unittest
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch

from detectron2.structures import Boxes, Instances, ROIMasks
from detectron2.utils import testing


def test_random_boxes() -> None:
    torch.manual_seed(0)
    boxes = testing.random_boxes(500, max_coord=40)
    assert boxes.shape == (500, 4)
    torch.manual_seed(0)
    drawn = (torch.rand(500, 4) * 20).clamp(min=1)
    assert torch.equal(boxes[:, :2], drawn[:, :2])
    assert torch.equal(boxes[:, 2:], drawn[:, 2:] + drawn[:, :2])
    assert testing.random_boxes(0).shape == (0, 4)


def make_instances(offset: float = 0.0, **fields: object) -> Instances:
    defaults = {
        "pred_boxes": Boxes(torch.tensor([[0.0, 10, 20, 100 + offset]])),
        "pred_masks": ROIMasks(torch.zeros(1, 2, 2)),
        "pred_classes": torch.tensor([3]),
    }
    return Instances((4, 5), **{**defaults, **fields})


class TestAssertInstancesAllclose:
    def test_equal(self) -> None:
        testing.assert_instances_allclose(make_instances(), make_instances())
        testing.assert_instances_allclose(make_instances(), make_instances(5e-4))

    def test_nothing_in_them(self) -> None:
        testing.assert_instances_allclose(make_instances()[:0], make_instances()[:0])

    @pytest.mark.parametrize(
        ("other", "message"),
        [
            (make_instances(0.01), "run: field 'pred_boxes': values differ by up to 0.01"),
            (make_instances(pred_classes=torch.tensor([4])), "pred_classes.*differ by up to 1"),
            (make_instances(pred_masks=ROIMasks(torch.zeros(1, 3, 3))), "pred_masks.*shape"),
            (make_instances(scores=torch.ones(1)), r"fields \['pred_boxes.* not .*'scores'\]"),
            (Instances((4, 6)), r"image_size \(4, 5\), not \(4, 6\)"),
        ],
    )
    def test_different(self, other: Instances, message: str) -> None:
        with pytest.raises(AssertionError, match=message):
            testing.assert_instances_allclose(make_instances(), other, msg="run")

    def test_tolerance(self) -> None:
        testing.assert_instances_allclose(make_instances(), make_instances(0.01), rtol=1e-3)

    def test_sizes_as_tensors(self) -> None:
        exported = make_instances()
        exported._image_size = torch.tensor([4, 5])
        testing.assert_instances_allclose(exported, make_instances(), size_as_tensor=True)

    def test_other_types(self) -> None:
        instances = make_instances(names=["a"])
        with pytest.raises(ValueError, match="'names': cannot compare a list"):
            testing.assert_instances_allclose(instances, instances)


def test_convert_scripted_instances() -> None:
    boxes = Boxes(torch.ones(1, 4))
    scripted = SimpleNamespace(
        image_size=(4, 5), _field_names=["pred_boxes", "scores"], _pred_boxes=boxes, _scores=None
    )
    converted = testing.convert_scripted_instances(scripted)
    assert converted.image_size == (4, 5)
    assert converted.get_fields() == {"pred_boxes": boxes}


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_reload_script_model() -> None:
    module = torch.jit.script(torch.nn.Linear(2, 3))
    reloaded = testing.reload_script_model(module)
    assert torch.equal(reloaded(torch.ones(1, 2)), module(torch.ones(1, 2)))


def onnx_model(*inputs: list[str]) -> SimpleNamespace:
    """The part of an ONNX model that tells the names of its inputs' axes."""

    def value(axes: list[str]) -> SimpleNamespace:
        shape = SimpleNamespace(dim=[SimpleNamespace(dim_param=axis) for axis in axes])
        return SimpleNamespace(type=SimpleNamespace(tensor_type=SimpleNamespace(shape=shape)))

    return SimpleNamespace(graph=SimpleNamespace(input=[value(axes) for axes in inputs]))


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [([["", "height"]], True), ([["", ""]], False), ([["batch"], ["", ""]], False)],
)
def test_has_dynamic_axes(inputs: list[list[str]], expected: bool) -> None:
    assert testing.has_dynamic_axes(onnx_model(*inputs)) == expected


def test_custom_op_export_only_for_older_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    for name in ("register_custom_op_symbolic", "unregister_custom_op_symbolic"):
        monkeypatch.setattr(torch.onnx, name, lambda *args, name=name: calls.append((name, args)))
    for version in ("1.12", "99.0"):
        testing.register_custom_op_onnx_export("a::b", len, 11, version)
        testing.unregister_custom_op_onnx_export("a::b", 11, version)
    assert calls == [
        ("register_custom_op_symbolic", ("a::b", len, 11)),
        ("unregister_custom_op_symbolic", ("a::b", 11)),
    ]


def is_skipped(decorator) -> bool:
    try:
        decorator(lambda: None)()
    except unittest.SkipTest:
        return True
    return False


def test_skipping() -> None:
    assert is_skipped(testing.skipIfUnsupportedMinTorchVersion("99.0"))
    assert not is_skipped(testing.skipIfUnsupportedMinTorchVersion("1.10"))
    assert is_skipped(testing.skipIfUnsupportedMinOpsetVersion(16, 15))
    assert not is_skipped(testing.skipIfUnsupportedMinOpsetVersion(16, 16))
    assert is_skipped(testing.skipIfUnsupportedMinOpsetVersion(99))


@pytest.mark.parametrize("at_hand", [True, False])
def test_sample_image(at_hand: bool, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a.jpg"
    if at_hand:
        file.touch()
    read = []

    def read_image(path: str, format: str) -> np.ndarray:
        read.append((path, format))
        return np.arange(24, dtype=np.uint8).reshape(2, 4, 3)

    data, utils = ModuleType("detectron2.data"), ModuleType("detectron2.data.detection_utils")
    data.DatasetCatalog = SimpleNamespace(get=lambda name: [{"file_name": str(file)}])
    utils.read_image = read_image
    monkeypatch.setitem(sys.modules, "detectron2.data", data)
    monkeypatch.setitem(sys.modules, "detectron2.data.detection_utils", utils)
    array, tensor = (testing.get_sample_coco_image(tensor) for tensor in (False, True))
    assert array.shape == (2, 4, 3)
    assert torch.equal(tensor, torch.from_numpy(array).permute(2, 0, 1))
    path, colors = read[0]
    assert colors == "BGR"
    assert path == str(file) if at_hand else path.startswith("http://images.cocodataset.org/")


def test_names_that_other_packages_define() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        testing.nothing  # noqa: B018
