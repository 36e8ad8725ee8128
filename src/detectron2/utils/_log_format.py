"""How a log record looks on a terminal and in a file."""

import logging
import os
from typing import IO

DATE_FORMAT = "%m/%d %H:%M:%S"

_GREEN, _YELLOW, _RED, _RESET = "\x1b[32m", "\x1b[33m", "\x1b[31m", "\x1b[0m"
_COLORED_LEVELS = {
    logging.WARNING: f"{_YELLOW}WARNING{_RESET} ",
    logging.ERROR: f"{_RED}ERROR{_RESET} ",
    logging.CRITICAL: f"{_RED}CRITICAL{_RESET} ",
}


def shows_color(stream: IO[str]) -> bool:
    """Whether a stream is a terminal, and nobody set ``NO_COLOR``."""
    is_terminal = getattr(stream, "isatty", lambda: False)
    return "NO_COLOR" not in os.environ and bool(is_terminal())


def plain_formatter() -> logging.Formatter:
    """``[11/24 10:30:05] detectron2.engine.train_loop INFO: message``."""
    return logging.Formatter("[%(asctime)s] %(name)s %(levelname)s: %(message)s", DATE_FORMAT)


class ColorFormatter(logging.Formatter):
    """``[11/24 10:30:05 d2.engine.train_loop]: message``, with the brackets in green.

    Warnings and worse begin with the level, in colour.
    """

    def __init__(self, root_name: str, abbrev_name: str) -> None:
        """Set the name of the topmost logger, and what is to stand for it."""
        super().__init__(f"{_GREEN}[%(asctime)s %(name)s]: {_RESET}%(message)s", DATE_FORMAT)
        self._root_name = root_name
        self._abbrev_name = abbrev_name

    def _abbreviate(self, name: str) -> str:
        if name == self._root_name or name.startswith(self._root_name + "."):
            return (self._abbrev_name + name[len(self._root_name) :]).lstrip(".")
        return name

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        """Put the record's fields, its message included, into the layout."""
        # Other handlers get the same record: change a copy.
        shown = logging.makeLogRecord(vars(record))
        shown.name = self._abbreviate(record.name)
        shown.message = _COLORED_LEVELS.get(record.levelno, "") + record.message
        return super().formatMessage(shown)
