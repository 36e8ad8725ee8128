"""Rotating an image."""

import functools
import math
from types import ModuleType

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from fvcore.transforms.transform import Transform, TransformList
from PIL import Image

from ._arrays import check_size, map_planes, to_float_coords
from ._pillow import move_pixels
from ._window import CropTransform

# OpenCV's numbers of these filters: what `interp` has always been given as.
_NEAREST, _LINEAR, _CUBIC = 0, 1, 2

# OpenCV keeps coordinates of images in 16 bits.
_OPENCV_MAX_SIZE = 32767


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
        if interp not in (None, _NEAREST, _LINEAR, _CUBIC):
            raise ValueError(f"interp must be 0, 1 or 2, got {interp}")
        if not math.isfinite(angle):
            raise ValueError(f"the angle must be finite, got {angle}")
        image_center = np.array((w / 2, h / 2))
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
                "center": image_center if center is None else center,
                "interp": _LINEAR if interp is None else interp,
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
            return _quarter_turns(img, int(self.angle // 90) % 4)
        interp = self.interp if interp is None else interp
        size = (int(self.bound_h), int(self.bound_w))
        inverse = _invert(self.rm_image)
        if interp == _NEAREST:
            coefficients = _to_continuous(inverse).ravel().tolist()
            return move_pixels(img, Image.Transform.AFFINE, coefficients, size)
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


def _quarter_turns(img: np.ndarray, turns: int) -> np.ndarray:
    if img.ndim == 2:
        return np.ascontiguousarray(np.rot90(img, turns))
    # Rows and columns change places several times as fast in planes.
    planes = np.ascontiguousarray(img.transpose(2, 0, 1))
    return np.ascontiguousarray(np.rot90(planes, turns, (1, 2))).transpose(1, 2, 0)


def _to_continuous(matrix: np.ndarray) -> np.ndarray:
    """From a matrix for pixel indices the one for continuous coordinates."""
    linear = matrix[:, :2]
    return np.column_stack([linear, matrix[:, 2] + 0.5 - linear.sum(axis=1) * 0.5])


@functools.cache
def _exact_opencv() -> ModuleType | None:
    """OpenCV from version 5 on, or None.

    It interpolates like PyTorch in a fraction of the time. Earlier ones round the points that they
    sample to 1/32 of a pixel.
    """
    try:
        import cv2
    except ImportError:
        return None
    return cv2 if int(cv2.__version__.partition(".")[0]) >= 5 else None


def _is_exact_in_opencv(img: np.ndarray, size: tuple[int, int]) -> bool:
    """Whether OpenCV 5 has a new way for such an image; for others it has kept the old one."""
    return (
        img.dtype in (np.uint8, np.float32)
        and (img.ndim == 2 or img.shape[2] in (1, 3, 4))
        and max(*img.shape[:2], *size) < _OPENCV_MAX_SIZE
    )


def _warp_smooth(
    img: np.ndarray, matrix: np.ndarray, size: tuple[int, int], mode: str
) -> np.ndarray:
    """Interpolate where ``matrix`` takes the indices of the result; black outside."""
    cv2 = _exact_opencv()
    if cv2 and mode == "bilinear" and _is_exact_in_opencv(img, size):
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        warped = cv2.warpAffine(np.ascontiguousarray(img), matrix, size[::-1], flags=flags)
        return warped.reshape(*size, *img.shape[2:])
    grid = np.empty((1, *size, 2), np.float64 if img.dtype == np.float64 else np.float32)
    rows, columns = (np.arange(n, dtype=np.float64) + 0.5 for n in size)
    # From pixels to [-1, 1] across the image.
    scale = 2 / np.array(img.shape[1::-1])
    for axis, (per_column, per_row, shift) in enumerate(_to_continuous(matrix)):
        np.add(
            (columns * (per_column * scale[axis])).astype(grid.dtype),
            (rows * (per_row * scale[axis]) + (shift * scale[axis] - 1))[:, None].astype(
                grid.dtype
            ),
            out=grid[0, :, :, axis],
        )

    def sample(planes: torch.Tensor) -> torch.Tensor:
        return F.grid_sample(
            planes,
            torch.from_numpy(grid).to(planes.dtype),
            mode=mode,
            padding_mode="zeros",
            align_corners=False,
        )

    return map_planes(img, sample)
