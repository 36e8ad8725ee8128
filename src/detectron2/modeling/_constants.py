"""Small tensors of numbers that the host knows, without waiting for the device to take them."""

import functools

import torch

_Number = int | float


@functools.lru_cache(maxsize=256)
def constant(
    values: tuple[_Number, ...], shape: tuple[int, ...], dtype: torch.dtype, device: torch.device
) -> torch.Tensor:
    """A tensor of ``shape``, not to be written to. The last few are kept, as sizes recur."""
    # Inference tensors could not take part in a training that follows.
    with torch.inference_mode(False):
        # A copy from memory that is not pinned waits for the device.
        pinned = torch.tensor(values, dtype=dtype, pin_memory=device.type == "cuda")
        return pinned.reshape(shape).to(device, non_blocking=True)
