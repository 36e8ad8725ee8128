"""torch.ops.detectron2.nms_groups against a loop over boxes in rational arithmetic."""

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
    on_each_device,
    strided,
)

nms_groups = torch.ops.detectron2.nms_groups


def random_groups(groups: int, size: int, seed: int = 0, extent: float = 40.0) -> Tensor:
    """Boxes ``(groups, size, 4)``, of multiples of 1/4 up to 60: exact in bfloat16."""
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, extent, (groups, size, 2))
    sides = rng.uniform(1, extent / 2, (groups, size, 2))
    boxes = np.concatenate([corners, corners + sides], axis=2)
    return torch.from_numpy(np.round(boxes * 4) / 4).float()


def rational_iou(a: list[Fraction], b: list[Fraction]) -> Fraction:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return Fraction(0)
    area1, area2 = ((c[2] - c[0]) * (c[3] - c[1]) for c in (a, b))
    return width * height / (area1 + area2 - width * height)


def slow_nms(boxes: Tensor, valid: Tensor, classes: Tensor | None, threshold: float) -> Tensor:
    keep = torch.zeros_like(valid)
    for g, group in enumerate(boxes):
        rows = [list(map(Fraction, box)) for box in group.tolist()]
        kept: list[int] = []
        for i, row in enumerate(rows):
            rivals = [j for j in kept if classes is None or classes[g, j] == classes[g, i]]
            if valid[g, i] and all(rational_iou(rows[j], row) <= threshold for j in rivals):
                kept.append(i)
        keep[g, kept] = True
    return keep


@on_each_device
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("is_strided", [False, True])
@pytest.mark.parametrize("num_classes", [None, 1, 3])
@pytest.mark.parametrize("shape", [(1, 1), (3, 40), (2, 64), (2, 65), (1, 200)])
def test_against_a_loop(device, dtype, is_strided, num_classes, shape):
    boxes = random_groups(*shape)
    valid = torch.rand(shape) < 0.8
    classes = None if num_classes is None else torch.randint(0, num_classes, shape)
    # No IoU of these boxes is so close to it that rounding decides.
    wanted = slow_nms(boxes, valid, classes, 0.30001)
    arguments = [boxes.to(dtype), valid, classes]
    if is_strided:
        arguments = [x if x is None else strided(x) for x in arguments]
    arguments = [x if x is None else x.to(device) for x in arguments]
    keep = nms_groups(*arguments, 0.30001)
    assert keep.dtype == torch.bool
    assert torch.equal(keep.cpu(), wanted)


@on_each_device
@pytest.mark.parametrize("shape", [(40, 1000), (3, 5000)])
def test_many_boxes_are_independent_groups(device, shape):
    """The same for a group by itself, in any place."""
    boxes = random_groups(*shape, extent=400.0).to(device)
    valid = (torch.rand(shape) < 0.9).to(device)
    together = nms_groups(boxes, valid, None, 0.5)
    assert not (together & ~valid).any()
    for g in (0, shape[0] - 1):
        assert torch.equal(
            together[g], nms_groups(boxes[g : g + 1], valid[g : g + 1], None, 0.5)[0]
        )
    assert 0 < together.sum() < valid.sum()


@pytest.mark.gpu
@pytest.mark.parametrize("shape", [(40, 2000), (8, 5000), (70000, 3)])
def test_cpu_and_cuda_keep_the_same(shape):
    boxes, valid = random_groups(*shape, extent=300.0), torch.rand(shape) < 0.9
    classes = torch.randint(0, 4, shape)
    on_cuda = nms_groups(boxes.cuda(), valid.cuda(), classes.cuda(), 0.4)
    assert torch.equal(on_cuda.cpu(), nms_groups(boxes, valid, classes, 0.4))


@on_each_device
@pytest.mark.parametrize("shape", [(0, 5), (3, 0), (0, 0)])
def test_empty(device, shape):
    boxes, valid = torch.zeros(*shape, 4, device=device), torch.zeros(shape, device=device).bool()
    assert nms_groups(boxes, valid, None, 0.5).shape == shape
    assert nms_groups(boxes, valid, valid.long(), 0.5).shape == shape


@on_each_device
def test_an_iou_that_equals_the_threshold_stays(device):
    boxes = torch.tensor([[[0.0, 0, 2, 1], [1, 0, 3, 1], [0, 0, 2, 1]]], device=device)
    valid = torch.ones(1, 3, dtype=torch.bool, device=device)
    assert nms_groups(boxes, valid, None, 1 / 3 + 1e-6).tolist() == [[True, True, False]]
    assert nms_groups(boxes, valid, None, 1 / 3 - 1e-6).tolist() == [[True, False, False]]
    assert nms_groups(boxes, valid, None, 1.0).tolist() == [[True, True, True]]


@on_each_device
def test_degenerate_boxes(device):
    nan, inf = float("nan"), float("inf")
    rows = [[0, 0, 9, 9], [nan, 0, 9, 9], [0, 0, 9, 9], [5, 5, 5, 5], [5, 5, 5, 5], [9, 9, 0, 0]]
    rows += [[-inf, -inf, inf, inf], [-inf, -inf, inf, inf]]
    boxes = torch.tensor([rows], dtype=torch.float32, device=device)
    valid = torch.ones(1, len(rows), dtype=torch.bool, device=device)
    keep = nms_groups(boxes, valid, None, 0.5)
    assert keep[0].tolist() == [True, True, False, True, True, True, True, True]


@on_each_device
def test_boxes_that_are_not_valid_remove_none(device):
    boxes = torch.tensor([[[0.0, 0, 9, 9], [0, 0, 9, 9], [0, 0, 9, 9]]], device=device)
    valid = torch.tensor([[False, True, True]], device=device)
    assert nms_groups(boxes, valid, None, 0.5).tolist() == [[False, True, False]]


@pytest.mark.gpu
def test_cuda_is_not_waited_for():
    boxes, valid = random_groups(4, 300).cuda(), torch.ones(4, 300, dtype=torch.bool).cuda()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        nms_groups(boxes, valid, None, 0.5)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@on_each_device
def test_tracing(device):
    boxes = random_groups(2, 7).to(device)
    valid = torch.ones(2, 7, dtype=torch.bool, device=device)
    check_traceable(nms_groups, (boxes, valid, None, 0.5))
    check_traceable(nms_groups, (boxes, valid, valid.long(), 0.5))
    more = random_groups(3, 9).to(device)
    check_compiled(
        lambda b, v: nms_groups(b, v, v.long(), 0.5),
        (boxes, valid),
        (more, torch.ones(3, 9, dtype=torch.bool, device=device)),
    )


@on_each_device
def test_bad_arguments(device):
    boxes = torch.zeros(2, 3, 4, device=device)
    valid = torch.ones(2, 3, dtype=torch.bool, device=device)
    check_raises(
        r"boxes must have the shape \(G, K, 4\), got \(2, 3\)",
        nms_groups,
        boxes[..., 0],
        valid,
        None,
        0.5,
    )
    check_raises(r"valid must have the shape \(2, 3\)", nms_groups, boxes, valid[:1], None, 0.5)
    check_raises("valid must be bool, got int64", nms_groups, boxes, valid.long(), None, 0.5)
    check_raises("classes must be int64, got bool", nms_groups, boxes, valid, valid, 0.5)
    check_raises("boxes must be float32", nms_groups, boxes.long(), valid, None, 0.5)
    check_raises(
        "at most 262144 boxes, got 262145",
        nms_groups,
        boxes[:1, :1].expand(1, 2**18 + 1, 4),
        valid[:1, :1].expand(1, 2**18 + 1),
        None,
        0.5,
    )
