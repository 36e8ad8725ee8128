"""RotatedBoxes, against corners turned one by one in float64."""

import math

import pytest
import torch

from detectron2.layers import rotated_boxes as layers_rotated_boxes
from detectron2.structures import (
    Boxes,
    RotatedBoxes,
    pairwise_iou,
    pairwise_iou_rotated,
    rotated_boxes,
)


def random_rotated(seed, count, extent=100.0):
    generator = torch.Generator().manual_seed(seed)
    low = torch.tensor([0, 0, 2, 2, -500.0])
    high = torch.tensor([extent, extent, extent / 2, extent / 2, 500.0])
    return low + (high - low) * torch.rand(count, 5, generator=generator)


def corners(cx, cy, w, h, angle):
    """The four corners in order; x right, y down, the angle counter-clockwise on screen."""
    c, s = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    offsets = [(-w / 2, -h / 2), (w / 2, -h / 2), (w / 2, h / 2), (-w / 2, h / 2)]
    return [(cx + c * u + s * v, cy - s * u + c * v) for u, v in offsets]


def test_a_quarter_turn_points_the_width_up():
    (x0, y0), (x1, y1), *_ = corners(5, 3, 4, 2, 90)
    assert (x1 - x0, y1 - y0) == pytest.approx((0, -4))
    # The hull of that box is 2 wide and 4 high.
    assert RotatedBoxes([[5, 3, 4, 2, 90]]).inside_box((6, 7)).tolist() == [True]
    assert RotatedBoxes([[5, 3, 4, 2, 90]]).inside_box((4, 7)).tolist() == [False]
    assert RotatedBoxes([[5, 3, 4, 2, 0]]).inside_box((6, 7)).tolist() == [False]


@pytest.mark.parametrize("empty", [[], torch.zeros(0), torch.zeros(0, 5)])
def test_empty_input_is_no_boxes(empty):
    boxes = RotatedBoxes(empty)
    assert boxes.tensor.shape == (0, 5)
    boxes.normalize_angles()
    boxes.clip((5, 5))
    boxes.scale(2, 3)
    assert len(boxes) == 0
    assert RotatedBoxes.cat([]).tensor.shape == (0, 5)
    assert pairwise_iou_rotated(boxes, RotatedBoxes(random_rotated(1, 3))).shape == (0, 3)


def test_wrong_shape_raises_with_the_shape():
    with pytest.raises(ValueError, match=r"\[2, 4\]"):
        RotatedBoxes(torch.ones(2, 4))


def test_construction_cloning_and_devices():
    tensor = random_rotated(2, 4)
    boxes = RotatedBoxes(tensor)
    assert isinstance(boxes, Boxes)
    assert boxes.tensor is tensor
    assert RotatedBoxes(tensor.double().numpy()).tensor.dtype == torch.float32
    assert isinstance(boxes.clone(), RotatedBoxes)
    assert boxes.clone().tensor.data_ptr() != tensor.data_ptr()
    moved = boxes.to(torch.device("cpu"), non_blocking=True)
    assert isinstance(moved, RotatedBoxes)
    assert moved.device == torch.device("cpu")


def test_indexing_iteration_cat_and_repr():
    tensor = random_rotated(3, 6)
    boxes = RotatedBoxes(tensor)
    for item, expected in [
        (2, tensor[2:3]),
        (slice(1, 4), tensor[1:4]),
        (torch.tensor([5, 0]), tensor[[5, 0]]),
        (tensor[:, 0] > 50, tensor[tensor[:, 0] > 50]),
    ]:
        assert isinstance(boxes[item], RotatedBoxes)
        assert torch.equal(boxes[item].tensor, expected)
    with pytest.raises(IndexError):
        boxes[:, 0]
    assert [row.shape for row in boxes] == [(5,)] * 6
    joined = RotatedBoxes.cat([boxes[:2], boxes[2:]])
    assert isinstance(joined, RotatedBoxes)
    assert torch.equal(joined.tensor, tensor)
    assert repr(RotatedBoxes([[1, 2, 3, 4, 5]])) == "RotatedBoxes(tensor([[1., 2., 3., 4., 5.]]))"


def test_area_nonempty_and_centers():
    tensor = torch.tensor([[1.0, 2, 3, 4, 5], [1, 2, 0, 4, 5], [1, 2, 3, 0.5, 5]])
    boxes = RotatedBoxes(tensor)
    assert boxes.area().tolist() == [12, 0, 1.5]
    assert boxes.nonempty().tolist() == [True, False, True]
    assert boxes.nonempty(0.5).tolist() == [True, False, False]
    assert boxes.get_centers().data_ptr() == tensor.data_ptr()
    assert boxes.get_centers().tolist() == [[1, 2]] * 3


def test_normalized_angles_are_equivalent_and_in_range():
    angles = torch.tensor([0.0, 180, -180, 179.5, 540, -540, 359, -181, 1e4, -1e4])
    tensor = torch.ones(len(angles), 5)
    tensor[:, 4] = angles
    boxes = RotatedBoxes(tensor)
    boxes.normalize_angles()
    assert ((boxes.tensor[:, 4] >= -180) & (boxes.tensor[:, 4] < 180)).all()
    turns = (boxes.tensor[:, 4] - angles) / 360
    torch.testing.assert_close(turns, turns.round(), rtol=0, atol=1e-5)
    assert boxes.tensor[:5, 4].tolist() == [0, -180, -180, 179.5, -180]


def test_an_angle_just_below_minus_180_stays_in_range():
    just_below = torch.nextafter(torch.tensor(-180.0), torch.tensor(-200.0))
    boxes = RotatedBoxes(torch.tensor([[0.0, 0, 1, 1, just_below]]))
    boxes.normalize_angles()
    assert -180 <= boxes.tensor[0, 4].item() < 180


