"""Modules and operators that models are made of.

``nms``, ``roi_align`` and ``roi_align_rotated`` are functions here, although submodules have
these names too: importing the submodules first and the functions after gives that order.
"""

from detectron2.layers.deform_conv import (
    DeformConv,
    ModulatedDeformConv,
)
from detectron2.layers.nms import batched_nms, batched_nms_rotated, nms, nms_rotated
from detectron2.layers.roi_align import ROIAlign, roi_align
from detectron2.layers.roi_align_rotated import ROIAlignRotated, roi_align_rotated
from detectron2.layers.rotated_boxes import pairwise_iou_rotated
from detectron2.layers.shape_spec import ShapeSpec
from detectron2.layers.wrappers import (
    BatchNorm2d,
    Conv2d,
    ConvTranspose2d,
    Linear,
    cat,
    cross_entropy,
    empty_input_loss_func_wrapper,
    interpolate,
    move_device_like,
    nonzero_tuple,
    shapes_to_tensor,
)

__all__ = [
    "BatchNorm2d",
    "Conv2d",
    "ConvTranspose2d",
    "DeformConv",
    "Linear",
    "ModulatedDeformConv",
    "ROIAlign",
    "ROIAlignRotated",
    "ShapeSpec",
    "batched_nms",
    "batched_nms_rotated",
    "cat",
    "cross_entropy",
    "empty_input_loss_func_wrapper",
    "interpolate",
    "move_device_like",
    "nms",
    "nms_rotated",
    "nonzero_tuple",
    "pairwise_iou_rotated",
    "roi_align",
    "roi_align_rotated",
    "shapes_to_tensor",
]
