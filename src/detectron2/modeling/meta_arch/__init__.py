"""Whole models."""

from detectron2.modeling.meta_arch.build import META_ARCH_REGISTRY, build_model
from detectron2.modeling.meta_arch.panoptic_fpn import PanopticFPN
from detectron2.modeling.meta_arch.rcnn import GeneralizedRCNN, ProposalNetwork
from detectron2.modeling.meta_arch.semantic_seg import (
    SEM_SEG_HEADS_REGISTRY,
    SemanticSegmentor,
    build_sem_seg_head,
)

__all__ = [
    "META_ARCH_REGISTRY",
    "SEM_SEG_HEADS_REGISTRY",
    "GeneralizedRCNN",
    "PanopticFPN",
    "ProposalNetwork",
    "SemanticSegmentor",
    "build",
    "build_model",
    "build_sem_seg_head",
    "panoptic_fpn",
    "rcnn",
    "semantic_seg",
]
