"""Mirroring an image."""

import numpy as np
from fvcore.transforms import transform as fvcore_transforms

from ._arrays import flip
from ._fvcore import Extends


class HFlipTransform(Extends, fvcore_transforms.HFlipTransform):
    """Mirror left and right: ``x`` becomes ``width - x``.

    Args:
        width: of the image, in pixels.
    """

    original = fvcore_transforms.HFlipTransform

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        """A mirrored copy of ``(H, W)``, ``(H, W, C)`` or ``(N, H, W, C)``, of any dtype."""
        return flip(img, 1 if img.ndim <= 3 else 2)


class VFlipTransform(Extends, fvcore_transforms.VFlipTransform):
    """Mirror top and bottom: ``y`` becomes ``height - y``.

    Args:
        height: of the image, in pixels.
    """

    original = fvcore_transforms.VFlipTransform

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        """A mirrored copy of ``(H, W)``, ``(H, W, C)`` or ``(N, H, W, C)``, of any dtype."""
        return flip(img, 0 if img.ndim <= 3 else 1)
