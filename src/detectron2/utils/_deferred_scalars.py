"""Scalars that are still on their device, where nobody waits for them."""

import threading
from collections.abc import Callable

import torch

# So many are kept at most: a tensor holds a block of 512 bytes on its device.
_MOST_PENDING = 2048


class DeferredScalars:
    """A queue of tensors, and of what to do with their values once these are on the CPU."""

    def __init__(self) -> None:
        self._queue: list[tuple[torch.Tensor | None, Callable[[list[float]], None]]] = []
        self._lock = threading.Lock()

    def __bool__(self) -> bool:
        return bool(self._queue)

    def add(self, values: torch.Tensor | None, consume: Callable[[list[float]], None]) -> None:
        """Call ``consume`` with the values of ``(K,)``, none for None, at the next flush."""
        self._queue.append((values, consume))
        if len(self._queue) >= _MOST_PENDING:
            self.flush()

    def flush(self) -> None:
        """Fetch all values, in one transfer a device, and hand them out in their order."""
        with self._lock:
            taken, self._queue = self._queue, []
            numbers: list[list[float]] = [[] for _ in taken]
            by_device: dict[torch.device, list[int]] = {}
            for i, (values, _) in enumerate(taken):
                if values is not None:
                    by_device.setdefault(values.device, []).append(i)
            for members in by_device.values():
                tensors = [taken[i][0].detach().double() for i in members]
                flat = iter(torch.cat(tensors).tolist())
                for i, tensor in zip(members, tensors, strict=True):
                    numbers[i] = [next(flat) for _ in range(tensor.numel())]
            for (_, consume), values in zip(taken, numbers, strict=True):
                consume(values)
