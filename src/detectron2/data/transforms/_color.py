"""Any function of an image's colours as a transform."""

from collections.abc import Callable

import numpy as np
from fvcore.transforms.transform import NoOpTransform, Transform
from PIL import Image


class ColorTransform(Transform):
    """Apply a function to images; coordinates and segmentations stay.

    Args:
        op: takes and returns an image array. It must keep height and width.

    Raises:
        ValueError: ``op`` cannot be called.
    """

    def __init__(self, op: Callable) -> None:
        super().__init__()
        if not callable(op):
            raise ValueError(f"op must be callable, got {op!r}")
        self.op = op

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        """``op(img)``."""
        return self.op(img)

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        """``coords`` itself."""
        return coords

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        """``segmentation`` itself."""
        return segmentation

    def inverse(self) -> Transform:
        """No operation: coordinates stay."""
        return NoOpTransform()


class PILColorTransform(ColorTransform):
    """Apply a function of Pillow images, such as those of `PIL.ImageEnhance` and `PIL.ImageOps`.

    Args:
        op: takes and returns a `PIL.Image.Image`.
    """

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        """The result of ``op`` for a uint8 image ``(H, W)``, ``(H, W, 1)`` or ``(H, W, 3)``."""
        if img.ndim == 3 and img.shape[2] == 1:
            result = np.array(super().apply_image(Image.fromarray(img[:, :, 0])))
            return result[:, :, None] if result.ndim == 2 else result
        return np.array(super().apply_image(Image.fromarray(img)))
