"""Samples by their keys, from worker processes, worker threads, or the process itself."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from torch.utils import data

from detectron2.data._batch_transfer import PackedBatch, pack_batch
from detectron2.data._random_state import random_numbers_of_sample
from detectron2.data._sample_order import SampleKey
from detectron2.data._threads import map_in_threads
from detectron2.data.common import MapDataset

Collate = Callable[[list[Any]], Any]


class SampleFetcher(data.Dataset):
    """A dataset of lists of samples: its indices are lists of keys."""

    def __init__(self, dataset: Any, collate: Collate | None) -> None:
        """
        Args:
            dataset: map-style.
            collate: applied to each list; None leaves it.
        """
        self._dataset = dataset
        self._collate = collate

    def fetch(self, keys: list[SampleKey]) -> Any:
        """The samples, each with the random numbers that belong to it."""
        samples = []
        for key in keys:
            with random_numbers_of_sample(key.seed, key.position) as seed:
                self._seed_fallbacks(seed)
                samples.append(self._dataset[key.index])
        return self._collated(samples)

    def fetch_in_thread(self, keys: list[SampleKey], lock: threading.Lock) -> Any:
        """The same in one of several threads: what may draw random numbers holds the lock, and
        PyTorch's are not the samples'."""
        # A subclass may do something else.
        in_two_stages = type(self._dataset).__getitem__ is MapDataset.__getitem__
        samples = []
        for key in keys:
            read = self._dataset.read(key.index) if in_two_stages else None
            with lock, random_numbers_of_sample(key.seed, key.position, seed_torch=False) as seed:
                self._seed_fallbacks(seed)
                if in_two_stages:
                    samples.append(self._dataset.augment(key.index, read))
                else:
                    samples.append(self._dataset[key.index])
        return self._collated(samples)

    def _seed_fallbacks(self, seed: int) -> None:
        if isinstance(self._dataset, MapDataset):
            self._dataset.seed_fallbacks(seed)

    def _collated(self, samples: list[Any]) -> Any:
        return samples if self._collate is None else self._collate(samples)

    def __getitem__(self, keys: list[SampleKey]) -> Any:
        fetched = self.fetch(keys)
        return fetched if data.get_worker_info() is None else pack_batch(fetched)


class _Keys(data.Sampler):
    """What :class:`data.DataLoader` asks for when it begins."""

    def __init__(self, lists_of_keys: Iterable[list[SampleKey]]) -> None:
        self.lists_of_keys = lists_of_keys

    def __iter__(self) -> Iterator[list[SampleKey]]:
        return iter(self.lists_of_keys)


def _identity(fetched: Any) -> Any:
    return fetched


class ProcessWorkers:
    """Worker processes, or without any the process itself."""

    def __init__(self, fetcher: SampleFetcher, num_workers: int, **options: Any) -> None:
        """
        Args:
            fetcher: makes the samples.
            num_workers: processes; 0 has the samples made where they are asked for.
            **options: of :class:`torch.utils.data.DataLoader`.
        """
        self._keys = _Keys(())
        self.loader = data.DataLoader(
            fetcher,
            sampler=self._keys,
            batch_size=None,
            num_workers=num_workers,
            collate_fn=_identity,
            **options,
        )

    def load(self, lists_of_keys: Iterable[list[SampleKey]]) -> Iterator[Any]:
        """The samples of each list, in order."""
        self._keys.lists_of_keys = lists_of_keys
        if self.loader.num_workers > 0:
            _return_freed_memory()
        for fetched in self.loader:
            yield fetched.unpack() if isinstance(fetched, PackedBatch) else fetched


def _return_freed_memory() -> None:
    """Give the system back what is free between the objects that are in use.

    The records that a dataset was made of leave as much behind as the dataset takes: the C library
    keeps freed memory below any that is in use.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc only
    if trim is not None:
        trim(0)


class ThreadWorkers:
    """Worker threads of this process.

    A :class:`DatasetMapper` reads files in all of them at once. What may draw random numbers,
    augmentation, or all that another mapper does, runs in one thread at a time: the generators are
    the process's. PyTorch's is left alone, as the training uses it meanwhile.
    """

    def __init__(self, fetcher: SampleFetcher, num_workers: int, prefetch_factor: int) -> None:
        """
        Args:
            fetcher: makes the samples.
            num_workers: threads.
            prefetch_factor: lists of samples that are made ahead, for each thread.
        """
        self._fetcher = fetcher
        self._num_workers = num_workers
        self._ahead = num_workers * prefetch_factor
        self._lock = threading.Lock()

    def _fetch(self, keys: list[SampleKey]) -> Any:
        return self._fetcher.fetch_in_thread(keys, self._lock)

    def load(self, lists_of_keys: Iterable[list[SampleKey]]) -> Iterator[Any]:
        """The samples of each list, in order."""
        return map_in_threads(self._fetch, lists_of_keys, self._num_workers, self._ahead)
