"""Resampling by PyTorch's modes of interpolation."""

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from fvcore.transforms import transform as fvcore_transforms

from ._arrays import map_planes
from ._fvcore import Extends


class ScaleTransform(Extends, fvcore_transforms.ScaleTransform):
    """Resize by `torch.nn.functional.interpolate`, without antialiasing.

    Args:
        h, w: the size of the image, in pixels.
        new_h, new_w: the size wanted.
        interp: ``"nearest"``, ``"nearest-exact"``, ``"bilinear"``, ``"bicubic"`` or ``"area"``.
    """

    original = fvcore_transforms.ScaleTransform

    def apply_image(self, img: np.ndarray, interp: str | None = None) -> np.ndarray:
        """Resize ``(H, W)``, ``(H, W, C)`` or ``(N, H, W, C)``.

        Args:
            img: of any real dtype; integers are rounded and saturated.
            interp: in place of the one given to the constructor.

        Raises:
            ValueError: the size of ``img`` is not ``(h, w)``, or there is no mode.
        """
        mode = interp if interp is not None else self.interp
        if mode is None:
            raise ValueError("ScaleTransform needs a mode of interpolation, got interp=None")
        size = img.shape[1:3] if img.ndim == 4 else img.shape[:2]
        if size != (self.h, self.w):
            raise ValueError(
                f"ScaleTransform was made for an image of height {self.h} and width {self.w}, "
                f"got the shape {img.shape}"
            )
        align_corners = False if mode in ("bilinear", "bicubic") else None
        new_size = (self.new_h, self.new_w)
        return map_planes(
            img, lambda x: F.interpolate(x, new_size, mode=mode, align_corners=align_corners)
        )

    def inverse(self) -> "ScaleTransform":
        """The transform back to the old size."""
        return ScaleTransform(self.new_h, self.new_w, self.h, self.w, self.interp)


class GridSampleTransform(Extends, fvcore_transforms.GridSampleTransform):
    """Sample an image at given points, by `torch.nn.functional.grid_sample`.

    Points outside the image take its nearest pixel. Coordinates cannot be transformed.

    Args:
        grid: ``(N, H, W, 2)``, xy of where each pixel of the result is taken from, in
            ``[-1, 1]`` from the outer edge of the first to that of the last pixel.
        interp: ``"nearest"``, ``"bilinear"`` or ``"bicubic"``.
    """

    original = fvcore_transforms.GridSampleTransform

    def apply_image(self, img: np.ndarray, interp: str | None = None) -> np.ndarray:
        """Sample ``(H, W)``, ``(H, W, C)`` or ``(N, H, W, C)`` of any real dtype.

        Args:
            img: integers are rounded and saturated.
            interp: in place of the one given to the constructor.
        """
        mode = interp if interp is not None else self.interp
        grid = torch.tensor(np.asarray(self.grid))
        return map_planes(
            img,
            lambda x: F.grid_sample(
                x, grid.to(x.dtype), mode=mode, padding_mode="border", align_corners=False
            ),
        )
