"""Mixing an image with another one, or with a constant."""

import numpy as np
from fvcore.transforms import transform as fvcore_transforms

from ._arrays import to_integers
from ._fvcore import Extends

# Added before integers are truncated, so that a rounding error does not turn 29 into 28.
_ROUNDING = 1e-3


class BlendTransform(Extends, fvcore_transforms.BlendTransform):
    """``src_weight * src_image + dst_weight * image``; coordinates stay.

    Args:
        src_image: broadcast against the image: a number, one number a channel, or an image.
        src_weight, dst_weight: the factors of ``src_image`` and of the image.
    """

    original = fvcore_transforms.BlendTransform

    def apply_image(self, img: np.ndarray, interp: str | None = None) -> np.ndarray:
        """Blend an array of any shape.

        Args:
            img: integers or floating point numbers.
            interp: ignored.

        Returns:
            An array of the dtype of ``img``; integers are saturated and truncated.

        Raises:
            TypeError: ``img`` holds no real numbers.
        """
        if img.dtype.kind not in "uif":
            raise TypeError(f"an image holds real numbers, got the dtype {img.dtype}")
        source = np.asarray(self.src_image)
        if img.dtype == np.uint8 and source.size == 1:
            table = self._blend(np.arange(256), source.reshape(()), np.float64)
            return _look_up(img, to_integers(table, np.uint8))
        small = img.dtype.itemsize <= 2 or img.dtype == np.float32
        blended = self._blend(img, source, np.float32 if small else np.float64)
        if img.dtype.kind == "f":
            return blended.astype(img.dtype, copy=False)
        return to_integers(blended, img.dtype)

    def _blend(self, img: np.ndarray, source: np.ndarray, dtype: type) -> np.ndarray:
        blended = np.multiply(img, self.dst_weight, dtype=dtype)
        offset = self.src_weight * source
        if img.dtype.kind != "f":
            offset = offset + _ROUNDING
        return np.add(blended, offset.astype(dtype), out=blended)

    def inverse(self) -> fvcore_transforms.Transform:
        """No operation: coordinates stay."""
        return fvcore_transforms.NoOpTransform()


def _look_up(img: np.ndarray, table: np.ndarray) -> np.ndarray:
    """``table[img]`` for 256 bytes, by the translation of byte strings, the fastest there is."""
    # An image may have its channels outermost in memory.
    planar = img.ndim == 3 and not img.flags.c_contiguous
    dense = np.ascontiguousarray(img.transpose(2, 0, 1) if planar else img)
    looked_up = np.frombuffer(bytearray(dense).translate(table.tobytes()), np.uint8)
    looked_up = looked_up.reshape(dense.shape)
    return looked_up.transpose(1, 2, 0) if planar else looked_up
