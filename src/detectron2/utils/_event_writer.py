"""What the writers of metrics have in common."""

from detectron2.utils._event_storage import EventStorage

# Estimates that CommonMetricPrinter puts: of no use once the iteration has been written.
_USELESS_LATE = "eta_seconds"


class EventWriter:
    """Takes metrics from the active :class:`EventStorage` to somewhere else.

    :meth:`write` is called now and then, and when training stops, before :meth:`close`.
    """

    def write(self) -> None:
        """Write what the storage holds."""
        raise NotImplementedError

    def close(self) -> None:
        """Release files. It writes nothing: call :meth:`write` first."""


class ScalarTracker:
    """Tells which scalars are new since it was last asked.

    Each name is looked at by itself: a value that comes late, for an iteration that other scalars
    were written for already, is new all the same.
    """

    def __init__(self, window_size: int) -> None:
        self._window_size = window_size
        self._seen: dict[str, tuple[float, int]] = {}
        self._last_iteration = -1

    def take_new(self, storage: EventStorage) -> dict[int, dict[str, float]]:
        """The smoothed values of the new scalars: iteration → name → value, ascending."""
        latest = storage.latest()
        new = [
            name
            for name, value in latest.items()
            if self._seen.get(name) != value
            and not (name == _USELESS_LATE and value[1] <= self._last_iteration)
        ]
        if not new:
            return {}
        smoothed = storage.latest_with_smoothing_hint(self._window_size)
        by_iteration: dict[int, dict[str, float]] = {}
        for name in new:
            value, iteration = smoothed[name]
            by_iteration.setdefault(iteration, {})[name] = value
            self._seen[name] = latest[name]
            self._last_iteration = max(self._last_iteration, iteration)
        return dict(sorted(by_iteration.items()))
