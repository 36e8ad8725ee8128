"""The training loop: what calls the hooks, and what happens in an iteration."""

from __future__ import annotations

import contextlib
import logging
import math
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from detectron2.engine._losses import FetchedLosses, to_floats
from detectron2.engine._nonfinite import describe_nonfinite
from detectron2.utils import comm
from detectron2.utils.events import EventStorage, get_event_storage

__all__ = ["AMPTrainer", "HookBase", "SimpleTrainer", "TrainerBase"]


class HookBase:
    """What is done around the iterations of a trainer, who calls::

        hook.before_train()
        for iteration in range(start_iter, max_iter):
            hook.before_step()
            trainer.run_step()  # calls hook.after_backward()
            hook.after_step()
        hook.after_train()

    Every method does nothing here. All may use ``self.trainer``, which is set when the hook is
    registered. ``before_step`` shall be quick: what takes longer belongs into ``after_step``, so
    that a measurement between two ``before_step`` has all of an iteration.
    """

    trainer: TrainerBase = None
    """A weak reference to the trainer at which the hook is registered."""

    def before_train(self) -> None:
        """Before the first iteration."""

    def after_train(self) -> None:
        """After the last iteration, and when an exception ended the training."""

    def before_step(self) -> None:
        """Before each iteration."""

    def after_backward(self) -> None:
        """Between the backward pass and the optimizer's step of each iteration."""

    def after_step(self) -> None:
        """After each iteration."""

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint shall keep, as the hook's ``load_state_dict`` takes it; {}: nothing."""
        return {}


