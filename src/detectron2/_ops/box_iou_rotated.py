"""``box_iou_rotated(boxes1 (N, 5), boxes2 (M, 5)) -> (N, M)``: IoU of rotated boxes.

float64 for float64 boxes, else float32. Not differentiable. A box with a value that is not finite
or with a side that is not positive has IoU 0 with every box.
"""

import torch
from torch import Tensor

from detectron2 import _C  # noqa: F401  (loads the operators)
from detectron2._ops.gradients import register_not_differentiable


@torch.library.register_fake("detectron2::box_iou_rotated")
def _fake_box_iou_rotated(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    dtype = torch.float64 if boxes1.dtype == torch.float64 else torch.float32
    return boxes1.new_empty((boxes1.shape[0], boxes2.shape[0]), dtype=dtype)


register_not_differentiable("detectron2::box_iou_rotated")
