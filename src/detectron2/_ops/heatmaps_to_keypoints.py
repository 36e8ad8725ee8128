"""``heatmaps_to_keypoints(maps (R, K, H, W), rois (R, 4)) -> (R, K, 4)``: peaks of heatmaps.

Rows ``(x, y, logit, score)``, see ``detectron2.structures.heatmaps_to_keypoints``. float64 for
float64 maps, else float32, and RoIs are read as that, whatever the dtype of the maps. Not
differentiable.
"""

import torch
from torch import Tensor

from detectron2 import _C  # noqa: F401  (loads the operators)
from detectron2._ops.gradients import register_not_differentiable


@torch.library.register_fake("detectron2::heatmaps_to_keypoints")
def _fake_heatmaps_to_keypoints(maps: Tensor, rois: Tensor) -> Tensor:
    dtype = torch.float64 if maps.dtype == torch.float64 else torch.float32
    return maps.new_empty((maps.shape[0], maps.shape[1], 4), dtype=dtype)


register_not_differentiable("detectron2::heatmaps_to_keypoints")
