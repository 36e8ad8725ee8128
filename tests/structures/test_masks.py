"""Masks as bitmaps, polygons and soft masks in boxes."""

import copy
import pickle

import numpy as np
import pytest
import torch
from torch import Tensor

from detectron2.structures import BitMasks, Boxes, PolygonMasks, ROIMasks, polygons_to_bitmask
from detectron2.structures.masks import (
    _bounding_boxes_by_reduction,
    polygon_area,
    rasterize_polygons_within_box,
)

# Of pycocotools under NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SQUARE = np.array([10.0, 10.0, 30.0, 10.0, 30.0, 30.0, 10.0, 30.0])
TRIANGLE = np.array([0.0, 0.0, 8.0, 0.0, 0.0, 6.0])


def random_polygons(count: int, seed: int = 0, extent: float = 60.0) -> list[list[np.ndarray]]:
    """Instances of one to three star-shaped polygons."""
    rng = np.random.default_rng(seed)
    instances = []
    for _ in range(count):
        instance = []
        for _ in range(rng.integers(1, 4)):
            angles = np.sort(rng.uniform(0, 2 * np.pi, 9))
            arms = np.stack([np.cos(angles), np.sin(angles)], axis=1)
            polygon = rng.uniform(0.1, 0.9, 2) * extent + arms * rng.uniform(3, 15, (9, 1))
            instance.append(polygon.reshape(-1))
        instances.append(instance)
    return instances


def random_bitmasks(count: int, seed: int = 0) -> BitMasks:
    return BitMasks.from_polygon_masks(random_polygons(count, seed), 60, 70)


def coco_bitmask(polygons: list[np.ndarray], height: int, width: int) -> np.ndarray:
    # Here, for the tests on CUDA, which do without it.
    from pycocotools import mask as coco_mask

    runs = coco_mask.frPyObjects([polygon.tolist() for polygon in polygons], height, width)
    return coco_mask.decode(coco_mask.merge(runs)).astype(bool)


# ---- Bitmaps


def test_bitmasks_from_anything_with_three_dimensions() -> None:
    masks = BitMasks(np.array([[[0, 1], [7, 0]]], dtype=np.uint8))
    assert masks.tensor.dtype == torch.bool
    assert masks.tensor.tolist() == [[[False, True], [True, False]]]
    assert tuple(masks.image_size) == (2, 2)
    assert masks.device.type == "cpu"
    assert repr(masks) == "BitMasks(num_instances=1)"
    shared = torch.zeros(2, 3, 4, dtype=torch.bool)
    assert BitMasks(shared).tensor.data_ptr() == shared.data_ptr()
    with pytest.raises(ValueError, match=r"\(N, H, W\), got \[3, 4\]"):
        BitMasks(torch.zeros(3, 4))


def test_indexing_bitmasks() -> None:
    masks = random_bitmasks(5)
    is_chosen = torch.tensor([True, False, True, False, True])
    assert len(masks[1]) == len(masks[-1]) == 1
    assert torch.equal(masks[1].tensor[0], masks.tensor[1])
    assert torch.equal(masks[1:3].tensor, masks.tensor[1:3])
    assert torch.equal(masks[is_chosen].tensor, masks.tensor[is_chosen])
    assert torch.equal(masks[torch.tensor([4, 0, 0])].tensor, masks.tensor[[4, 0, 0]])
    assert [mask.shape for mask in masks] == [(60, 70)] * 5
    with pytest.raises(IndexError):
        masks[9]
    with pytest.raises(IndexError, match=r"5 masks gave the shape \[70\]"):
        masks[0, 1]


def test_moving_copying_and_joining_bitmasks() -> None:
    masks = random_bitmasks(4)
    assert torch.equal(BitMasks.cat([masks[:1], masks[1:]]).tensor, masks.tensor)
    assert torch.equal(masks.to("cpu").tensor, masks.tensor)
    for copied in (copy.deepcopy(masks), pickle.loads(pickle.dumps(masks))):
        assert torch.equal(copied.tensor, masks.tensor)
    with pytest.raises(ValueError, match=r"at least one BitMasks, got \[\]"):
        BitMasks.cat([])
    with pytest.raises(TypeError, match="list of BitMasks"):
        BitMasks.cat([masks, masks.tensor])


