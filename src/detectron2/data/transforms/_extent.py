"""Cutting out a rectangle at subpixel precision and scaling it to a size."""

import numpy as np
from fvcore.transforms.transform import Transform
from PIL import Image

from ._pillow import map_pillow, move_pixels


class ExtentTransform(Transform):
    """Map a rectangle of the image, which may reach beyond it, onto an image of a given size.

    Args:
        src_rect: ``(x0, y0, x1, y1)`` in pixels of the image.
        output_size: ``(h, w)`` of the result.
        interp: ``PIL.Image.NEAREST``, ``BILINEAR`` or ``BICUBIC``.
        fill: the value of images outside of the image; that of segmentations is 0.

    Raises:
        ValueError: ``output_size`` is not positive, or the rectangle is empty.
    """

    def __init__(
        self,
        src_rect: tuple[float, float, float, float],
        output_size: tuple[int, int],
        interp: int = Image.BILINEAR,
        fill: int = 0,
    ) -> None:
        super().__init__()
        x0, y0, x1, y1 = src_rect
        if x0 == x1 or y0 == y1:
            raise ValueError(f"src_rect must have an area, got {tuple(src_rect)}")
        if min(output_size) < 1:
            raise ValueError(f"output_size must be positive, got {tuple(output_size)}")
        self._set_attributes(locals())

    def apply_image(self, img: np.ndarray, interp: int | None = None) -> np.ndarray:
        """Sample an image ``(H, W)`` or ``(H, W, C)`` of any real dtype.

        Args:
            img: integers other than uint8 are interpolated in float32.
            interp: in place of the one given to the constructor.

        Returns:
            ``(h, w)`` or ``(h, w, C)`` of the same dtype.
        """
        interp = self.interp if interp is None else interp
        h, w = self.output_size
        x0, y0, x1, y1 = self.src_rect
        if img.dtype == bool or (interp == Image.NEAREST and not self.fill):
            return move_pixels(img, Image.Transform.EXTENT, (x0, y0, x1, y1), (h, w))

        def extent(image: Image.Image) -> Image.Image:
            return image.transform(
                (w, h),
                Image.Transform.EXTENT,
                (x0, y0, x1, y1),
                interp,
                fillcolor=(self.fill,) * 3 if image.mode == "RGB" else self.fill,
            )

        return map_pillow(img, extent)

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        """Map ``(N, 2)`` xy; the result is a new array of float32."""
        h, w = self.output_size
        x0, y0, x1, y1 = self.src_rect
        coords = np.array(coords, dtype=np.float32)
        coords[:, 0] = (coords[:, 0] - 0.5 * (x0 + x1)) * (w / (x1 - x0)) + 0.5 * w
        coords[:, 1] = (coords[:, 1] - 0.5 * (y0 + y1)) * (h / (y1 - y0)) + 0.5 * h
        return coords

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        """Sample labels of any dtype; those outside the image are 0."""
        unfilled = ExtentTransform(self.src_rect, self.output_size, Image.NEAREST)
        return unfilled.apply_image(segmentation)
