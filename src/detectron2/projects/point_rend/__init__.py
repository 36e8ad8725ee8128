"""PointRend: masks and labels at points that are chosen where they are uncertain.

Kirillov et al., "PointRend: Image Segmentation as Rendering", CVPR 2020; with implicit functions
Cheng et al., "Pointly-Supervised Instance Segmentation", CVPR 2022, section 5.
"""

from detectron2.projects.point_rend.color_augmentation import ColorAugSSDTransform
from detectron2.projects.point_rend.config import add_pointrend_config
from detectron2.projects.point_rend.mask_head import ImplicitPointRendMaskHead, PointRendMaskHead
from detectron2.projects.point_rend.roi_heads import PointRendROIHeads
from detectron2.projects.point_rend.semantic_seg import PointRendSemSegHead

__all__ = [
    "ColorAugSSDTransform",
    "ImplicitPointRendMaskHead",
    "PointRendMaskHead",
    "PointRendROIHeads",
    "PointRendSemSegHead",
    "add_pointrend_config",
]