def test_which_bitmasks_are_nonempty() -> None:
    masks = torch.zeros(3, 4, 5, dtype=torch.bool)
    masks[1, 3, 4] = True
    assert BitMasks(masks).nonempty().tolist() == [False, True, False]
    assert BitMasks(masks[:0]).nonempty().shape == (0,)
    assert BitMasks(masks[:, :0]).nonempty().tolist() == [False] * 3


@pytest.mark.parametrize("instances", [random_polygons(12), [], [[]]])
def test_bitmasks_from_polygons(instances: list[list[np.ndarray]]) -> None:
    masks = BitMasks.from_polygon_masks(instances, 60, 70)
    assert masks.tensor.shape == (len(instances), 60, 70)
    for mask, polygons in zip(masks, instances, strict=True):
        expected = coco_bitmask(polygons, 60, 70) if polygons else np.zeros((60, 70), bool)
        assert np.array_equal(mask.numpy(), expected)
    from_structure = BitMasks.from_polygon_masks(PolygonMasks(instances), 60, 70)
    assert torch.equal(from_structure.tensor, masks.tensor)


def test_bitmasks_from_roi_masks_need_boxes() -> None:
    with pytest.raises(NotImplementedError, match=r"ROIMasks.to_bitmasks\(boxes, height, width\)"):
        BitMasks.from_roi_masks(ROIMasks(torch.zeros(2, 7, 7)), 20, 20)


