"""The augmentations of this library."""

from detectron2.structures import Boxes as Boxes
from detectron2.structures import pairwise_iou as pairwise_iou

from ._augment_colors import (
    RandomBrightness,
    RandomContrast,
    RandomLighting,
    RandomSaturation,
)
from ._augment_crops import (
    FixedSizeCrop,
    MinIoURandomCrop,
    RandomCrop,
    RandomCrop_CategoryAreaConstraint,
)
from ._augment_geometry import RandomApply, RandomExtent, RandomFlip, RandomRotation
from ._augment_sizes import RandomResize, Resize, ResizeScale, ResizeShortestEdge
from .augmentation import Augmentation as Augmentation
from .transform import ExtentTransform as ExtentTransform
from .transform import ResizeTransform as ResizeTransform
from .transform import RotationTransform as RotationTransform

__all__ = [
    "FixedSizeCrop",
    "MinIoURandomCrop",
    "RandomApply",
    "RandomBrightness",
    "RandomContrast",
    "RandomCrop",
    "RandomCrop_CategoryAreaConstraint",
    "RandomExtent",
    "RandomFlip",
    "RandomLighting",
    "RandomResize",
    "RandomRotation",
    "RandomSaturation",
    "Resize",
    "ResizeScale",
    "ResizeShortestEdge",
]
