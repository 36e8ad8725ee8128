"""Batches on their way from worker processes: one block of shared memory each.

PyTorch's own way has a file descriptor, a socket's round trip and a mapping for each tensor. A
worker uses its blocks again when the batches in them are gone, since most of the time that sending
takes goes into new pages.
"""

from __future__ import annotations

import io
import os
import pickle
import weakref
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


class _BlockPool:
    """The blocks of a worker process.

    The first byte of a block tells whether a batch is in it: the worker sets it, and the process
    that has received the batch clears it when nothing refers to the block any more.
    """

    # More are made if they are needed, but not used again.
    _MAX_BLOCKS = 16

    def __init__(self) -> None:
        self._blocks: list[torch.Tensor] = []
        self._owner = os.getpid()

    def take(self, size: int) -> torch.Tensor:
        """A block of at least ``size`` bytes, uint8, that is marked as used."""
        if self._owner != os.getpid():
            self.__init__()  # Those are the process's that this one was forked from.
        for place, block in enumerate(self._blocks):
            if block[0] == 0:
                if block.numel() < size:
                    block = self._blocks[place] = _new_block(size)
                break
        else:
            block = _new_block(size)
            if len(self._blocks) < self._MAX_BLOCKS:
                self._blocks.append(block)
        block[0] = 1
        return block


def _new_block(size: int) -> torch.Tensor:
    # A little more, so that somewhat larger batches fit, too. New pages are zeros.
    return _bytes_of(torch.UntypedStorage._new_shared(size + size // 4))


def _bytes_of(storage: torch.UntypedStorage) -> torch.Tensor:
    return torch.empty(0, dtype=torch.uint8).set_(storage, 0, (storage.nbytes(),), (1,))


_pool = _BlockPool()


@dataclass(frozen=True)
class PackedBatch:
    """A batch as a pickle, and the large memory in it as one tensor."""

    pickled: bytes
    block: torch.Tensor
    """uint8, ``(bytes,)``, in shared memory; empty if nothing is large."""
    sizes: list[int]
    """Bytes of each piece of the block; the pieces are aligned, the first is after the mark."""

    def pin_memory(self) -> PackedBatch:
        """The batch in pinned memory; a ``DataLoader`` calls it if it is to pin."""
        pinned = PackedBatch(self.pickled, self.block.pin_memory(), self.sizes)
        if self.sizes:
            self.block[0] = 0
        return pinned

    def unpack(self) -> Any:
        """The batch; what is large in it shares the block's memory."""
        exporter = self.block.numpy()
        if self.sizes and self.block.is_shared():
            # What is made of the buffers holds on to the exporter, so until all that is gone the
            # mark stays.
            mark = _bytes_of(self.block.untyped_storage())
            weakref.finalize(exporter, mark.__setitem__, 0, 0).atexit = False
        memory = memoryview(exporter)
        buffers, start = [], _ALIGNMENT
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

    Returns:
        To be unpacked, or pinned, once, in any process; its block is free for another batch when
        that is gone.
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
    block = torch.empty(0, dtype=torch.uint8)
    if sizes:
        block = _pool.take(_ALIGNMENT + sum(map(_aligned, sizes)))
        target, start = block.numpy(), _ALIGNMENT
        for raw in large:
            target[start : start + raw.nbytes] = np.frombuffer(raw, np.uint8)
            start += _aligned(raw.nbytes)
    return PackedBatch(pickled, block, sizes)


def _dumps(batch: Any, buffer_callback: Callable[[pickle.PickleBuffer], Any]) -> bytes:
    file = io.BytesIO()
    _Pickler(file, protocol=5, buffer_callback=buffer_callback).dump(batch)
    return file.getvalue()
