"""What the transforms do to rotated boxes.

A rotated box is ``(cx, cy, w, h, angle)`` in absolute pixels, the angle in degrees,
counter-clockwise. Importing this module gives the transforms their ``apply_rotated_box``.
"""

import numpy as np
from fvcore.transforms import transform as fvcore_transforms

from ._color import ColorTransform
from ._resize import ResizeTransform
from ._rotation import RotationTransform


def HFlip_rotated_box(  # noqa: N802
    transform: fvcore_transforms.HFlipTransform, rotated_boxes: np.ndarray
) -> np.ndarray:
    """Mirror rotated boxes ``(N, 5)`` left and right, floating point arrays in place."""
    boxes = _to_float_boxes(rotated_boxes)
    boxes[:, 0] = transform.width - boxes[:, 0]
    boxes[:, 4] = -boxes[:, 4]
    return boxes


def Resize_rotated_box(  # noqa: N802
    transform: ResizeTransform, rotated_boxes: np.ndarray
) -> np.ndarray:
    """Resize rotated boxes ``(N, 5)``, floating point arrays in place.

    With different factors for x and y a rotated rectangle becomes a parallelogram; the result is
    the rectangle with its centre, the lengths of its sides, and the direction of its upper side's
    normal, as in `RotatedBoxes.scale`.
    """
    boxes = _to_float_boxes(rotated_boxes)
    scale_x, scale_y = transform.new_w / transform.w, transform.new_h / transform.h
    radians = np.radians(boxes[:, 4])
    cos, sin = np.cos(radians), np.sin(radians)
    boxes[:, 0] *= scale_x
    boxes[:, 1] *= scale_y
    boxes[:, 2] *= np.hypot(scale_x * cos, scale_y * sin)
    boxes[:, 3] *= np.hypot(scale_x * sin, scale_y * cos)
    boxes[:, 4] = np.degrees(np.arctan2(scale_x * sin, scale_y * cos))
    return boxes


def _vflip(transform: fvcore_transforms.VFlipTransform, rotated_boxes: np.ndarray) -> np.ndarray:
    boxes = _to_float_boxes(rotated_boxes)
    boxes[:, 1] = transform.height - boxes[:, 1]
    boxes[:, 4] = -boxes[:, 4]
    return boxes


def _rotate(transform: RotationTransform, rotated_boxes: np.ndarray) -> np.ndarray:
    boxes = _to_float_boxes(rotated_boxes)
    boxes[:, :2] = transform.apply_coords(boxes[:, :2])
    boxes[:, 4] = (boxes[:, 4] + transform.angle + 180) % 360 - 180
    return boxes


def _move(transform: fvcore_transforms.Transform, rotated_boxes: np.ndarray) -> np.ndarray:
    boxes = _to_float_boxes(rotated_boxes)
    boxes[:, :2] = transform.apply_coords(boxes[:, :2])
    return boxes


def _keep(transform: fvcore_transforms.Transform, rotated_boxes: np.ndarray) -> np.ndarray:
    return rotated_boxes


def _to_float_boxes(rotated_boxes: np.ndarray) -> np.ndarray:
    boxes = np.asarray(rotated_boxes)
    if boxes.ndim != 2 or boxes.shape[1] != 5:
        raise ValueError(f"rotated boxes are (N, 5), got the shape {boxes.shape}")
    return boxes if boxes.dtype.kind == "f" else boxes.astype(np.float64)


for _transform, _function in (
    (fvcore_transforms.HFlipTransform, HFlip_rotated_box),
    (fvcore_transforms.VFlipTransform, _vflip),
    (fvcore_transforms.ScaleTransform, Resize_rotated_box),
    (ResizeTransform, Resize_rotated_box),
    (RotationTransform, _rotate),
    (fvcore_transforms.CropTransform, _move),
    (fvcore_transforms.PadTransform, _move),
    (fvcore_transforms.NoOpTransform, _keep),
    (fvcore_transforms.BlendTransform, _keep),
    (ColorTransform, _keep),
):
    _transform.register_type("rotated_box", _function)
