"""What is shown while a command runs."""

from __future__ import annotations

import contextlib
import io
import logging
import shutil
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

_SECONDS_BETWEEN_UPDATES = 0.2
_BAR_WIDTH = 24


def say(text: str) -> None:
    """Tell the user something, beside the results of the command."""
    print(text, file=sys.stderr, flush=True)


@contextlib.contextmanager
def hidden_output(*, unless: bool = False) -> Iterator[None]:
    """Drop what is printed or logged to the standard output."""
    if unless:
        yield
        return
    with contextlib.redirect_stdout(io.StringIO()):
        yield


class ProgressBar:
    """A line at the bottom of a terminal; nothing elsewhere."""

    def __init__(self, total: int | None, label: str) -> None:
        """
        Args:
            total: number of steps; None if it is not known.
            label: what is going on.
        """
        self._total = total
        self._label = label
        self._shown = sys.stderr.isatty()
        self._start = time.monotonic()
        self._last = 0.0
        self._filter = _ClearBelow()
        if self._shown:
            for handler in _terminal_handlers():
                handler.addFilter(self._filter)

    def update(self, done: int, note: str = "") -> None:
        """Show how many steps are done, and a few words."""
        now = time.monotonic()
        if not self._shown or (now - self._last < _SECONDS_BETWEEN_UPDATES and done != self._total):
            return
        self._last = now
        line = bar_text(self._label, done, self._total, now - self._start, note)
        print(f"\r\033[K{line[: shutil.get_terminal_size().columns - 1]}", end="", file=sys.stderr)
        sys.stderr.flush()

    def close(self) -> None:
        """Take the line away."""
        if self._shown:
            self._filter.clear()
            for handler in _terminal_handlers():
                handler.removeFilter(self._filter)

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def bar_text(label: str, done: int, total: int | None, seconds: float, note: str = "") -> str:
    """``label [####----] 10/20  3.1/s  0:03 left  note``."""
    speed = done / seconds if seconds > 0 else 0.0
    if total is None:
        parts = [f"{label} {done}"]
    else:
        filled = _BAR_WIDTH * done // max(total, 1)
        parts = [f"{label} [{'#' * filled}{'-' * (_BAR_WIDTH - filled)}] {done}/{total}"]
    if speed > 0:
        parts.append(f"{speed:.3g}/s")
        if total is not None:
            left = int((total - done) / speed)
            hours, minutes = left // 3600, left // 60 % 60
            clock = f"{hours}:{minutes:02}" if hours else f"{minutes}"
            parts.append(f"{clock}:{left % 60:02} left")
    return "  ".join([*parts, note] if note else parts)


class ProgressLoader:
    """A data loader that shows how far its reader has come."""

    def __init__(self, batches: Iterable[Any], label: str) -> None:
        self._batches = batches
        self._label = label

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[Any]:
        with ProgressBar(len(self), self._label) as bar:
            for done, batch in enumerate(self._batches):
                bar.update(done)
                yield batch
            bar.update(len(self))


class _ClearBelow(logging.Filter):
    """Takes the bar away before a record is shown; the bar's next update brings it back."""

    def filter(self, record: logging.LogRecord) -> bool:
        self.clear()
        return True

    def clear(self) -> None:
        print("\r\033[K", end="", file=sys.stderr, flush=True)


class _OnlyTheEssential(logging.Filter):
    """Lets metrics and warnings through. Errors that are raised, too, are told at the end."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info:
            return False
        return record.levelno >= logging.WARNING or record.name == "detectron2.utils.events"


def log_to_terminal(*, verbose: bool) -> None:
    """Show this library's log in rank 0: all of it, or metrics and warnings."""
    from detectron2.utils import comm
    from detectron2.utils.logger import setup_logger

    for name in ("detectron2", "fvcore"):
        logger = logging.getLogger(name)
        if not any(handler in logger.handlers for handler in _terminal_handlers()):
            setup_logger(distributed_rank=comm.get_rank(), name=name)
    if not verbose:
        for handler in _terminal_handlers():
            handler.addFilter(_OnlyTheEssential())


def _terminal_handlers() -> list[logging.Handler]:
    from detectron2.utils.logger import _StdoutHandler

    return [
        handler
        for name in ("detectron2", "fvcore")
        for handler in logging.getLogger(name).handlers
        if isinstance(handler, _StdoutHandler)
    ]


def print_results(results: Mapping[str, Any], dataset: str) -> None:
    """Print metrics: a line a task, ``bbox  AP 37.9  AP50 58.8  …``."""
    if not results:
        print(f"{dataset}  no metrics: there is no ground truth")
    for task, metrics in results.items():
        if not isinstance(metrics, Mapping):
            print(f"{dataset}  {task} {_number(metrics)}")
            continue
        # Of one class each: AP-person.
        of_classes = {name: value for name, value in metrics.items() if "-" in name}
        shown = {name: value for name, value in metrics.items() if name not in of_classes}
        print(f"{dataset}  {task:12}", *(f"{name} {_number(v)}" for name, v in shown.items()))
    sys.stdout.flush()


def _number(value: Any) -> str:
    return f"{value:.2f}" if isinstance(value, float) else str(value)
