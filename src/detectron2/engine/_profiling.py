"""Hooks that look at what training takes: time by operator, and memory."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, tensorboard_trace_handler

from detectron2.engine.train_loop import HookBase, TrainerBase
from detectron2.utils import comm


class TorchProfiler(HookBase):
    """Run torch.profiler on some iterations, each by itself.

    ::

        hooks.TorchProfiler(lambda trainer: 10 < trainer.iter < 20, cfg.OUTPUT_DIR)

    The traces open in chrome://tracing and ui.perfetto.dev, those for TensorBoard also with its
    profiler plugin. A profiled iteration is slower than others.
    """

    def __init__(
        self,
        enable_predicate: Callable[[TrainerBase], bool],
        output_dir: str,
        *,
        activities: Iterable[ProfilerActivity] | None = None,
        save_tensorboard: bool = True,
    ) -> None:
        """
        Args:
            enable_predicate: takes the trainer, and tells whether to profile the iteration.
            output_dir: the folder in which results go.
            activities: as of torch.profiler.profile; None means the CPU, and CUDA if there is one.
            save_tensorboard: write a folder ``log/profiler-tensorboard-iter{iteration}``, and
                not one file ``profiler-trace-iter{iteration}.json``.
        """
        self._enable_predicate = enable_predicate
        self._output_dir = output_dir
        self._activities = activities
        self._save_tensorboard = save_tensorboard
        self._profiler: profile | None = None

    def before_step(self) -> None:
        if not self._enable_predicate(self.trainer):
            return
        on_trace_ready = None
        if self._save_tensorboard:
            folder = f"log/profiler-tensorboard-iter{self.trainer.iter}"
            on_trace_ready = tensorboard_trace_handler(
                os.path.join(self._output_dir, folder), f"worker{comm.get_rank()}"
            )
        self._start(
            activities=self._activities,
            on_trace_ready=on_trace_ready,
            record_shapes=True,
            profile_memory=True,
            with_stack=True,
            with_flops=True,
        )

    def _start(self, **options: Any) -> None:
        self._profiler = profile(**options)
        self._profiler.__enter__()

    def after_step(self) -> None:
        if self._profiler is None:
            return
        profiler, self._profiler = self._profiler, None
        profiler.__exit__(None, None, None)
        if not self._save_tensorboard:
            from detectron2.utils.file_io import PathManager

            PathManager.mkdirs(self._output_dir)
            name = f"profiler-trace-iter{self.trainer.iter}.json"
            profiler.export_chrome_trace(os.path.join(self._output_dir, name))

    def after_train(self) -> None:
        # An exception may have ended a profiled iteration; the next training could not profile.
        if self._profiler is not None:
            self._profiler.__exit__(None, None, None)
            self._profiler = None


class AutogradProfiler(TorchProfiler):
    """A :class:`TorchProfiler` with fewer details; use that one instead."""

    def __init__(
        self,
        enable_predicate: Callable[[TrainerBase], bool],
        output_dir: str,
        *,
        use_cuda: bool = True,
    ) -> None:
        """
        Args:
            enable_predicate, output_dir: see :class:`TorchProfiler`.
            use_cuda: profile CUDA, too, if there is a device.
        """
        warnings.warn("AutogradProfiler is deprecated: use TorchProfiler", stacklevel=2)
        activities = [ProfilerActivity.CPU]
        if use_cuda and torch.cuda.is_available():
            activities.append(ProfilerActivity.CUDA)
        super().__init__(
            enable_predicate, output_dir, activities=activities, save_tensorboard=False
        )

    def before_step(self) -> None:
        if self._enable_predicate(self.trainer):
            self._start(activities=self._activities)


class TorchMemoryStats(HookBase):
    """Log how much CUDA memory is in use, in MB."""

    def __init__(self, period: int = 20, max_runs: int = 10) -> None:
        """
        Args:
            period: in iterations.
            max_runs: how often to log; it changes little later on.
        """
        self._logger = logging.getLogger(__name__)
        self._period = period
        self._max_runs = max_runs
        self._runs = 0

    def after_step(self) -> None:
        if self._runs >= self._max_runs or not torch.cuda.is_available():
            return
        following = self.trainer.iter + 1
        if following % self._period and following != self.trainer.max_iter:
            return
        mb = 1024.0**2
        self._logger.info(
            "iter: %d  max_reserved_mem: %.0fMB  reserved_mem: %.0fMB  max_allocated_mem: %.0fMB  "
            "allocated_mem: %.0fMB",
            self.trainer.iter,
            torch.cuda.max_memory_reserved() / mb,
            torch.cuda.memory_reserved() / mb,
            torch.cuda.max_memory_allocated() / mb,
            torch.cuda.memory_allocated() / mb,
        )
        self._runs += 1
        if self._runs == self._max_runs:
            self._logger.info("\n%s", torch.cuda.memory_summary())
        torch.cuda.reset_peak_memory_stats()
