"""Models and what they are made of."""

from detectron2.modeling.backbone import (
    BACKBONE_REGISTRY,
    FPN,
    Backbone,
    MViT,
    ResNet,
    ResNetBlockBase,
    SimpleFeaturePyramid,
    SwinTransformer,
    ViT,
    build_backbone,
    build_resnet_backbone,
    get_vit_lr_decay_rate,
    make_stage,
)
from detectron2.modeling.mmdet_wrapper import MMDetBackbone, MMDetDetector

__all__ = [
    "BACKBONE_REGISTRY",
    "FPN",
    "Backbone",
    "MMDetBackbone",
    "MMDetDetector",
    "MViT",
    "ResNet",
    "ResNetBlockBase",
    "SimpleFeaturePyramid",
    "SwinTransformer",
    "ViT",
    "build_backbone",
    "build_resnet_backbone",
    "get_vit_lr_decay_rate",
    "make_stage",
]