def boxes_by_search(masks: Tensor) -> Tensor:
    boxes = torch.zeros(len(masks), 4)
    for box, mask in zip(boxes, masks, strict=True):
        rows, columns = torch.where(mask)
        if len(rows) > 0:
            box[:] = torch.stack([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
    return boxes


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_boxes_of_bitmasks(device: str) -> None:
    masks = random_bitmasks(15)
    masks.tensor[3] = False
    boxes = masks.to(device).get_bounding_boxes()
    assert isinstance(boxes, Boxes)
    assert boxes.device.type == "cpu"
    assert torch.equal(boxes.tensor, boxes_by_search(masks.tensor))
    reduced = _bounding_boxes_by_reduction(masks.tensor.to(device))
    assert torch.equal(reduced.cpu(), boxes.tensor)
    for empty in (torch.zeros(0, 5, 6), torch.zeros(3, 0, 6), torch.zeros(3, 5, 0)):
        expected = torch.zeros(len(empty), 4)
        assert torch.equal(BitMasks(empty.to(device)).get_bounding_boxes().tensor, expected)
        assert torch.equal(_bounding_boxes_by_reduction(empty.bool()), expected)


def test_boxes_of_bitmasks_traced() -> None:
    traced = torch.jit.trace(
        lambda masks: BitMasks(masks).get_bounding_boxes().tensor, random_bitmasks(3).tensor
    )
    masks = random_bitmasks(7, seed=1).tensor
    assert torch.equal(traced(masks), boxes_by_search(masks))


def test_boxes_of_bitmasks_compiled() -> None:
    torch._dynamo.reset()
    compiled = torch.compile(
        lambda masks: BitMasks(masks).get_bounding_boxes().tensor,
        fullgraph=True, backend="aot_eager", dynamic=True,
    )  # fmt: skip
    for count in (3, 7):
        masks = random_bitmasks(count).tensor
        assert torch.equal(compiled(masks), boxes_by_search(masks))


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_cropping_bitmasks(device: str) -> None:
    """A box of S times k pixels: each cell is the average of k by k pixels."""
    generator = torch.Generator().manual_seed(3)
    masks = torch.rand(6, 40, 50, generator=generator) < 0.5
    corners = torch.tensor([[0, 0], [2, 3], [10, 4], [26, 16], [0, 16], [26, 0]])
    boxes = torch.cat([corners, corners + 24], dim=1).float()
    cropped = BitMasks(masks.to(device)).crop_and_resize(boxes.to(device), 8)
    assert cropped.dtype == torch.bool
    assert cropped.device.type == device
    for mask, (x, y), actual in zip(masks, corners.tolist(), cropped.cpu(), strict=True):
        cells = mask[y : y + 24, x : x + 24].float().reshape(8, 3, 8, 3).mean((1, 3))
        assert torch.equal(actual, cells >= 0.5)


def test_cropping_bitmasks_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    masks, boxes = random_bitmasks(7), torch.tensor([[5.0, 6, 50, 40]] * 7)
    expected = masks.crop_and_resize(boxes, 9)
    monkeypatch.setattr("detectron2.structures.masks._CROPPED_AT_ONCE", 3 * 60 * 70)
    assert torch.equal(masks.crop_and_resize(boxes, 9), expected)


def test_cropping_no_bitmasks() -> None:
    masks = BitMasks(torch.zeros(0, 20, 20))
    assert masks.crop_and_resize(torch.zeros(0, 4), 14).shape == (0, 14, 14)
    with pytest.raises(ValueError, match=r"2 masks need boxes of the shape \(2, 4\), got \[3, 4\]"):
        BitMasks(torch.zeros(2, 9, 9)).crop_and_resize(torch.zeros(3, 4), 14)


# ---- Polygons


def test_polygons_become_float64_arrays() -> None:
    masks = PolygonMasks([[torch.tensor([0.0, 0, 4, 0, 4, 4])], [[0, 0, 4, 0, 4, 4], SQUARE]])
    assert [[polygon.dtype for polygon in instance] for instance in masks] == [
        [np.float64], [np.float64, np.float64]
    ]  # fmt: skip
    assert masks.polygons[1][1] is SQUARE
    assert masks.device.type == "cpu"
    assert masks.to("cuda") is masks
    assert repr(masks) == "PolygonMasks(num_instances=2)"


@pytest.mark.parametrize(
    ("polygons", "message"),
    [
        (np.zeros((2, 6)), "must be a list.*ndarray"),
        ([np.zeros(6)], "instance must be a list.*ndarray"),
        ([[np.zeros(4)]], r"at least 6 values.*got the shape \[4\]"),
        ([[np.zeros(7)]], r"even number of them, got the shape \[7\]"),
        ([[np.zeros((3, 2))]], r"got the shape \[3, 2\]"),
    ],
)
def test_what_is_not_polygons(polygons: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PolygonMasks(polygons)


def test_indexing_polygons() -> None:
    masks = PolygonMasks(random_polygons(5))
    is_chosen = torch.tensor([True, False, True, False, True])

    def indices(selected: PolygonMasks) -> list[int]:
        first = [instance[0] for instance in masks]
        return [
            next(i for i in range(5) if first[i] is instance[0]) for instance in selected
        ]  # fmt: skip

    assert indices(masks[2]) == [2]
    assert indices(masks[-1]) == [4]
    assert indices(masks[1:4]) == [1, 2, 3]
    assert indices(masks[[3, 0]]) == [3, 0]
    assert indices(masks[is_chosen]) == indices(masks[is_chosen.numpy()]) == [0, 2, 4]
    assert indices(masks[is_chosen.byte()]) == [0, 2, 4]
    assert indices(masks[torch.tensor([3, 3, 0])]) == [3, 3, 0]
    assert indices(masks[np.int64(1)]) == [1]
    for nothing in ([], torch.zeros(0), torch.zeros(5, dtype=torch.bool), slice(3, 3)):
        assert len(masks[nothing]) == 0
    one = torch.ones(1, dtype=torch.uint8)
    for wrong in (torch.tensor([0.5]), one, one.bool(), torch.zeros(1, 1, dtype=torch.int64)):
        with pytest.raises(IndexError, match="5 polygon masks cannot be indexed"):
            masks[wrong]
    with pytest.raises(IndexError):
        masks[5]


def test_joining_polygons() -> None:
    masks = PolygonMasks(random_polygons(5))
    joined = PolygonMasks.cat([masks[:2], masks[2:]])
    assert torch.equal(joined.area(), masks.area())
    with pytest.raises(ValueError, match="at least one PolygonMasks"):
        PolygonMasks.cat([])
    with pytest.raises(TypeError, match="list of PolygonMasks"):
        PolygonMasks.cat([masks, masks.polygons])


def test_areas_of_polygons() -> None:
    assert polygon_area(TRIANGLE[0::2], TRIANGLE[1::2]) == 24
    assert polygon_area(TRIANGLE[4::-2], TRIANGLE[5::-2]) == 24
    areas = PolygonMasks([[SQUARE], [SQUARE, SQUARE, TRIANGLE], []]).area()
    assert areas.dtype == torch.float32
    assert areas.tolist() == [400, 824, 0]


def test_boxes_of_polygons() -> None:
    negative = TRIANGLE - 20
    masks = PolygonMasks([[SQUARE], [], [SQUARE, TRIANGLE], [negative]])
    inf = float("inf")
    assert masks.get_bounding_boxes().tensor.tolist() == [
        [10, 10, 30, 30], [inf, inf, 0, 0], [0, 0, 30, 30], [-20, -20, 0, 0]
    ]  # fmt: skip
    assert masks.nonempty().tolist() == [True, False, True, True]
    assert PolygonMasks([]).get_bounding_boxes().tensor.shape == (0, 4)
    assert PolygonMasks([[]]).get_bounding_boxes().tensor.tolist() == [[inf, inf, 0, 0]]
    assert PolygonMasks([]).nonempty().shape == (0,)


def test_polygons_to_bitmask() -> None:
    for polygons in random_polygons(10, seed=4):
        mask = polygons_to_bitmask(polygons, 50, 64)
        assert mask.dtype == np.bool_
        assert np.array_equal(mask, coco_bitmask(polygons, 50, 64))
    assert not polygons_to_bitmask([], 5, 6).any()
    # COCO's API would take four numbers for a box, and seven for three vertices.
    for length in (4, 7):
        with pytest.raises(ValueError, match=rf"got the shape \[{length}\]"):
            polygons_to_bitmask([np.zeros(length)], 5, 6)
    with pytest.raises(RuntimeError, match="must be finite, got nan"):
        polygons_to_bitmask([np.full(6, np.nan)], 5, 6)


def test_cropping_polygons() -> None:
    instances = random_polygons(12, seed=5)
    masks = PolygonMasks(instances)
    rng = np.random.default_rng(6)
    boxes = masks.get_bounding_boxes().tensor.double().numpy() + rng.uniform(-3, 3, (12, 4))
    boxes[3, 2:] = boxes[3, :2]  # no side; counts as 0.1
    cropped = masks.crop_and_resize(torch.from_numpy(boxes), 28)
    assert cropped.dtype == torch.bool
    for polygons, (x0, y0, x1, y1), actual in zip(instances, boxes, cropped, strict=True):
        scale = np.array([28 / max(x1 - x0, 0.1), 28 / max(y1 - y0, 0.1)])
        moved = [((p.reshape(-1, 2) - [x0, y0]) * scale).reshape(-1) for p in polygons]
        assert np.array_equal(actual.numpy(), coco_bitmask(moved, 28, 28))
        alone = rasterize_polygons_within_box(polygons, np.array([x0, y0, x1, y1]), 28)
        assert torch.equal(alone, actual)


def test_cropping_polygons_by_halves() -> None:
    boxes = torch.tensor([[10.0, 10, 30, 30], [0, 0, 40, 40], [20, 10, 40, 30], [50, 50, 60, 60]])
    cropped = PolygonMasks([[SQUARE]] * 4).crop_and_resize(boxes, 8)
    assert cropped.sum((1, 2)).tolist() == [64, 16, 32, 0]
    assert cropped[2, :, :4].all()
    thin = torch.tensor([[29.95, 10, 29.95, 30], [10, 29.95, 30, 29.96]])  # sides count as 0.1
    cropped = PolygonMasks([[SQUARE]] * 2).crop_and_resize(thin, 8)
    assert cropped[0, :, :4].all()
    assert cropped[1, :4, :].all()
    assert cropped.sum((1, 2)).tolist() == [32, 32]
    assert PolygonMasks([]).crop_and_resize(torch.zeros(0, 4), 8).shape == (0, 8, 8)
    with pytest.raises(ValueError, match=r"1 masks need boxes of the shape \(1, 4\), got \[4, 4\]"):
        PolygonMasks([[SQUARE]]).crop_and_resize(boxes, 8)
    boxes[3, 2] = torch.nan
    with pytest.raises(ValueError, match=r"finite, got \[50.0, 50.0, nan, 60.0\]"):
        PolygonMasks([[SQUARE]] * 4).crop_and_resize(boxes, 8)


@pytest.mark.gpu
def test_cropped_polygons_go_to_the_boxes_device() -> None:
    boxes = torch.tensor([[10.0, 10, 30, 30]], device="cuda")
    assert PolygonMasks([[SQUARE]]).crop_and_resize(boxes, 8).device.type == "cuda"


# ---- Soft masks in boxes


def test_roi_masks() -> None:
    masks = ROIMasks(torch.rand(5, 7, 7))
    assert len(masks) == 5
    assert len(masks[1:3]) == 2
    assert torch.equal(masks[torch.tensor([4, 0])].tensor, masks.tensor[[4, 0]])
    assert masks.to("cpu").device.type == "cpu"
    assert repr(masks) == "ROIMasks(num_instances=5)"
    with pytest.raises(ValueError, match=r"\(N, M, M\), got \[7, 7\]"):
        ROIMasks(torch.zeros(7, 7))
    with pytest.raises(ValueError, match=r"5 masks gave the shape \[7, 7\]"):
        masks[0]


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_pasting_roi_masks(device: str) -> None:
    boxes = Boxes(torch.tensor([[2.0, 3, 12, 9], [0, 0, 20, 20]], device=device))
    masks = ROIMasks(torch.ones(2, 7, 7, device=device)).to_bitmasks(boxes, 20, 20)
    assert isinstance(masks, BitMasks)
    assert masks.device.type == device
    assert masks.tensor[0, 3:9, 2:12].sum() == masks.tensor[0].sum() == 60
    empty = ROIMasks(torch.zeros(0, 7, 7, device=device)).to_bitmasks(boxes[:0], 20, 20)
    assert empty.tensor.shape == (0, 20, 20)


def test_pasting_roi_masks_traced() -> None:
    masks, boxes = torch.rand(3, 7, 7), torch.tensor([[2.0, 3, 12, 9]] * 3)

    def paste(masks: Tensor, boxes: Tensor, image: Tensor) -> Tensor:
        return ROIMasks(masks).to_bitmasks(boxes, image.shape[0], image.shape[1]).tensor

    traced = torch.jit.trace(paste, (masks, boxes, torch.zeros(20, 20)))
    expected = ROIMasks(masks[:2]).to_bitmasks(boxes[:2], 25, 30).tensor
    assert torch.equal(traced(masks[:2], boxes[:2], torch.zeros(25, 30)), expected)


def test_roi_masks_in_torchscript() -> None:
    class Shift(torch.nn.Module):
        def forward(self, masks: Tensor) -> Tensor:
            shifted = ROIMasks(masks)[torch.tensor([1, 2])]
            return shifted.to(shifted.device).tensor

    masks = torch.rand(3, 7, 7)
    assert torch.equal(torch.jit.script(Shift())(masks), masks[1:])
