"""Where the time of an inference loop goes."""

import datetime
import time

_WARM_UP_ITERATIONS = 5
_STAGES = ("loading", "inference", "evaluation")


class InferenceClock:
    """Times the stages of a loop's iterations, its first ones excepted.

    The first iterations start workers, allocate memory and choose algorithms. A loop that ends
    during them is timed from its last iteration on.
    """

    def __init__(self, total: int | None) -> None:
        """Args:
        total: the number of iterations; None if it is not known.
        """
        self._total = total
        self._warm_up = _WARM_UP_ITERATIONS
        if total is not None:
            self._warm_up = max(0, min(self._warm_up, total - 1))
        self._done = 0
        self._seconds = dict.fromkeys(_STAGES, 0.0)
        self.start()

    def start(self) -> None:
        """Let the first stage begin now."""
        self._begin = self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        """A stage ends, and the next one begins."""
        now = time.perf_counter()
        self._seconds[stage] += now - self._last
        self._last = now

    def end_iteration(self) -> None:
        self._done += 1
        if self._done == self._warm_up:
            self._seconds = dict.fromkeys(_STAGES, 0.0)

    def is_warm(self) -> bool:
        """Whether an iteration has been timed."""
        return self._done > self._warm_up

    def _means(self) -> dict[str, float]:
        timed = max(1, self._done - self._warm_up if self.is_warm() else self._done)
        return {stage: seconds / timed for stage, seconds in self._seconds.items()}

    def _stages(self) -> str:
        return ", ".join(f"{stage} {seconds:.4f} s" for stage, seconds in self._means().items())

    def progress(self) -> str:
        """How far the loop has come, the time per iteration, and the time that is left."""
        of_total, left = "", ""
        if self._total is not None:
            seconds = max(0, self._total - self._done) * sum(self._means().values())
            of_total = f"/{self._total}"
            left = f"; {datetime.timedelta(seconds=round(seconds))} left"
        return f"Inference {self._done}{of_total}: {self._stages()} per batch{left}"

    def summary(self) -> str:
        """The time of the whole loop, and of an iteration."""
        elapsed = datetime.timedelta(seconds=round(time.perf_counter() - self._begin))
        return f"Inference of {self._done} batches took {elapsed}: {self._stages()} per batch"
