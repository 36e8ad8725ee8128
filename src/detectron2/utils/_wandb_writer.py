"""Metrics for Weights & Biases."""

from functools import cached_property
from typing import Any

import numpy as np
import torch

from detectron2.utils._event_storage import get_event_storage
from detectron2.utils._event_writer import EventWriter, ScalarTracker

_MAX_BINS = 512  # of wandb.Histogram


def _image_as_hwc(image: Any) -> np.ndarray:
    array = image.detach().cpu().numpy() if isinstance(image, torch.Tensor) else np.asarray(image)
    if array.dtype != np.uint8:
        array = (array.clip(0, 1) * 255).round().astype(np.uint8)
    return array.transpose(1, 2, 0)


def _counts_and_edges(histogram: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """A stored histogram in NumPy's form, with so few bins that ``wandb.Histogram`` takes it."""
    counts, limits = np.array(histogram["bucket_counts"]), np.array(histogram["bucket_limits"])
    first = 2 * limits[0] - limits[1] if len(limits) > 1 else histogram["min"]
    edges = np.concatenate([[first], limits])
    starts = np.arange(0, len(counts), -(-len(counts) // _MAX_BINS))
    return np.add.reduceat(counts, starts), np.append(edges[starts], edges[-1])


def _take_new(entries: list[Any], logged: list[Any]) -> list[Any]:
    """Remove from ``entries`` what the last call logged; return the rest, which stays there."""
    known = {id(entry) for entry in logged}
    entries[:] = [entry for entry in entries if id(entry) not in known]
    return list(entries)


class WandbWriter(EventWriter):
    """Logs scalars, images and histograms to a run of Weights & Biases.

    It needs the package ``wandb``. Where the process has a run already, that run is used, and left
    open. The horizontal axis is the logged value ``iteration``, so values may come late. A
    :class:`TensorboardXWriter` takes images and histograms away: list it after this writer.
    """

    def __init__(self, log_dir: str | None = None, window_size: int = 20, **kwargs: Any) -> None:
        """Set up; the run is made by the first :meth:`write`.

        Args:
            log_dir: the folder that ``wandb`` keeps its files in; None leaves it to ``wandb``.
            window_size: iterations that smoothed scalars are the median of.
            kwargs: further arguments of ``wandb.init``, such as ``project`` and ``config``.
        """
        self._window_size = window_size
        self._init_args = {"dir": log_dir, **kwargs}
        self._last_write = -1
        self._tracker = ScalarTracker(window_size)
        self._owns_run = False
        self._defined: set[str] = set()
        # What the last call logged and left in the storage, for other writers to see it, too.
        self._logged_images: list[Any] = []
        self._logged_histograms: list[Any] = []

    @cached_property
    def _wandb(self) -> Any:
        try:
            import wandb
        except ImportError as error:
            message = f"WandbWriter needs wandb, which cannot be imported: {error}"
            raise ImportError(message) from error
        return wandb

    @cached_property
    def _run(self) -> Any:
        run = self._wandb.run
        if run is None:
            run = self._wandb.init(**self._init_args)
            self._owns_run = True
        run.define_metric("iteration", hidden=True)
        return run

    def write(self) -> None:
        """Log the new scalars, images and histograms."""
        storage = get_event_storage()
        by_iteration: dict[int, dict[str, Any]] = self._tracker.take_new(storage)
        if by_iteration:
            self._last_write = max(self._last_write, *by_iteration)
        self._logged_images = _take_new(storage._vis_data, self._logged_images)
        for name, image, iteration in self._logged_images:
            by_iteration.setdefault(iteration, {})[name] = self._wandb.Image(_image_as_hwc(image))
        self._logged_histograms = _take_new(storage._histograms, self._logged_histograms)
        for histogram in self._logged_histograms:
            of_iteration = by_iteration.setdefault(histogram["global_step"], {})
            of_iteration[histogram["tag"]] = self._wandb.Histogram(
                np_histogram=_counts_and_edges(histogram)
            )
        for iteration, values in sorted(by_iteration.items()):
            for name in sorted(values.keys() - self._defined):
                self._run.define_metric(name, step_metric="iteration")
                self._defined.add(name)
            self._run.log({"iteration": iteration, **values})

    def close(self) -> None:
        """Finish the run if it was made here."""
        if self._owns_run:
            self._owns_run = False
            self._run.finish()
