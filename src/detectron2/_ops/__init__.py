"""The native operators: after ``import detectron2._ops`` they are ``torch.ops.detectron2.*``.

Each module here documents one operator and registers what ``torch.compile`` and ``torch.export``
need to trace it, and its gradient; the kernels come from ``detectron2._C``.

For all of them: rotated boxes are ``(cx, cy, w, h, angle)`` and rotated RoIs ``(batch index, cx,
cy, w, h, angle)``, in pixels with the angle in degrees, counter-clockwise on screen. float16,
bfloat16, float32 and float64 are taken everywhere, strided or not; the first two are computed in
float32. Autocast changes nothing unless an operator says so: each runs in the dtype of its
arguments.
"""

from detectron2._ops import (
    box_iou_rotated,
    deform_conv,
    heatmaps_to_keypoints,
    mask_bounding_boxes,
    nms_groups,
    nms_rotated,
    pairwise_iou,
    paste_masks,
    rasterize_polygons,
    resize_bilinear,
    roi_align,
    roi_align_rotated,
    sigmoid_focal_loss,
)

__all__ = [
    "box_iou_rotated",
    "deform_conv",
    "heatmaps_to_keypoints",
    "mask_bounding_boxes",
    "nms_groups",
    "nms_rotated",
    "pairwise_iou",
    "paste_masks",
    "rasterize_polygons",
    "resize_bilinear",
    "roi_align",
    "roi_align_rotated",
    "sigmoid_focal_loss",
]
