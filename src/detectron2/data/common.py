"""Datasets made from datasets: lists in shared memory, mapped, sampled, grouped into batches."""

import contextlib
import copy
import itertools
import logging
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from torch.utils import data

from detectron2.data._serialized_list import SerializedList
from detectron2.utils.serialize import PicklableWrapper

__all__ = ["AspectRatioGroupedDataset", "DatasetFromList", "MapDataset", "ToIterableDataset"]

# Elements in a row for which a mapper may return None before it counts as a failure.
_MAX_NONE_IN_A_ROW = 1000


class MapDataset(data.Dataset):
    """A dataset with a function applied to its elements when they are asked for.

    Where the function returns None, the element is left out: of a map-style dataset another one
    is taken at random, with a warning from the third in a row on; an iterable one goes on with
    the next. Given an iterable dataset, this is an iterable dataset, too.
    """

    def __new__(cls, dataset: Any, map_func: Callable[[Any], Any]) -> Any:
        if isinstance(dataset, data.IterableDataset):
            return _MapIterableDataset(dataset, map_func)
        return super().__new__(cls)

    def __getnewargs__(self) -> tuple[Any, Callable[[Any], Any]]:
        return self._dataset, self._map_func

    def __init__(self, dataset: Sequence[Any], map_func: Callable[[Any], Any]) -> None:
        """
        Args:
            dataset: map-style, or an ``IterableDataset``.
            map_func: takes an element; may be a lambda or a closure also where worker processes
                are spawned.
        """
        self._dataset = dataset
        self._map_func = PicklableWrapper(map_func)
        self._rng = random.Random(42)
        # By name: bound methods would have the mapper pickled without the wrapper.
        self._stages = getattr(type(map_func).__call__, "stages", (None, "__call__"))

    @property
    def wide(self) -> np.ndarray | None:
        """That of the dataset; see :class:`DatasetFromList`. None if it has none."""
        return getattr(self._dataset, "wide", None)

    def seed_fallbacks(self, seed: int) -> None:
        """Have ``seed`` decide which elements are taken in place of others from now on."""
        self._rng.seed(seed)

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, idx: int) -> Any:
        """The mapped element, or another one's.

        Raises:
            RuntimeError: the function returned None again and again.
        """
        return self.augment(idx, self.read(idx))

    def read(self, idx: int) -> Any:
        """What of :meth:`__getitem__` needs no random numbers, for :meth:`augment`.

        That is the element, which a mapper whose ``__call__`` has ``stages``, the names of two
        methods that do its work one after the other, has had in the first one.
        """
        element = self._dataset[int(idx)]
        reads = self._stages[0]
        return element if reads is None else getattr(self._map_func, reads)(element)

    def augment(self, idx: int, read: Any) -> Any:
        """The rest of :meth:`__getitem__`, of what :meth:`read` gave."""
        failed: set[int] = set()
        current = int(idx)
        while True:
            mapped = getattr(self._map_func, self._stages[1])(read)
            if mapped is not None:
                return mapped
            failed.add(current)
            if len(failed) >= min(len(self), _MAX_NONE_IN_A_ROW):
                mapper = getattr(self._map_func, "_obj", self._map_func)
                raise RuntimeError(
                    f"the mapper {mapper!r} returned None for all of {len(failed)} elements, "
                    f"beginning with number {idx}"
                )
            if len(failed) >= 3:
                logging.getLogger(__name__).warning(
                    "The mapper returned None for element %d and %d others in its place",
                    *(idx, len(failed) - 1),
                )
            current = self._rng.randrange(len(self))
            while current in failed:
                current = (current + 1) % len(self)
            read = self.read(current)


class _MapIterableDataset(data.IterableDataset):
    def __init__(self, dataset: data.IterableDataset, map_func: Callable[[Any], Any]) -> None:
        self._dataset = dataset
        self._map_func = PicklableWrapper(map_func)

    def __len__(self) -> int:
        return len(self._dataset)

    def __iter__(self) -> Iterator[Any]:
        for mapped in map(self._map_func, self._dataset):
            if mapped is not None:
                yield mapped


_default_serialize_method: Callable[[list[Any]], Sequence[Any]] = SerializedList


@contextlib.contextmanager
def set_default_dataset_from_list_serialize_method(
    new: Callable[[list[Any]], Sequence[Any]],
) -> Iterator[None]:
    """Choose how :class:`DatasetFromList` keeps lists with ``serialize=True`` that are made inside.

    Args:
        new: takes a list, and returns what has its length and elements.
    """
    global _default_serialize_method
    old, _default_serialize_method = _default_serialize_method, new
    try:
        yield
    finally:
        _default_serialize_method = old


