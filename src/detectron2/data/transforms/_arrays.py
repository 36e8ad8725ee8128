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
    return to_integers(result.round().numpy(), dtype)


def take_nearest(
    image: np.ndarray, rect: tuple[float, float, float, float], size: tuple[int, int]
) -> np.ndarray:
    """Sample a rectangle of an image without interpolation.

    Args:
        image: ``(H, W)`` or ``(H, W, C)`` of any dtype.
        rect: ``(x0, y0, x1, y1)`` in pixels of the image.
        size: ``(h, w)`` of the result.

    Returns:
        ``(h, w)`` or ``(h, w, C)``: the pixels that the centres of the result's pixels fall into;
        0 outside of the image.
    """
    x0, y0, x1, y1 = rect
    rows = _centers(y0, (y1 - y0) / size[0], size[0])
    columns = _centers(x0, (x1 - x0) / size[1], size[1])
    taken = image.take(rows, axis=0, mode="clip").take(columns, axis=1, mode="clip")
    taken[(rows < 0) | (rows >= image.shape[0])] = 0
    taken[:, (columns < 0) | (columns >= image.shape[1])] = 0
    return taken


def _centers(start: float, step: float, count: int) -> np.ndarray:
    # A centre on the border of two pixels falls to the side that the sum's rounding error takes
    # it to. Pillow adds up in the same order, and so gives the same pixels.
    steps = np.full(count, step)
    steps[0] = start + step * 0.5
    return np.floor(np.cumsum(steps)).astype(np.int64)


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
