"""Transforms of images and their annotations, and augmentations that make them.

A `Transform` is deterministic and acts on images, coordinates, boxes, polygons and segmentations
alike; an `Augmentation` looks at an input, draws what is random and returns a `Transform`.
Coordinates are continuous: pixel ``(column, row)`` covers ``[column, column + 1] x
[row, row + 1]``.

The interface and some of the transforms are those of ``fvcore.transforms``. Where a class here
extends the one of that name there, ``isinstance`` takes instances of either for the other.
"""

from fvcore.transforms.transform import NoOpTransform, Transform, TransformList

from . import augmentation, augmentation_impl, transform
from ._blend import BlendTransform
from ._flip import HFlipTransform, VFlipTransform
from ._grid import GridSampleTransform, ScaleTransform
from ._window import CropTransform, PadTransform
from .augmentation import (
    AugInput,
    Augmentation,
    AugmentationList,
    StandardAugInput,
    TransformGen,
    apply_augmentations,
    apply_transform_gens,
)
from .augmentation_impl import (
    FixedSizeCrop,
    MinIoURandomCrop,
    RandomApply,
    RandomBrightness,
    RandomContrast,
    RandomCrop,
    RandomCrop_CategoryAreaConstraint,
    RandomExtent,
    RandomFlip,
    RandomLighting,
    RandomResize,
    RandomRotation,
    RandomSaturation,
    Resize,
    ResizeScale,
    ResizeShortestEdge,
)
from .transform import (
    ColorTransform,
    ExtentTransform,
    PILColorTransform,
    ResizeTransform,
    RotationTransform,
)

__all__ = [
    "AugInput",
    "Augmentation",
    "AugmentationList",
    "BlendTransform",
    "ColorTransform",
    "CropTransform",
    "ExtentTransform",
    "FixedSizeCrop",
    "GridSampleTransform",
    "HFlipTransform",
    "MinIoURandomCrop",
    "NoOpTransform",
    "PILColorTransform",
    "PadTransform",
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
    "ResizeTransform",
    "RotationTransform",
    "ScaleTransform",
    "StandardAugInput",
    "Transform",
    "TransformGen",
    "TransformList",
    "VFlipTransform",
    "apply_augmentations",
    "apply_transform_gens",
    "augmentation",
    "augmentation_impl",
    "transform",
]
