"""Metrics for TensorBoard."""

from functools import cached_property
from typing import Any

from detectron2.utils._event_storage import get_event_storage
from detectron2.utils._event_writer import EventWriter, ScalarTracker


class TensorboardXWriter(EventWriter):
    """Writes scalars, images and histograms to a TensorBoard event file.

    It needs the package ``tensorboard``.
    """

    def __init__(self, log_dir: str, window_size: int = 20, **kwargs: Any) -> None:
        """Set up; the event file is made by the first :meth:`write`.

        Args:
            log_dir: the folder of the event file.
            window_size: iterations that smoothed scalars are the median of.
            kwargs: further arguments of ``torch.utils.tensorboard.SummaryWriter``.
        """
        self._window_size = window_size
        self._writer_args = {"log_dir": log_dir, **kwargs}
        self._last_write = -1
        self._tracker = ScalarTracker(window_size)

    @cached_property
    def _writer(self) -> Any:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ImportError(
                f"TensorboardXWriter needs tensorboard, which cannot be imported: {error}"
            ) from error
        return SummaryWriter(**self._writer_args)

    def write(self) -> None:
        """Write the new scalars and all images and histograms, which the storage then forgets."""
        storage = get_event_storage()
        for iteration, scalars in self._tracker.take_new(storage).items():
            for name, value in scalars.items():
                self._writer.add_scalar(name, value, iteration)
            self._last_write = max(self._last_write, iteration)
        if storage._vis_data:
            for name, image, iteration in storage._vis_data:
                self._writer.add_image(name, image, iteration)
            storage.clear_images()
        if storage._histograms:
            for histogram in storage._histograms:
                self._writer.add_histogram_raw(**histogram)
            storage.clear_histograms()
        if "_writer" in vars(self):
            self._writer.flush()  # it would otherwise wait for two minutes

    def close(self) -> None:
        """Close the file, if there is one."""
        if "_writer" in vars(self):
            self._writer.close()
