"""Values of device tensors that are known on the CPU, so that nobody waits for them again."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch.utils.weak import WeakIdKeyDictionary


class _Known(NamedTuple):
    version: int
    values: torch.Tensor


# By identity: a view or a copy of a tensor is another one.
_known = WeakIdKeyDictionary()


def remember_on_host(tensor: torch.Tensor, values: torch.Tensor) -> None:
    """Tell that ``tensor`` holds ``values``, which are on the CPU, until it is changed.

    Tensors of inference mode, which do not tell whether they were changed, are forgotten.
    """
    if tensor.device.type != "cpu" and not tensor.is_inference():
        _known[tensor] = _Known(tensor._version, values)


def _recall(tensor: torch.Tensor) -> torch.Tensor | None:
    if tensor.device.type == "cpu":
        return tensor.detach()
    known = _known.get(tensor)
    return known.values if known is not None and known.version == tensor._version else None


def on_host(tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """The tensors on the CPU: remembered, or fetched, all in one transfer, and remembered.

    Args:
        tensors: of one dtype, and equal in all dimensions but the first.
    """
    values = [_recall(tensor) for tensor in tensors]
    unknown = [i for i, value in enumerate(values) if value is None]
    if unknown:
        fetched = torch.cat([tensors[i].detach() for i in unknown]).cpu()
        pieces = fetched.split([len(tensors[i]) for i in unknown])
        for i, piece in zip(unknown, pieces, strict=True):
            remember_on_host(tensors[i], piece)
            values[i] = piece
    return values


def to_device(values: torch.Tensor, device: torch.device) -> torch.Tensor:
    """``values``, which are on the CPU, on ``device``, without waiting for what that is at."""
    if device.type == "cuda":
        values = values.pin_memory()
    return values.to(device, non_blocking=True)
