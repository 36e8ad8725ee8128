"""The picture that a Visualizer draws on."""

import os

import numpy as np
from PIL import Image

from detectron2.utils._canvas import Canvas
from detectron2.utils._labels import LabelLayer

__all__ = ["VisImage"]

# Sizes of lines and letters are in points, at the resolution that upstream's figures have.
_PIXELS_PER_POINT = 100 / 72


class VisImage:
    """An image and what is drawn on it.

    Attributes:
        img: the image without the drawings, ``(H, W, 3)``.
        scale: of the result, relative to the image.
        width: of the image, not of the result.
        height: of the image.
        canvas: the scaled image with the shapes.
        labels: the texts, which lie over all shapes.
    """

    def __init__(self, img: np.ndarray, scale: float = 1.0) -> None:
        """Args:
            img: RGB ``(H, W, 3)``, values from 0 to 255; not written to.
            scale: of the result, positive.

        Raises:
            ValueError: another shape, or a result without a pixel.
        """
        img = _check_image(img)
        self.img, self.scale = img, scale
        self.height, self.width = img.shape[:2]
        # A bit more, so that 0.1 + 0.2 of 10 pixels are 3.
        self._size = (int(self.width * scale + 1e-2), int(self.height * scale + 1e-2))
        if min(self._size) < 1:
            raise ValueError(f"an image of {img.shape[:2]} has no pixel at a scale of {scale}")
        self.labels = LabelLayer()
        self.reset_image(img)

    def reset_image(self, img: np.ndarray) -> None:
        """Start again from an image, without the shapes drawn so far; texts stay.

        Args:
            img: RGB, of the size of :attr:`img`.
        """
        img = _check_image(img)
        if img.shape[:2] != (self.height, self.width):
            raise ValueError(
                f"expected an image of {(self.height, self.width)}, got {img.shape[:2]}"
            )
        image = Image.fromarray(img)
        if image.size != self._size:
            # Pixels stay visible when they grow; fine structures do not flicker when they shrink.
            by = Image.Resampling.NEAREST if self.scale >= 1 else Image.Resampling.BOX
            image = image.resize(self._size, by)
        self.canvas = Canvas(image)

    def save(self, filepath: str | os.PathLike[str]) -> None:
        """Write the result, in the format that the file's extension tells, such as .png or .jpg.

        Raises:
            ValueError: an unknown extension.
        """
        self._compose().save(filepath)

    def get_image(self) -> np.ndarray:
        """The result, uint8 RGB ``(H * scale, W * scale, 3)``; a new array."""
        return np.array(self._compose())

    def points(self, size: float) -> float:
        """Pixels of the result for a size in points of the image."""
        return size * self.scale * _PIXELS_PER_POINT

    def _compose(self) -> Image.Image:
        composed = Canvas(self.canvas.image.copy())
        self.labels.paint(composed)
        return composed.image


def _check_image(img: np.ndarray) -> np.ndarray:
    """As uint8."""
    img = np.asarray(img)
    if img.ndim != 3 or img.shape[2] != 3:
        raise ValueError(f"an image must have the shape (H, W, 3), got {list(img.shape)}")
    return img if img.dtype == np.uint8 else img.clip(0, 255).astype(np.uint8)
