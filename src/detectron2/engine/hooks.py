"""Hooks for the training loop; see :class:`detectron2.engine.HookBase`."""

from __future__ import annotations

import datetime
import itertools
import logging
import math
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import torch
from fvcore.common.checkpoint import Checkpointer
from fvcore.common.checkpoint import PeriodicCheckpointer as _PeriodicCheckpointer
from torch import nn

from detectron2.engine._evaluation import EarlyStopping, EvalHook
from detectron2.engine._profiling import AutogradProfiler, TorchMemoryStats, TorchProfiler
from detectron2.engine._weight_averaging import EMA
from detectron2.engine.train_loop import HookBase, TrainerBase
from detectron2.utils._lazy import lazy_attributes
from detectron2.utils.events import EventStorage, EventWriter

if TYPE_CHECKING:
    from fvcore.common.param_scheduler import ParamScheduler

__all__ = [
    "EMA",
    "AutogradProfiler",
    "BestCheckpointer",
    "CallbackHook",
    "EarlyStopping",
    "EvalHook",
    "IterationTimer",
    "LRScheduler",
    "PeriodicCheckpointer",
    "PeriodicWriter",
    "PreciseBN",
    "TorchMemoryStats",
    "TorchProfiler",
]


# Also importable from here, as programs do, without loading it all beforehand.
_REEXPORTED = {
    "flatten_results_dict": "detectron2.evaluation.testing",
    "LRMultiplier": "detectron2.solver",
}
__getattr__ = lazy_attributes(__name__, _REEXPORTED)


class CallbackHook(HookBase):
    """A hook made of functions."""

    def __init__(
        self,
        *,
        before_train: Callable[[TrainerBase], Any] | None = None,
        after_train: Callable[[TrainerBase], Any] | None = None,
        before_step: Callable[[TrainerBase], Any] | None = None,
        after_step: Callable[[TrainerBase], Any] | None = None,
    ) -> None:
        """
        Args:
            before_train, after_train, before_step, after_step: called with the trainer at these
                times; None does nothing.
        """
        self._before_train = before_train
        self._after_train = after_train
        self._before_step = before_step
        self._after_step = after_step

    def before_train(self) -> None:
        if self._before_train is not None:
            self._before_train(self.trainer)

    def after_train(self) -> None:
        if self._after_train is not None:
            self._after_train(self.trainer)
        # They may hold the trainer, which holds this hook.
        self._before_train = self._after_train = None
        self._before_step = self._after_step = None

    def before_step(self) -> None:
        if self._before_step is not None:
            self._before_step(self.trainer)

    def after_step(self) -> None:
        if self._after_step is not None:
            self._after_step(self.trainer)


class IterationTimer(HookBase):
    """Store the seconds of each iteration as ``time``, and log a summary at the end.

    The summary tells the time that was spent in hooks, too. Register this hook first: what lies
    between its own two calls is the iteration, and the rest is the hooks'.
    """

    def __init__(self, warmup_iter: int = 3) -> None:
        """
        Args:
            warmup_iter: the first iteration of a run that counts, from 1; earlier ones are slower.
        """
        self._warmup_iter = warmup_iter
        self._began = self._step_began = time.perf_counter()
        self._in_steps = self._in_counted_steps = 0.0
        self._counted = 0

    def before_train(self) -> None:
        self._began = time.perf_counter()

    def before_step(self) -> None:
        self._step_began = time.perf_counter()

    def after_step(self) -> None:
        seconds = time.perf_counter() - self._step_began
        self._in_steps += seconds
        if self.trainer.iter - self.trainer.start_iter + 1 >= self._warmup_iter:
            self._counted += 1
            self._in_counted_steps += seconds
            self.trainer.storage.put_scalar("time", seconds)

    def after_train(self) -> None:
        total = time.perf_counter() - self._began
        logger = logging.getLogger(__name__)
        if self._counted:
            logger.info(
                "Overall training speed: %d iterations in %s (%.4f s / it)",
                self._counted,
                _format_seconds(self._in_counted_steps),
                self._in_counted_steps / self._counted,
            )
        logger.info(
            "Total training time: %s (%s on hooks)",
            _format_seconds(total),
            _format_seconds(total - self._in_steps),
        )


def _format_seconds(seconds: float) -> str:
    return str(datetime.timedelta(seconds=int(seconds)))


