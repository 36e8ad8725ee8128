"""Work in threads, some ahead of its use."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any


def map_in_threads(
    function: Callable[[Any], Any], items: Iterable[Any], num_threads: int, ahead: int
) -> Iterator[Any]:
    """Yield ``function(item)`` for each item, in order.

    Args:
        function: of an item. What it raises is raised here.
        items: taken as they are needed; there may be infinitely many.
        num_threads: that call the function.
        ahead: results that are made before they are taken.
    """
    pending: deque[Future[Any]] = deque()
    pool = ThreadPoolExecutor(num_threads, thread_name_prefix="detectron2-data")
    try:
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) > ahead:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
