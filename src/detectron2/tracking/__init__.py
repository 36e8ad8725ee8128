"""Trackers of instances over the frames of a video."""

from detectron2.tracking import (
    base_tracker,
    bbox_iou_tracker,
    hungarian_tracker,
    iou_weighted_hungarian_bbox_iou_tracker,
    utils,
    vanilla_hungarian_bbox_iou_tracker,
)
from detectron2.tracking.base_tracker import (
    TRACKER_HEADS_REGISTRY,
    BaseTracker,
    build_tracker_head,
)
from detectron2.tracking.bbox_iou_tracker import BBoxIOUTracker
from detectron2.tracking.hungarian_tracker import BaseHungarianTracker
from detectron2.tracking.iou_weighted_hungarian_bbox_iou_tracker import (
    IOUWeightedHungarianBBoxIOUTracker,
)
from detectron2.tracking.utils import create_prediction_pairs
from detectron2.tracking.vanilla_hungarian_bbox_iou_tracker import VanillaHungarianBBoxIOUTracker

__all__ = [
    "TRACKER_HEADS_REGISTRY",
    "BBoxIOUTracker",
    "BaseHungarianTracker",
    "BaseTracker",
    "IOUWeightedHungarianBBoxIOUTracker",
    "VanillaHungarianBBoxIOUTracker",
    "base_tracker",
    "bbox_iou_tracker",
    "build_tracker_head",
    "create_prediction_pairs",
    "hungarian_tracker",
    "iou_weighted_hungarian_bbox_iou_tracker",
    "utils",
    "vanilla_hungarian_bbox_iou_tracker",
]
