"""PyTorch's functions and modules, with what the models need beyond them."""

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import nn
from torch.nn import BatchNorm2d, ConvTranspose2d, Linear
from torch.nn import functional as F  # noqa: N812
from torch.nn.functional import interpolate

from detectron2.layers._fused_conv import fused_conv, has_hooks

# Code written for upstream imports this name from here.
from detectron2.utils.env import TORCH_VERSION

__all__ = [
    "TORCH_VERSION",
    "BatchNorm2d",
    "Conv2d",
    "ConvTranspose2d",
    "Linear",
    "cat",
    "check_if_dynamo_compiling",
    "cross_entropy",
    "disable_torch_compiler",
    "empty_input_loss_func_wrapper",
    "interpolate",
    "move_device_like",
    "nonzero_tuple",
    "shapes_to_tensor",
]

_Function = TypeVar("_Function", bound=Callable[..., Any])


def shapes_to_tensor(x: list[int], device: torch.device | None = None) -> torch.Tensor:
    """Make an integer tensor of sizes, ``(len(x),)``, that a trace does not turn into constants.

    Args:
        x: sizes; while tracing they are 0-dimensional tensors, which stay part of the graph.
        device: where the result lies. None: the CPU, or while tracing where the sizes lie.
    """
    if torch.jit.is_scripting():
        return torch.as_tensor(x, device=device)
    if torch.compiler.is_compiling():
        # A list of sizes would become constants.
        return torch.stack([torch.full((), size, dtype=torch.int64, device=device) for size in x])
    if torch.jit.is_tracing() and any(isinstance(size, torch.Tensor) for size in x):
        sizes = torch.stack(
            [size if isinstance(size, torch.Tensor) else torch.as_tensor(size) for size in x]
        )
        return sizes if device is None else sizes.to(device=device)
    return torch.as_tensor(x, device=device)


def check_if_dynamo_compiling() -> bool:
    """Tell whether ``torch.compile`` or ``torch.export`` is tracing the caller."""
    return torch.compiler.is_compiling()


def disable_torch_compiler(func: _Function) -> _Function:
    """Decorate ``func`` so that ``torch.compile`` calls it as it is, outside any graph."""
    return torch.compiler.disable(func)


def cat(tensors: list[torch.Tensor], dim: int = 0) -> torch.Tensor:
    """``torch.cat`` that returns the tensor itself, not a copy, where there is but one.

    Raises:
        TypeError: ``tensors`` is not a list or a tuple.
    """
    if not isinstance(tensors, (list, tuple)):
        raise TypeError(f"cat takes a list or a tuple of tensors, got {type(tensors).__name__}")
    if len(tensors) == 1:
        return tensors[0]
    return torch.cat(tensors, dim)


def empty_input_loss_func_wrapper(
    loss_func: Callable[..., torch.Tensor],
) -> Callable[..., torch.Tensor]:
    """Make the mean of a loss over no elements 0 instead of NaN.

    The 0 hangs on the graph of the input: a worker without samples still takes part in the
    gradient exchange.

    Args:
        loss_func: called as ``loss_func(input, target, reduction=..., **kwargs)``.
    """

    def loss(
        input: torch.Tensor, target: torch.Tensor, *, reduction: str = "mean", **kwargs: Any
    ) -> torch.Tensor:
        if reduction == "mean" and target.numel() == 0:
            return 0.0 * input.sum()
        return loss_func(input, target, reduction=reduction, **kwargs)

    return loss


cross_entropy = empty_input_loss_func_wrapper(F.cross_entropy)


