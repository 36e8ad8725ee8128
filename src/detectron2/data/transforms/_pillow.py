"""Pillow's geometric operations on arrays that Pillow has no mode for."""

from collections.abc import Callable

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
