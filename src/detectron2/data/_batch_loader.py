"""The loader of a training: endless batches that can be gone on with after an interruption."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch

from detectron2.data._device_prefetch import prefetch_to_device
from detectron2.data._sample_order import SampleKey, batches_of_keys, sample_keys
from detectron2.data._workers import ProcessWorkers, SampleFetcher, ThreadWorkers
from detectron2.utils import comm

# Samples that travel together from a worker: some, so that it pays, but not a whole large batch,
# which one worker would be busy with while the training waits for it.
_SAMPLES_AT_ONCE = 4


class BatchLoader:
    """Batches of a map-style dataset in the order of a sampler.

    Order and random numbers do not depend on the number of workers. :meth:`state_dict` tells where
    it is: with :meth:`load_state_dict` another one goes on with the batch after the last that was
    handed out, whatever workers had in the making.
    """

    def __init__(
        self,
        dataset: Any,
        sampler: Iterable[int],
        batch_size: int,
        *,
        aspect_ratio_grouping: bool,
        drop_last: bool,
        collate_fn: Callable[[list[Any]], Any] | None,
        num_workers: int,
        threads: bool,
        prefetch_factor: int,
        device: torch.device | None,
        seed: int,
        **options: Any,
    ) -> None:
        """
        Args:
            dataset, sampler, aspect_ratio_grouping, drop_last, num_workers, threads,
                prefetch_factor, device: see ``build_batch_data_loader``.
            batch_size: of this process.
            collate_fn: makes a batch of a list of samples; None leaves the list.
            seed: of the random numbers of samples.
            **options: of :class:`torch.utils.data.DataLoader`.
        """
        self.dataset = dataset
        self.sampler = sampler
        self.batch_size = batch_size
        self.drop_last = drop_last
        self.num_workers = num_workers
        self.device = device
        self.collate_fn = collate_fn
        self._seed = seed
        self._wide: np.ndarray | None = None
        self._group_when_loaded = False
        if aspect_ratio_grouping:
            self._wide = getattr(dataset, "wide", None)
            self._group_when_loaded = self._wide is None
        # A function of the user's runs in the workers, on whole batches.
        self._collate_in_workers = collate_fn is not None and not self._group_when_loaded
        fetcher = SampleFetcher(dataset, collate_fn if self._collate_in_workers else None)
        self._workers: ProcessWorkers | ThreadWorkers
        if threads and num_workers > 0:
            if options.get("pin_memory") and device is None:
                raise ValueError("threads do not give pinned memory: pin_memory must be False")
            self._workers = ThreadWorkers(fetcher, num_workers, prefetch_factor)
        else:
            if num_workers > 0:
                options["prefetch_factor"] = prefetch_factor
            # Its seeds, of worker processes, are drawn without touching the training's generators.
            entropy = np.random.SeedSequence((seed % 2**64, comm.get_rank()))
            generator = torch.Generator().manual_seed(int(entropy.generate_state(1)[0]))
            options.setdefault("generator", generator)
            self._workers = ProcessWorkers(fetcher, num_workers, **options)
        self._state = self._initial_state()
        self._is_restored = False

    def _initial_state(self) -> dict[str, Any]:
        return {"batches": 0, "samples": 0, "waiting": []}

    def __iter__(self) -> Iterator[Any]:
        """Yield batches: from the beginning, or, once, from where :meth:`load_state_dict` says."""
        state = self._state if self._is_restored else self._initial_state()
        self._is_restored = False
        self._state = state
        load = self._load_and_group if self._group_when_loaded else self._load
        batches = load(state)
        states: list[dict[str, Any]] = []

        def remember_states() -> Iterator[Any]:
            # Batches are taken ahead of their use when they are copied to a device.
            for batch, state in batches:
                states.append(state)
                yield batch

        result = remember_states()
        if self.device is not None:
            result = prefetch_to_device(result, self.device)
        for batch in result:
            self._state = states.pop(0)
            yield batch

    def _load(self, state: dict[str, Any]) -> Iterator[tuple[Any, dict[str, Any]]]:
        """Batches whose samples are known beforehand."""
        planned = batches_of_keys(
            sample_keys(self.sampler, self._seed), self.batch_size, self.drop_last, self._wide
        )
        done = state["batches"]
        planned = itertools.islice(planned, done, None)
        if self._collate_in_workers:
            batches = self._workers.load(planned)
        else:
            batches = self._load_in_parts(planned)
        for number, batch in enumerate(batches, start=done + 1):
            yield batch, {"batches": number, "samples": number * self.batch_size, "waiting": []}

    def _load_in_parts(self, planned: Iterator[list[SampleKey]]) -> Iterator[list[Any]]:
        sizes: list[int] = []

        def parts() -> Iterator[list[SampleKey]]:
            for keys in planned:
                sizes.append(len(keys))
                for start in range(0, len(keys), _SAMPLES_AT_ONCE):
                    yield keys[start : start + _SAMPLES_AT_ONCE]

        batch: list[Any] = []
        for part in self._workers.load(parts()):
            batch = batch + part
            if len(batch) == sizes[0]:
                sizes.pop(0)
                full, batch = batch, []
                yield full
                del full
            del part

    def _load_and_group(self, state: dict[str, Any]) -> Iterator[tuple[Any, dict[str, Any]]]:
        """Batches of one aspect ratio where it is only known of loaded samples."""
        rank, world_size = comm.get_rank(), comm.get_world_size()
        # Of another process's checkpoint they are its samples.
        waiting = [SampleKey(self._seed, position, index) for position, index in state["waiting"]]
        waiting = [key for key in waiting if key.position % world_size == rank]
        number, done = state["samples"] - len(waiting), state["batches"]
        keys = itertools.chain(waiting, sample_keys(self.sampler, self._seed, state["samples"]))
        asked_for: list[SampleKey] = []

        def single() -> Iterator[list[SampleKey]]:
            for key in keys:
                asked_for.append(key)
                yield [key]

        buckets: tuple[list[tuple[SampleKey, Any]], ...] = [], []
        for (sample,) in self._workers.load(single()):
            number += 1
            bucket = buckets[0 if sample["width"] > sample["height"] else 1]
            bucket.append((asked_for.pop(0), sample))
            if len(bucket) == self.batch_size:
                full = [sample for _, sample in bucket]
                bucket.clear()
                done += 1
                left = sorted(key for keys_of_one in buckets for key, _ in keys_of_one)
                yield (
                    full if self.collate_fn is None else self.collate_fn(full),
                    {
                        "batches": done,
                        "samples": number,
                        "waiting": [[key.position, key.index] for key in left],
                    },
                )

    def state_dict(self) -> dict[str, Any]:
        """What was handed out so far by the last iteration, and the seeds.

        It is meant for all processes of a training, though rank 0 saves it. Where batches are
        grouped by aspect ratios that the dataset does not tell beforehand, the others lose the
        samples that waited for their batch to be full.
        """
        state = {**self._state, "seed": self._seed, "samples_of_batch": self._samples_of_batch()}
        if hasattr(self.sampler, "state_dict"):
            state["sampler"] = self.sampler.state_dict()
        return state

    def _samples_of_batch(self) -> int:
        return self.batch_size * comm.get_world_size()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Have the next iteration go on where :meth:`state_dict` was called.

        The dataset must be the same. With another total batch size or number of processes it goes
        on with about the next sample.
        """
        self._state = {key: state_dict[key] for key in self._initial_state()}
        was, now = state_dict["samples_of_batch"], self._samples_of_batch()
        if was != now:
            world_size = now // self.batch_size
            samples = state_dict["batches"] * was
            self._state = {"batches": samples // now, "samples": samples // world_size}
            self._state["waiting"] = []
            logging.getLogger(__name__).warning(
                "The data loader's checkpoint is of batches of %d samples, which are %d now: it "
                "goes on after about %d samples",
                *(was, now, samples),
            )
        self._seed = state_dict["seed"]
        if "sampler" in state_dict and hasattr(self.sampler, "load_state_dict"):
            self.sampler.load_state_dict(state_dict["sampler"])
        self._is_restored = True
