"""torch.ops.detectron2.nms_rotated against greedy suppression written out."""

import math

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
    random_boxes,
    strided,
)

nms_rotated = torch.ops.detectron2.nms_rotated
box_iou_rotated = torch.ops.detectron2.box_iou_rotated


def greedy(boxes: Tensor, scores: Tensor, threshold: float) -> list[int]:
    """From the matrix of all IoUs, which test_box_iou_rotated checks against exact arithmetic."""
    suppresses = (box_iou_rotated(boxes, boxes) > threshold).tolist()
    order = sorted(range(len(boxes)), key=lambda i: (-scores[i].item(), i))
    kept: list[int] = []
    for i in order:
        if not any(suppresses[k][i] for k in kept):
            kept.append(i)
    return kept


def random_scores(count: int, seed: int = 0, levels: int = 0) -> Tensor:
    """Of ``levels`` different values, with ties; without any if it is 0."""
    rng = np.random.default_rng(seed)
    values = rng.permutation(count) if levels == 0 else rng.integers(0, levels, count)
    return torch.from_numpy(values / max(count, 1)).float()


@on_each_device
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("is_strided", [False, True])
@pytest.mark.parametrize("count", [0, 1, 2, 63, 64, 65, 300])
def test_agrees_with_greedy(count: int, is_strided: bool, dtype: torch.dtype, device: str) -> None:
    boxes = random_boxes(count, seed=count).to(device, dtype)
    scores = random_scores(count).to(device, dtype)
    for threshold in (0.1, 0.5):
        expected = greedy(boxes, scores, threshold)
        layout = strided if is_strided else Tensor.contiguous
        kept = nms_rotated(layout(boxes), layout(scores), threshold)
        assert kept.dtype == torch.int64
        assert kept.device.type == device
        assert kept.tolist() == expected


@on_each_device
@pytest.mark.parametrize("levels", [1, 2, 10])
def test_ties_go_by_index(levels: int, device: str) -> None:
    boxes, scores = random_boxes(200, seed=3).to(device), random_scores(200, levels=levels)
    assert nms_rotated(boxes, scores.to(device), 0.2).tolist() == greedy(boxes, scores, 0.2)


@on_each_device
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_iou_equal_to_the_threshold_is_kept(dtype: torch.dtype, device: str) -> None:
    boxes = torch.tensor([[5, 5, 10, 10, 0], [5, 2.5, 10, 5, 0]], dtype=dtype, device=device)
    scores = torch.tensor([0.9, 0.8], dtype=dtype, device=device)
    assert box_iou_rotated(boxes, boxes)[0, 1] == 0.5
    assert nms_rotated(boxes, scores, 0.5).tolist() == [0, 1]
    assert nms_rotated(boxes, scores, 0.5 - 1e-6).tolist() == [0]


@on_each_device
def test_thresholds_outside_the_unit_interval(device: str) -> None:
    boxes = random_boxes(100, seed=1, extent=1000).to(device)
    scores = random_scores(100).to(device)
    by_score = scores.argsort(descending=True).tolist()
    assert nms_rotated(boxes, scores, 1.0).tolist() == by_score
    assert nms_rotated(boxes, scores, math.nan).tolist() == by_score
    # Boxes that do not meet have an IoU of 0, which is above the threshold.
    assert nms_rotated(boxes, scores, -0.5).tolist() == by_score[:1]


@on_each_device
def test_same_region(device: str) -> None:
    boxes = torch.tensor(
        [[50, 50, 20, 10, 0], [50, 50, 10, 20, 90], [50, 50, 20, 10, 180], [50, 50, 20, 10, 90.0]],
        device=device,
    )
    scores = torch.tensor([0.6, 0.9, 0.8, 0.7], device=device)
    assert nms_rotated(boxes, scores, 0.5).tolist() == [1, 3]


