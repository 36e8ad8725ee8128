"""Resizing an image."""

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from fvcore.transforms.transform import Transform
from PIL import Image

import detectron2._ops  # noqa: F401  (registers torch.ops.detectron2)

from ._arrays import check_size, map_planes, to_float_coords, to_tensor
from ._pillow import map_pillow, move_pixels

_MODES = {Image.BILINEAR: "bilinear", Image.BICUBIC: "bicubic"}


class ResizeTransform(Transform):
    """Resize an image of one size to another.

    Args:
        h, w: the size of the image, in pixels.
        new_h, new_w: the size wanted.
        interp: a resampling filter of Pillow (``PIL.Image.BILINEAR``, ...); bilinear by default.

    Raises:
        ValueError: a size is not positive.
    """

    def __init__(self, h: int, w: int, new_h: int, new_w: int, interp: int | None = None) -> None:
        super().__init__()
        if min(h, w, new_h, new_w) < 1:
            raise ValueError(f"sizes must be positive, got {h}x{w} to {new_h}x{new_w}")
        if interp is None:
            interp = Image.BILINEAR
        self._set_attributes(locals())

    def apply_image(self, img: np.ndarray, interp: int | None = None) -> np.ndarray:
        """Resize ``(h, w)`` or ``(h, w, C)``.

        uint8 is filtered with antialiasing as by Pillow, bilinearly by an operator with the same
        results (see ``detectron2._ops.resize_bilinear``). Other dtypes are interpolated without
        antialiasing. "Nearest" takes the pixel that the new pixel's centre falls into, for every
        dtype; so do boolean images, whatever the filter.

        Args:
            img: of any real dtype.
            interp: in place of the one given to the constructor.

        Returns:
            ``(new_h, new_w)`` or ``(new_h, new_w, C)`` of the same dtype. Its channels may lie
            outermost in memory.

        Raises:
            ValueError: ``img`` has another size, or its dtype no such filter.
        """
        check_size(img, self.h, self.w, self)
        interp = self.interp if interp is None else interp
        new_h, new_w = self.new_h, self.new_w
        if interp == Image.NEAREST or img.dtype == bool:
            rect = (0, 0, self.w, self.h)
            return move_pixels(img, Image.Transform.EXTENT, rect, (new_h, new_w))
        if img.dtype == np.uint8:
            if interp == Image.BILINEAR:
                return _resize_bytes(img, new_h, new_w)
            return map_pillow(img, lambda image: image.resize((new_w, new_h), interp))
        if interp not in _MODES:
            raise ValueError(
                f"{img.dtype} images are resized by nearest ({int(Image.NEAREST)}), bilinear "
                f"({int(Image.BILINEAR)}) or bicubic ({int(Image.BICUBIC)}) interpolation, "
                f"got interp={interp}"
            )
        return map_planes(
            img,
            lambda x: F.interpolate(x, (new_h, new_w), mode=_MODES[interp], align_corners=False),
        )

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        """Scale ``(N, 2)`` xy, floating point arrays in place."""
        coords = to_float_coords(coords)
        coords[:, 0] *= self.new_w / self.w
        coords[:, 1] *= self.new_h / self.h
        return coords

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        """Resize labels of any dtype; new ones do not come up."""
        return self.apply_image(segmentation, interp=Image.NEAREST)

    def inverse(self) -> "ResizeTransform":
        """The transform back to the old size."""
        return ResizeTransform(self.new_h, self.new_w, self.h, self.w, self.interp)


def _resize_bytes(img: np.ndarray, new_h: int, new_w: int) -> np.ndarray:
    if img.shape[:2] == (new_h, new_w):
        return img.copy(order="K")
    tensor = to_tensor(img)
    planes = tensor[None] if img.ndim == 2 else tensor.permute(2, 0, 1)
    resized = torch.ops.detectron2.resize_bilinear(planes, new_h, new_w)
    return (resized[0] if img.ndim == 2 else resized.permute(1, 2, 0)).numpy()
