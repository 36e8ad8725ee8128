"""Regression losses of axis-aligned boxes that build on IoU.

Zheng et al., "Distance-IoU Loss: Faster and Better Learning for Bounding Box Regression", AAAI
2020.

Both functions take boxes in XYXY format, row by row, and compute in float32 at least: the area of
a box of 256 pixels a side overflows float16. Boxes without width or height give finite losses and
gradients.
"""

import math

import torch

from detectron2.layers._dtypes import at_least_float32

__all__ = ["ciou_loss", "diou_loss"]


def _check_corners(boxes: torch.Tensor) -> None:
    """Waits for the device, once; graphs, which could not depend on the answer, leave it out."""
    if not torch.jit.is_scripting() and (torch.compiler.is_compiling() or torch.jit.is_tracing()):
        return
    is_bad = (boxes[..., 2:] < boxes[..., :2]).any(dim=-1)
    if bool(is_bad.any()):
        first: list[float] = boxes[is_bad][0].tolist()
        raise ValueError(
            f"boxes must have x0 <= x1 and y0 <= y1, but {int(is_bad.sum())} have not, "
            f"the first of them {first}"
        )


def _area(sides: torch.Tensor) -> torch.Tensor:
    # The gradient of prod() would wait for the device, to count zeros.
    return sides[..., 0] * sides[..., 1]


def _iou_and_distance(
    boxes1: torch.Tensor, boxes2: torch.Tensor, eps: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """IoU, and the distance of the centres as a share of the diagonal of the box around both.

    Both ``(...)``; the distance is squared.
    """
    sides = torch.min(boxes1[..., 2:], boxes2[..., 2:]) - torch.max(
        boxes1[..., :2], boxes2[..., :2]
    )
    # Boxes that only touch do not pull on each other's corners, which a clamp would let them.
    overlaps = (sides > 0).all(dim=-1)
    intersection = torch.where(overlaps, _area(sides), 0.0)
    area1 = _area(boxes1[..., 2:] - boxes1[..., :2])
    area2 = _area(boxes2[..., 2:] - boxes2[..., :2])
    iou = intersection / (area1 + area2 - intersection + eps)

    hull = torch.max(boxes1[..., 2:], boxes2[..., 2:]) - torch.min(boxes1[..., :2], boxes2[..., :2])
    between = (boxes1[..., :2] + boxes1[..., 2:] - boxes2[..., :2] - boxes2[..., 2:]) / 2
    distance = between.square().sum(dim=-1) / (hull.square().sum(dim=-1) + eps)
    return iou, distance


def _aspect_angle(boxes: torch.Tensor) -> torch.Tensor:
    """Angle whose tangent is width / height, ``(...)``; 0 for a point."""
    width, height = (boxes[..., 2:] - boxes[..., :2]).unbind(dim=-1)
    # atan2 has finite derivatives everywhere but there.
    is_point = (width == 0) & (height == 0)
    return torch.atan2(width, torch.where(is_point, 1.0, height))


def _reduce(loss: torch.Tensor, reduction: str) -> torch.Tensor:
    if reduction == "none":
        return loss
    if reduction == "sum":
        return loss.sum()
    if reduction == "mean":
        # The sum over nothing is a 0 that stays on the graph.
        return loss.sum() / max(loss.numel(), 1)
    raise ValueError(f"reduction must be 'none', 'mean' or 'sum', got '{reduction}'")


def diou_losses(boxes1: torch.Tensor, boxes2: torch.Tensor, eps: float = 1e-7) -> torch.Tensor:
    """:func:`diou_loss` of each pair, without its check, which waits for the device."""
    boxes1, boxes2 = at_least_float32(boxes1), at_least_float32(boxes2)
    iou, distance = _iou_and_distance(boxes1, boxes2, eps)
    return 1 - iou + distance


def ciou_losses(boxes1: torch.Tensor, boxes2: torch.Tensor, eps: float = 1e-7) -> torch.Tensor:
    """:func:`ciou_loss` of each pair, without its check, which waits for the device."""
    boxes1, boxes2 = at_least_float32(boxes1), at_least_float32(boxes2)
    iou, distance = _iou_and_distance(boxes1, boxes2, eps)
    difference = _aspect_angle(boxes2) - _aspect_angle(boxes1)
    v = (4 / math.pi**2) * difference.square()
    alpha = (v / (1 - iou + v + eps)).detach()
    return 1 - iou + distance + alpha * v


def diou_loss(
    boxes1: torch.Tensor, boxes2: torch.Tensor, reduction: str = "none", eps: float = 1e-7
) -> torch.Tensor:
    """Distance-IoU loss, equation 7 of the paper.

    ``1 - IoU + d^2 / c^2``, with d the distance between the centres and c the diagonal of the
    smallest box around both.

    Args:
        boxes1: ``(N, 4)`` or ``(4,)``, predicted boxes.
        boxes2: likewise, the boxes that they should be.
        reduction: ``"none"`` for one loss a pair, ``"mean"`` (0 for no pairs) or ``"sum"``.
        eps: added to the divisors.

    Raises:
        ValueError: a box of ``boxes1`` has corners in the wrong order, or the reduction is
            unknown.
    """
    _check_corners(boxes1)
    return _reduce(diou_losses(boxes1, boxes2, eps), reduction)


def ciou_loss(
    boxes1: torch.Tensor, boxes2: torch.Tensor, reduction: str = "none", eps: float = 1e-7
) -> torch.Tensor:
    """Complete-IoU loss, equations 8 to 11 of the paper.

    :func:`diou_loss` plus ``alpha * v``, where v compares the aspect ratios. The gradient takes
    the weight alpha for a constant.

    Args:
        boxes1: ``(N, 4)`` or ``(4,)``, predicted boxes.
        boxes2: likewise, the boxes that they should be.
        reduction: ``"none"`` for one loss a pair, ``"mean"`` (0 for no pairs) or ``"sum"``.
        eps: added to the divisors.

    Raises:
        ValueError: a box of ``boxes1`` has corners in the wrong order, or the reduction is
            unknown.
    """
    _check_corners(boxes1)
    return _reduce(ciou_losses(boxes1, boxes2, eps), reduction)
