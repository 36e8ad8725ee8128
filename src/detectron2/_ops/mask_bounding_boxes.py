"""``mask_bounding_boxes(masks (N, height, width)) -> (N, 4)``: boxes around the pixels of bool
masks.

Rows ``(x0, y0, x1, y1)``, float32: the first column and row with a pixel set, and one more than the
last; zeros for a mask without any. Not differentiable.
"""

import torch
from torch import Tensor

from detectron2 import _C  # noqa: F401  (loads the operators)


@torch.library.register_fake("detectron2::mask_bounding_boxes")
def _fake_mask_bounding_boxes(masks: Tensor) -> Tensor:
    return masks.new_empty((masks.shape[0], 4), dtype=torch.float32)
