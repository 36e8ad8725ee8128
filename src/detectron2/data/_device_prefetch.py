"""Batches that are on a device before they are needed."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch

from detectron2.structures import BitMasks, Boxes, Instances, Keypoints, ROIMasks


def map_tensors(batch: Any, function: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """A copy of a batch with ``function`` applied to its tensors.

    Lists, tuples and dicts are looked into, and :class:`Instances` and their boxes, masks and
    keypoints. Everything else stays what it is.
    """
    if isinstance(batch, torch.Tensor):
        return function(batch)
    if isinstance(batch, dict):
        return {key: map_tensors(value, function) for key, value in batch.items()}
    if type(batch) in (list, tuple):
        return type(batch)(map_tensors(value, function) for value in batch)
    if isinstance(batch, Instances):
        return Instances(batch.image_size, **map_tensors(batch.get_fields(), function))
    if isinstance(batch, (BitMasks, Boxes, Keypoints, ROIMasks)):
        return type(batch)(function(batch.tensor))
    return batch


def prefetch_to_device(batches: Iterable[Any], device: torch.device) -> Iterator[Any]:
    """Yield batches on ``device``; on CUDA the next one is copied while one is in use.

    The copies run on a stream of their own, from pinned memory; the current stream waits for them,
    the host does not.

    Args:
        batches: see :func:`map_tensors` for what is moved.
        device: where to.
    """
    if device.type != "cuda":
        for batch in batches:
            yield map_tensors(batch, lambda tensor: tensor.to(device))
        return
    copies = torch.cuda.Stream(device)
    # A batch stays in host memory until it is copied: the allocator of pinned memory does not see
    # copies from parts of its blocks.
    in_flight: deque[tuple[Any, torch.cuda.Event]] = deque()
    waiting: tuple[Any, torch.cuda.Event] | None = None
    for batch in batches:
        ready, waiting = waiting, _start_copy(batch, device, copies, in_flight)
        if ready is not None:
            yield _hand_over(*ready, device)
        del ready
        while in_flight and in_flight[0][1].query():
            in_flight.popleft()
    if waiting is not None:
        yield _hand_over(*waiting, device)


def _start_copy(
    batch: Any,
    device: torch.device,
    copies: torch.cuda.Stream,
    in_flight: deque[tuple[Any, torch.cuda.Event]],
) -> tuple[Any, torch.cuda.Event]:
    pinned = map_tensors(batch, lambda t: t.pin_memory() if t.is_cpu and not t.is_pinned() else t)
    with torch.cuda.stream(copies):
        moved = map_tensors(pinned, lambda tensor: tensor.to(device, non_blocking=True))
        done = torch.cuda.Event()
        done.record(copies)
    in_flight.append((pinned, done))
    return moved, done


def _hand_over(batch: Any, done: torch.cuda.Event, device: torch.device) -> Any:
    stream = torch.cuda.current_stream(device)
    stream.wait_event(done)

    def keep_for_stream(tensor: torch.Tensor) -> torch.Tensor:
        # Its memory is the other stream's, which could give it away before this one is done.
        tensor.record_stream(stream)
        return tensor

    return map_tensors(batch, keep_for_stream)
