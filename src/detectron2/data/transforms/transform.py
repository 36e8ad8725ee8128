"""Transforms of this library, beside those of fvcore."""

from fvcore.transforms.transform import Transform as Transform

from ._color import ColorTransform, PILColorTransform
from ._extent import ExtentTransform
from ._resize import ResizeTransform
from ._rotated_box import HFlip_rotated_box as HFlip_rotated_box
from ._rotated_box import Resize_rotated_box as Resize_rotated_box
from ._rotation import RotationTransform

__all__ = [
    "ColorTransform",
    "ExtentTransform",
    "PILColorTransform",
    "ResizeTransform",
    "RotationTransform",
]
