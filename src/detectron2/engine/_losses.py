"""Losses from their device to the CPU, in one transfer."""

from __future__ import annotations

from collections.abc import Mapping

import torch


def _stack(loss_dict: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """The values of scalars as one tensor, so that one transfer brings them from their device."""
    values = [value.detach().reshape(()) for value in loss_dict.values()]
    if len({value.device for value in values}) > 1:
        values = [value.cpu() for value in values]
    return torch.stack(values) if values else torch.empty(0)


def to_floats(loss_dict: Mapping[str, torch.Tensor]) -> dict[str, float]:
    """The values of scalars."""
    return dict(zip(loss_dict, _stack(loss_dict).tolist(), strict=True))


class FetchedLosses:
    """Losses on their way to the CPU, which goes on meanwhile."""

    def __init__(self, loss_dict: Mapping[str, torch.Tensor]) -> None:
        self._names = list(loss_dict)
        self._values = _stack(loss_dict)
        self._arrival: torch.cuda.Event | None = None
        if self._values.is_cuda:
            # A copy to memory that is not pinned would wait for the device.
            pinned = torch.empty_like(self._values, device="cpu", pin_memory=True)
            self._values = pinned.copy_(self._values, non_blocking=True)
            self._arrival = torch.cuda.Event()
            self._arrival.record()

    def result(self) -> dict[str, torch.Tensor]:
        """They, on the CPU, once they are there."""
        if self._arrival is not None:
            self._arrival.synchronize()
        return dict(zip(self._names, self._values.unbind(), strict=True))
