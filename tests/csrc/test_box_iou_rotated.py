"""torch.ops.detectron2.box_iou_rotated against intersection in rational arithmetic."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import Tensor

from .harness import (
    DTYPES,
    check_compiled,
    check_raises,
    check_traceable,
    compute_dtype,
    on_each_device,
    random_boxes,
    strided,
)

box_iou_rotated = torch.ops.detectron2.box_iou_rotated

Point = tuple[Fraction, Fraction]


def rational_corners(box: list[float]) -> list[Point]:
    """Sine and cosine are float64's, all else is exact."""
    cx, cy, w, h, angle = (Fraction(value) for value in box)
    # Reduced in degrees, so that multiples of 90 are exact too.
    quarters = round(angle / 90)
    rest = math.radians(angle - 90 * quarters)
    c, s = Fraction(math.cos(rest)), Fraction(math.sin(rest))
    for _ in range(quarters % 4):
        c, s = -s, c
    return [
        (cx + x * c + y * s, cy - x * s + y * c)
        for x, y in [(-w / 2, -h / 2), (w / 2, -h / 2), (w / 2, h / 2), (-w / 2, h / 2)]
    ]


def side_of(a: Point, b: Point, p: Point) -> Fraction:
    return (b[0] - a[0]) * (p[1] - a[1]) - (b[1] - a[1]) * (p[0] - a[0])


def area_of(polygon: list[Point]) -> Fraction:
    pairs = zip(polygon, polygon[1:] + polygon[:1], strict=True)
    return abs(sum((p[0] * q[1] - p[1] * q[0] for p, q in pairs), Fraction(0))) / 2


def rational_iou(box1: list[float], box2: list[float]) -> float:
    """Sutherland-Hodgman clipping, exact."""
    corners1, clipped = rational_corners(box1), rational_corners(box2)
    area1, area2 = area_of(corners1), area_of(clipped)
    for a, b in zip(corners1, corners1[1:] + corners1[:1], strict=True):
        polygon, clipped = clipped, []
        for p, q in zip(polygon, polygon[1:] + polygon[:1], strict=True):
            side_p, side_q = side_of(a, b, p), side_of(a, b, q)
            if side_p >= 0:
                clipped.append(p)
            if (side_p > 0 > side_q) or (side_p < 0 < side_q):
                t = side_p / (side_p - side_q)
                clipped.append((p[0] + t * (q[0] - p[0]), p[1] + t * (q[1] - p[1])))
    intersection = area_of(clipped)
    return float(intersection / (area1 + area2 - intersection))


