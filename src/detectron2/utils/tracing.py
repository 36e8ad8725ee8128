"""What kind of trace is running, and checks that a symbolic trace by ``torch.fx`` keeps."""

from typing import Any

import torch
from torch.fx import _symbolic_trace

from detectron2.utils.env import TORCH_VERSION as TORCH_VERSION

tracing_current_exists: bool = hasattr(_symbolic_trace, "is_fx_tracing")
"""Whether PyTorch tells of a running trace."""

tracing_legacy_exists: bool = True
"""Whether :func:`is_fx_tracing_legacy` works: with every PyTorch that this library runs with."""

# The first where there is one: newer versions of the other log a warning at every call.
_is_tracing = getattr(_symbolic_trace, "is_fx_symbolic_tracing", _symbolic_trace.is_fx_tracing)


def is_fx_tracing_legacy() -> bool:
    """Another name of :func:`is_fx_tracing`, from when PyTorch had two ways to tell."""
    return is_fx_tracing()


def is_fx_tracing() -> bool:
    """Whether a symbolic trace by ``torch.fx`` is running."""
    return bool(_is_tracing())


# As a constant: in torch.compile of PyTorch 2.10, what is called here is always true.
@torch.compiler.assume_constant_result
def is_exporting() -> bool:
    """Whether ``torch.export`` is running; False under ``torch.compile``."""
    return torch.compiler.is_exporting()


def first_rows(x: torch.Tensor, count: int) -> torch.Tensor:
    """``x[:count]``.

    In an exported program the end names the length of ``x``. Where that is known at run time only,
    AOTInductor of PyTorch 2.11 can else ask for it before it is known.
    """
    if torch.jit.is_scripting():
        return x[0:count]
    else:  # TorchScript leaves out what is in this branch.
        return x[0 : torch.sym_min(count, x.size(0)) if is_exporting() else count]


def assert_fx_safe(condition: Any, message: str) -> torch.Tensor:
    """Assert a condition that may depend on the input of a traced module.

    An ``assert`` statement would stop the trace; this goes into it, and the traced module checks.

    Args:
        condition: a bool, a tensor with one element, or a proxy of the trace.
        message: text of the error.

    Returns:
        A tensor of one 1, which means nothing.

    Raises:
        AssertionError: the condition does not hold.
    """
    torch._assert(condition, message)
    return torch.ones(1)
