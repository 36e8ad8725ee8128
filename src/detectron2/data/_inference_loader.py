"""The loader of an evaluation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch.utils import data

from detectron2.data._batch_transfer import PackedBatch, pack_batch
from detectron2.data._device_prefetch import prefetch_to_device
from detectron2.data._threads import map_in_threads


class _PackingCollate:
    def __init__(self, collate_fn: Any) -> None:
        self._collate_fn = collate_fn

    def __call__(self, samples: list[Any]) -> Any:
        batch = self._collate_fn(samples)
        return batch if data.get_worker_info() is None else pack_batch(batch)


class InferenceLoader(data.DataLoader):
    """A ``DataLoader`` that can have threads for workers, and give batches on a device."""

    def __init__(
        self,
        dataset: data.Dataset,
        *,
        num_workers: int,
        collate_fn: Any,
        threads: bool,
        device: torch.device | None,
        **options: Any,
    ) -> None:
        """
        Args:
            dataset, num_workers, collate_fn, **options: of the ``DataLoader``.
            threads: make samples in threads of this process.
            device: where batches go; None leaves them.
        """
        if threads and isinstance(dataset, data.IterableDataset):
            raise ValueError(f"threads cannot share the iterable dataset {dataset!r}")
        self._threads = num_workers if threads else 0
        self._collate = collate_fn
        self._device = device
        super().__init__(
            dataset,
            num_workers=0 if threads else num_workers,
            collate_fn=_PackingCollate(collate_fn),
            pin_memory=device is not None and device.type == "cuda",
            **options,
        )

    def __iter__(self) -> Iterator[Any]:
        if self._threads:
            ahead = 2 * self._threads
            batches = map_in_threads(self._make, self.batch_sampler, self._threads, ahead)
        else:
            batches = self._from_processes()
        return batches if self._device is None else prefetch_to_device(batches, self._device)

    def _from_processes(self) -> Iterator[Any]:
        for batch in super().__iter__():
            yield batch.unpack() if isinstance(batch, PackedBatch) else batch

    def _make(self, indices: list[int]) -> Any:
        return self._collate([self.dataset[index] for index in indices])


class OnDevice:
    """The batches of a loader, on a device; everything else is the loader's."""

    def __init__(self, loader: Iterable[Any], device: torch.device) -> None:
        """
        Args:
            loader: of batches.
            device: where to.
        """
        self._loader = loader
        self._device = device

    def __iter__(self) -> Iterator[Any]:
        return prefetch_to_device(self._loader, self._device)

    def __len__(self) -> int:
        return len(self._loader)
