"""Batches of elements that belong together."""

from collections.abc import Iterator, Sequence

from torch.utils.data.sampler import BatchSampler, Sampler

__all__ = ["GroupedBatchSampler"]


class GroupedBatchSampler(BatchSampler):
    """Batches of indices of one group, otherwise in the sampler's order.

    Only full batches are given: what does not fill one when the sampler ends is left out.
    """

    def __init__(self, sampler: Sampler[int], group_ids: Sequence[int], batch_size: int) -> None:
        """
        Args:
            sampler: gives indices.
            group_ids: the group of each index; anything hashable.
            batch_size: indices of a batch.

        Raises:
            TypeError: ``sampler`` is no Sampler.
            ValueError: ``batch_size`` is not positive.
        """
        if not isinstance(sampler, Sampler):
            raise TypeError(f"sampler must be a torch.utils.data.Sampler, got {sampler!r}")
        if batch_size < 1:
            raise ValueError(f"batch_size must be positive, got {batch_size}")
        self.sampler = sampler
        self.group_ids = group_ids
        self.batch_size = batch_size
        self.buffer_per_group: dict[int, list[int]] = {}

    def __iter__(self) -> Iterator[list[int]]:
        """Yield each batch as soon as it is full."""
        self.buffer_per_group = {}
        for index in self.sampler:
            waiting = self.buffer_per_group.setdefault(self.group_ids[index], [])
            waiting.append(index)
            if len(waiting) == self.batch_size:
                yield waiting.copy()
                waiting.clear()

    def __len__(self) -> int:
        # What list() takes for "no length".
        raise TypeError("how many batches of one group there are depends on the sampler's order")
