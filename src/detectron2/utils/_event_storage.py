"""Where a training loop leaves its metrics, for writers to pick up."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

import torch
from fvcore.common.history_buffer import HistoryBuffer

from detectron2.utils._deferred_scalars import DeferredScalars

# Not local to a thread: metrics may be written from one beside the training loop's.
_active_storages: list["EventStorage"] = []


def get_event_storage() -> "EventStorage":
    """The storage of the innermost ``with EventStorage(...)`` that is open.

    Raises:
        AssertionError: there is none; :func:`has_event_storage` tells.
    """
    if not _active_storages:
        # The type is what callers that may run outside of a training catch.
        raise AssertionError("no EventStorage is active: enter one by `with EventStorage():`")
    return _active_storages[-1]


def has_event_storage() -> bool:
    """Whether there is a storage for :func:`get_event_storage` to return."""
    return bool(_active_storages)


class EventStorage:
    """Scalars with their history, and images and histograms until a writer has taken them.

    As a context manager it is what :func:`get_event_storage` returns inside. The loop calls
    :meth:`step` (or sets :attr:`iter`) once an iteration.

    Scalars that are on a device other than the CPU stay there until something is read: to put them
    does not wait for the device, and to read them waits once for all.
    """

    def __init__(self, start_iter: int = 0) -> None:
        """Start empty, at the iteration ``start_iter``."""
        self._iter = start_iter
        self._vis_data: list[tuple[str, Any, int]] = []
        self._histograms: list[dict[str, Any]] = []
        self._history: dict[str, HistoryBuffer] = defaultdict(HistoryBuffer)
        self._smoothing_hints: dict[str, bool] = {}
        self._latest_scalars: dict[str, tuple[float, int]] = {}
        self._current_prefix = ""
        self._deferred = DeferredScalars()

    def put_image(self, img_name: str, img_tensor: Any) -> None:
        """Keep an image for the writers that show images.

        Args:
            img_name: what to call it.
            img_tensor: tensor or array, (3, H, W) RGB or (1, H, W); floats in [0, 1] or uint8.
        """
        self._vis_data.append((img_name, img_tensor, self._iter))

    def put_scalar(
        self, name: str, value: Any, smoothing_hint: bool = True, cur_iter: int | None = None
    ) -> None:
        """Add a value to the history of a scalar.

        Args:
            name: its name, to which :meth:`name_scope` adds a prefix.
            value: a number, or a tensor or array with one element.
            smoothing_hint: whether the median over a window is to be shown, as for losses, rather
                than the value itself. The first call for a name decides.
            cur_iter: the iteration that the value belongs to; None means the present one.

        Raises:
            ValueError: the smoothing hint is not the one that the name had before.
        """
        name = self._current_prefix + name
        iteration = self._iter if cur_iter is None else cur_iter
        self._check_smoothing_hint(name, smoothing_hint, iteration)
        if isinstance(value, torch.Tensor) and value.device.type not in ("cpu", "meta"):
            # A copy, as the caller may go on changing it.
            self._deferred.add(
                value.detach().reshape(1).clone(),
                lambda values: self._record(name, values[0], iteration),
            )
            return
        number = float(value)
        if self._deferred:
            # Behind those that came before it, one of which may be of the same name.
            self._deferred.add(None, lambda _: self._record(name, number, iteration))
        else:
            self._record(name, number, iteration)

    def put_scalars_later(
        self,
        values: torch.Tensor,
        to_scalars: Callable[[list[float]], dict[str, float]],
        smoothing_hint: bool = True,
    ) -> None:
        """Add scalars that are to be computed from values on a device, such as counts.

        Args:
            values: ``(K,)``, not to be changed any more. On the CPU they are read at once.
            to_scalars: makes scalars, by name, of the values; it may leave out those that are not
                defined. It is called when the storage is read next.
            smoothing_hint: as for :meth:`put_scalar`.
        """
        prefix, iteration = self._current_prefix, self._iter

        def record(numbers: list[float]) -> None:
            for name, value in to_scalars(numbers).items():
                self._check_smoothing_hint(prefix + name, smoothing_hint, iteration)
                self._record(prefix + name, value, iteration)

        if values.device.type == "cpu":
            record(values.tolist())
        else:
            self._deferred.add(values, record)

    def _check_smoothing_hint(self, name: str, smoothing_hint: bool, iteration: int) -> None:
        if self._smoothing_hints.setdefault(name, smoothing_hint) != smoothing_hint:
            raise ValueError(
                f"scalar {name!r} has smoothing_hint={self._smoothing_hints[name]}, "
                f"got {smoothing_hint} at iteration {iteration}"
            )

    def _record(self, name: str, value: float, iteration: int) -> None:
        self._history[name].update(value, iteration)
        self._latest_scalars[name] = value, iteration

    def put_scalars(
        self, *, smoothing_hint: bool = True, cur_iter: int | None = None, **kwargs: Any
    ) -> None:
        """Call :meth:`put_scalar` for each keyword, as in ``put_scalars(loss=loss, lr=0.1)``."""
        for name, value in kwargs.items():
            self.put_scalar(name, value, smoothing_hint=smoothing_hint, cur_iter=cur_iter)

    def put_histogram(self, hist_name: str, hist_tensor: torch.Tensor, bins: int = 1000) -> None:
        """Keep the distribution of a tensor's values for the writers that show histograms.

        Args:
            hist_name: what to call it.
            hist_tensor: any shape, any real dtype.
            bins: number of bins of equal width between the smallest and the largest value.

        Raises:
            ValueError: there are no values, or one of them is not finite.
        """
        values = hist_tensor.detach().flatten().float()
        if values.numel() == 0 or not bool(values.isfinite().all()):
            raise ValueError(
                f"histogram {hist_name!r} needs finite values, got a tensor of shape "
                f"{tuple(hist_tensor.shape)} with {int(values.isfinite().sum())} of them"
            )
        low, high = values.min().item(), values.max().item()
        margin = 0.5 if low == high else 0.0  # bins need a width
        counts = torch.histc(values, bins=bins, min=low - margin, max=high + margin)
        edges = torch.linspace(low - margin, high + margin, bins + 1)
        # The arguments of SummaryWriter.add_histogram_raw.
        self._histograms.append(
            {
                "tag": hist_name,
                "min": low,
                "max": high,
                "num": values.numel(),
                "sum": values.sum().item(),
                "sum_squares": values.square().sum().item(),
                "bucket_limits": edges[1:].tolist(),
                "bucket_counts": counts.tolist(),
                "global_step": self._iter,
            }
        )

    def history(self, name: str) -> HistoryBuffer:
        """All values of a scalar.

        Raises:
            KeyError: there are none.
        """
        self._deferred.flush()
        if name not in self._history:
            raise KeyError(f"no scalar {name!r}; there are {sorted(self._history)}")
        return self._history[name]

    def histories(self) -> dict[str, HistoryBuffer]:
        """The histories of all scalars, by name."""
        self._deferred.flush()
        return self._history

    def latest(self) -> dict[str, tuple[float, int]]:
        """The last value of each scalar and the iteration that it belongs to."""
        self._deferred.flush()
        return self._latest_scalars

    def latest_with_smoothing_hint(self, window_size: int = 20) -> dict[str, tuple[float, int]]:
        """Give what :meth:`latest` does, with medians for the scalars that are to be smoothed.

        Args:
            window_size: the number of iterations, up to the scalar's last one, that the median is
                taken over. Iterations without a value add none.
        """
        return {
            name: (self._shown_value(name, window_size), iteration)
            for name, (_, iteration) in list(self.latest().items())
        }

    def _shown_value(self, name: str, window_size: int) -> float:
        if self._smoothing_hints[name]:
            return self._median(name, window_size)
        return self._latest_scalars[name][0]

    def _median(self, name: str, window_size: int) -> float:
        samples = self._history[name].values()[-self.count_samples(name, window_size) :]
        values = sorted(value for value, _ in samples)
        # NumPy's median takes ten times as long for so few values.
        if any(value != value for value in values):
            return math.nan
        middle = len(values) // 2
        return values[middle] if len(values) % 2 else (values[middle - 1] + values[middle]) / 2

    def count_samples(self, name: str, window_size: int = 20) -> int:
        """Count a scalar's values of the last ``window_size`` iterations up to its last one.

        The last value always counts.
        """
        values = self.history(name).values()
        oldest = self._latest_scalars[name][1] - window_size
        count = 1
        while count < len(values) and values[-count - 1][1] > oldest:
            count += 1
        return count

    def smoothing_hints(self) -> dict[str, bool]:
        """Whether each scalar is to be smoothed, by name."""
        self._deferred.flush()
        return self._smoothing_hints

    def step(self) -> None:
        """Go on to the next iteration."""
        self._iter += 1

    @property
    def iter(self) -> int:
        """The present iteration; it may be set."""
        return self._iter

    @iter.setter
    def iter(self, val: int) -> None:
        self._iter = int(val)

    @property
    def iteration(self) -> int:
        """Another name of :attr:`iter`."""
        return self._iter

    def __enter__(self) -> "EventStorage":
        _active_storages.append(self)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        if not _active_storages or _active_storages[-1] is not self:
            raise RuntimeError("an EventStorage was left that is not the innermost active one")
        _active_storages.pop()

    @contextmanager
    def name_scope(self, name: str) -> Iterator[None]:
        """Put ``name/`` before the names of the scalars that are put inside.

        A scope inside another replaces it.
        """
        outer = self._current_prefix
        self._current_prefix = name.rstrip("/") + "/"
        try:
            yield
        finally:
            self._current_prefix = outer

    def clear_images(self) -> None:
        """Forget all images; a writer calls it after it has written them."""
        self._vis_data = []

    def clear_histograms(self) -> None:
        """Forget all histograms; a writer calls it after it has written them."""
        self._histograms = []
