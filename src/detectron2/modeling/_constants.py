"""Numbers that the host knows as tensors, without waiting for the device to take them."""

import functools
from collections.abc import Sequence

import torch


def to_device(
    values: Sequence[int] | Sequence[float], dtype: torch.dtype, device: torch.device
) -> torch.Tensor:
    """A tensor ``(len(values),)``."""
    # A copy from memory that is not pinned waits for the device.
    pinned = torch.tensor(values, dtype=dtype, pin_memory=device.type == "cuda")
    return pinned.to(device, non_blocking=True)


@functools.lru_cache(maxsize=256)
def constant(
    values: tuple[int, ...] | tuple[float, ...], dtype: torch.dtype, device: torch.device
) -> torch.Tensor:
    """:func:`to_device` of values that recur, such as sizes; not to be written to."""
    # Inference tensors could not take part in a training that follows.
    with torch.inference_mode(False):
        return to_device(values, dtype, device)
