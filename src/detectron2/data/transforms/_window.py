"""Cutting a window out of an image, and adding a border to it."""

import numpy as np
from fvcore.transforms import transform as fvcore_transforms

from ._fvcore import Extends
from ._polygon_clipping import clip_polygon


class CropTransform(Extends, fvcore_transforms.CropTransform):
    """Keep the window from ``(x0, y0)`` to ``(x0 + w, y0 + h)``.

    A window may reach beyond the right and the lower side of the image; the result is then
    smaller than the window.

    Args:
        x0, y0: the upper left corner, in pixels; not negative.
        w, h: the size.
        orig_w, orig_h: the size of the image that is cropped, needed for `inverse`.
    """

    original = fvcore_transforms.CropTransform

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        """A view of ``(H, W)``, ``(H, W, C)`` or ``(N, H, W, C)``.

        Raises:
            ValueError: the corner is negative.
        """
        if self.x0 < 0 or self.y0 < 0:
            raise ValueError(f"a crop starts within the image, got x0={self.x0}, y0={self.y0}")
        return super().apply_image(img)

    def apply_polygons(self, polygons: list[np.ndarray]) -> list[np.ndarray]:
        """Clip polygons at the window and move them.

        Args:
            polygons: arrays ``(n, 2)`` of xy.

        Returns:
            As many polygons as there are parts within the window: none for one that lies outside
            it, several for one that the border cuts into pieces. Those wholly inside keep their
            vertices.
        """
        low = np.array([self.x0, self.y0], np.float64)
        high = self.x0 + self.w, self.y0 + self.h
        return [part - low for polygon in polygons for part in clip_polygon(polygon, low, high)]

    def inverse(self) -> "PadTransform":
        """The border that puts a cropped image back where it was.

        Raises:
            ValueError: ``orig_w`` or ``orig_h`` was not given.
        """
        if self.orig_w is None or self.orig_h is None:
            raise ValueError(
                "CropTransform needs orig_w and orig_h for its inverse, got "
                f"{self.orig_w} and {self.orig_h}"
            )
        # Where the window reached beyond the image, the result ended with the image.
        w, h = min(self.w, self.orig_w - self.x0), min(self.h, self.orig_h - self.y0)
        right, bottom = self.orig_w - self.x0 - w, self.orig_h - self.y0 - h
        return PadTransform(self.x0, self.y0, right, bottom, orig_w=w, orig_h=h)


class PadTransform(Extends, fvcore_transforms.PadTransform):
    """Add a border.

    Args:
        x0, y0: its width at the left and at the top, in pixels.
        x1, y1: its width at the right and at the bottom.
        orig_w, orig_h: the size of the image that is padded, needed for `inverse`.
        pad_value: of the border in images.
        seg_pad_value: of the border in segmentations. That of boolean masks is always False: a
            mask has no value for "unknown".
    """

    original = fvcore_transforms.PadTransform

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        """A copy of ``(H, W)``, ``(H, W, C)`` or ``(N, H, W, C)`` with the border.

        Returns ``img`` itself where the border is empty.

        Raises:
            ValueError: a width is negative, or the dtype of ``img`` cannot hold ``pad_value``.
        """
        return self._pad(img, self.pad_value)

    def apply_segmentation(self, img: np.ndarray) -> np.ndarray:
        """As `apply_image`, with the border's value for segmentations."""
        return self._pad(img, False if img.dtype == bool else self.seg_pad_value)

    def _pad(self, array: np.ndarray, value: float) -> np.ndarray:
        left, top, right, bottom = self.x0, self.y0, self.x1, self.y1
        if min(left, top, right, bottom) < 0:
            raise ValueError(f"a border is not negative, got {(left, top, right, bottom)}")
        if not (left or top or right or bottom):
            return array
        if array.dtype.kind in "ui":
            info = np.iinfo(array.dtype)
            if not info.min <= value <= info.max:
                raise ValueError(f"{array.dtype} cannot hold the padding value {value}")
        y_axis = 0 if array.ndim <= 3 else 1
        height, width = array.shape[y_axis : y_axis + 2]
        shape = list(array.shape)
        shape[y_axis : y_axis + 2] = top + height + bottom, left + width + right
        padded = np.empty_like(array, shape=shape)
        canvas = np.moveaxis(padded, (y_axis, y_axis + 1), (0, 1))
        canvas[:top] = value
        canvas[top + height :] = value
        canvas[top : top + height, :left] = value
        canvas[top : top + height, left + width :] = value
        canvas[top : top + height, left : left + width] = np.moveaxis(
            array, (y_axis, y_axis + 1), (0, 1)
        )
        return padded

    def inverse(self) -> CropTransform:
        """The crop that removes the border.

        Raises:
            ValueError: ``orig_w`` or ``orig_h`` was not given.
        """
        if self.orig_w is None or self.orig_h is None:
            raise ValueError(
                "PadTransform needs orig_w and orig_h for its inverse, got "
                f"{self.orig_w} and {self.orig_h}"
            )
        w, h = self.x0 + self.orig_w + self.x1, self.y0 + self.orig_h + self.y1
        return CropTransform(self.x0, self.y0, self.orig_w, self.orig_h, orig_w=w, orig_h=h)
