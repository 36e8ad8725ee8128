"""Logging set up for training: to the terminal on the main process, to a file on each."""

import atexit
import functools
import logging
import os
import sys
import time
from collections import Counter
from collections.abc import Mapping
from types import FrameType
from typing import IO, Any

import torch

from detectron2.utils._log_format import ColorFormatter, plain_formatter, shows_color
from detectron2.utils.file_io import PathManager

__all__ = ["log_every_n", "log_every_n_seconds", "log_first_n", "setup_logger"]

D2_LOG_BUFFER_SIZE_KEY: str = "D2_LOG_BUFFER_SIZE"
"""Environment variable: the buffer of log files that are not local, in bytes."""

DEFAULT_LOG_BUFFER_SIZE: int = 1024 * 1024
"""That buffer's size where the variable is not set."""


class _StdoutHandler(logging.StreamHandler):
    """The handler that :func:`setup_logger` adds for the terminal.

    It follows ``sys.stdout`` where that is replaced later, as notebooks and tests do.
    """

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> IO[str]:
        return sys.stdout


class _FileHandler(logging.StreamHandler):
    """A handler that :func:`setup_logger` adds for a file."""

    def __init__(self, path: str) -> None:
        super().__init__(_log_stream(path))
        self.path = path


@functools.cache
def _log_stream(path: str) -> IO[str]:
    """The file behind a path, opened once for all loggers that write to it."""
    buffering = 1  # by lines
    if "://" in path:
        buffering = int(os.environ.get(D2_LOG_BUFFER_SIZE_KEY, DEFAULT_LOG_BUFFER_SIZE))
    stream = PathManager.open(path, "a", buffering=buffering)
    atexit.register(stream.close)
    return stream


def _log_file(output: str, rank: int) -> str:
    """The path of a rank's log file, in a folder that exists."""
    path = output if output.endswith((".txt", ".log")) else os.path.join(output, "log.txt")
    if rank > 0:
        path += f".rank{rank}"
    if folder := os.path.dirname(path):
        PathManager.mkdirs(folder)
    return path


def setup_logger(
    output: str | os.PathLike | None = None,
    distributed_rank: int = 0,
    *,
    color: bool = True,
    name: str = "detectron2",
    abbrev_name: str | None = None,
    enable_propagation: bool = False,
    configure_stdout: bool = True,
) -> logging.Logger:
    """Give a logger its handlers; it takes records of all levels.

    It may be called again, with other arguments, too: what the logger has already is not added a
    second time, so that no message shows twice.

    Args:
        output: a log file, if it ends in ``.txt`` or ``.log``, or the folder of a ``log.txt``;
            ranks above 0 add ``.rank1`` and so on. None logs to no file.
        distributed_rank: the rank of this process. Only rank 0 logs to the terminal.
        color: whether to use colours if the standard output is a terminal.
        name: name of the logger.
        abbrev_name: what stands for ``name`` on the terminal; None means ``"d2"`` for
            ``"detectron2"``, and ``name`` for others.
        enable_propagation: whether records go on to the loggers above.
        configure_stdout: whether to log to the standard output at all.
    """
    logger = logging.getLogger(name)
    logger.setLevel(logging.DEBUG)
    logger.propagate = enable_propagation
    if abbrev_name is None:
        abbrev_name = "d2" if name == "detectron2" else name

    if configure_stdout and distributed_rank == 0:
        for handler in [h for h in logger.handlers if isinstance(h, _StdoutHandler)]:
            logger.removeHandler(handler)
        terminal = _StdoutHandler()
        use_color = color and shows_color(sys.stdout)
        terminal.setFormatter(ColorFormatter(name, abbrev_name) if use_color else plain_formatter())
        logger.addHandler(terminal)

    if output is not None:
        path = _log_file(os.fspath(output), distributed_rank)
        known = [h.path for h in logger.handlers if isinstance(h, _FileHandler)]
        if path not in known:
            file = _FileHandler(path)
            file.setFormatter(plain_formatter())
            logger.addHandler(file)
    return logger


def _caller() -> FrameType:
    """The innermost frame outside of this file."""
    frame = sys._getframe(1)
    while frame.f_code.co_filename == __file__ and frame.f_back is not None:
        frame = frame.f_back
    return frame


def _place(frame: FrameType) -> tuple[str, int, str]:
    return frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name


def _log(frame: FrameType, lvl: int, msg: str, name: str | None) -> None:
    if name is None:
        name = frame.f_globals.get("__name__", "__main__")
        # Scripts: the logger of this library has handlers, that of "__main__" has none.
        name = "detectron2" if name == "__main__" else name
    # The record names the caller of the function that called this one.
    logging.getLogger(name).log(lvl, msg, stacklevel=3)


_counts: Counter[Any] = Counter()
_times: dict[Any, float] = {}


def _check_positive(n: float) -> None:
    if n <= 0:
        raise ValueError(f"n must be positive, got {n}")


def log_first_n(
    lvl: int,
    msg: str,
    n: int = 1,
    *,
    name: str | None = None,
    key: str | tuple[str, ...] = "caller",
) -> None:
    """Log the first ``n`` times only.

    Args:
        lvl: level, such as ``logging.WARNING``.
        msg: the message.
        n: how often.
        name: the logger's; None means the caller's module.
        key: what counts as the same: ``"caller"`` (the line that calls), ``"message"``, or both.

    Raises:
        ValueError: ``key`` holds something else.
    """
    keys = (key,) if isinstance(key, str) else tuple(key)
    if not keys or not set(keys) <= {"caller", "message"}:
        raise ValueError(f"key must be made of 'caller' and 'message', got {key!r}")
    frame = _caller()
    identity = (
        "first",
        _place(frame) if "caller" in keys else None,
        msg if "message" in keys else None,
    )
    _counts[identity] += 1
    if _counts[identity] <= n:
        _log(frame, lvl, msg, name)


def log_every_n(lvl: int, msg: str, n: int = 1, *, name: str | None = None) -> None:
    """Log the first time that a line calls this, and every ``n``-th time from there.

    Args:
        lvl: level, such as ``logging.INFO``.
        msg: the message.
        n: the number of calls of which one is logged.
        name: the logger's; None means the caller's module.

    Raises:
        ValueError: ``n`` is not positive.
    """
    _check_positive(n)
    frame = _caller()
    identity = "every", _place(frame)
    if _counts[identity] % n == 0:
        _log(frame, lvl, msg, name)
    _counts[identity] += 1


def log_every_n_seconds(lvl: int, msg: str, n: float = 1, *, name: str | None = None) -> None:
    """Log the first time that a line calls this, and then ``n`` seconds apart at least.

    Args:
        lvl: level, such as ``logging.INFO``.
        msg: the message.
        n: seconds.
        name: the logger's; None means the caller's module.

    Raises:
        ValueError: ``n`` is not positive.
    """
    _check_positive(n)
    frame = _caller()
    place, now = _place(frame), time.monotonic()
    if place not in _times or now - _times[place] >= n:
        _times[place] = now
        _log(frame, lvl, msg, name)


def create_small_table(small_dict: Mapping[str, Any]) -> str:
    """Make a table of one row under the names, in Markdown; numbers have three decimals."""
    from tabulate import tabulate

    return tabulate(
        [list(small_dict.values())],
        headers=list(small_dict),
        tablefmt="pipe",
        floatfmt=".3f",
        stralign="center",
        numalign="center",
    )


def _log_api_usage(identifier: str) -> None:
    """Tell PyTorch, once, that a part of this library is used; by default it does nothing."""
    torch._C._log_api_usage_once(f"detectron2.{identifier}")
