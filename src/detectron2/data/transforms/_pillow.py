"""Pillow's geometric operations on arrays that Pillow has no mode for."""

from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image

from ._arrays import to_integers


def map_pillow(img: np.ndarray, op: Callable[[Image.Image], Image.Image]) -> np.ndarray:
    """Apply ``op`` to an image ``(H, W)`` or ``(H, W, C)`` and return the array that results.

    One and three channels of uint8 are Pillow's own modes L and RGB. Everything else goes channel
    by channel, as Pillow would take the fourth channel for an opacity; dtypes other than uint8 in
    mode F (float32), integers then rounded and saturated.
    """
    if img.dtype.kind not in "uif":
        raise TypeError(f"cannot interpolate an image of the dtype {img.dtype}")
    if img.ndim == 3 and (img.shape[2] != 3 or img.dtype != np.uint8):
        planes = [map_pillow(img[:, :, channel], op) for channel in range(img.shape[2])]
        return np.stack(planes, axis=2)
    if img.dtype == np.uint8:
        return np.array(op(Image.fromarray(np.ascontiguousarray(img))))
    result = np.array(op(Image.fromarray(np.ascontiguousarray(img, np.float32))))
    if img.dtype.kind == "f":
        return result.astype(img.dtype, copy=False)
    return to_integers(np.rint(result.astype(np.float64)), img.dtype)


def move_pixels(
    img: np.ndarray, method: Image.Transform, data: Sequence[float], size: tuple[int, int]
) -> np.ndarray:
    """`PIL.Image.Image.transform` without interpolation, for any dtype.

    Args:
        img: ``(H, W)`` or ``(H, W, C)``.
        method, data: of the transform, which takes points of the result to points of ``img``.
        size: ``(h, w)`` of the result.

    Returns:
        ``(h, w)`` or ``(h, w, C)``: the pixels that the centres of the result's pixels fall into;
        0 outside of the image.
    """
    # Pillow moves bytes and words. It does not matter to it which numbers they stand for.
    word = np.dtype({1: "u1", 2: "i2"}.get(img.itemsize, "i4"))
    planes = np.ascontiguousarray(img).view(word).reshape(*img.shape[:2], -1)
    moved = np.empty((*size, planes.shape[2]), word)
    for channel in range(planes.shape[2]):
        plane = planes[:, :, channel].astype("u1" if word.itemsize == 1 else "i4", order="C")
        moved[:, :, channel] = Image.fromarray(plane).transform(
            size[::-1], method, data, Image.NEAREST
        )
    return moved.view(img.dtype).reshape(*size, *img.shape[2:])
