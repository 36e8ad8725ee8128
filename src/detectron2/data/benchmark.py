"""How fast each part of a data loader is."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from torch.utils import data

from detectron2.data.build import build_batch_data_loader
from detectron2.data.common import DatasetFromList, MapDataset
from detectron2.data.samplers import TrainingSampler
from detectron2.utils import comm

__all__ = ["DataLoaderBenchmark", "iter_benchmark"]

logger = logging.getLogger(__name__)


def iter_benchmark(
    iterator: Iterator[Any], num_iter: int, warmup: int = 5, max_time_seconds: float = 60
) -> tuple[float, list[float]]:
    """Time an iterator.

    Args:
        iterator: gives ``warmup + num_iter`` elements or more.
        num_iter: elements to time.
        warmup: elements that are taken before that.
        max_time_seconds: after which no further element is taken.

    Returns:
        Seconds an element: the average, and each.
    """
    for _ in range(warmup):
        next(iterator)
    seconds: list[float] = []
    start = last = time.perf_counter()
    for _ in range(num_iter):
        next(iterator)
        now = time.perf_counter()
        seconds.append(now - last)
        last = now
        if now - start > max_time_seconds:
            break
    return (last - start) / max(len(seconds), 1), seconds


class DataLoaderBenchmark:
    """Times the parts of a data loader, one after the other, to find the slow one.

    Each method logs seconds a sample or batch.
    """

    def __init__(
        self,
        dataset: list[Any] | data.Dataset,
        *,
        mapper: Callable[[dict[str, Any]], Any],
        sampler: data.Sampler | None = None,
        total_batch_size: int,
        num_workers: int = 0,
        max_time_seconds: int = 90,
    ) -> None:
        """
        Args:
            dataset, mapper, sampler, total_batch_size, num_workers: see
                ``build_detection_train_loader``.
            max_time_seconds: after which a measurement ends.
        """
        self.max_time_seconds = max_time_seconds
        self.num_workers = num_workers
        self.total_batch_size = total_batch_size
        self.per_gpu_batch_size = total_batch_size // comm.get_world_size()
        self.mapper = mapper
        is_list = isinstance(dataset, list)
        self.dataset = DatasetFromList(dataset, copy=False) if is_list else dataset
        self.sampler = TrainingSampler(len(self.dataset)) if sampler is None else sampler

    def _measure(self, title: str, iterator: Iterable[Any], num_iter: int, warmup: int) -> None:
        average, each = iter_benchmark(iter(iterator), num_iter, warmup, self.max_time_seconds)
        percentiles = [f"{np.percentile(each, p):.5f}" for p in (1, 50, 95, 99)]
        logger.info(
            "%s: %.2f per second, %.5f seconds on average; percentiles 1, 50, 95 and 99: %s",
            *(title, 1 / average, average, ", ".join(percentiles)),
        )

    def _loader(self, dataset: data.Dataset, num_workers: int) -> Iterable[Any]:
        return build_batch_data_loader(
            dataset,
            self.sampler,
            self.total_batch_size,
            num_workers=num_workers,
        )

    def benchmark_dataset(self, num_iter: int, warmup: int = 5) -> None:
        """Read records, in this process."""
        records = (self.dataset[index] for index in self.sampler)
        self._measure("Dataset alone, records", records, num_iter, warmup)

    def benchmark_mapper(self, num_iter: int, warmup: int = 5) -> None:
        """Read and map records, in this process."""
        samples = (self.mapper(self.dataset[index]) for index in self.sampler)
        self._measure("Mapper in one process, samples", samples, num_iter, warmup)

    def benchmark_workers(self, num_iter: int, warmup: int = 10) -> None:
        """Load batches, without worker processes and with ``num_workers``."""
        mapped = MapDataset(self.dataset, self.mapper)
        for num_workers in sorted({0, self.num_workers}):
            title = f"Loader with {num_workers} workers, batches of {self.per_gpu_batch_size}"
            self._measure(title, self._loader(mapped, num_workers), num_iter, warmup)

    def benchmark_IPC(self, num_iter: int, warmup: int = 10) -> None:  # noqa: N802
        """Have batches that are made already sent from workers."""
        sample = self.mapper(self.dataset[next(iter(self.sampler))])
        mapped = MapDataset(self.dataset, _Constant(sample))
        title = f"Transfer from {self.num_workers} workers, batches of {self.per_gpu_batch_size}"
        self._measure(title, self._loader(mapped, max(self.num_workers, 1)), num_iter, warmup)

    def benchmark_distributed(self, num_iter: int, warmup: int = 10) -> None:
        """Load batches in all processes of a distributed job, which wait for each other."""
        mapped = MapDataset(self.dataset, self.mapper)
        batches = self._loader(mapped, self.num_workers)

        def in_step() -> Iterator[Any]:
            for batch in batches:
                comm.synchronize()
                yield batch

        title = f"Loader in {comm.get_world_size()} processes, batches of {self.total_batch_size}"
        self._measure(title, in_step(), num_iter, warmup)


class _Constant:
    def __init__(self, value: Any) -> None:
        self._value = value

    def __call__(self, record: Any) -> Any:
        return self._value