def _which_are_wide(records: list[Any]) -> np.ndarray | None:
    """Which images are wider than high, bool ``(N,)``; None if the records do not tell."""
    try:
        return np.array([record["width"] > record["height"] for record in records], np.bool_)
    except (KeyError, TypeError, IndexError):
        return None


class DatasetFromList(data.Dataset):
    """A list as a dataset."""

    def __init__(
        self,
        lst: list[Any],
        copy: bool = True,
        serialize: bool | Callable[[list[Any]], Sequence[Any]] = True,
    ) -> None:
        """
        Args:
            lst: the elements.
            copy: give deep copies, so that elements can be changed. Of serialized elements each
                is a copy anyway.
            serialize: keep the elements pickled in one block of memory, which worker processes
                share. A function is called with the list, and its result kept instead; see
                :func:`set_default_dataset_from_list_serialize_method`.
        """
        self._copy = copy
        self._serialize = serialize
        self._wide = _which_are_wide(lst)
        if callable(serialize):
            self._lst: Sequence[Any] = serialize(lst)
        elif serialize:
            self._lst = _default_serialize_method(lst)
        else:
            self._lst = lst

    @property
    def wide(self) -> np.ndarray | None:
        """Which images are wider than high, bool ``(N,)``; None if the elements do not tell."""
        return self._wide

    def __len__(self) -> int:
        return len(self._lst)

    def __getitem__(self, idx: int) -> Any:
        element = self._lst[idx]
        return copy.deepcopy(element) if self._copy and not self._serialize else element


class ToIterableDataset(data.IterableDataset):
    """A map-style dataset in the order of a sampler."""

    def __init__(
        self,
        dataset: data.Dataset,
        sampler: data.Sampler,
        shard_sampler: bool = True,
        shard_chunk_size: int = 1,
    ) -> None:
        """
        Args:
            dataset: map-style.
            sampler: gives indices, the same in every worker process.
            shard_sampler: deal the indices to the workers of a ``DataLoader``. Without, each
                worker gives all, unless the sampler does the dealing.
            shard_chunk_size: indices in a row that one worker gets at a time.

        Raises:
            TypeError: an iterable dataset, or something else than a sampler.
        """
        if isinstance(dataset, data.IterableDataset):
            raise TypeError(f"{dataset!r} is iterable already")
        if not isinstance(sampler, data.Sampler):
            raise TypeError(f"sampler must be a torch.utils.data.Sampler, got {sampler!r}")
        self.dataset = dataset
        self.sampler = sampler
        self.shard_sampler = shard_sampler
        self.shard_chunk_size = shard_chunk_size

    def __iter__(self) -> Iterator[Any]:
        indices: Iterable[int] = self.sampler
        worker = data.get_worker_info()
        if self.shard_sampler and worker is not None and worker.num_workers > 1:
            indices = _deal(indices, self.shard_chunk_size, worker.id, worker.num_workers)
        for index in indices:
            yield self.dataset[index]

    def __len__(self) -> int:
        return len(self.sampler)


def _deal(indices: Iterable[int], chunk: int, worker: int, num_workers: int) -> Iterator[int]:
    """Every ``num_workers``-th chunk of the indices, from number ``worker`` on."""
    iterator = iter(indices)
    # Skipped in C; what is left of the others' chunks is nothing that has to be looked at.
    next(itertools.islice(iterator, worker * chunk, worker * chunk), None)
    while taken := list(itertools.islice(iterator, chunk)):
        yield from taken
        skipped = (num_workers - 1) * chunk
        next(itertools.islice(iterator, skipped, skipped), None)


class AspectRatioGroupedDataset(data.IterableDataset):
    """Batches of images that are all wide, or all not: less padding.

    An image is wide if its width is greater than its height. A batch is given as soon as it is
    full; what does not fill one at the end waits for the next iteration.
    """

    def __init__(self, dataset: Iterable[dict[str, Any]], batch_size: int) -> None:
        """
        Args:
            dataset: gives dicts with "width" and "height".
            batch_size: elements of a batch.
        """
        self.dataset = dataset
        self.batch_size = batch_size
        self._buckets: list[list[dict[str, Any]]] = [[], []]

    def __iter__(self) -> Iterator[list[dict[str, Any]]]:
        for element in self.dataset:
            bucket = self._buckets[0 if element["width"] > element["height"] else 1]
            bucket.append(element)
            if len(bucket) == self.batch_size:
                full = bucket.copy()
                # Not held while the batch is in use.
                bucket.clear()
                del element
                yield full
                del full
