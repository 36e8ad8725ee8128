"""Modules and operators that models are made of.

``nms``, ``roi_align`` and ``roi_align_rotated`` are functions here, although submodules have
these names too: importing the submodules first and the functions after gives that order.
"""

from detectron2.layers.aspp import ASPP
from detectron2.layers.batch_norm import (
    CycleBatchNormList,
    FrozenBatchNorm2d,
    NaiveSyncBatchNorm,
    get_norm,
)
from detectron2.layers.blocks import CNNBlockBase, DepthwiseSeparableConv2d
from detectron2.layers.deform_conv import (
    DeformConv,
    ModulatedDeformConv,
)
from detectron2.layers.losses import ciou_loss, diou_loss
from detectron2.layers.mask_ops import paste_masks_in_image
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
    "ASPP",
    "BatchNorm2d",
    "CNNBlockBase",
    "Conv2d",
    "ConvTranspose2d",
    "CycleBatchNormList",
    "DeformConv",
    "DepthwiseSeparableConv2d",
    "FrozenBatchNorm2d",
    "Linear",
    "ModulatedDeformConv",
    "NaiveSyncBatchNorm",
    "ROIAlign",
    "ROIAlignRotated",
    "ShapeSpec",
    "aspp",
    "batch_norm",
    "batched_nms",
    "batched_nms_rotated",
    "blocks",
    "cat",
    "ciou_loss",
    "cross_entropy",
    "deform_conv",
    "diou_loss",
    "empty_input_loss_func_wrapper",
    "get_norm",
    "interpolate",
    "losses",
    "mask_ops",
    "move_device_like",
    "nms",
    "nms_rotated",
    "nonzero_tuple",
    "pairwise_iou_rotated",
    "paste_masks_in_image",
    "roi_align",
    "roi_align_rotated",
    "shape_spec",
    "shapes_to_tensor",
    "wrappers",
]
