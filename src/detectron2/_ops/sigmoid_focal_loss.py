"""``sigmoid_focal_loss(logits (M, K), labels (M,), alpha, gamma) -> ()``: the sum of the focal
losses of M anchors with K classes each.

Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017. ``labels`` are int64: the class
whose target is 1, K (or more) for none, and a negative number for rows that are left out: loss and
gradient are 0 there, whatever the logits. Targets of 1 weigh ``alpha``, those of 0 ``1 - alpha``.

float64 for float64 logits, else float32. The gradient has the dtype of the logits and, as all sums,
the same bits in every run; nothing but logits and labels is kept for it. A gradient that is to be
differentiated again is that of the formulation in PyTorch below.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from detectron2 import _C  # noqa: F401  (loads the operators)
from detectron2._ops.eager import EagerOperator


@torch.library.register_fake("detectron2::sigmoid_focal_loss")
def _fake_loss(logits: Tensor, labels: Tensor, alpha: float, gamma: float) -> Tensor:
    dtype = torch.float64 if logits.dtype == torch.float64 else torch.float32
    return logits.new_empty((), dtype=dtype)


@torch.library.register_fake("detectron2::sigmoid_focal_loss_backward")
def _fake_backward(
    grad: Tensor, logits: Tensor, labels: Tensor, alpha: float, gamma: float
) -> Tensor:
    return logits.new_empty(logits.shape)


def formulation(logits: Tensor, labels: Tensor, alpha: float, gamma: float) -> Tensor:
    """What the operator computes, in PyTorch."""
    logits = logits if logits.dtype == torch.float64 else logits.float()
    is_target = torch.arange(logits.size(1), device=logits.device) == labels[:, None]
    is_counted = labels[:, None] >= 0
    # How wrong a prediction is; 0 where that does not count, so that no gradient is NaN.
    wrong = torch.where(is_counted, torch.where(is_target, -logits, logits), 0.0)
    weights = torch.where(is_target, alpha, 1 - alpha) * is_counted
    return (weights * torch.sigmoid(wrong).pow(gamma) * F.softplus(wrong)).sum()


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    logits, labels, ctx.alpha, ctx.gamma = inputs
    ctx.save_for_backward(logits, labels)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    logits, labels = ctx.saved_tensors
    if torch.is_grad_enabled():
        loss = formulation(logits, labels, ctx.alpha, ctx.gamma)
        (grad_logits,) = torch.autograd.grad(loss, logits, grad, create_graph=True)
        return grad_logits, None, None, None
    grad_logits = torch.ops.detectron2.sigmoid_focal_loss_backward(
        grad, logits, labels, ctx.alpha, ctx.gamma
    )
    return grad_logits, None, None, None


sigmoid_focal_loss = EagerOperator("sigmoid_focal_loss", _backward, _save)