class PeriodicWriter(HookBase):
    """Let writers write what is in the event storage, periodically and at the end."""

    def __init__(self, writers: list[EventWriter], period: int = 20) -> None:
        """
        Args:
            writers: they are closed after training.
            period: in iterations. They write after the last iteration, too.
        """
        self._writers = writers
        for writer in writers:
            if not isinstance(writer, EventWriter):
                raise TypeError(f"a writer must be an EventWriter, not {writer!r}")
        self._period = period

    def after_step(self) -> None:
        iteration = self.trainer.iter
        if (iteration + 1) % self._period == 0 or iteration == self.trainer.max_iter - 1:
            for writer in self._writers:
                writer.write()

    def after_train(self) -> None:
        first_error = None
        for writer in self._writers:
            # What came since the last period, and what evaluation put after the last iteration.
            for finish in (writer.write, writer.close):
                try:
                    finish()
                except Exception as error:
                    first_error = first_error or error
        if first_error is not None:
            raise first_error


class PeriodicCheckpointer(_PeriodicCheckpointer, HookBase):
    """fvcore's PeriodicCheckpointer as a hook: ``model_{iteration:07d}``, and ``model_final``.

    Hooks that change what is saved, such as a scheduler, are registered before it.
    """

    def before_train(self) -> None:
        self.max_iter = self.trainer.max_iter

    def after_step(self) -> None:
        # A hook may have lowered it.
        self.max_iter = self.trainer.max_iter
        self.step(self.trainer.iter)


class BestCheckpointer(HookBase):
    """Save a checkpoint whenever a metric is better than ever before.

    Register it after the :class:`EvalHook` that gives the metric. The file tells the value, too,
    and a resumed training goes on comparing with it.

    Attributes:
        best_metric: the best value so far, or None.
        best_iter: the iteration that gave it, or None.
    """

    def __init__(
        self,
        eval_period: int,
        checkpointer: Checkpointer,
        val_metric: str,
        mode: str = "max",
        file_prefix: str = "model_best",
    ) -> None:
        """
        Args:
            eval_period: that of the EvalHook, in iterations; 0 looks after training only.
            checkpointer: saves the file.
            val_metric: the metric's name in the event storage, e.g. ``"bbox/AP50"``. Any scalar
                there will do.
            mode: ``"max"`` if more is better, else ``"min"``.
            file_prefix: the file's name without ``.pth``.
        """
        if mode not in ("max", "min"):
            raise ValueError(f'mode must be "max" or "min", not {mode!r}')
        self._logger = logging.getLogger(__name__)
        self._period = eval_period
        self._checkpointer = checkpointer
        self._val_metric = val_metric
        self._mode = mode
        self._file_prefix = file_prefix
        self.best_metric: float | None = None
        self.best_iter: int | None = None

    def _is_better(self, value: float) -> bool:
        if not math.isfinite(value):
            return False
        if self.best_metric is None:
            return True
        return value > self.best_metric if self._mode == "max" else value < self.best_metric

    def _check(self) -> None:
        latest = self.trainer.storage.latest().get(self._val_metric)
        if latest is None:
            self._logger.warning(
                "There is no metric %s in the event storage: no best checkpoint by it",
                self._val_metric,
            )
            return
        value, metric_iter = latest
        if not self._is_better(value):
            self._logger.info(
                "Not the best checkpoint: %s is %.5f, and was %s at iteration %s",
                self._val_metric,
                value,
                self.best_metric,
                self.best_iter,
            )
            return
        self._logger.info(
            "The best checkpoint so far: %s is %.5f at iteration %d, and was %s at iteration %s",
            self._val_metric,
            value,
            metric_iter,
            self.best_metric,
            self.best_iter,
        )
        self.best_metric, self.best_iter = value, metric_iter
        self._checkpointer.save(self._file_prefix, iteration=metric_iter, best_metric=value)

    def before_train(self) -> None:
        if self.best_metric is None and self.trainer.start_iter > 0:
            self._resume()

    def _resume(self) -> None:
        """Go on comparing with the value whose checkpoint an earlier run has left."""
        path = os.path.join(self._checkpointer.save_dir, f"{self._file_prefix}.pth")
        if not self._checkpointer.save_dir or not self._checkpointer.path_manager.exists(path):
            return
        local_path = self._checkpointer.path_manager.get_local_path(path)
        # Mapped, so that of a large file only these two numbers are read.
        saved = torch.load(local_path, map_location="cpu", mmap=True, weights_only=True)
        if "best_metric" in saved and saved["iteration"] < self.trainer.start_iter:
            self.best_metric, self.best_iter = saved["best_metric"], saved["iteration"]

    def after_step(self) -> None:
        # After the last iteration the evaluation comes in after_train.
        following = self.trainer.iter + 1
        if self._period > 0 and following % self._period == 0 and following < self.trainer.max_iter:
            self._check()

    def after_train(self) -> None:
        if self.trainer.iter >= self.trainer.max_iter:
            self._check()


