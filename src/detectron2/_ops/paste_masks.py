"""``paste_masks(masks (N, h, w), boxes (N, 4), height, width, threshold) -> (N, height, width)``:
stretch each mask over its box ``(x0, y0, x1, y1)`` in an image of its own.

A pixel has the mask's value at its centre, by bilinear interpolation in which the mask is
surrounded by zeros, as ``grid_sample(align_corners=False)`` has it and rounded alike. Up to one
pixel outside the box counts as covered; all beyond it is 0. The result is bool, whether the value
reaches ``threshold``, or, for a negative ``threshold``, uint8: the value in 255ths rounded towards
0, where NaN gives 0 and what is outside [0, 1] the nearer end.

A box whose width or height is not positive and finite pastes nothing. float64 if either argument
is, else computed in float32. Not differentiable, and the same bits on every run, on the CPU and on
CUDA.
"""

import torch
from torch import Tensor

from detectron2 import _C  # noqa: F401  (loads the operators)
from detectron2._ops.gradients import register_not_differentiable


@torch.library.register_fake("detectron2::paste_masks")
def _fake_paste_masks(
    masks: Tensor, boxes: Tensor, height: int, width: int, threshold: float
) -> Tensor:
    dtype = torch.bool if threshold >= 0 else torch.uint8
    return masks.new_empty((masks.shape[0], height, width), dtype=dtype)


register_not_differentiable("detectron2::paste_masks")
