"""Which samples make up which batch, as far as it can be told before they are loaded."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from detectron2.utils import comm


class SampleKey(NamedTuple):
    """A sample of a training."""

    seed: int
    """Of the training."""
    position: int
    """Of the sample, counted over all processes: the random numbers follow from both."""
    index: int
    """In the dataset."""


def sample_keys(sampler: Iterable[int], seed: int, skip: int = 0) -> Iterator[SampleKey]:
    """This process's samples in order.

    Args:
        sampler: gives this process's indices.
        seed: of the training.
        skip: samples to leave out at the beginning.
    """
    rank, world_size = comm.get_rank(), comm.get_world_size()
    indices = itertools.islice(iter(sampler), skip, None)
    for number, index in enumerate(indices, start=skip):
        yield SampleKey(seed, rank + number * world_size, int(index))


def batches_of_keys(
    keys: Iterable[SampleKey], batch_size: int, drop_last: bool, wide: np.ndarray | None = None
) -> Iterator[list[SampleKey]]:
    """Put samples together in their order.

    Args:
        keys: the samples.
        batch_size: samples of a batch.
        drop_last: leave out what does not fill a batch at the end.
        wide: whether each element of the dataset is wider than high; a batch is then of one kind,
            and comes when it is full. None groups nothing.
    """
    waiting: tuple[list[SampleKey], list[SampleKey]] = [], []
    for key in keys:
        group = waiting[1 if wide is not None and wide[key.index] else 0]
        group.append(key)
        if len(group) == batch_size:
            yield group.copy()
            group.clear()
    if not drop_last:
        yield from filter(None, waiting)
