"""NMS of the candidates of many images and levels at once."""

import torch

import detectron2._ops  # noqa: F401  (registers torch.ops.detectron2)
from detectron2.layers import batched_nms, batched_nms_rotated
from detectron2.layers.nms import _float32_at_least

# Of boxes, for which CUDA needs a bit each: 512 MiB.
_MOST_PAIRS = 2**32


def nms_mask(
    boxes: torch.Tensor,
    is_valid: torch.Tensor,
    iou_threshold: float,
    classes: torch.Tensor | None = None,
) -> torch.Tensor:
    """NMS within each group, and within that within each class.

    For rotated boxes, and beyond 2**32 pairs of boxes, it waits for the device once.

    Args:
        boxes: ``(G, K, 4)`` XYXY, or ``(G, K, 5)`` rotated; in each group by descending score.
        is_valid: ``(G, K)``, bool; other boxes are neither kept nor remove any.
        iou_threshold: a box goes if its IoU with a kept one is greater.
        classes: ``(G, K)``, integers from 0 on; None: all are of one class.

    Returns:
        ``(G, K)``, bool: the valid boxes that are kept.
    """
    num_groups, size, box_dim = boxes.shape
    if box_dim == 4 and _has_operator(boxes) and num_groups * size**2 <= _MOST_PAIRS:
        # As batched_nms does, which is exact where an IoU equals the threshold.
        threshold = _float32_at_least(iou_threshold)
        return torch.ops.detectron2.nms_groups(boxes, is_valid, classes, threshold)
    # A box of NaN overlaps nothing.
    flat = torch.where(is_valid[..., None], boxes, torch.nan).reshape(-1, box_dim)
    groups = torch.arange(num_groups, device=boxes.device)[:, None].expand(-1, size)
    if classes is not None and classes.numel() > 0:
        groups = groups * (classes.amax() + 1) + classes
    ranks = torch.arange(size, 0, -1, device=boxes.device).expand(num_groups, -1)
    suppress = batched_nms if box_dim == 4 else batched_nms_rotated
    kept = suppress(flat, ranks.reshape(-1).float(), groups.reshape(-1), iou_threshold)
    mask = torch.zeros(num_groups * size, dtype=torch.bool, device=boxes.device)
    return mask.index_fill_(0, kept, True).view(num_groups, size) & is_valid


def _has_operator(boxes: torch.Tensor) -> bool:
    return boxes.device.type in ("cpu", "cuda")


def take(values: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
    """Rows ``(N, K, D)`` of ``(N, C, D)`` by indices ``(N, K)``."""
    return values.gather(1, indices[..., None].expand(-1, -1, values.size(2)))
