"""Numbers that the host knows as tensors, without waiting for the device to take them."""

import functools
from collections.abc import Sequence

import torch

from detectron2.layers.wrappers import shapes_to_tensor


def to_device(
    values: Sequence[int] | Sequence[float], dtype: torch.dtype, device: torch.device
) -> torch.Tensor:
    """A tensor ``(len(values),)``.

    Raises:
        RuntimeError: a CUDA graph is being recorded, which would read memory of the host that is
            someone else's by then.
    """
    if _is_recording(device):
        raise RuntimeError(f"{tuple(values)} cannot become part of a CUDA graph")
    # A copy from memory that is not pinned waits for the device.
    pinned = torch.tensor(values, dtype=dtype, pin_memory=device.type == "cuda")
    return pinned.to(device, non_blocking=True)


def sizes_to_device(
    values: Sequence[int], dtype: torch.dtype, device: torch.device
) -> torch.Tensor:
    """:func:`constant` of sizes, which are symbols in a graph, and stay so."""
    if torch.compiler.is_compiling():
        return shapes_to_tensor(list(values), device).to(dtype)
    return constant(tuple(values), dtype, device)


def box_limits(
    image_sizes: Sequence[tuple[int, int]], dtype: torch.dtype, device: torch.device
) -> torch.Tensor:
    """The largest coordinates of boxes in images of (height, width), ``(N, 1, 4)``."""
    limits = [side for height, width in image_sizes for side in (width, height) * 2]
    return sizes_to_device(limits, dtype, device).view(-1, 1, 4)


# What a CUDA graph reads must not go away before it does. They are few, and small.
_read_by_graphs: dict[int, torch.Tensor] = {}


def constant(
    values: tuple[int, ...] | tuple[float, ...], dtype: torch.dtype, device: torch.device
) -> torch.Tensor:
    """:func:`to_device` of values that recur, such as sizes; not to be written to."""
    tensor = _kept(values, dtype, device)
    if _is_recording(device):
        _read_by_graphs[id(tensor)] = tensor
    return tensor


@functools.lru_cache(maxsize=256)
def _kept(
    values: tuple[int, ...] | tuple[float, ...], dtype: torch.dtype, device: torch.device
) -> torch.Tensor:
    # Inference tensors could not take part in a training that follows.
    with torch.inference_mode(False):
        return to_device(values, dtype, device)


def _is_recording(device: torch.device) -> bool:
    return device.type == "cuda" and torch.cuda.is_current_stream_capturing()