@on_each_device
def test_scores_and_boxes_that_are_not_finite(device: str) -> None:
    boxes = random_boxes(1).repeat(6, 1).to(device)
    boxes[2, 0] = math.nan
    boxes[3, 3] = math.inf
    boxes[4, 2] = 0
    scores = torch.tensor([0.1, 0.9, 0.8, 0.7, 0.6, 0.5], device=device)
    # Boxes without area neither suppress nor are suppressed.
    assert nms_rotated(boxes, scores, 0.3).tolist() == [1, 2, 3, 4]
    scores[5] = math.nan
    scores[0] = math.inf
    assert nms_rotated(boxes, scores, 0.3).tolist() == [5, 2, 3, 4]


@on_each_device
def test_slivers_do_not_suppress_what_they_barely_meet(device: str) -> None:
    boxes = torch.tensor([[0, 0, 8e-7, 1971, 30], [0, 0, 8e-7, 1971, 31.0]], device=device)
    assert nms_rotated(boxes, torch.tensor([1.0, 0.5], device=device), 0.1).tolist() == [0, 1]
    boxes = torch.tensor([[0, 0, 1e-3, 1e-3, 30], [0, 0, 1e-3, 1e-3, 30.0]], device=device)
    assert nms_rotated(boxes, torch.tensor([1.0, 0.5], device=device), 0.9).tolist() == [0]


def test_errors_name_what_was_given() -> None:
    boxes, scores = torch.zeros(3, 5), torch.zeros(3)
    check_raises(r"boxes must have the shape \(N, 5\), got \(3, 4\)",
                 nms_rotated, boxes[:, :4], scores, 0.5)  # fmt: skip
    check_raises(r"scores must have the shape \(N,\), got \(3, 1\)",
                 nms_rotated, boxes, scores[:, None], 0.5)  # fmt: skip
    check_raises("same length, got 3 and 2", nms_rotated, boxes, scores[:2], 0.5)
    check_raises("same dtype, got float32 and float64", nms_rotated, boxes, scores.double(), 0.5)
    check_raises("boxes must be float32.*got int64", nms_rotated, boxes.long(), scores.long(), 0.5)


@pytest.mark.gpu
def test_error_on_different_devices() -> None:
    boxes, scores = torch.zeros(3, 5), torch.zeros(3)
    check_raises("same device, got cuda:0 and cpu", nms_rotated, boxes.cuda(), scores, 0.5)
    check_raises("same device, got cpu and cuda:0", nms_rotated, boxes, scores.cuda(), 0.5)


@on_each_device
def test_tracing(device: str) -> None:
    boxes, scores = random_boxes(9).to(device), random_scores(9).to(device)
    check_traceable(torch.ops.detectron2.nms_rotated, (boxes, scores, 0.3))
    check_traceable(torch.ops.detectron2.nms_rotated, (boxes.requires_grad_(), scores, 0.3))
    check_compiled(
        lambda b, s: nms_rotated(b, s, 0.3) * 2,
        (random_boxes(40).to(device), random_scores(40).to(device)),
        (random_boxes(50).to(device), random_scores(50).to(device)),
    )


