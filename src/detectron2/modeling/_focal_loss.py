"""Sigmoid focal loss of dense detectors, from class labels.

Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017. A target of 0 or 1 for each class,
and each step of the loss as a tensor, would take several gigabytes for a batch.
"""

import torch

from detectron2._ops.sigmoid_focal_loss import formulation, sigmoid_focal_loss


def _has_operator(device: torch.device) -> bool:
    return device.type in ("cpu", "cuda")


def sigmoid_focal_loss_sum(
    logits: torch.Tensor, labels: torch.Tensor, alpha: float, gamma: float
) -> torch.Tensor:
    """Sum of the focal losses of all classes of all anchors, float32 at least.

    Args:
        logits: ``(M, K)``, of any floating dtype.
        labels: ``(M,)``, int64: the class; K for background; -1 for what does not count.
        alpha: weight of targets of 1; of those of 0 it is ``1 - alpha``. Where it is negative,
            all weigh 1.
        gamma: how much well-classified ones count less; 0 is cross-entropy.
    """
    if alpha < 0:
        return 2 * sigmoid_focal_loss_sum(logits, labels, 0.5, gamma)
    if _has_operator(logits.device):
        return sigmoid_focal_loss(logits, labels, alpha, gamma)
    return formulation(logits, labels, alpha, gamma)
