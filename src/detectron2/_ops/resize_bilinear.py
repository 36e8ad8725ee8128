"""``resize_bilinear(image (C, H, W), height, width) -> (C, height, width)``: uint8, on the CPU.

Pillow's bilinear filter, bit by bit: a triangle, which is two output pixels wide where the image
shrinks. Rows are filtered first, then columns; Pillow from version 13 on sometimes filters columns
first, mostly where the aspect ratio changes, and then rounds a level differently here and there.
``image`` may have any strides. Not differentiable.
"""

import torch
from torch import Tensor

from detectron2 import _C  # noqa: F401  (loads the operators)
from detectron2._ops.gradients import register_not_differentiable


@torch.library.register_fake("detectron2::resize_bilinear")
def _fake_resize_bilinear(image: Tensor, height: int, width: int) -> Tensor:
    return image.new_empty((image.shape[0], height, width))


register_not_differentiable("detectron2::resize_bilinear")
