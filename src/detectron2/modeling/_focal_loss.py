"""Sigmoid focal loss of dense detectors, from class labels.

Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017. A target of 0 or 1 for each class,
and each step of the loss as a tensor, would take several gigabytes for a batch.
"""

import torch
from torch.nn import functional as F  # noqa: N812

from detectron2._ops.sigmoid_focal_loss import sigmoid_focal_loss
from detectron2.layers._dtypes import at_least_float32


def _has_operator(device: torch.device) -> bool:
    return device.type in ("cpu", "cuda")


def _formulation(
    logits: torch.Tensor, labels: torch.Tensor, alpha: float, gamma: float
) -> torch.Tensor:
    """What the operator computes, in PyTorch."""
    logits = at_least_float32(logits)
    is_target = torch.arange(logits.size(1), device=logits.device) == labels[:, None]
    is_counted = labels[:, None] >= 0
    # How wrong a prediction is; 0 where that does not count, so that no gradient is NaN.
    wrong = torch.where(is_counted, torch.where(is_target, -logits, logits), 0.0)
    weights = torch.where(is_target, alpha, 1 - alpha) * is_counted
    return (weights * torch.sigmoid(wrong).pow(gamma) * F.softplus(wrong)).sum()


def sigmoid_focal_loss_sum(
    logits: torch.Tensor, labels: torch.Tensor, alpha: float, gamma: float
) -> torch.Tensor:
    """Sum of the focal losses of all classes of all anchors, float32 at least.

    Args:
        logits: ``(M, K)``, of any floating dtype.
        labels: ``(M,)``, int64: the class; K for background; -1 for what does not count.
        alpha: weight of targets of 1; of those of 0 it is ``1 - alpha``.
        gamma: how much well-classified ones count less; 0 is cross-entropy.
    """
    if _has_operator(logits.device):
        return sigmoid_focal_loss(logits, labels, alpha, gamma)
    return _formulation(logits, labels, alpha, gamma)
