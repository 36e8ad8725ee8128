"""IoU of rotated boxes."""

import torch

import detectron2._ops  # noqa: F401  (registers torch.ops.detectron2)


def pairwise_iou_rotated(boxes1: torch.Tensor, boxes2: torch.Tensor) -> torch.Tensor:
    """Intersection over union of every box of one set with every box of the other.

    Args:
        boxes1: ``(N, 5)``, rows ``(cx, cy, w, h, angle)`` in absolute pixels, the angle in
            degrees, counter-clockwise on screen.
        boxes2: ``(M, 5)``, likewise.

    Returns:
        ``(N, M)``, each value in [0, 1]; 0 where either box has no area.
    """
    return torch.ops.detectron2.box_iou_rotated(boxes1, boxes2)
