"""RoI heads: what is computed for each proposal of a two-stage detector."""

# Code written for upstream imports these names from here.
from detectron2.config.config import configurable
from detectron2.layers.shape_spec import ShapeSpec
from detectron2.layers.wrappers import nonzero_tuple
from detectron2.modeling.backbone.resnet import BottleneckBlock, ResNet
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.poolers import ROIPooler
from detectron2.modeling.proposal_generator.proposal_utils import add_ground_truth_to_proposals
from detectron2.modeling.roi_heads._base import ROI_HEADS_REGISTRY, ROIHeads, build_roi_heads
from detectron2.modeling.roi_heads._res5 import Res5ROIHeads
from detectron2.modeling.roi_heads._selection import (
    select_foreground_proposals,
    select_proposals_with_visible_keypoints,
)
from detectron2.modeling.roi_heads._standard import StandardROIHeads
from detectron2.modeling.roi_heads.box_head import build_box_head
from detectron2.modeling.roi_heads.fast_rcnn import FastRCNNOutputLayers
from detectron2.modeling.roi_heads.keypoint_head import build_keypoint_head
from detectron2.modeling.roi_heads.mask_head import build_mask_head
from detectron2.modeling.sampling import subsample_labels
from detectron2.structures.boxes import Boxes, pairwise_iou
from detectron2.structures.image_list import ImageList
from detectron2.structures.instances import Instances
from detectron2.utils.events import get_event_storage

__all__ = [
    "ROI_HEADS_REGISTRY",
    "BottleneckBlock",
    "Boxes",
    "FastRCNNOutputLayers",
    "ImageList",
    "Instances",
    "Matcher",
    "ROIHeads",
    "ROIPooler",
    "Res5ROIHeads",
    "ResNet",
    "ShapeSpec",
    "StandardROIHeads",
    "add_ground_truth_to_proposals",
    "build_box_head",
    "build_keypoint_head",
    "build_mask_head",
    "build_roi_heads",
    "configurable",
    "get_event_storage",
    "nonzero_tuple",
    "pairwise_iou",
    "select_foreground_proposals",
    "select_proposals_with_visible_keypoints",
    "subsample_labels",
]
