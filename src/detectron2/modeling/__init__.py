"""Models and what they are made of."""

from detectron2.layers import ShapeSpec
from detectron2.modeling.anchor_generator import ANCHOR_GENERATOR_REGISTRY, build_anchor_generator
from detectron2.modeling.backbone import (
    BACKBONE_REGISTRY,
    FPN,
    Backbone,
    ResNet,
    ResNetBlockBase,
    SimpleFeaturePyramid,
    ViT,
    build_backbone,
    build_resnet_backbone,
    get_vit_lr_decay_rate,
    make_stage,
)
from detectron2.modeling.meta_arch import FCOS, META_ARCH_REGISTRY, RetinaNet, build_model
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.modeling.proposal_generator import (
    PROPOSAL_GENERATOR_REGISTRY,
    RPN_HEAD_REGISTRY,
    build_proposal_generator,
    build_rpn_head,
)

__all__ = [
    "ANCHOR_GENERATOR_REGISTRY",
    "BACKBONE_REGISTRY",
    "FCOS",
    "FPN",
    "META_ARCH_REGISTRY",
    "PROPOSAL_GENERATOR_REGISTRY",
    "RPN_HEAD_REGISTRY",
    "Backbone",
    "ResNet",
    "ResNetBlockBase",
    "RetinaNet",
    "ShapeSpec",
    "SimpleFeaturePyramid",
    "ViT",
    "anchor_generator",
    "backbone",
    "box_regression",
    "build_anchor_generator",
    "build_backbone",
    "build_model",
    "build_proposal_generator",
    "build_resnet_backbone",
    "build_rpn_head",
    "detector_postprocess",
    "get_vit_lr_decay_rate",
    "make_stage",
    "matcher",
    "meta_arch",
    "poolers",
    "postprocessing",
    "proposal_generator",
    "sampling",
]
