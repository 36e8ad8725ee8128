"""Whole models."""

from detectron2.modeling.meta_arch import build, dense_detector, fcos, retinanet
from detectron2.modeling.meta_arch.build import META_ARCH_REGISTRY, build_model
from detectron2.modeling.meta_arch.dense_detector import DenseDetector
from detectron2.modeling.meta_arch.fcos import FCOS
from detectron2.modeling.meta_arch.panoptic_fpn import PanopticFPN
from detectron2.modeling.meta_arch.rcnn import GeneralizedRCNN, ProposalNetwork
from detectron2.modeling.meta_arch.retinanet import RetinaNet
from detectron2.modeling.meta_arch.semantic_seg import (
    SEM_SEG_HEADS_REGISTRY,
    SemanticSegmentor,
    build_sem_seg_head,
)

__all__ = [
    "FCOS",
    "META_ARCH_REGISTRY",
    "SEM_SEG_HEADS_REGISTRY",
    "DenseDetector",
    "GeneralizedRCNN",
    "PanopticFPN",
    "ProposalNetwork",
    "RetinaNet",
    "SemanticSegmentor",
    "build",
    "build_model",
    "build_sem_seg_head",
    "dense_detector",
    "fcos",
    "panoptic_fpn",
    "rcnn",
    "retinanet",
    "semantic_seg",
]
