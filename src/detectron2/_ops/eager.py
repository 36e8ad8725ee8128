"""Calls of operators past the Python code that ``torch.library`` puts around a gradient's formula.

That code runs on each call, also where no argument requires a gradient, and costs more host time
than all else that happens before the first kernel starts.
"""

from collections.abc import Callable
from typing import Any

import torch


def is_transformed() -> bool:
    """Whether calls are traced, compiled or within ``torch.func``'s transforms.

    Those need the operator itself; within transforms, what requires a gradient is not seen on the
    tensors.
    """
    return (
        torch.compiler.is_compiling()
        or torch.jit.is_tracing()
        or torch._C._functorch.peek_interpreter_stack() is not None
    )


class EagerOperator:
    """``torch.ops.detectron2.<name>``, which is called with positional arguments only.

    Args:
        name: of the operator.
        gradients: the formula, as for ``torch.library.register_autograd``, which this calls.
        setup_context: as there, called as ``setup_context(ctx, inputs, output)``.
        has_lists: whether an argument or the result is a list of tensors, which gradients reach
            through the operator alone.
    """

    def __init__(
        self,
        name: str,
        gradients: Callable[..., Any],
        setup_context: Callable[[Any, tuple[Any, ...], Any], None],
        has_lists: bool = False,
    ) -> None:
        operator = getattr(torch.ops.detectron2, name).default

        def register_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
            setup_context(ctx, inputs, output)

        torch.library.register_autograd(operator, gradients, setup_context=register_context)

        def forward(ctx: Any, *arguments: Any) -> Any:
            with torch._C._AutoDispatchBelowAutograd():
                output = operator(*arguments)
            setup_context(ctx, arguments, output)
            return output

        formula = {"forward": staticmethod(forward), "backward": staticmethod(gradients)}
        function = type(f"{name}_eagerly", (torch.autograd.Function,), formula)
        self._operator = operator
        self._differentiable = operator if has_lists else function.apply

    def __call__(self, *arguments: Any) -> Any:
        """The operator's result."""
        if is_transformed():
            return self._operator(*arguments)
        if torch.is_grad_enabled() and torch._C._any_requires_grad(*arguments):
            return self._differentiable(*arguments)
        with torch._C._AutoDispatchBelowAutograd():
            return self._operator(*arguments)