def clusters(count: int, copies: int) -> Tensor:
    """Around each of a few boxes, many that nearly cover it."""
    boxes = random_boxes(-(-count // copies), seed=2, extent=300).repeat_interleave(copies, 0)
    noise = torch.randn(len(boxes), 5, generator=torch.Generator().manual_seed(0))
    return (boxes + noise)[:count]


def chain(count: int) -> Tensor:
    """Each box overlaps its two neighbours, and no others."""
    boxes = torch.tensor([[0.0, 0, 10, 10, 0]]).repeat(count, 1)
    boxes[:, 0] = 4 * torch.arange(count)
    return boxes


@on_each_device
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "boxes",
    [clusters(1500, 50), random_boxes(1).repeat(700, 1), chain(500)],
    ids=["clusters", "one region", "chain"],
)
@pytest.mark.parametrize("threshold", [0.0, 0.25, 0.7])
def test_dense_overlaps(boxes: Tensor, threshold: float, dtype: torch.dtype, device: str) -> None:
    boxes = boxes.to(dtype)
    for scores in (random_scores(len(boxes)), -torch.arange(len(boxes))):
        scores = scores.to(dtype)
        kept = nms_rotated(boxes.to(device), scores.to(device), threshold)
        assert kept.tolist() == greedy(boxes, scores, threshold)


@on_each_device
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_cheap_rejection_changes_nothing(dtype: torch.dtype, device: str) -> None:
    """Pairs close to where circles meet, and to where the ratio of areas is the threshold."""
    rng = np.random.default_rng(5)
    count = 800
    sides = np.exp(rng.uniform(math.log(1e-4), math.log(1e4), (count, 2)))
    boxes = torch.from_numpy(
        np.c_[rng.uniform(-9, 9, (count, 2)), sides, rng.uniform(-180, 180, count)]
    )
    # The second half lies in the first with half its area, to within rounding.
    boxes[count // 2 :] = boxes[: count // 2]
    boxes[count // 2 :, 2] /= 2
    # Beyond the range of float32 areas.
    boxes[:20, 2:4] *= 1e-18
    boxes[20:40, 2:4] *= 1e18
    boxes, scores = boxes.to(dtype), random_scores(count).to(dtype)
    for threshold in (0.0, 1e-30, 0.5 - 1e-6, 0.5, 0.5 + 1e-6):
        kept = nms_rotated(boxes.to(device), scores.to(device), threshold)
        assert kept.tolist() == greedy(boxes, scores, threshold)


@on_each_device
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("count", [2500, 20_000])
def test_scores_in_order(count: int, dtype: torch.dtype, device: str) -> None:
    """NaN first, then from inf to -inf; 0 and -0 are equal. Equal ones by index."""
    values = [0.0, 1, -math.inf, math.nan, -0.0, math.inf, -1, 1e-6, -1e-6, -math.nan]
    scores = torch.tensor(values).repeat(-(-count // 10))[:count].to(dtype)
    without_area = torch.zeros(count, 5, dtype=dtype)
    kept = nms_rotated(without_area.to(device), scores.to(device), 0.5)
    assert torch.equal(kept.cpu(), torch.sort(scores, stable=True, descending=True)[1])


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("count", [1000, 16_384, 16_385, 40_000])
def test_cuda_keeps_the_boxes_of_the_cpu(count: int, dtype: torch.dtype) -> None:
    """Those from 16,385 on are sorted, and 40,000 need a second panel of overlaps."""
    boxes = random_boxes(count, seed=count, extent=1000).to(dtype)
    scores = random_scores(count, levels=count // 4).to(dtype)
    expected = nms_rotated(boxes, scores, 0.3)
    for _ in range(2):
        assert torch.equal(nms_rotated(boxes.cuda(), scores.cuda(), 0.3).cpu(), expected)


@pytest.mark.gpu
def test_more_than_400_000_boxes() -> None:
    """Clusters far apart, so that each is settled by itself."""
    clusters, size = 5_000, 90
    boxes = random_boxes(clusters * size, seed=7, extent=30).reshape(clusters, size, 5)
    boxes[:, :, 0] += 200 * torch.arange(clusters)[:, None] % 20_000
    boxes[:, :, 1] += 200 * (torch.arange(clusters)[:, None] // 100)
    scores = random_scores(clusters * size, seed=8).reshape(clusters, size)
    torch.cuda.reset_peak_memory_stats()
    on_cuda = boxes.reshape(-1, 5).cuda(), scores.reshape(-1).cuda()
    before = torch.cuda.memory_allocated()
    kept = nms_rotated(*on_cuda, 0.3).cpu()
    assert torch.cuda.max_memory_allocated() - before < 200 * 2**20

    assert torch.equal(kept, kept[scores.reshape(-1)[kept].argsort(descending=True, stable=True)])
    assert kept.unique().numel() == kept.numel()
    kept_by_cluster = [set() for _ in range(clusters)]
    for index in kept.tolist():
        kept_by_cluster[index // size].add(index % size)
    for cluster in [*range(20), *range(2480, 2520), *range(4980, 5000)]:
        expected = nms_rotated(boxes[cluster], scores[cluster], 0.3)
        assert kept_by_cluster[cluster] == set(expected.tolist())
