"""Metrics as lines of JSON."""

import json
import os

from detectron2.utils._event_storage import get_event_storage
from detectron2.utils._event_writer import EventWriter, ScalarTracker
from detectron2.utils.file_io import PathManager


def _repair_last_line(path: str) -> None:
    """Remove a line that a killed process left unfinished, so that every line parses."""
    if not os.path.exists(path):
        return
    with open(path, "rb+") as file:
        content = file.read()
        if not content or content.endswith(b"\n"):
            return
        complete, newline, rest = content.rpartition(b"\n")
        try:
            json.loads(rest)
        except ValueError:
            file.truncate(len(complete + newline))
        else:
            file.write(b"\n")


class JSONWriter(EventWriter):
    """Appends scalars to a file, a line an iteration.

    A line is ``{"iteration": 19, "lr": 0.01, "total_loss": 1.25}`` with the names sorted. Only what
    is new since the last :meth:`write` is written; a scalar that is put for an iteration which has
    a line already gets a further line.
    """

    def __init__(self, json_file: str, window_size: int = 20) -> None:
        """Open the file for appending.

        Args:
            json_file: a path that ``PathManager`` can write to.
            window_size: iterations that smoothed scalars are the median of.
        """
        if "://" not in os.fspath(json_file):
            _repair_last_line(json_file)
        self._file_handle = PathManager.open(json_file, "a")
        self._window_size = window_size
        self._last_write = -1
        self._tracker = ScalarTracker(window_size)

    def write(self) -> None:
        """Append the new scalars, and have the system put them on the disk."""
        lines = self._tracker.take_new(get_event_storage())
        if not lines:
            return
        self._file_handle.write(
            "".join(
                json.dumps({"iteration": iteration, **scalars}, sort_keys=True) + "\n"
                for iteration, scalars in lines.items()
            )
        )
        self._last_write = max(self._last_write, *lines)
        self._file_handle.flush()
        if hasattr(self._file_handle, "fileno"):  # not every path is a local file
            os.fsync(self._file_handle.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file_handle.close()
