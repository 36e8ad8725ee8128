"""What to do when a GPU's memory runs out."""

import functools
import logging
from collections.abc import Callable
from typing import Any

import torch

__all__ = ["retry_if_cuda_oom"]


def _is_out_of_memory(error: RuntimeError) -> bool:
    # Extensions report it by the text alone.
    return isinstance(error, torch.cuda.OutOfMemoryError) or "CUDA out of memory. " in str(error)


def _to_cpu(value: Any) -> Any:
    device = getattr(value, "device", None)
    on_cuda = isinstance(device, torch.device) and device.type == "cuda"
    return value.to(device="cpu") if on_cuda and hasattr(value, "to") else value


def retry_if_cuda_oom(func: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a function so that CUDA running out of memory is not the end of it.

    Then it is called again after PyTorch's cache has been emptied, and, where that is not enough,
    a third time with its arguments on the CPU. The caller has to cope with a result on the CPU.

    Only arguments that are themselves tensors, or objects with ``device`` and ``to(device=...)``,
    are copied to the CPU, not what lists or dicts hold. As ``func`` may be called three times, a
    call that fails should have no effects.

    Args:
        func: a function that takes the device to run on from its arguments.

    Returns:
        A function with the signature of ``func``.
    """

    @functools.wraps(func)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        # Each retry is outside of `except`: there, the traceback would keep the failed call's
        # tensors alive.
        for prepare in (None, torch.cuda.empty_cache):
            if prepare is not None:
                prepare()
            try:
                return func(*args, **kwargs)
            except RuntimeError as error:
                if not _is_out_of_memory(error):
                    raise
        logging.getLogger(__name__).info(
            f"CUDA ran out of memory in {func!r}: calling it with its arguments on the CPU"
        )
        return func(
            *(_to_cpu(value) for value in args),
            **{name: _to_cpu(value) for name, value in kwargs.items()},
        )

    return wrapped
