"""torch.ops.detectron2.pairwise_iou and pairwise_ioa against a loop in rational arithmetic."""

import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import Tensor

from detectron2._ops.pairwise_iou import ioa, iou

from .harness import (
    DTYPES,
    check_compiled,
    check_raises,
    check_traceable,
    compute_dtype,
    on_each_device,
    strided,
)

pairwise_iou = torch.ops.detectron2.pairwise_iou
pairwise_ioa = torch.ops.detectron2.pairwise_ioa

# Each operator with its formulation in PyTorch.
each_operator = pytest.mark.parametrize(
    ("operator", "formulation"), [(pairwise_iou, iou), (pairwise_ioa, ioa)], ids=["iou", "ioa"]
)


def random_xyxy(count: int, seed: int = 0, extent: float = 100.0) -> Tensor:
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, extent, (count, 2))
    sides = rng.uniform(1, extent / 2, (count, 2))
    return torch.from_numpy(np.concatenate([corners, corners + sides], axis=1)).float()


def rational_overlap(operator: Callable[..., Tensor], boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """Exact, and 0 where two boxes do not meet."""

    def of_pair(a: list[Fraction], b: list[Fraction]) -> float:
        width = min(a[2], b[2]) - max(a[0], b[0])
        height = min(a[3], b[3]) - max(a[1], b[1])
        if width <= 0 or height <= 0:
            return 0.0
        area1, area2 = ((c[2] - c[0]) * (c[3] - c[1]) for c in (a, b))
        common = width * height
        return float(common / (area2 if operator is pairwise_ioa else area1 + area2 - common))

    rows, columns = ([list(map(Fraction, box)) for box in b.tolist()] for b in (boxes1, boxes2))
    values = [[of_pair(a, b) for b in columns] for a in rows]
    return torch.tensor(values, dtype=torch.float64).reshape(len(boxes1), len(boxes2))


@on_each_device
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("is_strided", [False, True])
@pytest.mark.parametrize(
    ("count1", "count2"), [(0, 0), (0, 5), (5, 0), (1, 1), (3, 300), (70, 33), (2, 64)]
)
@each_operator
def test_agrees_with_rational_arithmetic(
    operator: Callable[..., Tensor],
    formulation: Callable[..., Tensor],
    count1: int,
    count2: int,
    is_strided: bool,
    dtype: torch.dtype,
    device: str,
) -> None:
    boxes1, boxes2 = random_xyxy(count1, 1).to(dtype), random_xyxy(count2, 2).to(dtype)
    expected = rational_overlap(operator, boxes1, boxes2)
    layout = strided if is_strided else Tensor.contiguous
    actual = operator(layout(boxes1.to(device)), layout(boxes2.to(device)))
    assert actual.shape == (count1, count2)
    assert actual.dtype == compute_dtype(dtype)
    assert actual.device.type == device
    assert actual.is_contiguous()
    tolerance = 1e-14 if dtype == torch.float64 else 1e-5
    torch.testing.assert_close(actual.cpu().double(), expected, rtol=tolerance, atol=tolerance)


def unusual_boxes() -> Tensor:
    boxes = [
        [0, 0, 1, 1],
        [0, 0, 1, 0],  # no area
        [0, 0, 0, 0],
        [1, 0, 0, 1],  # one side inverted
        [1, 1, 0, 0],  # both
        [0, 0, 1e-20, 1e-20],  # an area close to the least of float32
        [0, 0, 1e-30, 1e-30],  # and below it
        [0, 0, 1e18, 1e18],
        [0, 0, 1e25, 1e25],  # above the largest
        [-math.inf, -math.inf, math.inf, math.inf],
        [0, 0, math.inf, 1],
        [1, 1, 2, 2],  # touches the first
    ]
    boxes += [
        [math.nan if column == c else v for c, v in enumerate([0, 0, 1, 1])] for column in range(4)
    ]
    return torch.tensor(boxes, dtype=torch.float32)


@on_each_device
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@each_operator
def test_degenerate_and_infinite_boxes(
    operator: Callable[..., Tensor],
    formulation: Callable[..., Tensor],
    dtype: torch.dtype,
    device: str,
) -> None:
    boxes = unusual_boxes().to(device, dtype)
    actual = operator(boxes, boxes)
    assert torch.equal(actual, formulation(boxes, boxes))
    actual = actual.cpu()
    assert actual.isfinite().all()
    assert actual.min() >= 0
    assert actual[0, 0] == 1
    assert actual[5, 5] == (1 if dtype == torch.float64 else pytest.approx(1, rel=1e-2))
    assert actual[7, 7] == 1
    # The whole plane, of which a box is no part worth mentioning.
    assert actual[0, 9] == 0
    assert actual[9, 9] == 0
    for column in (1, 2, 3, 4, 11, 12, 13, 14, 15):
        assert actual[0, column] == 0
        assert actual[column, 0] == 0


@on_each_device
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@each_operator
def test_has_the_values_of_the_formulation(
    operator: Callable[..., Tensor],
    formulation: Callable[..., Tensor],
    dtype: torch.dtype,
    device: str,
) -> None:
    boxes1, boxes2 = (random_xyxy(n, n, 800).to(device, dtype) for n in (90, 1500))
    boxes2[:90] = boxes1
    for a, b in ((boxes1, boxes2), (boxes2, boxes1), (boxes2, boxes1[:20])):
        assert torch.equal(operator(a, b), formulation(a, b))
        assert torch.equal(operator(a, b), operator(a, b))


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES)
@each_operator
def test_cuda_gives_the_bits_of_the_cpu(
    operator: Callable[..., Tensor], formulation: Callable[..., Tensor], dtype: torch.dtype
) -> None:
    boxes1, boxes2 = random_xyxy(100, 1, 800).to(dtype), random_xyxy(3000, 2, 800).to(dtype)
    assert torch.equal(operator(boxes1.cuda(), boxes2.cuda()).cpu(), operator(boxes1, boxes2))