class _NewEmptyTensorOp(torch.autograd.Function):
    """An uninitialised tensor of another shape that stays on the graph of its source."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, new_shape: tuple[int, ...]) -> torch.Tensor:
        ctx.source_shape = x.shape
        return x.new_empty(new_shape)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None]:
        return grad.new_zeros(ctx.source_shape), None


_RELUS = (F.relu, F.relu_, torch.relu, torch.relu_)


def _is_relu(activation: Any) -> bool:
    is_module = type(activation) is nn.ReLU and not has_hooks(activation)
    return is_module or activation in _RELUS


class Conv2d(nn.Conv2d):
    """Convolution, then optionally normalisation, then optionally activation.

    Args:
        *args: as for ``torch.nn.Conv2d``.
        norm: a module that is applied to the output.
        activation: a callable that is applied to the (normalised) output.
        **kwargs: as for ``torch.nn.Conv2d``.
    """

    def __init__(
        self,
        *args: Any,
        norm: nn.Module | None = None,
        activation: Callable[[torch.Tensor], torch.Tensor] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.norm = norm
        self.activation = activation

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``(N, C_in, H, W)`` to ``(N, C_out, H', W')``; N may be 0.

        Raises:
            ValueError: N is 0 in training with ``SyncBatchNorm``, which cannot agree on
                statistics with the other workers then.
        """
        if not torch.jit.is_scripting():
            self._require_samples(x)
            y = self._fused_forward(x)
            if y is not None:
                return y
        x = self._conv_forward(x, self.weight, self.bias)
        if self.norm is not None:
            x = self.norm(x)
        if self.activation is not None:
            x = self.activation(x)
        return x

    @torch.jit.unused
    def _fused_forward(self, x: torch.Tensor) -> torch.Tensor | None:
        """What `forward` returns, in fewer passes; None if there is nothing to fuse."""
        if type(self) is not Conv2d:
            return None
        relu = _is_relu(self.activation)
        if self.norm is None and not relu:
            return None
        y = fused_conv(self, self.norm, x, relu)
        return y if y is None or relu or self.activation is None else self.activation(y)

    @torch.jit.unused
    def _require_samples(self, x: torch.Tensor) -> None:
        if self.training and isinstance(self.norm, nn.SyncBatchNorm) and x.numel() == 0:
            raise ValueError(
                f"SyncBatchNorm cannot train on an empty batch, got an input of {list(x.shape)}"
            )


def conv_relu(
    conv: nn.Module, x: torch.Tensor, residual: torch.Tensor | None = None
) -> torch.Tensor:
    """ReLU of ``conv(x)``, where ``conv`` may be any module, plus ``residual``."""
    if type(conv) is Conv2d and conv.activation is None and not has_hooks(conv):
        y = fused_conv(conv, conv.norm, x, True, residual)
        if y is not None:
            return y
    y = conv(x)
    if any(has_hooks(module) for module in conv.modules()):
        # What hooks were given must not be written to.
        return F.relu(y if residual is None else y + residual)
    if residual is not None:
        y += residual
    return F.relu_(y)


def conv_norm(
    conv: nn.Conv2d, norm: nn.Module, x: torch.Tensor, activation: nn.Module | None = None
) -> torch.Tensor:
    """``activation(norm(conv(x)))`` of modules that are not parts of ``conv``."""
    if type(conv) is nn.Conv2d and not has_hooks(conv):
        relu = _is_relu(activation)
        y = fused_conv(conv, norm, x, relu)
        if y is not None:
            return y if relu or activation is None else activation(y)
    y = norm(conv(x))
    return y if activation is None else activation(y)


# Without a return type, which would be a tuple in Python and a list in TorchScript.
def nonzero_tuple(x: torch.Tensor):
    """Indices of the non-zero elements, one int64 tensor ``(K,)`` a dimension of ``x``.

    ``x.nonzero(as_tuple=True)`` in a form that TorchScript has, too.
    """
    return torch.atleast_1d(x).nonzero().unbind(1)


@torch.jit.script_if_tracing
def move_device_like(src: torch.Tensor, dst: torch.Tensor) -> torch.Tensor:
    """Move ``src`` to where ``dst`` lies; a trace follows the device of its later input."""
    return src.to(dst.device)
