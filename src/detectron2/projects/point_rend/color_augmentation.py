"""The colour augmentation of SSD.

Liu et al., "SSD: Single Shot MultiBox Detector", ECCV 2016.
"""

from typing import Any

import numpy as np
from fvcore.transforms.transform import Transform

__all__ = ["ColorAugSSDTransform"]


class ColorAugSSDTransform(Transform):
    """Changes brightness, contrast, saturation and hue at random, each with a probability of 0.5.

    Unlike other transforms it draws anew for each image. Contrast comes before saturation and hue,
    or after them, with equal probability.

    Args:
        img_format: "BGR" or "RGB".
        brightness_delta: at most this is added or subtracted, of 255.
        contrast_low, contrast_high: range of the factor of all values.
        saturation_low, saturation_high: range of the factor of the saturation.
        hue_delta: the hue is turned by at most this, in units of 2 degrees.

    Raises:
        ValueError: another format.
    """

    def __init__(
        self,
        img_format: str,
        brightness_delta: int = 32,
        contrast_low: float = 0.5,
        contrast_high: float = 1.5,
        saturation_low: float = 0.5,
        saturation_high: float = 1.5,
        hue_delta: int = 18,
    ) -> None:
        super().__init__()
        if img_format not in ("BGR", "RGB"):
            raise ValueError(f"img_format must be 'BGR' or 'RGB', got {img_format!r}")
        self.is_rgb = img_format == "RGB"
        self.brightness_delta = brightness_delta
        self.contrast_low, self.contrast_high = contrast_low, contrast_high
        self.saturation_low, self.saturation_high = saturation_low, saturation_high
        self.hue_delta = hue_delta

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        """Return the coordinates as they are."""
        return coords

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        """Return the labels as they are."""
        return segmentation

    def apply_image(self, img: np.ndarray, interp: Any = None) -> np.ndarray:
        """Change the colours.

        Args:
            img: uint8 ``(H, W, 3)`` in the format of the transform.
            interp: not used.

        Returns:
            A uint8 image in the same format.

        Raises:
            ValueError: the image has another shape or dtype.
        """
        if img.dtype != np.uint8 or img.ndim != 3 or img.shape[2] != 3:
            raise ValueError(
                f"need a uint8 image of the shape (H, W, 3), got {img.dtype} {img.shape}"
            )
        if self.is_rgb:
            img = img[:, :, ::-1]
        img = self.brightness(img)
        if _coin():
            img = self.hue(self.saturation(self.contrast(img)))
        else:
            img = self.contrast(self.hue(self.saturation(img)))
        return np.ascontiguousarray(img[:, :, ::-1] if self.is_rgb else img)

    def convert(self, img: np.ndarray, alpha: float = 1, beta: float = 0) -> np.ndarray:
        """``img * alpha + beta``, clipped to [0, 255] and cut off to uint8."""
        if img.dtype == np.uint8:
            return self.convert(np.arange(256, dtype=np.float32), alpha, beta)[img]
        values = img.astype(np.float32) * alpha + beta
        return values.clip(0, 255).astype(np.uint8)

    def brightness(self, img: np.ndarray) -> np.ndarray:
        """Add a random number, or nothing."""
        if not _coin():
            return img
        return self.convert(
            img, beta=np.random.uniform(-self.brightness_delta, self.brightness_delta)
        )

    def contrast(self, img: np.ndarray) -> np.ndarray:
        """Multiply by a random number, or not."""
        if not _coin():
            return img
        return self.convert(img, alpha=np.random.uniform(self.contrast_low, self.contrast_high))

    def saturation(self, img: np.ndarray) -> np.ndarray:
        """Multiply the saturation of a BGR image (that of HSV) by a random number, or not."""
        if not _coin():
            return img
        return _saturated(img, np.random.uniform(self.saturation_low, self.saturation_high))

    def hue(self, img: np.ndarray) -> np.ndarray:
        """Turn the hue of a BGR image (that of HSV) by a random angle, or not."""
        if not _coin():
            return img
        return _turned(img, 2 * np.random.randint(-self.hue_delta, self.hue_delta + 1))


def _coin() -> bool:
    return bool(np.random.randint(2))


def _saturated(img: np.ndarray, factor: float) -> np.ndarray:
    """With the saturation times ``factor``, at most 1, and the same hue and value."""
    value = img.max(axis=2, keepdims=True)
    chroma = value - img.min(axis=2, keepdims=True)
    # The saturation is chroma / value; value / chroma makes it 1.
    largest = value / np.maximum(chroma, 1).astype(np.float32)
    distance = (value - img) * np.minimum(np.float32(factor), largest)
    return (value - distance + np.float32(0.5)).astype(np.uint8)


def _turned(img: np.ndarray, degrees: float) -> np.ndarray:
    """With the hue turned, and the same saturation and value. For ``(..., 3)`` in BGR order."""
    blue, green, red = (img[..., i].astype(np.float32) for i in range(3))
    value = np.maximum(np.maximum(blue, green), red)
    chroma = value - np.minimum(np.minimum(blue, green), red)
    divisor = np.maximum(chroma, 1)
    sextant = np.where(
        value == red,
        (green - blue) / divisor,
        np.where(value == green, 2 + (blue - red) / divisor, 4 + (red - green) / divisor),
    )
    result = np.empty_like(img)
    # HSV to RGB by one formula for all channels: 5, 3 and 1 are red, green and blue.
    for channel, origin in enumerate((1, 3, 5)):
        position = (sextant + np.float32(origin + degrees / 60)) % 6
        share = np.minimum(position, 4 - position).clip(0, 1)
        result[..., channel] = (value - chroma * share + np.float32(0.5)).astype(np.uint8)
    return result