@on_each_device
@each_operator
def test_gradients(
    operator: Callable[..., Tensor], formulation: Callable[..., Tensor], device: str
) -> None:
    boxes1, boxes2 = (random_xyxy(n, n).to(device, torch.float64).requires_grad_() for n in (4, 5))
    assert torch.autograd.gradcheck(operator, (boxes1, boxes2))
    assert torch.autograd.gradgradcheck(operator, (boxes1, boxes2))
    for inputs in ((boxes1, boxes2.detach()), (boxes1.detach(), boxes2)):
        assert torch.autograd.gradcheck(operator, inputs)

    # Where two boxes do not meet the gradient is 0, also with boxes that have no area.
    empty = torch.zeros(2, 4, dtype=torch.float64, device=device, requires_grad=True)
    for inputs in ((boxes1, empty), (empty, empty)):
        for grad in torch.autograd.grad(operator(*inputs).sum(), inputs):
            assert torch.equal(grad, torch.zeros_like(grad))

    halves = boxes1.detach().half().requires_grad_()
    operator(halves, halves).sum().backward()
    assert halves.grad.dtype == torch.float16


@on_each_device
@each_operator
def test_tracing(
    operator: Callable[..., Tensor], formulation: Callable[..., Tensor], device: str
) -> None:
    boxes1, boxes2 = random_xyxy(7, 1).to(device), random_xyxy(6, 2).to(device)
    check_traceable(operator, (boxes1, boxes2))
    check_traceable(operator, (boxes1.half(), boxes2.half().requires_grad_()))
    check_compiled(
        lambda a, b: operator(a, b) + 1,
        (boxes1, boxes2),
        (random_xyxy(9).to(device), random_xyxy(5).to(device)),
    )


@each_operator
def test_errors_name_what_was_given(
    operator: Callable[..., Tensor], formulation: Callable[..., Tensor]
) -> None:
    boxes = torch.zeros(3, 4)
    check_raises(r"boxes1 must have the shape \(N, 4\), got \(3, 5\)",
                 operator, torch.zeros(3, 5), boxes)  # fmt: skip
    check_raises(r"boxes2 must have the shape \(M, 4\), got \(4,\)", operator, boxes, boxes[0])
    check_raises("same dtype, got float32 and float64", operator, boxes, boxes.double())
    check_raises("boxes1 must be float32.*got int64", operator, boxes.long(), boxes.long())


@pytest.mark.gpu
@each_operator
def test_error_on_different_devices(
    operator: Callable[..., Tensor], formulation: Callable[..., Tensor]
) -> None:
    boxes = torch.zeros(3, 4)
    check_raises("same device, got cuda:0 and cpu", operator, boxes.cuda(), boxes)
    check_raises("same device, got cpu and cuda:0", operator, boxes, boxes.cuda())


@pytest.mark.gpu
def test_more_than_2_to_the_31_pairs() -> None:
    """The last rows start past the range of 32-bit offsets."""
    boxes1, boxes2 = (random_xyxy(48_000, seed, 1000).cuda() for seed in (1, 2))
    ious = pairwise_iou(boxes1, boxes2)
    for rows in (slice(0, 50), slice(44_700, 44_800), slice(47_950, 48_000)):
        assert torch.equal(ious[rows], pairwise_iou(boxes1[rows], boxes2))


@pytest.mark.gpu
def test_allocates_its_output_only() -> None:
    boxes1, boxes2 = random_xyxy(100).cuda(), random_xyxy(200_000).cuda()
    pairwise_iou(boxes1[:1], boxes2[:1])
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    pairwise_iou(boxes1, boxes2)
    assert torch.cuda.max_memory_allocated() - before <= 80 * 2**20
