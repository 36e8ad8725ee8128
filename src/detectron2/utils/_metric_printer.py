"""Metrics as a line in the log."""

import logging
import time
from datetime import timedelta

import torch

from detectron2.utils._event_storage import EventStorage, get_event_storage
from detectron2.utils._event_writer import EventWriter, ScalarTracker

# Iterations that the time of an iteration is the median of, for the estimate of what remains.
_ETA_WINDOW = 1000


def _is_printed(name: str) -> bool:
    return "loss" in name or "[metric]" in name


class CommonMetricPrinter(EventWriter):
    """Logs the metrics that most trainings have: losses, times, learning rate, memory, and the ETA.

    For example ``eta: 0:01:23  iter: 19  total_loss: 1.25  time: 0.1012  last_time: 0.1100
    data_time: 0.0012  last_data_time: 0.0010  lr: 0.01  max_mem: 812M``. Scalars whose name
    contains ``loss`` or ``[metric]`` are printed, as medians over the window.
    """

    def __init__(self, max_iter: int | None = None, window_size: int = 20) -> None:
        """Set up.

        Args:
            max_iter: the iteration that training ends before; None prints no ETA.
            window_size: iterations that losses and ``data_time`` are taken over.
        """
        self.logger = logging.getLogger("detectron2.utils.events")
        self._max_iter = max_iter
        self._window_size = window_size
        # (iteration, clock) of the last line, for the ETA of loops that put no "time".
        self._last_write: tuple[int, float] | None = None
        self._tracker = ScalarTracker(window_size)

    def _get_eta(self, storage: EventStorage) -> str | None:
        if self._max_iter is None:
            return None
        previous, self._last_write = self._last_write, (storage.iter, time.perf_counter())
        if "time" in storage.histories():
            per_iteration = float(storage.history("time").median(_ETA_WINDOW))
        elif previous is not None and storage.iter > previous[0]:
            per_iteration = (self._last_write[1] - previous[1]) / (storage.iter - previous[0])
        else:
            return None
        seconds = per_iteration * max(self._max_iter - storage.iter - 1, 0)
        storage.put_scalar("eta_seconds", seconds, smoothing_hint=False)
        return str(timedelta(seconds=int(seconds)))

    def _times(self, storage: EventStorage) -> list[str]:
        parts = []
        histories = storage.histories()
        if "time" in histories:
            history = histories["time"]
            parts += [f"time: {history.global_avg():.4f}", f"last_time: {history.latest():.4f}"]
        if "data_time" in histories:
            history = histories["data_time"]
            average = history.avg(storage.count_samples("data_time", self._window_size))
            parts += [f"data_time: {average:.4f}", f"last_data_time: {history.latest():.4f}"]
        return parts

    def _line(self, storage: EventStorage) -> str:
        eta = self._get_eta(storage)
        parts = [] if eta is None else [f"eta: {eta}"]
        parts.append(f"iter: {storage.iter}")
        for mark in ("loss", "[metric]"):
            for name in list(storage.latest()):
                if mark in name and not (mark == "[metric]" and "loss" in name):
                    parts.append(f"{name}: {storage._median(name, self._window_size):.4g}")
        parts += self._times(storage)
        lr = storage.latest().get("lr")
        parts.append("lr: N/A" if lr is None else f"lr: {lr[0]:.5g}")
        if torch.cuda.is_available():
            parts.append(f"max_mem: {torch.cuda.max_memory_allocated() / 2**20:.0f}M")
        return " " + "  ".join(parts)

    def write(self) -> None:
        """Log a line; at ``max_iter`` only if there are losses or metrics that none has shown."""
        storage = get_event_storage()
        if self._has_new(storage) or storage.iter != self._max_iter:
            self.logger.info(self._line(storage))

    def _has_new(self, storage: EventStorage) -> bool:
        new = self._tracker.take_new_names(storage).values()
        return any(_is_printed(name) for names in new for name in names)
