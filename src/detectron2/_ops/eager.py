"""Calls of operators past the Python code that ``torch.library`` puts around a gradient's formula.

That code runs on each call, also where no argument requires a gradient, and costs more host time
than all else that happens before the first kernel starts.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch.autograd import forward_ad


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


def is_forward_mode() -> bool:
    """Whether calls are within a differentiation of forward mode."""
    # No level: outside of any.
    return not torch.compiler.is_compiling() and forward_ad._current_level >= 0


def _function(
    operator: Callable[..., Any], gradients: Callable[..., Any], setup_context: Callable[..., None]
) -> Callable[..., Any]:
    def forward(ctx: Any, *arguments: Any) -> Any:
        with torch._C._AutoDispatchBelowAutograd():
            output = operator(*arguments)
        setup_context(ctx, arguments, output)
        return output

    members = {"forward": staticmethod(forward), "backward": staticmethod(gradients)}
    return type("EagerFunction", (torch.autograd.Function,), members).apply


def _function_of_list(
    operator: Callable[..., Any], gradients: Callable[..., Any], setup_context: Callable[..., None]
) -> Callable[..., Any]:
    """As `_function` where the first argument is a list: autograd is given its tensors, after all
    other arguments and the number of these."""

    def forward(ctx: Any, count: int, *flat: Any) -> Any:
        arguments = (list(flat[count:]), *flat[:count])
        with torch._C._AutoDispatchBelowAutograd():
            output = operator(*arguments)
        setup_context(ctx, arguments, output)
        ctx.count = count
        return output

    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        needed = ctx.needs_input_grad
        first = 1 + ctx.count
        ctx.needs_input_grad = (list(needed[first:]), *needed[1:first])
        try:
            grads, *others = gradients(ctx, grad)
        finally:
            ctx.needs_input_grad = needed
        return (None, *others, *grads)

    members = {"forward": staticmethod(forward), "backward": staticmethod(backward)}
    apply = type("EagerFunction", (torch.autograd.Function,), members).apply
    return lambda tensors, *others: apply(len(others), *others, *tensors)


def _refuse_tangents(name: str, arguments: tuple[Any, ...]) -> None:
    """Raise if an argument has a tangent, which PyTorch would take for zero."""
    flat = (x for y in arguments for x in (y if isinstance(y, (list, tuple)) else (y,)))
    if any(
        isinstance(x, torch.Tensor) and forward_ad.unpack_dual(x).tangent is not None for x in flat
    ):
        raise NotImplementedError(f"detectron2::{name} has no forward-mode derivative")


class EagerOperator:
    """``torch.ops.detectron2.<name>``, which is called with positional arguments only.

    Args:
        name: of the operator. The first argument may be a list of tensors, no other one.
        gradients: the formula, as for ``torch.library.register_autograd``, which this calls.
        setup_context: as there, called as ``setup_context(ctx, inputs, output)``.
    """

    def __init__(
        self,
        name: str,
        gradients: Callable[..., Any],
        setup_context: Callable[[Any, tuple[Any, ...], Any], None],
    ) -> None:
        operator = getattr(torch.ops.detectron2, name).default

        def register_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
            setup_context(ctx, inputs, output)

        torch.library.register_autograd(operator, gradients, setup_context=register_context)
        self._name = name
        self._operator = operator
        schema = operator._schema
        if str(schema.returns[0].type) == "List[Tensor]":
            # Autograd takes no list of results, and only second derivatives would need it.
            self._differentiable = operator
        else:
            has_list = str(schema.arguments[0].type) == "List[Tensor]"
            make = _function_of_list if has_list else _function
            self._differentiable = make(operator, gradients, setup_context)

    def __call__(self, *arguments: Any) -> Any:
        """The operator's result.

        Raises:
            NotImplementedError: an argument has a tangent of forward-mode differentiation.
        """
        if is_forward_mode():
            _refuse_tangents(self._name, arguments)
        if is_transformed():
            return self._operator(*arguments)
        if torch.is_grad_enabled() and torch._C._any_requires_grad(*arguments):
            return self._differentiable(*arguments)
        with torch._C._AutoDispatchBelowAutograd():
            return self._operator(*arguments)
