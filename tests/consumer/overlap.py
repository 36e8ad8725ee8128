"""A library of another workspace that uses detectron2."""

import torch

from detectron2.structures.rotated_boxes import RotatedBoxes, pairwise_iou


def overlap_of_rotated_squares(degrees: float) -> float:
    """The IoU of a square with itself turned about its centre."""
    squares = RotatedBoxes(
        torch.tensor([[50.0, 50.0, 20.0, 20.0, 0.0], [50.0, 50.0, 20.0, 20.0, degrees]])
    )
    return pairwise_iou(squares[0], squares[1]).item()