class LRScheduler(HookBase):
    """Step a learning rate scheduler after each iteration, and store the rate as ``lr``."""

    def __init__(
        self,
        optimizer: torch.optim.Optimizer | None = None,
        scheduler: torch.optim.lr_scheduler.LRScheduler | ParamScheduler | None = None,
    ) -> None:
        """
        Args:
            optimizer: None means the trainer's.
            scheduler: a scheduler of the optimizer, or a ParamScheduler, which multiplies the
                optimizer's learning rates over the whole training. None means the trainer's
                ``scheduler``.
        """
        self._scheduler = scheduler
        self._optimizer = optimizer
        self._best_param_group_id = 0

    @property
    def scheduler(self) -> Any:
        """The scheduler given, or the trainer's."""
        own = self._scheduler
        return self.trainer.scheduler if own is None else own

    def before_train(self) -> None:
        from fvcore.common.param_scheduler import ParamScheduler

        if self._optimizer is None:
            self._optimizer = self.trainer.optimizer
        self._best_param_group_id = self.get_best_param_group_id(self._optimizer)
        schedule = self.scheduler
        if isinstance(schedule, ParamScheduler):
            from detectron2.solver import LRMultiplier

            done = self.trainer.iter
            self._scheduler = LRMultiplier(
                self._optimizer, schedule, self.trainer.max_iter, last_iter=done - 1
            )

    @staticmethod
    def get_best_param_group_id(optimizer: torch.optim.Optimizer) -> int:
        """The index of the parameter group whose learning rate stands for all.

        It is the first with most parameters, or, if each has a single one, the first that has the
        most common learning rate.
        """
        groups = optimizer.param_groups
        most = max(len(group["params"]) for group in groups)
        if most > 1:
            return next(i for i, group in enumerate(groups) if len(group["params"]) == most)
        rates = [group["lr"] for group in groups]
        return rates.index(Counter(rates).most_common(1)[0][0])

    def after_step(self) -> None:
        lr = self._optimizer.param_groups[self._best_param_group_id]["lr"]
        self.trainer.storage.put_scalar("lr", lr, smoothing_hint=False)
        self.scheduler.step()

    def _has_state(self) -> bool:
        # A schedule of fvcore is a function of the iteration.
        return isinstance(self.scheduler, torch.optim.lr_scheduler.LRScheduler)

    def state_dict(self) -> dict[str, Any]:
        return self.scheduler.state_dict() if self._has_state() else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the scheduler's state."""
        if self._has_state():
            self.scheduler.load_state_dict(state_dict)


class PreciseBN(HookBase):
    """Recompute the statistics of BatchNorm layers over many batches, before an evaluation.

    The running averages of training are of weights that have changed since (Wu and Johnson,
    "Rethinking 'Batch' in BatchNorm", section 3).
    """

    def __init__(
        self, period: int, model: nn.Module, data_loader: Iterable[Any], num_iter: int
    ) -> None:
        """
        Args:
            period: in iterations; 0 means only after the last one, where it is always done.
            model: its BatchNorm layers in training mode get new statistics, in place. Without
                any, the hook does nothing.
            data_loader: gives the batches; not the training's own, as it is advanced.
            num_iter: how many batches to average over.
        """
        from fvcore.nn.precise_bn import get_bn_modules

        self._logger = logging.getLogger(__name__)
        if not get_bn_modules(model):
            self._logger.info("PreciseBN is off: the model has no BatchNorm in training mode")
            self._disabled = True
            return
        self._disabled = False
        self._model = model
        self._data_loader = data_loader
        self._num_iter = num_iter
        self._period = period
        self._data_iter = None

    def after_step(self) -> None:
        if self._disabled:
            return
        following = self.trainer.iter + 1
        is_final = following == self.trainer.max_iter
        if is_final or (self._period > 0 and following % self._period == 0):
            self.update_stats()

    def update_stats(self) -> None:
        """Compute the statistics now."""
        if self._disabled:
            return
        from fvcore.nn.precise_bn import update_bn_stats

        if self._data_iter is None:
            self._data_iter = iter(self._data_loader)

        def batches() -> Iterable[Any]:
            for count in itertools.count(1):
                if count % 100 == 0:
                    self._logger.info("Running precise-BN ... %d/%d", count, self._num_iter)
                yield next(self._data_iter)

        # What the model stores while it runs is not of the training.
        with EventStorage():
            self._logger.info("Running precise-BN for %d iterations ...", self._num_iter)
            update_bn_stats(self._model, batches(), self._num_iter)
