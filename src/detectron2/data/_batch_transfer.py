"""Batches on their way from worker processes: one block of shared memory each.

PyTorch's own way has a file descriptor, a socket's round trip and a mapping for each tensor.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

# Smaller ones travel inside the pickle: their owner may keep them, and with them a whole block.
_LEAST_BYTES_IN_BLOCK = 1 << 15
_ALIGNMENT = 64


_DTYPES_OF_NUMPY = {
    *(torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64),
    *(torch.float16, torch.float32, torch.float64, torch.complex64, torch.complex128),
}


def _from_array(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(array)


def _from_bytes(array: np.ndarray, dtype: torch.dtype, shape: torch.Size) -> torch.Tensor:
    return torch.from_numpy(array).view(dtype).reshape(shape)


class _Pickler(pickle.Pickler):
    """Takes tensors for NumPy arrays, whose memory stays out of the pickle."""

    def reducer_override(self, obj: Any) -> Any:
        if type(obj) is not torch.Tensor or not _is_plain(obj):
            return NotImplemented
        contiguous = obj.contiguous()
        if obj.dtype in _DTYPES_OF_NUMPY:
            return _from_array, (contiguous.numpy(),)
        in_bytes = contiguous.reshape(-1).view(torch.uint8).numpy()
        return _from_bytes, (in_bytes, obj.dtype, obj.shape)


def _is_plain(tensor: torch.Tensor) -> bool:
    return (
        tensor.layout is torch.strided
        and tensor.is_cpu
        and not (tensor.requires_grad or tensor.is_quantized or tensor.is_conj() or tensor.is_neg())
    )


@dataclass(frozen=True)
class PackedBatch:
    """A batch as a pickle, and the large memory in it as one tensor."""

    pickled: bytes
    block: torch.Tensor
    """uint8, ``(bytes,)``, in shared memory."""
    sizes: list[int]
    """Bytes of each piece of the block; the pieces are aligned."""

    def pin_memory(self) -> PackedBatch:
        """The batch in pinned memory; a ``DataLoader`` calls it if it is to pin."""
        return PackedBatch(self.pickled, self.block.pin_memory(), self.sizes)

    def unpack(self) -> Any:
        """The batch; what is large in it shares the block's memory."""
        memory = memoryview(self.block.numpy())
        buffers, start = [], 0
        for size in self.sizes:
            buffers.append(memory[start : start + size])
            start += _aligned(size)
        return pickle.loads(self.pickled, buffers=buffers)


def _aligned(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT


def pack_batch(batch: Any) -> PackedBatch:
    """Put a batch into shared memory, from where its :class:`PackedBatch` takes it anywhere.

    Args:
        batch: anything that pickles; only contiguous CPU tensors and NumPy arrays gain.
    """
    large: list[memoryview] = []

    def stays_in_pickle(buffer: pickle.PickleBuffer) -> bool:
        raw = buffer.raw()
        if raw.nbytes < _LEAST_BYTES_IN_BLOCK or raw.readonly:
            return True
        large.append(raw)
        return False

    pickled = _dumps(batch, stays_in_pickle)
    sizes = [raw.nbytes for raw in large]
    total = sum(map(_aligned, sizes))
    block = torch.empty(0, dtype=torch.uint8)
    if total:
        storage = torch.UntypedStorage._new_shared(total)
        block = torch.empty(0, dtype=torch.uint8).set_(storage, 0, (total,), (1,))
        target, start = block.numpy(), 0
        for raw in large:
            target[start : start + raw.nbytes] = np.frombuffer(raw, np.uint8)
            start += _aligned(raw.nbytes)
    return PackedBatch(pickled, block, sizes)


def _dumps(batch: Any, buffer_callback: Callable[[pickle.PickleBuffer], Any]) -> bytes:
    file = io.BytesIO()
    _Pickler(file, protocol=5, buffer_callback=buffer_callback).dump(batch)
    return file.getvalue()
