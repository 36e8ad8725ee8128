"""Which elements of a dataset each process takes, and in which order."""

import itertools
import logging
from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data.sampler import Sampler

from detectron2.utils import comm

__all__ = [
    "InferenceSampler",
    "RandomSubsetTrainingSampler",
    "RepeatFactorTrainingSampler",
    "TrainingSampler",
]


def _checked_size(name: str, size: int) -> int:
    if not isinstance(size, int) or isinstance(size, bool):
        raise TypeError(f"{name}: size must be an int, got {size!r}")
    if size <= 0:
        raise ValueError(f"{name}: size must be positive, got {size}: is the dataset empty?")
    return size


def _shared_seed(seed: int | None) -> int:
    return comm.shared_random_seed() if seed is None else int(seed)


class _InfiniteSampler(Sampler):
    """An endless sequence of indices, the same in all processes, of which rank r takes the
    elements r, r + world size, and so on."""

    def __init__(self, seed: int | None) -> None:
        self._seed = _shared_seed(seed)
        self._rank = comm.get_rank()
        self._world_size = comm.get_world_size()

    def __iter__(self) -> Iterator[int]:
        """Yield this process's indices, without end."""
        yield from itertools.islice(self._infinite_indices(), self._rank, None, self._world_size)

    def _infinite_indices(self) -> Iterator[int]:
        generator = torch.Generator()
        generator.manual_seed(self._seed)
        while True:
            yield from self._epoch(generator).tolist()

    def _epoch(self, generator: torch.Generator) -> torch.Tensor:
        """One epoch's indices in order, for all processes."""
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        """The seed, which the order follows from."""
        return {"seed": self._seed}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the order of the sampler that ``state_dict`` is from."""
        self._seed = state_dict["seed"]


class TrainingSampler(_InfiniteSampler):
    """All elements once an epoch, without end, dealt to the processes in turn.

    Rank r of W takes the elements r, r + W, ... of the concatenated epochs.
    """

    def __init__(self, size: int, shuffle: bool = True, seed: int | None = None) -> None:
        """
        Args:
            size: of the dataset.
            shuffle: in a new order each epoch; else from 0 to ``size - 1``.
            seed: of the order, the same in all processes. None draws one, which all processes
                must do together.

        Raises:
            TypeError: ``size`` is not an int.
            ValueError: ``size`` is not positive.
        """
        self._size = _checked_size(type(self).__name__, size)
        self._shuffle = shuffle
        super().__init__(seed)

    def _epoch(self, generator: torch.Generator) -> torch.Tensor:
        if self._shuffle:
            return torch.randperm(self._size, generator=generator)
        return torch.arange(self._size)


class RandomSubsetTrainingSampler(TrainingSampler):
    """As :class:`TrainingSampler`, with a random part of the dataset that stays the same."""

    def __init__(
        self,
        size: int,
        subset_ratio: float,
        shuffle: bool = True,
        seed_shuffle: int | None = None,
        seed_subset: int | None = None,
    ) -> None:
        """
        Args:
            size: of the dataset.
            subset_ratio: the part to take, in (0, 1], rounded down to whole elements.
            shuffle, seed_shuffle: as ``shuffle`` and ``seed`` of :class:`TrainingSampler`.
            seed_subset: of the choice of elements; None draws one, as for ``seed_shuffle``.

        Raises:
            ValueError: nothing would be taken.
        """
        super().__init__(size, shuffle, seed_shuffle)
        self._size_subset = int(self._size * subset_ratio)
        if not 0 < self._size_subset <= self._size:
            raise ValueError(
                f"subset_ratio must be in (0, 1] and leave an element, got {subset_ratio} of {size}"
            )
        self._seed_subset = _shared_seed(seed_subset)
        self._choose()

    def _choose(self) -> None:
        generator = torch.Generator()
        generator.manual_seed(self._seed_subset)
        self._indexes_subset = torch.randperm(self._size, generator=generator)[: self._size_subset]

    def _epoch(self, generator: torch.Generator) -> torch.Tensor:
        if not self._shuffle:
            return self._indexes_subset
        return self._indexes_subset[torch.randperm(self._size_subset, generator=generator)]

    def state_dict(self) -> dict[str, Any]:
        """The seeds of the order and of the choice."""
        return {**super().state_dict(), "seed_subset": self._seed_subset}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over order and choice of the sampler that ``state_dict`` is from."""
        super().load_state_dict(state_dict)
        self._seed_subset = state_dict["seed_subset"]
        self._choose()


