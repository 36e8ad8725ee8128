"""Panoptic-DeepLab: panoptic segmentation from pixel classes, centres of objects and offsets.

Cheng et al., "Panoptic-DeepLab: A Simple, Strong, and Fast Baseline for Bottom-Up Panoptic
Segmentation", CVPR 2020.
"""

from detectron2.projects.panoptic_deeplab.config import add_panoptic_deeplab_config
from detectron2.projects.panoptic_deeplab.dataset_mapper import PanopticDeeplabDatasetMapper
from detectron2.projects.panoptic_deeplab.panoptic_seg import (
    INS_EMBED_BRANCHES_REGISTRY,
    PanopticDeepLab,
    PanopticDeepLabInsEmbedHead,
    PanopticDeepLabSemSegHead,
    build_ins_embed_branch,
)

__all__ = [
    "INS_EMBED_BRANCHES_REGISTRY",
    "PanopticDeepLab",
    "PanopticDeepLabInsEmbedHead",
    "PanopticDeepLabSemSegHead",
    "PanopticDeeplabDatasetMapper",
    "add_panoptic_deeplab_config",
    "build_ins_embed_branch",
]
