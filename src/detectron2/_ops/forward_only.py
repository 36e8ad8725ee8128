"""Calls of operators past the Python code of their autograd registration, where it has no part.

That code runs on each call, also where no argument requires a gradient, and costs about as much
host time as all else that happens before the first kernel starts.
"""

from typing import Any

import torch


def _may_be_differentiated(arguments: tuple[Any, ...]) -> bool:
    # Within torch.func's transforms, what requires a gradient is not seen on the tensors.
    if torch._C._functorch.peek_interpreter_stack() is not None:
        return True
    return torch.is_grad_enabled() and torch._C._any_requires_grad(*arguments)


def call(operator: torch._ops.OpOverload, *arguments: Any) -> Any:
    """``operator(*arguments)``, sooner where nothing is differentiated, traced or compiled."""
    if torch.compiler.is_compiling() or torch.jit.is_tracing() or _may_be_differentiated(arguments):
        return operator(*arguments)
    with torch._C._AutoDispatchBelowAutograd():
        return operator(*arguments)
