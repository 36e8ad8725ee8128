"""What a model costs: operations, activations and parameters."""

import typing
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from fvcore.nn.parameter_count import parameter_count, parameter_count_table
from torch import nn

from detectron2.utils._lazy import lazy_attributes
from detectron2.utils._model_analysis import (
    ActivationCountAnalysis,
    FlopCountAnalysis,
    _StructuredAnalysis,
)

__all__ = [
    "FlopCountAnalysis",
    "activation_count_operators",
    "find_unused_parameters",
    "flop_count_operators",
    "parameter_count",
    "parameter_count_table",
]

FLOPS_MODE = "flops"
ACTIVATIONS_MODE = "activations"


# Not imported: it needs the models.
__getattr__ = lazy_attributes(__name__, {"TracingAdapter": "detectron2.export.flatten"})


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode for a while; each submodule gets its own mode back."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


def _count(
    analysis_class: type[_StructuredAnalysis],
    unit: float,
    model: nn.Module,
    inputs: list,
    supported_ops: dict[str, Any] | None = None,
) -> typing.DefaultDict[str, float]:  # noqa: UP006
    analysis = analysis_class(model, (inputs,)).set_op_handle(**(supported_ops or {}))
    with _evaluating(model), torch.no_grad():
        counts = analysis.by_operator()
    return defaultdict(float, {name: count / unit for name, count in counts.items()})


def flop_count_operators(model: nn.Module, inputs: list) -> typing.DefaultDict[str, float]:  # noqa: UP006
    """Count the floating point operations of a detector's inference, by operator.

    A multiplication with the addition that follows counts as one. The count depends on the image,
    where the number of proposals or detections does.

    Args:
        model: takes ``inputs``; it is run in evaluation mode.
        inputs: a list of dicts with ``"image"``.

    Returns:
        Operator, such as ``"conv"``, → operations in units of 1e9.
    """
    return _count(FlopCountAnalysis, 1e9, model, inputs)


def activation_count_operators(
    model: nn.Module, inputs: list, **kwargs: Any
) -> typing.DefaultDict[str, float]:  # noqa: UP006
    """Count the elements of the outputs of convolutions and products, by operator.

    Args:
        model: takes ``inputs``; it is run in evaluation mode.
        inputs: a list of dicts with ``"image"``.
        kwargs: ``supported_ops`` may hold further handles, operator → function; see fvcore's
            ``ActivationCountAnalysis``.

    Returns:
        Operator, such as ``"conv"``, → elements in units of 1e6.
    """
    return _count(ActivationCountAnalysis, 1e6, model, inputs, **kwargs)


def find_unused_parameters(model: nn.Module, inputs: Any) -> list[str]:
    """List the parameters that get no gradient, which ``DistributedDataParallel`` objects to.

    Args:
        model: in training mode; it returns a loss or a dict of losses.
        inputs: its argument, or a tuple of arguments.

    Returns:
        Names of parameters. The gradients that were there stay as they were.

    Raises:
        ValueError: the model is in evaluation mode.
    """
    if not model.training:
        raise ValueError(f"{type(model).__name__} is in evaluation mode and would give no losses")
    parameters = dict(model.named_parameters())
    gradients = {name: parameter.grad for name, parameter in parameters.items()}
    try:
        for parameter in parameters.values():
            parameter.grad = None
        losses = model(*inputs) if isinstance(inputs, tuple) else model(inputs)
        total = sum(losses.values()) if isinstance(losses, dict) else losses
        total.backward()
        return [name for name, parameter in parameters.items() if parameter.grad is None]
    finally:
        for name, parameter in parameters.items():
            parameter.grad = gradients[name]
