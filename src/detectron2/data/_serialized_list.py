"""A list as one block of bytes, which processes share."""

import io
import pickle
from array import array
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch


class SerializedList:
    """Elements pickled into one tensor, and unpickled each time that they are asked for.

    Worker processes share the block. Forked ones leave its pages alone, where the reference counts
    of Python objects would have each worker end up with a copy of all; spawned ones get it as
    shared memory, for which PyTorch puts it there once.
    """

    def __init__(self, elements: Iterable[Any]) -> None:
        """Args:
        elements: anything that pickles.
        """
        # One growing block: many small ones would leave holes when they are joined and freed.
        block = io.BytesIO()
        ends = array("q")
        for element in elements:
            pickle.dump(element, block, protocol=pickle.HIGHEST_PROTOCOL)
            ends.append(block.tell())
        self._bytes = torch.from_numpy(np.frombuffer(block.getbuffer(), np.uint8))
        self._ends = torch.from_numpy(np.frombuffer(ends, np.int64)) if ends else torch.zeros(0)

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int) -> Any:
        """A new object each time."""
        length = len(self._ends)
        if not -length <= index < length:
            raise IndexError(f"index {index} is out of range for {length} elements")
        index = int(index) % length
        start = int(self._ends[index - 1]) if index else 0
        return pickle.loads(self._bytes.numpy()[start : int(self._ends[index])].data)

    @property
    def num_bytes(self) -> int:
        """Memory that the elements take."""
        return self._bytes.numel() + self._ends.nbytes
