"""The data structures that pass between the parts of a model: boxes, masks, instances."""

from detectron2.structures.boxes import (
    Boxes,
    BoxMode,
    pairwise_ioa,
    pairwise_iou,
    pairwise_point_box_distance,
)
from detectron2.structures.masks import BitMasks, PolygonMasks, ROIMasks, polygons_to_bitmask
from detectron2.structures.rotated_boxes import RotatedBoxes, pairwise_iou_rotated

__all__ = [
    "BitMasks",
    "BoxMode",
    "Boxes",
    "PolygonMasks",
    "ROIMasks",
    "RotatedBoxes",
    "pairwise_ioa",
    "pairwise_iou",
    "pairwise_iou_rotated",
    "pairwise_point_box_distance",
    "polygons_to_bitmask",
]
