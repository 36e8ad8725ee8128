"""Exponential moving averages of weights."""

from __future__ import annotations

import contextlib
import itertools
import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from detectron2.engine.train_loop import HookBase, TrainerBase
from detectron2.utils import comm

if TYPE_CHECKING:
    from fvcore.common.checkpoint import Checkpointer


class EMA(HookBase):
    """Keep an exponential moving average of a model's weights.

    After each iteration ``average = d * average + (1 - d) * weights``, where d is ``decay``, but
    less at first: min(decay, (1 + n) / (10 + n)) in the n-th update, as the average starts from
    untrained weights. Buffers of integers, such as BatchNorm's counters, are copied.

    Every :class:`EvalHook` of the same trainer evaluates the averaged weights; register this hook
    before them, and before the hook that saves checkpoints. The average is part of the trainer's
    state, so it is saved and resumed with it.
    """

    def __init__(
        self,
        model: nn.Module,
        decay: float = 0.999,
        checkpointer: Checkpointer | None = None,
        file_prefix: str = "model_ema",
    ) -> None:
        """
        Args:
            model: its parameters and buffers are averaged, of a DistributedDataParallel those of
                the model inside.
            decay: in [0, 1).
            checkpointer: if given, the averaged weights are saved in its folder when training
                ends, as a checkpoint that loads like a model's; it does not become the last one.
            file_prefix: that file's name without ``.pth``.
        """
        if not 0 <= decay < 1:
            raise ValueError(f"decay must be in [0, 1), not {decay}")
        if isinstance(model, DataParallel | DistributedDataParallel):
            model = model.module
        self._model = model
        self._decay = decay
        self._checkpointer = checkpointer
        self._file_prefix = file_prefix
        self._updates = 0
        self._average: dict[str, torch.Tensor] | None = None
        # Found once: walking through a large model's modules takes a millisecond.
        self._weights: dict[str, torch.Tensor] = {}

    def before_train(self) -> None:
        # Not before: weights are loaded between the making of the hook and the training.
        self._weights = self._find_weights()
        if self._average is None:
            self._average = {name: weight.clone() for name, weight in self._weights.items()}

    def after_step(self) -> None:
        self.update()

    def after_train(self) -> None:
        if self._checkpointer is not None and self.trainer.iter >= self.trainer.max_iter:
            self._save()

    def _find_weights(self) -> dict[str, torch.Tensor]:
        """What is saved of the model; a tensor that has several names has the first."""
        saved = self._model.state_dict().keys()
        tensors = itertools.chain(self._model.named_parameters(), self._model.named_buffers())
        return {name: tensor.detach() for name, tensor in tensors if name in saved}

    @torch.no_grad()
    def update(self) -> None:
        """Take the weights as they are into the average."""
        self._updates += 1
        decay = min(self._decay, (1 + self._updates) / (10 + self._updates))
        averages, weights = [], []
        for name, weight in self._weights.items():
            if weight.is_floating_point():
                averages.append(self._average[name])
                weights.append(weight)
            else:
                self._average[name].copy_(weight)
        torch._foreach_lerp_(averages, weights, 1 - decay)

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """While it lasts, the model has the averaged weights."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for name, weight in self._weights.items():
            average = self._average[name]
            kept = weight.clone()
            weight.copy_(average)
            average.copy_(kept)

    def averaged_state_dict(self) -> dict[str, torch.Tensor]:
        """The averaged weights, under the names of the model's state; copies."""
        with self.applied() if self._average is not None else contextlib.nullcontext():
            return {name: t.detach().clone() for name, t in self._model.state_dict().items()}

    def _save(self) -> None:
        original = self._checkpointer
        if not comm.is_main_process() or not original.save_dir:
            return
        logging.getLogger(__name__).info("Saving the averaged weights as %s", self._file_prefix)
        writer = type(original)(self._model, original.save_dir)
        # Training resumes from a checkpoint with all of its state.
        writer.tag_last_checkpoint = lambda name: None
        with self.applied():
            writer.save(self._file_prefix)

    def state_dict(self) -> dict[str, Any]:
        if self._average is None:
            return {}
        return {"updates": self._updates, "average": self._average}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the average; names and shapes are those of the model."""
        weights = self._find_weights()
        average = state_dict["average"]
        if average.keys() != weights.keys():
            names = sorted(average.keys() ^ weights.keys())
            raise ValueError(f"the saved average is of another model: they differ in {names}")
        self._weights = weights
        self._updates = state_dict["updates"]
        self._average = {
            name: torch.empty_like(weight).copy_(average[name]) for name, weight in weights.items()
        }


@contextlib.contextmanager
def averaged_weights(trainer: TrainerBase) -> Iterator[None]:
    """While it lasts, models of which the trainer keeps averages have the averaged weights."""
    with contextlib.ExitStack() as stack:
        for hook in trainer._hooks:
            if isinstance(hook, EMA):
                stack.enter_context(hook.applied())
        yield
