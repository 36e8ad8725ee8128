"""Image arrays as tensors and back, for every dtype and layout that an image comes in."""

from collections.abc import Callable, Sequence

import numpy as np
import torch


def to_tensor(array: np.ndarray) -> torch.Tensor:
    """A tensor of the same shape and dtype, sharing memory where PyTorch can.

    It copies what PyTorch has no views of: negative strides, and read-only memory.
    """
    if not array.flags.writeable or min(array.strides, default=0) < 0:
        array = array.copy(order="K")
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    return torch.from_numpy(array)


def flip(array: np.ndarray, axis: int) -> np.ndarray:
    """A flipped copy in the memory layout of ``array``; many times as fast as NumPy's."""
    if array.itemsize not in (1, 2, 4, 8) or array.dtype.hasobject:
        return np.flip(array, axis).copy(order="K")
    # PyTorch flips integers of every size, but does not know every dtype.
    bits = array.view(f"i{array.itemsize}")
    return to_tensor(bits).flip(axis).numpy().view(array.dtype)


def to_integers(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Saturate floating point ``values`` at the range of an integer ``dtype``, and truncate them.

    Overwrites ``values``.
    """
    info = np.iinfo(dtype)
    np.clip(values, info.min, info.max, out=values)
    return values.astype(dtype)


def map_planes(image: np.ndarray, function: Callable[[torch.Tensor], torch.Tensor]) -> np.ndarray:
    """Apply a function of a floating point tensor ``(N, C, H, W)`` to an image array.

    Args:
        image: ``(H, W)``, ``(H, W, C)`` or ``(N, H, W, C)`` of any real dtype.
        function: keeps N and C. It computes in float64 for float64 and for integers of 32 bits
            and more, and in float32 otherwise.

    Returns:
        An array with the axes and the dtype of ``image``; integers are rounded and saturated.
    """
    dtype = image.dtype
    if dtype.kind not in "buif":
        raise TypeError(f"an image holds real numbers, got the dtype {dtype}")
    exact = dtype == np.float64 or (dtype.kind in "ui" and dtype.itemsize >= 4)
    tensor = to_tensor(image).to(torch.float64 if exact else torch.float32)
    if image.ndim == 2:
        result = function(tensor[None, None])[0, 0]
    elif image.ndim == 3:
        result = function(tensor.permute(2, 0, 1)[None])[0].permute(1, 2, 0)
    elif image.ndim == 4:
        result = function(tensor.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    else:
        raise ValueError(
            f"an image is (H, W), (H, W, C) or (N, H, W, C), got the shape {image.shape}"
        )
    if dtype.kind == "f":
        return result.numpy().astype(dtype, copy=False)
    if dtype.kind == "b":
        return (result >= 0.5).numpy()
    info = np.iinfo(dtype)
    return result.round().clamp_(info.min, info.max).numpy().astype(dtype)


def check_size(image: np.ndarray, height: int, width: int, transform: object) -> None:
    """Raise ValueError unless ``image`` is ``(height, width)`` or ``(height, width, C)``."""
    if image.ndim not in (2, 3) or image.shape[:2] != (height, width):
        raise ValueError(
            f"{type(transform).__name__} was made for an image of height {height} and width "
            f"{width}, got the shape {image.shape}"
        )


def to_float_coords(coords: np.ndarray | Sequence[Sequence[float]]) -> np.ndarray:
    """Coordinates that can be scaled: floating point ones as they are, integers as float64."""
    array = np.asarray(coords)
    return array if array.dtype.kind == "f" else array.astype(np.float64)
