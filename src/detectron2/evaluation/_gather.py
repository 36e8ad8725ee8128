"""What the processes of an evaluation tell rank 0."""

from collections.abc import Iterator, Sequence
from typing import TypeVar

from detectron2.utils import comm

_Item = TypeVar("_Item")


def iterate_over_all(items: Sequence[_Item], chunk_size: int = 256) -> Iterator[_Item]:
    """Iterate, in rank 0, over the items of all processes; in the others, over nothing.

    All processes call it, and all iterate to the end. What is on its way at a time is a chunk, so
    that rank 0 needs memory for what it keeps only.

    Args:
        items: of this process; anything that pickles.
        chunk_size: how many items travel at once.

    Yields:
        The items by rank and, of each rank, in their order.
    """
    for source, length in enumerate(comm.all_gather(len(items))):
        if source == 0:
            if comm.is_main_process():
                yield from items
            continue
        for start in range(0, length, chunk_size):
            is_source = comm.get_rank() == source
            chunks = comm.gather(items[start : start + chunk_size] if is_source else None)
            if comm.is_main_process():
                yield from chunks[source]


def abbreviated(names: Sequence[object], shown: int = 5) -> str:
    """The first few of many names, for a message."""
    text = ", ".join(repr(name) for name in names[:shown])
    return text if len(names) <= shown else f"{text}, …"
