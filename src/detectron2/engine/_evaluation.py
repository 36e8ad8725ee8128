"""Hooks that evaluate the model while it is trained, and that look at the results."""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from detectron2.engine._weight_averaging import averaged_weights
from detectron2.engine.train_loop import HookBase
from detectron2.utils import comm


class EvalHook(HookBase):
    """Call a function periodically and after training, and store the numbers that it returns.

    If the trainer has an :class:`EMA` hook, the function sees the averaged weights in the model.
    """

    def __init__(
        self,
        eval_period: int,
        eval_function: Callable[[], Mapping[str, Any] | None],
        eval_after_train: bool = True,
    ) -> None:
        """
        Args:
            eval_period: in iterations; 0 evaluates after training only.
            eval_function: takes nothing, and returns numbers by name, possibly in nested
                dictionaries, or nothing. All processes call it, and it evaluates however it likes.
            eval_after_train: whether to call it after the last iteration, also where that is not
                at a multiple of ``eval_period``. An evaluation that is due then happens in
                ``after_train``, and not at all without this.
        """
        self._period = eval_period
        self._func = eval_function
        self._eval_after_train = eval_after_train

    def _do_eval(self) -> None:
        with averaged_weights(self.trainer):
            results = self._func()
        if results:
            if not isinstance(results, Mapping):
                raise TypeError(f"an eval function must return a dict, not {results!r}")
            metrics = {name: _to_float(name, value) for name, value in _flatten(results)}
            self.trainer.storage.put_scalars(**metrics, smoothing_hint=False)
        # Evaluation takes processes unequally long, and a wait in the next iteration would count
        # as that iteration's time.
        comm.synchronize()

    def after_step(self) -> None:
        following = self.trainer.iter + 1
        if (
            self._period > 0
            and following % self._period == 0
            and following != self.trainer.max_iter
        ):
            self._do_eval()

    def after_train(self) -> None:
        # Not if an exception ended the training.
        if self._eval_after_train and self.trainer.iter + 1 >= self.trainer.max_iter:
            self._do_eval()
        # It often is a closure over the trainer, which holds this hook.
        del self._func


class EarlyStopping(HookBase):
    """End the training when a metric has not improved for some evaluations.

    Register it after the :class:`EvalHook` that gives the metric. One more iteration follows the
    decision, so that every hook has a last iteration and evaluates, writes and saves as usual.
    All processes end together. How long it has waited is part of the trainer's state.
    """

    def __init__(
        self,
        eval_period: int,
        val_metric: str,
        patience: int,
        mode: str = "max",
        min_delta: float = 0.0,
    ) -> None:
        """
        Args:
            eval_period: that of the EvalHook, in iterations.
            val_metric: the metric's name in the event storage of rank 0, e.g. ``"bbox/AP"``.
            patience: evaluations without an improvement after which to end.
            mode: ``"max"`` if more is better, else ``"min"``.
            min_delta: what is less than this much better is no improvement.
        """
        if eval_period < 1:
            raise ValueError(f"eval_period must be at least 1, not {eval_period}")
        if patience < 1:
            raise ValueError(f"patience must be at least 1, not {patience}")
        if mode not in ("max", "min"):
            raise ValueError(f'mode must be "max" or "min", not {mode!r}')
        self._logger = logging.getLogger(__name__)
        self._period = eval_period
        self._val_metric = val_metric
        self._patience = patience
        self._sign = 1 if mode == "max" else -1
        self._min_delta = min_delta
        self._best: float | None = None
        self._waited = 0

    def after_step(self) -> None:
        following = self.trainer.iter + 1
        if following % self._period or following >= self.trainer.max_iter:
            return
        # Only rank 0 need know the metric.
        if comm.all_gather(comm.is_main_process() and self._is_time_to_stop())[0]:
            self.trainer.max_iter = min(self.trainer.max_iter, following + 1)

    def _is_time_to_stop(self) -> bool:
        latest = self.trainer.storage.latest().get(self._val_metric)
        if latest is None:
            self._logger.warning("There is no metric %s: no early stopping by it", self._val_metric)
            return False
        value = latest[0]
        if self._is_better(value):
            self._best, self._waited = value, 0
            return False
        self._waited += 1
        if self._waited < self._patience:
            return False
        self._logger.info(
            "Stopping: %s is %.5f, and no better than %s for %d evaluations",
            self._val_metric,
            value,
            self._best,
            self._waited,
        )
        return True

    def _is_better(self, value: float) -> bool:
        if not math.isfinite(value):
            return False
        return self._best is None or self._sign * (value - self._best) > self._min_delta

    def state_dict(self) -> dict[str, Any]:
        return {"best": self._best, "waited": self._waited}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the best value and how long ago it was."""
        self._best = state_dict["best"]
        self._waited = state_dict["waited"]


def _flatten(results: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in results.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{name}/")
        else:
            yield f"{prefix}{name}", value


def _to_float(name: str, value: Any) -> float:
    with contextlib.suppress(TypeError, ValueError):
        return float(value)
    raise ValueError(
        f"an eval function must return a nested dict of numbers, and {name} is {value!r}"
    )
