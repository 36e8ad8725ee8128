"""``pairwise_iou(boxes1 (N, 4), boxes2 (M, 4)) -> (N, M)``: IoU of axis-aligned boxes, rows
``(x0, y0, x1, y1)``. ``pairwise_ioa``, likewise: intersection over the area of the second box.

float64 for float64 boxes, else float32. 0 where two boxes do not meet, as inverted boxes and those
with a NaN never do, and where the quotient is not a number, as that of two infinite areas.

The formulations in PyTorch below, which TorchScript can compile, give the same values. They are the
gradient's, and stand in for the operators where those do not apply.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from detectron2 import _C  # noqa: F401  (loads the operators)
from detectron2._ops.eager import EagerOperator


def area(boxes: Tensor) -> Tensor:
    """Areas, ``(N,)``; negative for a box with one side inverted."""
    sides = boxes[:, 2:] - boxes[:, :2]
    return sides[:, 0] * sides[:, 1]


def intersection(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """Areas of the intersections, ``(N, M)``."""
    a, b = boxes1[:, None], boxes2
    width = torch.min(a[..., 2], b[:, 2]) - torch.max(a[..., 0], b[:, 0])
    height = torch.min(a[..., 3], b[:, 3]) - torch.max(a[..., 1], b[:, 1])
    return width.clamp_(min=0) * height.clamp_(min=0)


def _quotient(common: Tensor, whole: Tensor) -> Tensor:
    # Where boxes meet, the whole is above 0, unless it is not a number.
    is_defined = (common > 0) & (whole > 0)
    # Dividing by 1 elsewhere keeps NaN out of the gradient.
    quotient = common / torch.where(is_defined, whole, 1.0)
    return torch.where(is_defined & (quotient > 0), quotient, 0.0)


def iou(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """What the operator ``pairwise_iou`` computes, in PyTorch."""
    common = intersection(boxes1, boxes2)
    return _quotient(common, area(boxes1)[:, None] + area(boxes2) - common)


def ioa(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """What the operator ``pairwise_ioa`` computes, in PyTorch."""
    common = intersection(boxes1, boxes2)
    return _quotient(common, area(boxes2).expand_as(common))


def _save_boxes(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _operator(name: str, formulation: Callable[[Tensor, Tensor], Tensor]) -> EagerOperator:
    def fake(boxes1: Tensor, boxes2: Tensor) -> Tensor:
        dtype = torch.float64 if boxes1.dtype == torch.float64 else torch.float32
        return boxes1.new_empty((boxes1.shape[0], boxes2.shape[0]), dtype=dtype)

    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        boxes = ctx.saved_tensors
        wanted = [b for b, needed in zip(boxes, ctx.needs_input_grad, strict=True) if needed]
        is_differentiated_again = torch.is_grad_enabled()
        with torch.enable_grad():
            result = formulation(*(b.to(grad.dtype) for b in boxes))
        grads = iter(
            torch.autograd.grad(result, wanted, grad, create_graph=is_differentiated_again)
        )
        return tuple(next(grads) if needed else None for needed in ctx.needs_input_grad)

    torch.library.register_fake(f"detectron2::{name}")(fake)
    return EagerOperator(name, backward, _save_boxes)


pairwise_iou = _operator("pairwise_iou", iou)
pairwise_ioa = _operator("pairwise_ioa", ioa)
