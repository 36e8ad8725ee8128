"""Where NaN and infinity came into a training step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from detectron2.utils import comm


def describe_nonfinite(model: nn.Module, batch: Any) -> str:
    """Tell the first tensor that is NaN or infinite, and the images of the batch.

    Looked at are, in this order, the batch, the model's parameters and buffers, and the outputs
    of its modules, for which the batch goes through the model once more. Call it when training
    ends anyway: that forward pass advances random generators and running statistics.

    Args:
        model: in the mode, and with the weights, that gave the loss.
        batch: what it was called with; None if that is not known.

    Returns:
        Two lines.
    """
    images = ", ".join(_file_names(batch)) or "the batch does not name them"
    return f"first bad tensor: {_first_bad(model, batch)}\nimages: {images}"


def _first_bad(model: nn.Module, batch: Any) -> str:
    for name, tensor in _tensors(batch, "batch"):
        if not _is_finite(tensor):
            return f"{name} of the input ({_summarize(tensor)})"
    if isinstance(model, DistributedDataParallel):
        model = model.module
    for kind, named in (("parameter", model.named_parameters()), ("buffer", model.named_buffers())):
        for name, tensor in named:
            if not _is_finite(tensor):
                return f"{kind} {name} ({_summarize(tensor)})"
    if batch is None:
        return "not looked for in activations: the batch is not known"
    waits_for_others = any(isinstance(m, nn.SyncBatchNorm) for m in model.modules())
    if comm.get_world_size() > 1 and waits_for_others:
        return "not looked for in activations: SyncBatchNorm would wait for the other processes"
    return _first_bad_output(model, batch)


class _FoundError(Exception):
    """Ends the forward pass."""


def _first_bad_output(model: nn.Module, batch: Any) -> str:
    names = {module: name for name, module in model.named_modules()}

    def check(module: nn.Module, _: Any, output: Any) -> None:
        for path, tensor in _tensors(output, "output"):
            if not _is_finite(tensor):
                where = names[module] or "the model"
                kind = type(module).__name__
                raise _FoundError(f"{path} of {where}, a {kind} ({_summarize(tensor)})")

    handles = [module.register_forward_hook(check) for module in names]
    try:
        with torch.no_grad():
            model(batch)
    except _FoundError as found:
        return str(found)
    except Exception as error:
        return f"not found: the model raised {error!r} when it got the batch again"
    finally:
        for handle in handles:
            handle.remove()
    return "not found: all are finite when the model gets the batch again"


def _tensors(value: Any, path: str) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors in nested containers, and in the fields of Instances, Boxes and the like."""
    if isinstance(value, torch.Tensor):
        yield path, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _tensors(item, f"{path}[{key!r}]")
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _tensors(item, f"{path}[{index}]")
    elif hasattr(value, "get_fields"):
        for name, item in value.get_fields().items():
            yield from _tensors(item, f"{path}.{name}")
    elif isinstance(getattr(value, "tensor", None), torch.Tensor):
        yield f"{path}.tensor", value.tensor


def _file_names(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        if "file_name" in value:
            yield str(value["file_name"])
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _file_names(item)


def _is_finite(tensor: torch.Tensor) -> bool:
    return bool(torch.isfinite(tensor).all())


def _summarize(tensor: torch.Tensor) -> str:
    nans = int(tensor.isnan().sum())
    infinities = int(tensor.isinf().sum())
    return f"shape {tuple(tensor.shape)}: {nans} NaN, {infinities} infinite"
