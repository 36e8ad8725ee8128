"""``pairwise_iou(boxes1 (N, 4), boxes2 (M, 4)) -> (N, M)``: IoU of axis-aligned boxes, rows
``(x0, y0, x1, y1)``. ``pairwise_ioa``, likewise: intersection over the area of the second box.

float64 for float64 boxes, else float32. 0 where two boxes do not meet: so for boxes of NaN, for
inverted ones and for those without area. 0, too, where both areas in the quotient are infinite.
Differentiable, any number of times, through the formulation in PyTorch that :func:`overlap` is.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from detectron2._ops import native  # noqa: F401  (loads the operators)


def intersection(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """Areas of the intersections, ``(N, M)``, in PyTorch; TorchScript compiles it."""
    a, b = boxes1[:, None], boxes2
    width = torch.min(a[..., 2], b[:, 2]) - torch.max(a[..., 0], b[:, 0])
    height = torch.min(a[..., 3], b[:, 3]) - torch.max(a[..., 1], b[:, 1])
    return width.clamp(min=0) * height.clamp(min=0)


def area(boxes: Tensor) -> Tensor:
    """Areas, ``(N,)``; negative for a box with one side inverted."""
    sides = boxes[:, 2:] - boxes[:, :2]
    return sides[:, 0] * sides[:, 1]


def iou(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """What the operator ``pairwise_iou`` computes, in PyTorch; TorchScript compiles it."""
    common = intersection(boxes1, boxes2)
    union = area(boxes1)[:, None] + area(boxes2) - common
    # Dividing by 1 elsewhere keeps NaN out of the gradients. A comparison with NaN is false.
    meets = (common > 0) & (union > 0)
    return torch.where(meets, common / torch.where(meets, union, 1.0), 0.0)
