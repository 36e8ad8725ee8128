"""``nms_rotated(boxes (N, 5), scores (N,), iou_threshold) -> (K,)``: NMS of rotated boxes.

int64 indices of the kept boxes by descending score, equal scores by index; NaN scores rank highest.
A box goes if its IoU with a kept one is greater than the threshold; a box that has IoU 0 with every
box (see ``box_iou_rotated``) is kept and removes none. CPU and CUDA keep the same boxes. Boxes and
scores must agree in dtype.

No gradient is registered: indices have none, and the dispatcher's own fallback costs a call less
than a Python function would.
"""

import torch
from torch import Tensor

from detectron2 import _C  # noqa: F401  (loads the operators)


@torch.library.register_fake("detectron2::nms_rotated")
def _fake_nms_rotated(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    num_kept = torch.library.get_ctx().new_dynamic_size()
    return boxes.new_empty((num_kept,), dtype=torch.int64)
