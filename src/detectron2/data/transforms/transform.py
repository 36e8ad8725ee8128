"""Transforms of this library, beside those of fvcore."""

from fvcore.transforms.transform import Transform

from ._color import ColorTransform, PILColorTransform
from ._extent import ExtentTransform
from ._resize import ResizeTransform
from ._rotated_box import HFlip_rotated_box, Resize_rotated_box
from ._rotation import RotationTransform

__all__ = [
    "ColorTransform",
    "ExtentTransform",
    "HFlip_rotated_box",
    "PILColorTransform",
    "ResizeTransform",
    "Resize_rotated_box",
    "RotationTransform",
    "Transform",
]
