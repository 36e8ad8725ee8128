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

    def take_new_names(self, storage: EventStorage) -> dict[int, list[str]]:
        """The names of the new scalars by iteration, ascending."""
        by_iteration: dict[int, list[str]] = {}
        previous = self._last_iteration
        # A copy: another thread may put scalars meanwhile.
        for name, sample in list(storage.latest().items()):
            iteration = sample[1]
            is_useless = name == _USELESS_LATE and iteration <= previous
            if self._seen.get(name) != sample and not is_useless:
                by_iteration.setdefault(iteration, []).append(name)
                self._seen[name] = sample
                self._last_iteration = max(self._last_iteration, iteration)
        return dict(sorted(by_iteration.items()))

    def take_new(self, storage: EventStorage) -> dict[int, dict[str, float]]:
        """The smoothed values of the new scalars: iteration → name → value, ascending."""
        return {
            iteration: {name: storage._shown_value(name, self._window_size) for name in names}
            for iteration, names in self.take_new_names(storage).items()
        }
