"""The best of scored boxes on several levels, for all images at once."""

import functools
from dataclasses import dataclass

import torch
from torch.nn import functional as F  # noqa: N812

from detectron2.layers import cat
from detectron2.modeling._constants import box_limits, sizes_to_device
from detectron2.modeling._nms_selection import nms_mask, take
from detectron2.structures import Boxes, Instances, RotatedBoxes


@dataclass
class Candidates:
    """The K boxes of the highest scores on each of L levels of N images, by descending score.

    Attributes:
        logits: ``(N, L, K)``, float32.
        indices: ``(N, L * K)``, int64, among the boxes of all levels, one after the other.
        exist: bool, broadcastable to ``(N, L, K)``: False where a level has fewer than K boxes.
    """

    logits: torch.Tensor
    indices: torch.Tensor
    exist: torch.Tensor


def top_candidates(logits: list[torch.Tensor], topk: int) -> Candidates:
    """Find the ``topk`` best of each level.

    Args:
        logits: of each level, ``(N, R_i)``.
        topk: of each level; all, where there are fewer.
    """
    # One topk of padded levels takes a fraction of the time of one for each level: its passes are
    # many, and short.
    sizes = [x.size(1) for x in logits]
    # In a graph, sizes are symbols, which must not be compared.
    size = functools.reduce(torch.sym_max, sizes)
    padded = [F.pad(x, [0, size - x.size(1)], value=-torch.inf) for x in logits]
    values, indices = torch.stack(padded, dim=1).topk(torch.sym_min(topk, size), dim=2)
    ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
    starts = [end - n for end, n in zip(ends, sizes, strict=True)]
    level_sizes = sizes_to_device(sizes, torch.int64, values.device)[:, None]
    level_starts = sizes_to_device(starts, torch.int64, values.device)[:, None]
    exist = indices < level_sizes
    # Of those that do not exist, any index will do.
    indices = torch.where(exist, indices, 0) + level_starts
    return Candidates(values.float(), indices.flatten(1), exist)


def gather_boxes(boxes: list[torch.Tensor], candidates: Candidates) -> torch.Tensor:
    """The candidates' rows ``(N, L * K, D)`` of what each level has, ``(N, R_i, D)``."""
    return take(cat(boxes, dim=1), candidates.indices)


def _clipped_rotated(boxes: torch.Tensor, image_sizes: list[tuple[int, int]]) -> torch.Tensor:
    """Boxes ``(N, C, 5)``, clipped to their images."""
    clipped = []
    for of_image, size in zip(boxes, image_sizes, strict=True):
        rotated = RotatedBoxes(of_image)
        rotated.clip(size)
        clipped.append(rotated.tensor)
    return torch.stack(clipped)


@dataclass
class TopProposals:
    """Proposals of N images, of each by descending score.

    Attributes:
        boxes: ``(N, K, 4)``, or 5 for rotated ones.
        logits: ``(N, K)``.
        counts: ``(N,)``: how many of each image there are; what is behind them is none.
        num_bad: ``(N,)``: how many candidates were infinite or NaN; None if nobody asked.
    """

    boxes: torch.Tensor
    logits: torch.Tensor
    counts: torch.Tensor
    num_bad: torch.Tensor | None = None

    def to_instances(self, image_sizes: list[tuple[int, int]]) -> list[Instances]:
        """Instances with ``proposal_boxes`` and ``objectness_logits``, which are views of these.

        Waits for the device.

        Args:
            image_sizes: (height, width) of the N images.

        Raises:
            FloatingPointError: a candidate was infinite or NaN.
        """
        # What the host has to know, in one transfer.
        if self.num_bad is None:
            counts = self.counts.tolist()
        else:
            counts, num_bad = torch.stack([self.counts, self.num_bad]).tolist()
            if sum(num_bad) > 0:
                raise FloatingPointError(
                    f"{sum(num_bad)} of the best-scored boxes, or their scores, are infinite or "
                    f"NaN: the training has diverged"
                )
        kind = Boxes if self.boxes.size(2) == 4 else RotatedBoxes
        results = []
        for i, (image_size, count) in enumerate(zip(image_sizes, counts, strict=True)):
            instances = Instances(image_size)
            # Sliced, then selected: of a selection, Inductor of PyTorch 2.11 has no strides.
            instances.proposal_boxes = kind(self.boxes[:, 0:count][i])
            instances.objectness_logits = self.logits[:, 0:count][i]
            results.append(instances)
        return results


def select_proposals(
    boxes: torch.Tensor,
    candidates: Candidates,
    image_sizes: list[tuple[int, int]],
    nms_thresh: float,
    post_nms_topk: int,
    min_box_size: float,
    training: bool,
) -> list[Instances]:
    """Choose proposals among the candidates; see ``find_top_rpn_proposals``.

    Args:
        boxes: ``(N, L * K, 4)``, or 5 for rotated ones.
        candidates: their scores.
        image_sizes: (height, width) of the N images.
        nms_thresh: as there.
        post_nms_topk: as there.
        min_box_size: as there.
        training: as there.
    """
    if boxes.size(2) == 4:
        clipped = clip(boxes, box_limits(image_sizes, boxes.dtype, boxes.device))
    else:
        clipped = _clipped_rotated(boxes, image_sizes)
    top = top_proposals(
        boxes, clipped, candidates, nms_thresh, post_nms_topk, min_box_size, training
    )
    return top.to_instances(image_sizes)


def clip(boxes: torch.Tensor, limits: torch.Tensor) -> torch.Tensor:
    """Boxes ``(N, C, 4)`` between 0 and ``limits``, ``(N, 1, 4)``."""
    return boxes.clamp(min=0).minimum(limits)


def top_proposals(
    boxes: torch.Tensor,
    clipped: torch.Tensor,
    candidates: Candidates,
    nms_thresh: float,
    post_nms_topk: int,
    min_box_size: float,
    training: bool,
) -> TopProposals:
    """:func:`select_proposals` without waiting for the device.

    Args:
        boxes: as there.
        clipped: the boxes, clipped to their images.
        candidates: as there, like what follows.
    """
    logits = candidates.logits.flatten(1)
    exist = candidates.exist.expand_as(candidates.logits).flatten(1)
    is_finite = torch.isfinite(logits) & torch.isfinite(boxes).all(dim=2)
    boxes = clipped
    sides = boxes[..., 2:] - boxes[..., :2] if boxes.size(2) == 4 else boxes[..., 2:4]
    is_valid = exist & is_finite & (sides > min_box_size).all(dim=2)

    groups = candidates.logits.size(0) * candidates.logits.size(1)
    by_level = (groups, candidates.logits.size(2))
    kept = nms_mask(boxes.view(*by_level, boxes.size(2)), is_valid.view(by_level), nms_thresh)
    kept = kept.view_as(is_valid)
    size = torch.sym_min(post_nms_topk, kept.size(1))
    best_logits, best = torch.where(kept, logits, -torch.inf).topk(size, dim=1)
    counts = kept.sum(dim=1).clamp(max=size)
    num_bad = (exist & ~is_finite).sum(dim=1) if training else None
    return TopProposals(take(boxes, best), best_logits, counts, num_bad)