def paired_ious(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """The IoU of each row of one with the same row of the other."""
    blocks = zip(boxes1.split(64), boxes2.split(64), strict=True)
    return torch.cat([box_iou_rotated(a, b).diagonal() for a, b in blocks])


def nudged(boxes: np.ndarray, rng: np.random.Generator, steps: int) -> np.ndarray:
    """Each value moved by up to ``steps`` units in the last place of float32."""
    moves = rng.integers(-steps, steps + 1, boxes.shape)
    return (boxes + moves * np.spacing(boxes)).astype(np.float32)


def pairs_of(kind: str, count: int) -> tuple[Tensor, Tensor]:
    """Pairs of float32 boxes of one kind, in equal rows of two tensors."""
    rng = np.random.default_rng(sum(kind.encode()))

    def boxes(low: float, high: float, extent: float) -> np.ndarray:
        sides = np.exp(rng.uniform(math.log(low), math.log(high), (count, 2)))
        centres = rng.uniform(-extent, extent, (count, 2))
        angles = rng.uniform(-180, 180, (count, 1))
        return np.concatenate([centres, sides, angles], axis=1).astype(np.float32)

    first = boxes(2, 100, 30)
    if kind == "generic":
        second = boxes(2, 100, 30)
    elif kind == "far from the origin":
        first, second = boxes(2, 100, 30), boxes(2, 100, 30)
        first[:, :2] += 30000
        second[:, :2] += 30000
    elif kind == "tiny":
        first, second = boxes(1e-4, 1e-2, 2e-3), boxes(1e-4, 1e-2, 2e-3)
    elif kind == "of unlike size":
        second = boxes(1e-3, 1e4, 30)
    elif kind == "identical":
        second = first.copy()
    elif kind == "nearly identical":
        second = nudged(first, rng, 3)
    elif kind == "turned by nearly a quarter":
        second = first[:, [0, 1, 3, 2, 4]] + np.float32([0, 0, 0, 0, 90])
        second = nudged(second.astype(np.float32), rng, 2)
    elif kind == "touching":
        first[:, 4] = 90 * rng.integers(-2, 3, count)
        second = first.copy()
        upright = first[:, 4] % 180 == 0
        second[:, 0] += np.where(upright, first[:, 2], first[:, 3]) * rng.integers(0, 2, count)
    elif kind == "sharing edges":
        first[:] = np.round(first)
        second = first.copy()
        second[:, 2] = np.round(second[:, 2] / 2) + 1
        second[:, 4] += 90 * rng.integers(0, 4, count)
    elif kind == "slivers":
        first, second = boxes(8e-7, 1971, 1e-3), boxes(8e-7, 1971, 1e-3)
    elif kind == "parallel slivers":
        first[:, 2], first[:, 3] = 8e-7, 1971
        second = first.copy()
        angle = first[:, 4].astype(np.float64)
        second[:, 4] = angle + rng.integers(-3, 4, count) * np.spacing(first[:, 4])
    else:
        first[:, 2], first[:, 3] = rng.uniform(1e-6, 1e-2, count), 1e5
        second = boxes(1, 1e3, 30)
    return torch.from_numpy(first), torch.from_numpy(second)


KINDS = [
    "generic",
    "far from the origin",
    "tiny",
    "of unlike size",
    "identical",
    "nearly identical",
    "turned by nearly a quarter",
    "touching",
    "sharing edges",
    "slivers",
    "parallel slivers",
    "sliver across a box",
]


@on_each_device
@pytest.mark.parametrize("kind", KINDS)
def test_agrees_with_rational_arithmetic(kind: str, device: str) -> None:
    boxes1, boxes2 = pairs_of(kind, 60)
    expected = torch.tensor(
        [rational_iou(a, b) for a, b in zip(boxes1.tolist(), boxes2.tolist(), strict=True)],
        dtype=torch.float64,
    )
    assert expected.max() > 0
    for dtype, tolerance in [(torch.float32, 2e-5), (torch.float64, 1e-6)]:
        actual = paired_ious(boxes1.to(device, dtype), boxes2.to(device, dtype)).cpu()
        torch.testing.assert_close(actual.double(), expected, rtol=0, atol=tolerance)
        assert actual.min() >= 0
        assert actual.max() <= 1


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_agrees_with_rational_arithmetic_at_length(kind: str) -> None:
    """500,000 random pairs, and 20,000 of each kind that floating point finds hard."""
    boxes1, boxes2 = pairs_of(kind, 500_000 if kind == "generic" else 20_000)
    pairs = zip(boxes1.tolist(), boxes2.tolist(), strict=True)
    expected = torch.tensor([rational_iou(a, b) for a, b in pairs], dtype=torch.float64)
    error = (paired_ious(boxes1, boxes2).double() - expected).abs().max()
    assert error <= 1e-4


@on_each_device
def test_known_values(device: str) -> None:
    unit = [0.0, 0.0, 1.0, 1.0, 0.0]
    strip = 0.1 * 0.5 * math.sqrt(2) - 2 * 0.05**2  # along a diagonal, less what juts out
    cases = [
        (unit, unit, 1.0),
        (unit, [0.5, 0.0, 1.0, 1.0, 0.0], 1 / 3),
        # A square over itself turned by 45 degrees: a regular octagon.
        (unit, [0.0, 0.0, 1.0, 1.0, 45.0], 1 / math.sqrt(2)),
        ([5.0, 3.0, 4.0, 2.0, 90.0], [5.0, 3.0, 2.0, 4.0, 0.0], 1.0),
        # Positive is counter-clockwise on screen: the width vector points up and to the right.
        ([0.0, 0.0, 10.0, 0.1, 45.0], [3.0, -3.0, 0.5, 0.5, 0.0], strip / (1.25 - strip)),
        ([0.0, 0.0, 10.0, 0.1, 45.0], [3.0, 3.0, 0.5, 0.5, 0.0], 0.0),
        (unit, [1.0, 1.0, 1.0, 1.0, 0.0], 0.0),
        ([0.0, 0.0, 1e-3, 1e-3, 30.0], [0.0, 0.0, 1e-3, 1e-3, 30.0], 1.0),
        ([7.0, 9.0, 8e-7, 1971.0, 33.0], [7.0, 9.0, 8e-7, 1971.0, 33.0], 1.0),
        ([7.0, 9.0, 8e-7, 1971.0, 33.0], [7.0, 9.0, 8e-7, 1971.0, 33.0 + 360e3], 1.0),
        # Large enough for the square of a side to overflow float32, or to vanish.
        ([0.0, 0.0, 1e30, 1e30, 10.0], [0.0, 0.0, 1e30, 1e30, 100.0], 1.0),
        ([0.0, 0.0, 1e-30, 1e-30, 10.0], [0.0, 0.0, 1e-30, 1e-30, 100.0], 1.0),
    ]
    for box1, box2, expected in cases:
        for dtype in (torch.float32, torch.float64):
            pair = [torch.tensor([box], dtype=dtype, device=device) for box in (box1, box2)]
            assert box_iou_rotated(*pair).item() == pytest.approx(expected, abs=2e-5)


@on_each_device
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_same_region_described_otherwise(dtype: torch.dtype, device: str) -> None:
    boxes = random_boxes(300, seed=4).to(device, dtype)
    turned = boxes + torch.tensor([0, 0, 0, 0, 180.0], dtype=dtype, device=device)
    swapped = boxes[:, [0, 1, 3, 2, 4]] - torch.tensor(
        [0, 0, 0, 0, 90.0], dtype=dtype, device=device
    )
    expected = box_iou_rotated(boxes, boxes)
    assert (expected.diagonal() == 1).all()
    for other in (turned, swapped):
        torch.testing.assert_close(box_iou_rotated(boxes, other), expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(expected, expected.T, rtol=0, atol=1e-5)


@on_each_device
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_never_above_one(dtype: torch.dtype, device: str) -> None:
    """Squares that are the same but for rounding."""
    rng = np.random.default_rng(3)
    rows = np.concatenate(
        [rng.uniform(-30, 30, (20_000, 2)), np.tile(rng.uniform(1, 1000, (20_000, 1)), 2),
         rng.uniform(-180, 180, (20_000, 1))], axis=1
    ).astype(np.float32)  # fmt: skip
    squares = torch.from_numpy(rows).to(device, dtype)
    others = torch.from_numpy(nudged(rows, rng, 1)).to(device, dtype)
    assert paired_ious(squares, others).max() <= 1


@on_each_device
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("is_strided", [False, True])
@pytest.mark.parametrize(("count1", "count2"), [(0, 0), (0, 5), (5, 0), (1, 1), (1, 70), (65, 67)])
def test_dtypes_layouts_sizes(
    dtype: torch.dtype, is_strided: bool, count1: int, count2: int, device: str
) -> None:
    boxes1 = random_boxes(count1, seed=1).to(device, dtype)
    boxes2 = random_boxes(count2, seed=2).to(device, dtype)
    # Half precision is computed in float32, from the values that it holds.
    expected = box_iou_rotated(boxes1.double(), boxes2.double())
    if is_strided:
        boxes1, boxes2 = strided(boxes1), strided(boxes2)
    actual = box_iou_rotated(boxes1, boxes2)
    assert actual.shape == (count1, count2)
    assert actual.dtype == compute_dtype(dtype)
    assert actual.device.type == device
    assert actual.is_contiguous()
    torch.testing.assert_close(actual.double(), expected, rtol=0, atol=1e-5)


@on_each_device
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_boxes_without_area(dtype: torch.dtype, device: str) -> None:
    good = [3.0, 4.0, 5.0, 6.0, 7.0]
    bad = [
        [*good[:column], value, *good[column + 1 :]]
        for column in range(5)
        for value in (math.nan, math.inf, -math.inf)
    ]
    bad += [
        [3.0, 4.0, 0.0, 6.0, 7.0],
        [3.0, 4.0, 5.0, 0.0, 7.0],
        [3.0, 4.0, 0.0, 0.0, 7.0],
        [3.0, 4.0, -5.0, 6.0, 7.0],
        [3.0, 4.0, 5.0, -6.0, 7.0],
        [3.0, 4.0, -5.0, -6.0, 7.0],
    ]
    boxes = torch.tensor([good, *bad], dtype=dtype, device=device)
    ious = box_iou_rotated(boxes, boxes)
    assert ious[0, 0] == 1
    assert ious.sum() == 1


def test_float64_sides_beyond_their_product() -> None:
    boxes = torch.tensor(
        [[0, 0, 1e200, 1e200, 0], [0, 0, 1e-200, 1e-200, 0], [0, 0, 1e200, 1e-200, 30]],
        dtype=torch.float64,
    )
    assert torch.equal(
        box_iou_rotated(boxes, boxes), torch.diag(torch.tensor([0.0, 0, 1])).double()
    )


def test_huge_angles() -> None:
    """Whole turns are taken off exactly, whatever the magnitude."""
    for angle in (1e6 + 0.25, 123456792.0, -7.3e9, 3e20, -3.4e38):
        turned = torch.tensor([[0.0, 0.0, 9.0, 2.0, angle]])
        exact = float(Fraction(turned[0, 4].item()) % 360)
        expected = torch.tensor([[0.0, 0.0, 9.0, 2.0, exact]], dtype=torch.float64)
        probes = random_boxes(50, extent=6, largest=4).double()
        torch.testing.assert_close(
            box_iou_rotated(turned.double(), probes), box_iou_rotated(expected, probes),
            rtol=0, atol=1e-12,
        )  # fmt: skip


def test_errors_name_what_was_given() -> None:
    boxes = torch.zeros(3, 5)
    check_raises(r"boxes1 must have the shape \(N, 5\), got \(3, 4\)",
                 box_iou_rotated, boxes[:, :4], boxes)  # fmt: skip
    check_raises(r"boxes2 must have the shape \(M, 5\), got \(5,\)",
                 box_iou_rotated, boxes, boxes[0])  # fmt: skip
    check_raises("same dtype, got float32 and float64", box_iou_rotated, boxes, boxes.double())
    check_raises("boxes1 must be float32.*got int64", box_iou_rotated, boxes.long(), boxes.long())


@pytest.mark.gpu
def test_error_on_different_devices() -> None:
    boxes = torch.zeros(3, 5)
    check_raises("same device, got cuda:0 and cpu", box_iou_rotated, boxes.cuda(), boxes)
    check_raises("same device, got cpu and cuda:0", box_iou_rotated, boxes, boxes.cuda())


@on_each_device
def test_tracing(device: str) -> None:
    boxes1 = random_boxes(4, seed=1).to(device)
    boxes2 = random_boxes(6, seed=2).to(device)
    check_traceable(torch.ops.detectron2.box_iou_rotated, (boxes1, boxes2))
    check_traceable(
        torch.ops.detectron2.box_iou_rotated, (boxes1.half().requires_grad_(), boxes2.half())
    )
    check_compiled(
        lambda a, b: box_iou_rotated(a, b) + 1,
        (boxes1, boxes2),
        (random_boxes(9).to(device), random_boxes(5).to(device)),
    )


def test_not_differentiable() -> None:
    boxes = random_boxes(3).requires_grad_()
    assert not box_iou_rotated(boxes, boxes).requires_grad


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", KINDS)
def test_cuda_gives_the_bits_of_the_cpu(kind: str, dtype: torch.dtype) -> None:
    boxes1, boxes2 = (boxes.to(dtype) for boxes in pairs_of(kind, 300))
    on_cuda = box_iou_rotated(boxes1.cuda(), boxes2.cuda())
    assert torch.equal(on_cuda.cpu(), box_iou_rotated(boxes1, boxes2))
    assert torch.equal(on_cuda, box_iou_rotated(boxes1.cuda(), boxes2.cuda()))


@pytest.mark.gpu
def test_more_than_2_to_the_31_pairs() -> None:
    """The last rows start past the range of 32-bit offsets."""
    boxes1 = random_boxes(48_000, seed=1, extent=1000).cuda()
    boxes2 = random_boxes(48_000, seed=2, extent=1000).cuda()
    ious = box_iou_rotated(boxes1, boxes2)
    for rows in (slice(0, 50), slice(44_700, 44_800), slice(47_950, 48_000)):
        assert torch.equal(ious[rows], box_iou_rotated(boxes1[rows], boxes2))


@pytest.mark.gpu
def test_uses_the_current_stream_and_device_of_its_arguments() -> None:
    boxes = random_boxes(200)
    expected = box_iou_rotated(boxes, boxes)
    for index in range(torch.cuda.device_count()):
        stream = torch.cuda.Stream(index)
        with torch.cuda.stream(stream):
            on_cuda = boxes.to(f"cuda:{index}", non_blocking=True)
            with torch.cuda.device(0):
                actual = box_iou_rotated(on_cuda, on_cuda)
        stream.synchronize()
        assert actual.device.index == index
        assert torch.equal(actual.cpu(), expected)
