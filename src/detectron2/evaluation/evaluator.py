"""The loop that runs a model over a data set, and what its outputs are handed to."""

from __future__ import annotations

import contextlib
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from detectron2.evaluation._inference_clock import InferenceClock
from detectron2.utils.comm import get_world_size, is_main_process
from detectron2.utils.logger import log_every_n_seconds

__all__ = ["DatasetEvaluator", "DatasetEvaluators", "inference_context", "inference_on_dataset"]

_CALLBACKS = ("on_start", "before_inference", "after_inference", "on_end")


class DatasetEvaluator:
    """Collects what a model says about each image of a data set, and sums it up.

    :func:`inference_on_dataset` calls :meth:`reset`, then :meth:`process` for each batch, then
    :meth:`evaluate`. With several processes each one has its own evaluator, which sees its own part
    of the data set; to bring the parts together is the work of :meth:`evaluate`.
    """

    def reset(self) -> None:
        """Forget everything that was processed."""

    def process(self, inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
        """Take in a batch.

        Args:
            inputs: what the model was given, usually a dict for each image.
            outputs: what it returned, in the same order, usually a dict for each image.
        """

    def evaluate(self) -> Mapping[str, Any] | None:
        """Evaluate all that was processed since the last :meth:`reset`; all processes call it.

        Returns:
            Numbers by task and name, such as ``{"bbox": {"AP50": 80.0}}``, in rank 0. None means
            that there are none.
        """


class DatasetEvaluators(DatasetEvaluator):
    """Several evaluators as one."""

    def __init__(self, evaluators: Iterable[DatasetEvaluator]) -> None:
        self._evaluators = list(evaluators)

    def reset(self) -> None:
        for evaluator in self._evaluators:
            evaluator.reset()

    def process(self, inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
        for evaluator in self._evaluators:
            evaluator.process(inputs, outputs)

    def evaluate(self) -> OrderedDict[str, Any]:
        """Evaluate with each.

        Returns:
            The results of all, in rank 0; nothing in the others.

        Raises:
            ValueError: two evaluators have results of the same name.
        """
        merged: OrderedDict[str, Any] = OrderedDict()
        for evaluator in self._evaluators:
            result = evaluator.evaluate()
            if result is None or not is_main_process():
                continue
            for name, value in result.items():
                if name in merged:
                    raise ValueError(
                        f"{type(evaluator).__name__} has results named {name!r}, and so has an "
                        "evaluator before it"
                    )
                merged[name] = value
        return merged


def inference_on_dataset(
    model: Callable[[Any], Any],
    data_loader: Iterable[Any],
    evaluator: DatasetEvaluator | Sequence[DatasetEvaluator] | None,
    callbacks: Mapping[str, Callable[[], Any]] | None = None,
) -> Mapping[str, Any]:
    """Run a model over a data set, without gradients, and evaluate what it returns.

    How long loading, inference and evaluation take is logged. On CUDA, inference is waited for
    before its outputs are processed, so that their times can be told apart.

    Args:
        model: called with each batch. A module is in evaluation mode meanwhile, and each of its
            parts gets its own mode back.
        data_loader: yields batches; each process has its own.
        evaluator: one, several (each sees everything), or None, if only the time is of interest.
        callbacks: functions without arguments, under any of the names ``"on_start"`` (before the
            first batch), ``"before_inference"`` and ``"after_inference"`` (around each call of the
            model) and ``"on_end"`` (after the last batch).

    Returns:
        What :meth:`DatasetEvaluator.evaluate` returns; an empty dict in place of None.

    Raises:
        ValueError: there is no callback of that name.
    """
    callbacks = {} if callbacks is None else callbacks
    if unknown := [name for name in callbacks if name not in _CALLBACKS]:
        raise ValueError(f"there are no callbacks named {unknown}, only {list(_CALLBACKS)}")

    def call_back(name: str) -> None:
        if name in callbacks:
            callbacks[name]()

    if evaluator is None:
        evaluator = DatasetEvaluators([])
    elif not isinstance(evaluator, DatasetEvaluator) and isinstance(evaluator, Iterable):
        evaluator = DatasetEvaluators(evaluator)
    evaluator.reset()

    total = len(data_loader) if hasattr(data_loader, "__len__") else None
    logger = logging.getLogger(__name__)
    logger.info("Inference on %s batches", "an unknown number of" if total is None else total)
    clock = InferenceClock(total)
    with contextlib.ExitStack() as stack:
        if isinstance(model, nn.Module):
            stack.enter_context(inference_context(model))
        stack.enter_context(torch.no_grad())
        call_back("on_start")
        clock.start()
        for inputs in data_loader:
            clock.lap("loading")
            call_back("before_inference")
            outputs = model(inputs)
            if torch.cuda.is_initialized():
                torch.cuda.synchronize()
            call_back("after_inference")
            clock.lap("inference")
            evaluator.process(inputs, outputs)
            clock.lap("evaluation")
            clock.end_iteration()
            if clock.is_warm():
                log_every_n_seconds(logging.INFO, clock.progress(), n=5, name=__name__)
        call_back("on_end")

    logger.info("%s, in %d processes", clock.summary(), get_world_size())
    start = time.perf_counter()
    results = evaluator.evaluate()
    logger.info("Evaluation of the outputs took %.1f s", time.perf_counter() - start)
    return {} if results is None else results


@contextlib.contextmanager
def inference_context(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode, and each of its modules back into its own mode after it."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
