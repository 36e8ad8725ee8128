"""What the autograd registrations of several operators share."""

import warnings
from typing import Any

import torch
from torch import Tensor


def alert_not_deterministic(operation: str) -> None:
    """Raise, or warn, as ``torch.use_deterministic_algorithms`` asks for."""
    if not torch.are_deterministic_algorithms_enabled():
        return
    message = (
        f"{operation} does not have a deterministic implementation, but "
        f"torch.use_deterministic_algorithms(True) is set."
    )
    if not torch.is_deterministic_algorithms_warn_only_enabled():
        raise RuntimeError(message)
    warnings.warn(message, UserWarning, stacklevel=2)


def _mark_not_differentiable(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.mark_non_differentiable(output)


def _no_gradient(ctx: Any, grad: Tensor) -> tuple[None, ...]:
    return (None,) * len(ctx.needs_input_grad)


def register_not_differentiable(name: str) -> None:
    """Let the operator ``name`` take arguments that require gradients, and give none back."""
    torch.library.register_autograd(name, _no_gradient, setup_context=_mark_not_differentiable)
