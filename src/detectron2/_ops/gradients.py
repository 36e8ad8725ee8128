"""What the autograd registrations of several operators share."""

import warnings

import torch

_library = torch.library.Library("detectron2", "IMPL")


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


def register_not_differentiable(name: str) -> None:
    """Let the operator ``name`` take arguments that require gradients, and give none back.

    Nothing is left to do for autograd then; a Python function for it would cost as much host time
    as all else before a kernel starts.
    """
    _library.impl(name, torch.library.fallthrough_kernel, "Autograd")
