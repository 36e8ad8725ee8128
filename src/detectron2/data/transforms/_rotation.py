"""Rotating an image."""

import math

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from fvcore.transforms.transform import Transform, TransformList

from ._arrays import check_size, map_planes, to_float_coords
from ._window import CropTransform

# OpenCV's numbers of these filters: what `interp` has always been given as.
_NEAREST, _LINEAR, _CUBIC = 0, 1, 2


class RotationTransform(Transform):
    """Rotate an image counter-clockwise.

    Args:
        h, w: the size of the image, in pixels.
        angle: in degrees.
        expand: whether the result is large enough for the whole rotated image, with the image's
            centre in its own; otherwise it keeps the size of the image.
        center: xy of the point that stays where it is, by default the image's centre. Without
            effect if ``expand``.
        interp: how images are interpolated, in the numbers of OpenCV: 0 nearest, 1 bilinear (the
            default), 2 bicubic. Outside of the image it is black.
    """

    def __init__(
        self,
        h: int,
        w: int,
        angle: float,
        expand: bool = True,
        center: tuple[float, float] | None = None,
        interp: int | None = None,
    ) -> None:
        super().__init__()
        image_center = np.array((w / 2, h / 2))
        if center is None:
            center = image_center
        if interp is None:
            interp = _LINEAR
        if interp not in (_NEAREST, _LINEAR, _CUBIC):
            raise ValueError(f"interp must be 0, 1 or 2, got {interp}")
        if not math.isfinite(angle):
            raise ValueError(f"the angle must be finite, got {angle}")
        bound_w, bound_h = w, h
        if expand:
            cos, sin = abs(math.cos(math.radians(angle))), abs(math.sin(math.radians(angle)))
            bound_w, bound_h = round(h * sin + w * cos), round(h * cos + w * sin)
        self._set_attributes(
            {
                "h": h,
                "w": w,
                "angle": angle,
                "expand": expand,
                "center": center,
                "interp": interp,
                "image_center": image_center,
                "bound_w": bound_w,
                "bound_h": bound_h,
            }
        )
        self.rm_coords = self.create_rotation_matrix()
        # Pixel indices count from the centre of the first pixel.
        self.rm_image = self.create_rotation_matrix(offset=-0.5)

    def create_rotation_matrix(self, offset: float = 0) -> np.ndarray:
        """The ``(2, 3)`` matrix that rotates xy.

        Args:
            offset: of the coordinates that it acts on, against the continuous ones.
        """
        cos, sin = math.cos(math.radians(self.angle)), math.sin(math.radians(self.angle))
        linear = np.array([[cos, sin], [-sin, cos]])
        if self.expand:
            fixed = self.image_center + offset
            target = np.array([self.bound_w / 2, self.bound_h / 2]) + offset
        else:
            fixed = target = np.asarray(self.center, dtype=np.float64) + offset
        return np.column_stack([linear, target - linear @ fixed])

    def apply_image(self, img: np.ndarray, interp: int | None = None) -> np.ndarray:
        """Rotate ``(h, w)`` or ``(h, w, C)`` of any real dtype.

        Args:
            img: quarter turns of an expanding rotation are exact, and those by a multiple of 360
                degrees return it as it is.
            interp: in place of the one given to the constructor.

        Raises:
            ValueError: ``img`` has another size.
        """
        check_size(img, self.h, self.w, self)
        if img.size == 0 or self._keeps_everything():
            return img
        if self.expand and self.angle % 90 == 0:
            return np.ascontiguousarray(np.rot90(img, int(self.angle // 90) % 4))
        interp = self.interp if interp is None else interp
        size = (int(self.bound_h), int(self.bound_w))
        inverse = _invert(self.rm_image)
        if interp == _NEAREST:
            return _warp_nearest(img, inverse, size)
        return _warp_smooth(img, inverse, size, "bicubic" if interp == _CUBIC else "bilinear")

    def _keeps_everything(self) -> bool:
        return self.angle % 360 == 0 and (self.bound_h, self.bound_w) == (self.h, self.w)

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        """Rotate ``(N, 2)`` xy; the result is a new array of float64, or of the dtype given."""
        coords = to_float_coords(coords)
        if len(coords) == 0 or self._keeps_everything():
            return coords
        rotated = coords.astype(np.float64) @ self.rm_coords[:, :2].T + self.rm_coords[:, 2]
        return rotated.astype(coords.dtype, copy=False)

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        """Rotate labels of any dtype; those outside of the image are 0."""
        return self.apply_image(segmentation, interp=_NEAREST)

    def inverse(self) -> Transform:
        """The rotation back: followed by a crop to the old size where this one expands."""
        if not self.expand:
            return RotationTransform(self.h, self.w, -self.angle, False, self.center, self.interp)
        back = RotationTransform(self.bound_h, self.bound_w, -self.angle, True, None, self.interp)
        # The image lies within the result by whole pixels, so that the crop loses nothing.
        back.bound_w, back.bound_h = max(back.bound_w, self.w), max(back.bound_h, self.h)
        x0, y0 = (back.bound_w - self.w) // 2, (back.bound_h - self.h) // 2
        back.rm_coords = _invert(self.rm_coords)
        back.rm_coords[:, 2] += (x0, y0)
        back.rm_image = _invert(self.rm_image)
        back.rm_image[:, 2] += (x0, y0)
        crop = CropTransform(x0, y0, self.w, self.h, back.bound_w, back.bound_h)
        return TransformList([back, crop])


def _invert(matrix: np.ndarray) -> np.ndarray:
    linear = np.linalg.inv(matrix[:, :2])
    return np.column_stack([linear, -linear @ matrix[:, 2]])


def _warp_nearest(img: np.ndarray, matrix: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The pixels nearest to where ``matrix`` takes the indices of the result."""
    height, width = img.shape[:2]
    rows, columns = np.arange(size[0])[:, None], np.arange(size[1])
    x, y = (
        np.floor(m[1] * rows + (m[0] * columns + (m[2] + 0.5))).astype(np.int32) for m in matrix
    )
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    warped = np.zeros((*size, *img.shape[2:]), img.dtype)
    warped[inside] = img[y[inside], x[inside]]
    return warped


def _warp_smooth(
    img: np.ndarray, matrix: np.ndarray, size: tuple[int, int], mode: str
) -> np.ndarray:
    """Interpolate where ``matrix`` takes the indices of the result; black outside."""
    linear = matrix[:, :2]
    shift = matrix[:, 2] + 0.5 - linear.sum(axis=1) * 0.5
    old_size, new_size = np.array(img.shape[1::-1]), np.array(size[::-1])
    # From [-1, 1] across the result to [-1, 1] across the image.
    theta = np.column_stack(
        [
            linear * new_size / old_size[:, None],
            (2 * shift + linear @ new_size) / old_size - 1,
        ]
    )

    def sample(planes: torch.Tensor) -> torch.Tensor:
        affine = torch.from_numpy(theta).to(planes.dtype)[None]
        grid = F.affine_grid(affine, [1, 1, *size], align_corners=False)
        return F.grid_sample(planes, grid, mode=mode, padding_mode="zeros", align_corners=False)

    return map_planes(img, sample)
