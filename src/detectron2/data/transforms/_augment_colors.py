"""Augmentations of an image's colours."""

import numpy as np
from fvcore.transforms.transform import Transform

from ._blend import BlendTransform
from .augmentation import Augmentation

# ITU-R BT.601, as in Pillow's conversion to grey.
_LUMA = np.array([0.299, 0.587, 0.114])


class _RandomIntensity(Augmentation):
    """Blends with something by a factor drawn from a range; 1 leaves an image as it is."""

    def __init__(self, intensity_min: float, intensity_max: float) -> None:
        super().__init__()
        if not intensity_min <= intensity_max:
            raise ValueError(
                "intensity_min must not be above intensity_max, "
                f"got {intensity_min} and {intensity_max}"
            )
        self.intensity_min = intensity_min
        self.intensity_max = intensity_max

    def _blend_with(self, source: float | np.ndarray) -> BlendTransform:
        weight = self._rand_range(self.intensity_min, self.intensity_max)
        return BlendTransform(src_image=source, src_weight=1 - weight, dst_weight=weight)


class RandomContrast(_RandomIntensity):
    """Blend with the image's mean: below 1 less contrast, above 1 more.

    Args:
        intensity_min, intensity_max: the range of the factor.
    """

    def get_transform(self, image: np.ndarray) -> Transform:
        """A transform for an image of any shape."""
        return self._blend_with(image.mean())


class RandomBrightness(_RandomIntensity):
    """Blend with black: below 1 darker, above 1 brighter.

    Args:
        intensity_min, intensity_max: the range of the factor.
    """

    def get_transform(self, image: np.ndarray) -> Transform:
        """A transform for an image of any shape."""
        return self._blend_with(0)


class RandomSaturation(_RandomIntensity):
    """Blend with the grey image: below 1 less colour, above 1 more.

    Args:
        intensity_min, intensity_max: the range of the factor.
    """

    def get_transform(self, image: np.ndarray) -> Transform:
        """A transform for an RGB image ``(H, W, 3)``.

        Raises:
            ValueError: it does not have three channels.
        """
        _check_rgb(image)
        dtype = np.float64 if image.dtype == np.float64 else np.float32
        grey = image.astype(dtype) @ _LUMA.astype(dtype)
        return self._blend_with(grey[:, :, None])


class RandomLighting(Augmentation):
    """Add a random colour along the principal components of ImageNet's colours.

    Krizhevsky et al., "ImageNet Classification with Deep Convolutional Neural Networks", section
    4.1.

    Args:
        scale: the standard deviation of the components' weights; of the order of 25 for images in
            ``[0, 255]``.
    """

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale
        self.eigen_vecs = np.array(
            [
                [-0.5675, 0.7192, 0.4009],
                [-0.5808, -0.0045, -0.8140],
                [-0.5836, -0.6948, 0.4203],
            ]
        )
        self.eigen_vals = np.array([0.2175, 0.0188, 0.0045])

    def get_transform(self, image: np.ndarray) -> Transform:
        """A transform for an RGB image ``(H, W, 3)``.

        Raises:
            ValueError: it does not have three channels.
        """
        _check_rgb(image)
        weights = np.random.normal(scale=self.scale, size=3)
        color = self.eigen_vecs @ (weights * self.eigen_vals)
        return BlendTransform(src_image=color, src_weight=1.0, dst_weight=1.0)


def _check_rgb(image: np.ndarray) -> None:
    if image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"an RGB image is (H, W, 3), got the shape {image.shape}")
