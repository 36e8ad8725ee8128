"""Keypoints and their heatmaps, against NumPy and PyTorch's interpolation in float64."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F  # noqa: N812

from detectron2.structures import Keypoints, heatmaps_to_keypoints
from detectron2.structures.keypoints import _heatmaps_to_keypoints_by_roi


def random_keypoints(instances, count=4, seed=0):
    rng = np.random.default_rng(seed)
    xy = rng.uniform(-10, 110, (instances, count, 2))
    visibility = rng.integers(0, 3, (instances, count, 1))
    return torch.from_numpy(np.concatenate([xy, visibility], axis=2)).float()


def random_boxes(count, seed=0, smallest=5.0):
    rng = np.random.default_rng(seed)
    low = rng.uniform(0, 50, (count, 2))
    return torch.from_numpy(np.hstack([low, low + rng.uniform(smallest, 60, (count, 2))])).float()


@pytest.mark.parametrize("form", [torch.Tensor.double, torch.Tensor.numpy, torch.Tensor.tolist])
def test_construction(form):
    tensor = random_keypoints(3)
    keypoints = Keypoints(form(tensor))
    assert keypoints.tensor.dtype == torch.float32
    assert torch.equal(keypoints.tensor, tensor)
    assert len(keypoints) == 3
    assert keypoints.device == torch.device("cpu")
    assert repr(keypoints) == "Keypoints(num_instances=3)"


def test_a_float32_tensor_is_kept():
    tensor = random_keypoints(3)
    assert Keypoints(tensor).tensor is tensor


@pytest.mark.parametrize("shape", [(3,), (2, 3), (1, 2, 2), (1, 2, 3, 3)])
def test_wrong_shape(shape):
    with pytest.raises(ValueError, match=r"\(N, K, 3\), got \[" + str(shape[0])):
        Keypoints(np.zeros(shape))


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        (1, [1]),
        (-1, [3]),
        (slice(1, 3), [1, 2]),
        (torch.tensor([True, False, False, True]), [0, 3]),
        (torch.tensor([2, 0, 2]), [2, 0, 2]),
        (torch.zeros(4, dtype=torch.bool), []),
    ],
)
def test_indexing(item, expected):
    keypoints = Keypoints(random_keypoints(4))
    selected = keypoints[item]
    assert isinstance(selected, Keypoints)
    assert torch.equal(selected.tensor, keypoints.tensor[expected])


def test_index_out_of_range():
    with pytest.raises(IndexError, match="4 is out of bounds"):
        Keypoints(random_keypoints(4))[4]


def test_cat_and_to():
    a, b = random_keypoints(2), random_keypoints(0)
    assert torch.equal(Keypoints.cat([Keypoints(a), Keypoints(b), Keypoints(a)]).tensor[2:], a)
    assert Keypoints(a).to("meta").device.type == "meta"
    with pytest.raises(TypeError, match="one with 3"):
        Keypoints.cat([Keypoints(a), 3])
    with pytest.raises(TypeError, match="list of Keypoints"):
        Keypoints.cat(Keypoints(a))
    with pytest.raises(ValueError, match=r"got \[\]"):
        Keypoints.cat([])


def heatmap_cell(point, low, high, size):
    """Of one coordinate, in exact arithmetic on the float32 values; None outside the box."""
    if not low <= point <= high:
        return None
    if point == high:
        return size - 1
    from fractions import Fraction

    point, low, high = Fraction(point), Fraction(low), Fraction(high)
    return math.floor((point - low) * size / (high - low))


@pytest.mark.parametrize("size", [1, 14, 56])
def test_to_heatmap(size):
    keypoints, boxes = random_keypoints(40), random_boxes(40)
    keypoints[:, 0] = F.pad(boxes[:, :2], (0, 1), value=2)
    keypoints[:, 1] = F.pad(boxes[:, 2:], (0, 1), value=2)
    index, valid = Keypoints(keypoints).to_heatmap(boxes, size)
    assert index.dtype == valid.dtype == torch.int64
    assert index.shape == valid.shape == (40, 4)
    for i, j in np.ndindex(40, 4):
        x, y, visibility = keypoints[i, j].tolist()
        x0, y0, x1, y1 = boxes[i].tolist()
        column, row = heatmap_cell(x, x0, x1, size), heatmap_cell(y, y0, y1, size)
        expected = visibility > 0 and column is not None and row is not None
        assert valid[i, j] == expected
        assert index[i, j] == (row * size + column if expected else 0)
    assert valid[:, :2].all()


def test_to_heatmap_of_points_that_round_to_the_edge_of_their_box():
    """Just inside the right edge is inside, though (x - x0) * (S / (x1 - x0)) rounds up to S."""
    rng = np.random.default_rng(0)
    low = rng.uniform(0, 500, 2000).astype(np.float32)
    high = low + rng.uniform(1, 500, 2000).astype(np.float32)
    for point, inside in (
        (np.nextafter(high, np.float32(0)), True),
        (high, True),
        (np.nextafter(high, np.float32(np.inf)), False),
        (low, True),
        (np.nextafter(low, np.float32(-1)), False),
    ):
        boxes = torch.from_numpy(np.stack([low, low, high, high], axis=1))
        keypoints = torch.from_numpy(np.stack([point, low, np.full_like(low, 2)], axis=1))[:, None]
        index, valid = Keypoints(keypoints).to_heatmap(boxes, 56)
        assert valid.bool().eq(inside).all()
        if inside:
            assert index.eq(0 if point is low else 55).all()
    scaled = (np.nextafter(high, np.float32(0)) - low) * (np.float32(56) / (high - low))
    assert (scaled >= 56).any()  # the boxes above have such points


def test_to_heatmap_of_degenerate_input():
    nan, inf = math.nan, math.inf
    boxes = torch.tensor([[5, 5, 5, 5], [nan, 0, 9, 9], [-inf, 0, inf, 9], [9, 9, 0, 0.0]])
    keypoints = torch.tensor([[[5, 5, 2], [6, 5, 2], [nan, 5, 2], [5, inf, 2.0]]]).expand(4, 4, 3)
    index, valid = Keypoints(keypoints).to_heatmap(boxes, 56)
    assert valid.tolist() == [[1, 0, 0, 0], [0] * 4, [0] * 4, [0] * 4]
    assert index[0, 0] == 56 * 56 - 1
    assert index.sum() == index[0, 0]


def test_to_heatmap_without_instances():
    index, valid = Keypoints(torch.zeros(0, 17, 3)).to_heatmap(torch.zeros(0, 4), 56)
    assert index.shape == valid.shape == (0,)
    assert index.dtype == valid.dtype == torch.int64


def test_to_heatmap_of_another_number_of_boxes():
    with pytest.raises(ValueError, match=r"each of the 3 instances, .* \[1, 4\]"):
        Keypoints(random_keypoints(3)).to_heatmap(random_boxes(1), 56)


def test_a_keypoint_comes_back_from_its_heatmap():
    """Within half a cell: the centre of the cell that it fell into."""
    size, boxes = 56, random_boxes(20, smallest=30.0)
    rng = np.random.default_rng(1)
    shares = torch.from_numpy(rng.uniform(0, 1, (20, 3, 2))).float()
    xy = boxes[:, None, :2] + shares * (boxes[:, None, 2:] - boxes[:, None, :2])
    index, valid = Keypoints(F.pad(xy, (0, 1), value=2)).to_heatmap(boxes, size)
    assert valid.all()
    maps = F.one_hot(index, size * size).reshape(20, 3, size, size).float() * 10
    found = heatmaps_to_keypoints(maps, boxes)[..., :2]
    # Half a cell of the heatmap, and half a point of the resized map.
    tolerance = (boxes[:, 2:] - boxes[:, :2]) / size / 2 + 0.51
    assert ((found - xy).abs() <= tolerance[:, None]).all()


def loop_reference(maps, rois):
    """As it is written in the documentation, in float64."""
    result = torch.zeros(*maps.shape[:2], 4, dtype=torch.float64)
    for i, (x0, y0, x1, y1) in enumerate(rois.double().tolist()):
        width, height = max(x1 - x0, 1), max(y1 - y0, 1)
        columns, rows = math.ceil(width), math.ceil(height)
        resized = F.interpolate(
            maps[i : i + 1].double(), size=(rows, columns), mode="bicubic", align_corners=False
        )[0]
        for k, logits in enumerate(resized):
            row, column = divmod(int(logits.argmax()), columns)
            result[i, k] = torch.tensor(
                [
                    (column + 0.5) * width / columns + x0,
                    (row + 0.5) * height / rows + y0,
                    logits.max(),
                    1 / torch.exp(maps[i, k].double() - logits.max()).sum(),
                ]
            )
    return result


def smooth_maps(rois, keypoints, size, seed=0):
    rng = np.random.default_rng(seed)
    noise = torch.from_numpy(rng.standard_normal((rois, keypoints, size + 2, size + 2)))
    return F.avg_pool2d(noise, 3, stride=1).float() * 5


ROIS = torch.cat([random_boxes(6), torch.tensor([[3, 4, 3, 4], [7, 9, 6, 8], [0, 0, 0.3, 41.0]])])


def functions():
    maps, rois = smooth_maps(9, 3, 8), ROIS
    yield heatmaps_to_keypoints, "eager"
    yield _heatmaps_to_keypoints_by_roi, "by_roi"
    yield torch.jit.script(heatmaps_to_keypoints), "scripted"
    yield torch.jit.trace(lambda m, r: heatmaps_to_keypoints(m, r), (maps[:2], rois[:2])), "traced"
    torch._dynamo.reset()
    yield (
        torch.compile(heatmaps_to_keypoints, fullgraph=True, dynamic=True, backend="aot_eager"),
        "compiled",
    )


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_heatmaps_to_keypoints():
    for size in (8, 14):
        maps = smooth_maps(9, 3, size)
        expected = loop_reference(maps, ROIS)
        for function, name in functions():
            result = function(maps, ROIS)
            assert result.dtype == torch.float32, name
            torch.testing.assert_close(result.double(), expected, rtol=1e-5, atol=1e-4, msg=name)


@pytest.mark.parametrize("function", [heatmaps_to_keypoints, _heatmaps_to_keypoints_by_roi])
def test_heatmaps_that_are_not_finite(function):
    maps, rois = smooth_maps(9, 3, 8), ROIS.clone()
    maps[0, 1, 2, 3] = math.nan
    maps[1, 2, 0, 0] = -math.inf
    rois[2, 0] = math.nan
    rois[3, 3] = math.inf
    rois[4] = torch.tensor([-3e38, 0, 3e38, 5])
    undefined = torch.zeros(9, 3, dtype=torch.bool)
    undefined[0, 1] = undefined[1, 2] = undefined[2:5] = True
    result = function(maps, rois)
    assert torch.equal(result.isnan().all(dim=2), undefined)
    torch.testing.assert_close(
        result[~undefined].double(),
        loop_reference(smooth_maps(9, 3, 8), ROIS)[~undefined],
        rtol=1e-5,
        atol=1e-4,
    )


def test_no_rois():
    for function in (heatmaps_to_keypoints, _heatmaps_to_keypoints_by_roi):
        assert function(torch.zeros(0, 3, 8, 8), torch.zeros(0, 4)).shape == (0, 3, 4)


def test_half_precision_keeps_positions_in_float32():
    maps = smooth_maps(1, 1, 8).half()
    rois = torch.tensor([[4001.0, 2003.0, 4100.0, 2103.0]])
    result = heatmaps_to_keypoints(maps, rois)
    torch.testing.assert_close(result.double(), loop_reference(maps, rois), rtol=1e-5, atol=1e-4)
