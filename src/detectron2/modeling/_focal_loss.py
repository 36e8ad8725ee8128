"""Sigmoid focal loss of dense detectors, from class labels.

Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017. A target of 0 or 1 for each class,
and each step of the loss as a tensor, would take several gigabytes for a batch.
"""

from typing import Any

import torch
from torch.autograd.function import once_differentiable
from torch.nn import functional as F  # noqa: N812

# Logits that are held in float32 at a time: 128 MiB.
_CHUNK = 2**25


def _negative_loss(logits: torch.Tensor, alpha: float, gamma: float) -> torch.Tensor:
    """Loss of each logit where the target is 0: ``(1 - alpha) * p^gamma * -log(1 - p)``."""
    return (1 - alpha) * torch.sigmoid(logits).pow(gamma) * F.softplus(logits)


def _positive_loss(logits: torch.Tensor, alpha: float, gamma: float) -> torch.Tensor:
    """Loss of each logit where the target is 1: ``alpha * (1 - p)^gamma * -log(p)``."""
    return alpha * torch.sigmoid(-logits).pow(gamma) * F.softplus(-logits)


def _negative_gradient(logits: torch.Tensor, alpha: float, gamma: float) -> torch.Tensor:
    p = torch.sigmoid(logits)
    slope = torch.addcmul(p, 1 - p, F.softplus(logits), value=gamma)
    return (1 - alpha) * p.pow(gamma) * slope


def _positive_gradient(logits: torch.Tensor, alpha: float, gamma: float) -> torch.Tensor:
    q = torch.sigmoid(-logits)
    slope = torch.addcmul(q, 1 - q, F.softplus(-logits), value=gamma)
    return -alpha * q.pow(gamma) * slope


class _SigmoidFocalLoss(torch.autograd.Function):
    """All logits as if their targets were 0, then what is different at the targets of 1."""

    @staticmethod
    def forward(
        ctx: Any, logits: torch.Tensor, labels: torch.Tensor, alpha: float, gamma: float
    ) -> torch.Tensor:
        ctx.save_for_backward(logits, labels)
        ctx.alpha, ctx.gamma = alpha, gamma
        num_classes = logits.size(1)
        total = logits.new_zeros((), dtype=torch.float32)
        step = max(_CHUNK // num_classes, 1)
        for some_logits, some_labels in zip(logits.split(step), labels.split(step), strict=True):
            losses = _negative_loss(some_logits.float(), alpha, gamma).sum(dim=1)
            total += torch.where(some_labels >= 0, losses, 0.0).sum()
        is_positive, _, at_targets = _at_targets(logits, labels)
        changes = _positive_loss(at_targets, alpha, gamma) - _negative_loss(
            at_targets, alpha, gamma
        )
        return total + torch.where(is_positive, changes, 0.0).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        logits, labels = ctx.saved_tensors
        alpha, gamma = ctx.alpha, ctx.gamma
        result = torch.empty_like(logits)
        step = max(_CHUNK // logits.size(1), 1)
        for some_logits, some_labels, some_result in zip(
            logits.split(step), labels.split(step), result.split(step), strict=True
        ):
            gradient = _negative_gradient(some_logits.float(), alpha, gamma) * grad
            some_result.copy_(torch.where(some_labels[:, None] >= 0, gradient, 0.0))
        is_positive, targets, at_targets = _at_targets(logits, labels)
        corrected = torch.where(
            is_positive,
            _positive_gradient(at_targets, alpha, gamma) * grad,
            result.gather(1, targets).squeeze(1),
        )
        result.scatter_(1, targets, corrected[:, None].to(result.dtype))
        return result, None, None, None


def _at_targets(
    logits: torch.Tensor, labels: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Which rows are positive, the column ``(M, 1)`` of each row's class, and the float32 logits
    there; of other rows any column."""
    num_classes = logits.size(1)
    is_positive = (labels >= 0) & (labels < num_classes)
    targets = labels.clamp(min=0, max=num_classes - 1)[:, None]
    return is_positive, targets, logits.gather(1, targets).squeeze(1).float()


def sigmoid_focal_loss_sum(
    logits: torch.Tensor, labels: torch.Tensor, alpha: float, gamma: float
) -> torch.Tensor:
    """Sum of the focal losses of all classes of all anchors, float32.

    Args:
        logits: ``(M, K)``, of any floating dtype.
        labels: ``(M,)``, int64: the class; K for background; -1 for what does not count.
        alpha: weight of targets of 1; of those of 0 it is ``1 - alpha``.
        gamma: how much well-classified ones count less; 0 is cross-entropy.
    """
    if logits.numel() == 0:
        return logits.float().sum()
    return _SigmoidFocalLoss.apply(logits, labels, alpha, gamma)
