"""``nms_groups(boxes (G, K, 4), valid (G, K), classes (G, K)?, iou_threshold) -> bool (G, K)``: NMS
within each of G groups, and within the classes of a group; without classes all are of one.

Boxes, XYXY, come by descending score in each group. A box is kept if it is valid and its IoU with
no kept box before it, of its class, is greater than the threshold. Boxes with a NaN overlap none.
``classes`` are int64. Nothing waits for the device. A group has 2**18 boxes at most, and on CUDA
takes a bit of work space for each pair of its boxes. CPU and CUDA keep the same boxes.

No gradient is registered: a mask has none.
"""

import torch
from torch import Tensor

from detectron2 import _C  # noqa: F401  (loads the operators)


@torch.library.register_fake("detectron2::nms_groups")
def _fake_nms_groups(
    boxes: Tensor, valid: Tensor, classes: Tensor | None, iou_threshold: float
) -> Tensor:
    return boxes.new_empty(boxes.shape[:2], dtype=torch.bool)
