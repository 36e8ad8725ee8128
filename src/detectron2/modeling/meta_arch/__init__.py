"""Whole models."""

from detectron2.modeling.meta_arch import build, dense_detector, fcos, retinanet
from detectron2.modeling.meta_arch.build import META_ARCH_REGISTRY, build_model
from detectron2.modeling.meta_arch.dense_detector import DenseDetector
from detectron2.modeling.meta_arch.fcos import FCOS
from detectron2.modeling.meta_arch.retinanet import RetinaNet

__all__ = [
    "FCOS",
    "META_ARCH_REGISTRY",
    "DenseDetector",
    "RetinaNet",
    "build",
    "build_model",
    "dense_detector",
    "fcos",
    "retinanet",
]