class RepeatFactorTrainingSampler(_InfiniteSampler):
    """Elements that count several times an epoch, each by a factor of its own.

    A factor of 2.3 is two or, with a probability of 0.3 that is drawn each epoch, three times.
    Dealt to the processes as by :class:`TrainingSampler`. From LVIS (Gupta et al., 2019,
    Appendix B.2).
    """

    def __init__(
        self, repeat_factors: torch.Tensor, *, shuffle: bool = True, seed: int | None = None
    ) -> None:
        """
        Args:
            repeat_factors: ``(N,)``, one an element, finite and not negative.
            shuffle, seed: see :class:`TrainingSampler`.

        Raises:
            ValueError: factors of another kind, or all are 0.
        """
        factors = torch.as_tensor(repeat_factors, dtype=torch.float32)
        valid = factors.isfinite() & (factors >= 0)
        if factors.dim() != 1 or not valid.all():
            raise ValueError(
                "repeat_factors must be finite numbers from 0 on, one an element, got the shape "
                f"{list(factors.shape)} with {factors[~valid][:3].tolist()}"
            )
        if not (factors > 0).any():
            raise ValueError(f"repeat_factors leave nothing of the {len(factors)} elements")
        self._int_part = torch.trunc(factors)
        self._frac_part = factors - self._int_part
        self._shuffle = shuffle
        super().__init__(seed)

    @staticmethod
    def repeat_factors_from_category_frequency(
        dataset_dicts: list[dict[str, Any]], repeat_thresh: float, sqrt: bool = True
    ) -> torch.Tensor:
        """Factors by which images with rare categories are repeated.

        A category in a part f of the images has the factor max(1, sqrt(t / f)), and an image has
        the highest of its categories' factors, or 1 without any. Crowds count, too.

        Args:
            dataset_dicts: records in the standard format.
            repeat_thresh: t; categories in fewer images than this part are repeated.
            sqrt: False leaves the square root out.

        Returns:
            float32 ``(N,)``.
        """
        categories = [
            {annotation["category_id"] for annotation in record["annotations"]}
            for record in dataset_dicts
        ]
        images_with = Counter(itertools.chain.from_iterable(categories))
        exponent = 0.5 if sqrt else 1.0
        factor_of = {
            category: max(1.0, (repeat_thresh / (count / len(dataset_dicts))) ** exponent)
            for category, count in images_with.items()
        }
        rarest = sorted(((factor, c) for c, factor in factor_of.items()), reverse=True)
        logging.getLogger(__name__).debug(
            "Repeat factors of the rarest categories: %s", [(c, f) for f, c in rarest[:10]]
        )
        factors = [max((factor_of[c] for c in image), default=1.0) for image in categories]
        return torch.tensor(factors, dtype=torch.float32)

    def _epoch(self, generator: torch.Generator) -> torch.Tensor:
        once_more = torch.rand(len(self._frac_part), generator=generator) < self._frac_part
        times = (self._int_part + once_more).long()
        indices = torch.repeat_interleave(torch.arange(len(times)), times)
        if not self._shuffle:
            return indices
        return indices[torch.randperm(len(indices), generator=generator)]


class InferenceSampler(Sampler):
    """Each element once over all processes, in order: each takes one contiguous part.

    The first ``size`` modulo world size processes take one element more than the others.
    """

    def __init__(self, size: int) -> None:
        """
        Args:
            size: of the dataset.

        Raises:
            TypeError: ``size`` is not an int.
            ValueError: ``size`` is not positive.
        """
        self._size = _checked_size(type(self).__name__, size)
        self._rank = comm.get_rank()
        self._world_size = comm.get_world_size()
        self._local_indices = self._get_local_indices(size, self._world_size, self._rank)

    @staticmethod
    def _get_local_indices(total_size: int, world_size: int, rank: int) -> range:
        least, extra = divmod(total_size, world_size)
        begin = rank * least + min(rank, extra)
        return range(begin, begin + least + (rank < extra))

    def __iter__(self) -> Iterator[int]:
        """Yield this process's indices."""
        yield from self._local_indices

    def __len__(self) -> int:
        return len(self._local_indices)