def clipped(row, height, width, threshold):
    """The clip rule for one box in plain Python."""
    cx, cy, w, h, angle = row
    angle = (angle + 180) % 360 - 180
    if abs(angle) > threshold:
        return [cx, cy, w, h, angle]
    x0, x1 = (min(max(x, 0), width) for x in (cx - w / 2, cx + w / 2))
    y0, y1 = (min(max(y, 0), height) for y in (cy - h / 2, cy + h / 2))
    return [(x0 + x1) / 2, (y0 + y1) / 2, min(w, x1 - x0), min(h, y1 - y0), angle]


@pytest.mark.parametrize("threshold", [0.0, 1.0, 30.0])
def test_clip_cuts_only_nearly_upright_boxes(threshold):
    tensor = random_rotated(4, 40)
    tensor[:20, 4] = torch.linspace(-3, 3, 20) + 360 * torch.arange(-10, 10)
    tensor[20, 4] = 0
    before = tensor.clone()
    boxes = RotatedBoxes(tensor)
    boxes.clip((60, 80), threshold)
    expected = torch.tensor([clipped(row, 60, 80, threshold) for row in before.tolist()])
    torch.testing.assert_close(boxes.tensor, expected, rtol=1e-5, atol=2e-3)
    assert torch.equal(tensor, before)
    assert (boxes.tensor[:, 2:4] <= before[:, 2:4]).all()


def test_inside_box_looks_at_the_corners():
    tensor = random_rotated(5, 60)
    expected = []
    for row in tensor.double().tolist():
        xs, ys = zip(*corners(*row), strict=True)
        expected.append(min(xs) >= -4 and min(ys) >= -4 and max(xs) < 94 and max(ys) < 84)
    result = RotatedBoxes(tensor).inside_box((80, 90), boundary_threshold=4)
    assert result.tolist() == expected
    assert 0 < sum(expected) < 60


@pytest.mark.parametrize(("scale_x", "scale_y"), [(1.0, 1.0), (2.0, 2.0), (0.5, 3.0)])
def test_scale_keeps_side_lengths_and_the_direction_of_the_height(scale_x, scale_y):
    tensor = random_rotated(6, 20)
    before = tensor.double().tolist()
    boxes = RotatedBoxes(tensor)
    boxes.scale(scale_x, scale_y)
    assert boxes.tensor is tensor  # in place
    for row, old in zip(tensor.double().tolist(), before, strict=True):
        a, b, c, _ = ((x * scale_x, y * scale_y) for x, y in corners(*old))
        p, q, r, _ = corners(*row)
        assert row[0] == pytest.approx(old[0] * scale_x, rel=1e-5)
        assert row[1] == pytest.approx(old[1] * scale_y, rel=1e-5)
        assert math.dist(p, q) == pytest.approx(math.dist(a, b), rel=1e-4)
        assert math.dist(q, r) == pytest.approx(math.dist(b, c), rel=1e-4)
        direction = (r[0] - q[0]) / math.dist(q, r), (r[1] - q[1]) / math.dist(q, r)
        scaled = (c[0] - b[0]) / math.dist(b, c), (c[1] - b[1]) / math.dist(b, c)
        assert direction == pytest.approx(scaled, abs=2e-4)


@pytest.mark.parametrize("angle", [0.0, 180.0, -360.0])
def test_iou_of_upright_boxes_is_that_of_axis_aligned_ones(angle):
    rotated = random_rotated(7, 15)
    rotated[:, 4] = angle
    half = rotated[:, 2:4] / 2
    upright = Boxes(torch.cat([rotated[:, :2] - half, rotated[:, :2] + half], dim=1))
    expected = pairwise_iou(upright, upright)
    result = pairwise_iou_rotated(RotatedBoxes(rotated), RotatedBoxes(rotated))
    torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-4)


def test_names_of_the_iou():
    """The package's function takes boxes, the modules' function of the same name takes tensors."""
    assert pairwise_iou_rotated is rotated_boxes.pairwise_iou
    assert rotated_boxes.pairwise_iou_rotated is layers_rotated_boxes.pairwise_iou_rotated
    boxes = RotatedBoxes(random_rotated(12, 5))
    by_tensor = rotated_boxes.pairwise_iou_rotated(boxes.tensor, boxes.tensor)
    assert torch.equal(pairwise_iou_rotated(boxes, boxes), by_tensor)


def test_iou_of_a_sliver_stays_between_zero_and_one():
    slivers = torch.tensor([[0, 0, 8e-7, 1971.0, 3.0], [0, 0, 8e-7, 4e5, 3.0], [1, 1, 50, 60, 3]])
    result = rotated_boxes.pairwise_iou_rotated(slivers, slivers)
    assert ((result >= 0) & (result <= 1)).all()


@pytest.mark.gpu
def test_cuda_gives_what_the_cpu_gives():
    a, b = random_rotated(8, 30), random_rotated(9, 20)
    results = []
    for device in ("cpu", "cuda"):
        boxes, others = (RotatedBoxes(t.to(device, copy=True)) for t in (a, b))
        boxes.clip((60, 80), 30.0)
        boxes.scale(0.5, 2.0)
        results.append(
            (boxes.tensor, boxes.inside_box((90, 90)), pairwise_iou_rotated(boxes, others))
        )
    for on_cpu, on_cuda in zip(*results, strict=True):
        assert on_cuda.is_cuda
        torch.testing.assert_close(on_cuda.cpu(), on_cpu, rtol=1e-4, atol=1e-4)