class TrainerBase:
    """A loop with hooks; a subclass says in :meth:`run_step` what an iteration is.

    Attributes:
        iter: the current iteration; after all it is ``max_iter``.
        start_iter: the first iteration of this run.
        max_iter: where the loop ends. A hook may lower it while training; it is looked at after
            each iteration.
        storage: the :class:`EventStorage` of this run; there from the start of :meth:`train`.
    """

    def __init__(self) -> None:
        self._hooks: list[HookBase] = []
        self.iter: int = 0
        self.start_iter: int = 0
        self.max_iter: int
        self.storage: EventStorage

    def register_hooks(self, hooks: list[HookBase | None]) -> None:
        """Append hooks, which are called in the order of their registration.

        Args:
            hooks: None among them is left out.

        Raises:
            TypeError: one is no :class:`HookBase`. None of them is registered then.
        """
        hooks = [hook for hook in hooks if hook is not None]
        for hook in hooks:
            if not isinstance(hook, HookBase):
                raise TypeError(f"a hook must be a HookBase, not {hook!r}")
        for hook in hooks:
            # A strong reference would keep trainer and hooks alive in a cycle, and models with it.
            hook.trainer = weakref.proxy(self)
        self._hooks.extend(hooks)

    def train(self, start_iter: int, max_iter: int) -> None:
        """Run the iterations [start_iter, max_iter), and the hooks around them.

        Whatever is raised is logged and raised again, after :meth:`after_train`.
        """
        logger = logging.getLogger(__name__)
        logger.info("Starting training from iteration %d", start_iter)
        self.iter = self.start_iter = start_iter
        self.max_iter = max_iter
        with EventStorage(start_iter) as self.storage:
            try:
                self.before_train()
                while self.iter < self.max_iter:
                    self.before_step()
                    self.run_step()
                    self.after_step()
                    self.iter += 1
            except Exception:
                logger.exception("Exception during training:")
                raise
            finally:
                self.after_train()

    def before_train(self) -> None:
        """Call the hooks' ``before_train``."""
        for hook in self._hooks:
            hook.before_train()

    def after_train(self) -> None:
        """Call the ``after_train`` of every hook, whatever the others raise.

        Raises:
            Exception: the first that a hook raised; the others are logged.
        """
        self.storage.iter = self.iter
        first_error = None
        for hook in self._hooks:
            try:
                hook.after_train()
            except Exception as error:
                if first_error is None:
                    first_error = error
                else:
                    logging.getLogger(__name__).exception("Exception after training:")
        if first_error is not None:
            raise first_error

    def before_step(self) -> None:
        """Tell the storage the iteration, and call the hooks' ``before_step``."""
        self.storage.iter = self.iter
        for hook in self._hooks:
            hook.before_step()

    def after_backward(self) -> None:
        """Call the hooks' ``after_backward``."""
        for hook in self._hooks:
            hook.after_backward()

    def after_step(self) -> None:
        """Call the hooks' ``after_step``."""
        for hook in self._hooks:
            hook.after_step()

    def run_step(self) -> None:
        """One iteration."""
        raise NotImplementedError(f"{type(self).__name__} does not say what run_step does")

    def state_dict(self) -> dict[str, Any]:
        """The ``"iteration"``, and ``"hooks"``: the states by the class names of those that have
        any. Of several hooks of one class it is the first one's."""
        state: dict[str, Any] = {"iteration": self.iter}
        hook_states: dict[str, Any] = {}
        for hook in self._hooks:
            name = type(hook).__qualname__
            if name not in hook_states and (hook_state := hook.state_dict()):
                hook_states[name] = hook_state
        if hook_states:
            state["hooks"] = hook_states
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what :meth:`state_dict` gave. States of hooks that are not registered here are
        left aside with a warning."""
        self.iter = state_dict["iteration"]
        for name, hook_state in state_dict.get("hooks", {}).items():
            for hook in self._hooks:
                if type(hook).__qualname__ == name:
                    hook.load_state_dict(hook_state)
                    break
            else:
                logging.getLogger(__name__).warning(
                    "The checkpoint has a state of the hook %s, which is not registered: ignored",
                    name,
                )


class SimpleTrainer(TrainerBase):
    """One model, one optimizer, one source of data: forward, backward, step.

    Anything else, such as several optimizers or schedules, is another ``run_step`` or a hook.
    """

    # Set here, as subclasses with parts of their own call the __init__ of TrainerBase only.
    _pending_metrics: tuple[Any, ...] | None = None
    _batch: Any = None
    _batches_seen = 0

    def __init__(
        self,
        model: nn.Module,
        data_loader: Iterable[Any],
        optimizer: torch.optim.Optimizer,
        gather_metric_period: int = 1,
        zero_grad_before_forward: bool = False,
        async_write_metrics: bool = False,
    ) -> None:
        """
        Args:
            model: takes a batch, and returns a dict of scalar losses, or one loss. It is set to
                training mode.
            data_loader: gives batches, at least as many as there are iterations. One that has
                ``state_dict`` and ``load_state_dict`` is part of the trainer's state, and so goes
                on after the last batch seen when training is resumed.
            optimizer: of the model's parameters.
            gather_metric_period: how often, in iterations, losses are collected from all
                processes and checked to be finite. Each time waits for the device.
            zero_grad_before_forward: clear the gradients before the forward pass, which takes
                less memory, instead of between the two passes, which overlaps with the forward
                pass on the device.
            async_write_metrics: write losses an iteration later, when they have long been
                computed, so that the loop never waits for the device. A loss that is not finite
                is noticed an iteration later, too.
        """
        super().__init__()
        model.train()
        self.model = model
        self.data_loader = data_loader
        self._data_loader_iter_obj: Iterator[Any] | None = None
        self.optimizer = optimizer
        self.gather_metric_period = gather_metric_period
        self.zero_grad_before_forward = zero_grad_before_forward
        self.async_write_metrics = async_write_metrics
        # Code written for upstream may look for it; losses are fetched without a thread here.
        self.concurrent_executor = None

    def run_step(self) -> None:
        """A batch forward and backward, the hooks between, the optimizer's step."""
        data, data_time = self._next_batch()
        if self.zero_grad_before_forward:
            self.optimizer.zero_grad()
        with self._autocast():
            loss_dict, losses = self._losses(self.model(data))
        if not self.zero_grad_before_forward:
            self.optimizer.zero_grad()
        self._backward(losses)
        self.after_backward()
        self._write_metrics(loss_dict, data_time)
        self._step()

    def _next_batch(self) -> tuple[Any, float]:
        """The next batch, and the seconds that it took."""
        if not self.model.training:
            raise RuntimeError(
                f"{type(self).__name__}: the model was changed to evaluation mode; call "
                "model.train() after evaluating it"
            )
        start = time.perf_counter()
        try:
            data = next(self._data_loader_iter)
        except StopIteration as error:
            raise RuntimeError(
                f"the data loader ended after {self._batches_seen} batches, at iteration "
                f"{self.iter}: training needs one that goes on, such as one with a TrainingSampler"
            ) from error
        self._batches_seen += 1
        self._batch = data
        return data, time.perf_counter() - start

    def _autocast(self) -> contextlib.AbstractContextManager[None]:
        """What the forward pass runs under."""
        return contextlib.nullcontext()

    def _backward(self, losses: torch.Tensor) -> None:
        losses.backward()

    def _step(self) -> None:
        self.optimizer.step()

    @staticmethod
    def _losses(output: Any) -> tuple[Mapping[str, torch.Tensor], torch.Tensor]:
        """What the model returned, as a dict and as what to minimize."""
        if isinstance(output, torch.Tensor):
            return {"total_loss": output}, output
        return output, sum(output.values())

    @property
    def _data_loader_iter(self) -> Iterator[Any]:
        # Made when needed: workers of a loader start then, and not for an evaluation.
        if self._data_loader_iter_obj is None:
            self._data_loader_iter_obj = iter(self.data_loader)
            self._batches_seen = 0
        return self._data_loader_iter_obj

    def reset_data_loader(self, data_loader_builder: Callable[[], Iterable[Any]]) -> None:
        """Go on with another data loader, which is built when the old one has gone.

        Args:
            data_loader_builder: takes nothing, and returns the new loader.
        """
        del self.data_loader
        self._data_loader_iter_obj = None
        self.data_loader = data_loader_builder()

    def _write_metrics(
        self,
        loss_dict: Mapping[str, torch.Tensor],
        data_time: float,
        prefix: str = "",
        iter: int | None = None,
    ) -> None:
        """Write metrics if it is time to, and complain about losses that are not finite."""
        cur_iter = self.iter if iter is None else iter
        self._finish_metrics()
        if (cur_iter + 1) % self.gather_metric_period:
            return
        if self.async_write_metrics:
            fetched = FetchedLosses(loss_dict)
            self._pending_metrics = (fetched, data_time, cur_iter, prefix, self._batch)
        else:
            self._write_checked(loss_dict, data_time, cur_iter, prefix, self._batch)

    def _finish_metrics(self) -> None:
        """Write what has been fetched since an iteration ago."""
        if self._pending_metrics is not None:
            fetched, *others = self._pending_metrics
            self._pending_metrics = None
            self._write_checked(fetched.result(), *others)

    def _write_checked(
        self,
        loss_dict: Mapping[str, torch.Tensor],
        data_time: float,
        cur_iter: int,
        prefix: str,
        batch: Any,
    ) -> None:
        try:
            self.write_metrics(loss_dict, data_time, cur_iter, prefix)
        except FloatingPointError as error:
            if all(map(math.isfinite, to_floats(loss_dict).values())):
                where = "The losses of this process are finite; another one tells where it is."
            else:
                with self._autocast():
                    where = describe_nonfinite(self.model, batch)
            raise FloatingPointError(f"{error}\n{where}") from None

    def after_step(self) -> None:
        """Have all metrics written when the hooks see the last iteration, then call the hooks."""
        if self.iter + 1 >= self.max_iter:
            self._finish_metrics()
        super().after_step()

    @staticmethod
    def write_metrics(
        loss_dict: Mapping[str, torch.Tensor],
        data_time: float,
        cur_iter: int,
        prefix: str = "",
    ) -> None:
        """Collect the losses of all processes, and put their averages into rank 0's storage.

        All processes call it together. Stored are ``data_time``, the longest of all processes',
        ``rank_data_time`` of each process by itself, ``total_loss``, and, if there are several,
        the losses themselves.

        Args:
            loss_dict: scalars, under the same names in all processes.
            data_time: seconds that this process waited for its batch.
            cur_iter: the iteration that they belong to.
            prefix: of the name of the total loss.

        Raises:
            FloatingPointError: a loss is NaN or infinite: in rank 0 one of any process, elsewhere
                one of its own.
        """
        metrics = to_floats(loss_dict)
        storage = get_event_storage()
        storage.put_scalar("rank_data_time", data_time, cur_iter=cur_iter)
        gathered = comm.gather((metrics, data_time))
        if comm.is_main_process():
            storage.put_scalar("data_time", max(t for _, t in gathered), cur_iter=cur_iter)
            count = len(gathered)
            metrics = {name: sum(m[name] for m, _ in gathered) / count for name in metrics}
        total = sum(metrics.values())
        if not math.isfinite(total):
            raise FloatingPointError(
                f"Loss became infinite or NaN at iteration={cur_iter}!\nloss_dict = {metrics}"
            )
        if comm.is_main_process():
            storage.put_scalar(f"{prefix}total_loss", total, cur_iter=cur_iter)
            if len(metrics) > 1:
                storage.put_scalars(cur_iter=cur_iter, **metrics)

    def state_dict(self) -> dict[str, Any]:
        """That of :class:`TrainerBase`, ``"optimizer"``, and ``"data_loader"`` if that has any."""
        state = super().state_dict()
        state["optimizer"] = self.optimizer.state_dict()
        if _has_state(self.data_loader):
            state["data_loader"] = self.data_loader.state_dict()
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what :meth:`state_dict` gave."""
        super().load_state_dict(state_dict)
        self.optimizer.load_state_dict(state_dict["optimizer"])
        if "data_loader" in state_dict and _has_state(self.data_loader):
            self._data_loader_iter_obj = None
            self.data_loader.load_state_dict(state_dict["data_loader"])

    def after_train(self) -> None:
        """Write the metrics of an iteration that ended early, then call the hooks."""
        try:
            self._finish_metrics()
        finally:
            super().after_train()


class AMPTrainer(SimpleTrainer):
    """A :class:`SimpleTrainer` with automatic mixed precision: forward and loss under autocast.

    The device is that of the model's parameters. The loss is scaled for the backward pass, so that
    the hooks' ``after_backward`` sees scaled gradients.
    """

    def __init__(
        self,
        model: nn.Module,
        data_loader: Iterable[Any],
        optimizer: torch.optim.Optimizer,
        gather_metric_period: int = 1,
        zero_grad_before_forward: bool = False,
        grad_scaler: torch.amp.GradScaler | None = None,
        precision: torch.dtype = torch.float16,
        log_grad_scaler: bool = False,
        async_write_metrics: bool = False,
    ) -> None:
        """
        Args:
            model, data_loader, optimizer, gather_metric_period, zero_grad_before_forward,
                async_write_metrics: see :class:`SimpleTrainer`.
            grad_scaler: None means a new one, which scales nothing if ``precision`` is bfloat16:
                its exponents reach as far as float32's.
            precision: float16 or bfloat16.
            log_grad_scaler: store the scale as ``[metric]grad_scaler``.
        """
        if precision not in (torch.float16, torch.bfloat16):
            raise ValueError(f"precision must be torch.float16 or torch.bfloat16, not {precision}")
        if isinstance(model, DataParallel) or (
            isinstance(model, DistributedDataParallel) and len(model.device_ids or []) > 1
        ):
            raise ValueError("AMPTrainer takes one device a process: use DistributedDataParallel")
        super().__init__(
            model,
            data_loader,
            optimizer,
            gather_metric_period,
            zero_grad_before_forward,
            async_write_metrics,
        )
        self._device_type = next((p.device.type for p in model.parameters()), "cpu")
        if grad_scaler is None:
            grad_scaler = torch.amp.GradScaler(
                self._device_type, enabled=precision is torch.float16
            )
        self.grad_scaler = grad_scaler
        self.precision = precision
        self.log_grad_scaler = log_grad_scaler

    def _autocast(self) -> contextlib.AbstractContextManager[None]:
        return torch.autocast(self._device_type, dtype=self.precision)

    def _backward(self, losses: torch.Tensor) -> None:
        self.grad_scaler.scale(losses).backward()
        if self.log_grad_scaler:
            get_event_storage().put_scalar("[metric]grad_scaler", self.grad_scaler.get_scale())

    def _step(self) -> None:
        self.grad_scaler.step(self.optimizer)
        self.grad_scaler.update()

    def state_dict(self) -> dict[str, Any]:
        """That of :class:`SimpleTrainer`, and ``"grad_scaler"``."""
        state = super().state_dict()
        state["grad_scaler"] = self.grad_scaler.state_dict()
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what :meth:`state_dict` gave, or a trainer without a scaler, or with another
        precision: the scale then starts anew."""
        super().load_state_dict(state_dict)
        if state := state_dict.get("grad_scaler"):
            self.grad_scaler.load_state_dict(state)


def _has_state(data_loader: Any) -> bool:
    return hasattr(data_loader, "state_dict") and hasattr(data_loader, "load_state_dict")
