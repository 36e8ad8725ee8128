"""Convolution, affine map of the channels, residual and ReLU in one go.

A frozen batch norm is an affine map of each channel. Here its scale goes into the convolution's
weight, which is much smaller than a feature map; the shift, the residual and the ReLU go into the
kernel of the convolution, where cuDNN has one. The weight is folded anew at every call: one that
was kept would be stale where weights change unseen, as they do through ``parameter.data``.
"""

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812
from torch.nn.modules.module import _has_any_global_hook

from detectron2.layers.batch_norm import FrozenBatchNorm2d


def fused_conv(
    conv: nn.Conv2d,
    norm: nn.Module | None,
    x: torch.Tensor,
    relu: bool = False,
    residual: torch.Tensor | None = None,
) -> torch.Tensor | None:
    """Convolve and normalise ``x``, add ``residual``, apply a ReLU; None if that cannot be fused.

    Args:
        conv: of a :class:`detectron2.layers.Conv2d` the own norm and activation are not applied.
        norm: None, or what normalises the output.
        x: ``(N, C, H, W)``.
        relu: whether there is a ReLU.
        residual: None, or in the shape of the output.
    """
    weight = conv.weight
    if not _can_fuse(conv, weight, norm, x):
        return None
    dtype = x.dtype
    if torch.is_autocast_enabled(x.device.type):
        dtype = torch.get_autocast_dtype(x.device.type)
        x = x.to(dtype)
        residual = None if residual is None else residual.to(dtype)
    elif weight.dtype != dtype:
        return None
    if norm is None:
        scale, shift = None, conv.bias
    else:
        affine_map = norm.scale_and_shift(dtype)
        if affine_map is None:
            return None
        scale, shift = affine_map
    geometry = (conv.stride, conv.padding, conv.dilation, conv.groups)
    arguments = (x, weight, scale, shift, residual, geometry, relu)
    if not torch.is_grad_enabled() or not any(
        y is not None and y.requires_grad for y in (x, weight, shift, residual)
    ):
        return _compute(*arguments)[0]
    y = _FusedConv.apply(*arguments)
    return _ReLUOfOutput.apply(y) if relu else y


def has_hooks(module: nn.Module) -> bool:
    """Whether a call of ``module`` does something else than the ``forward`` of its class."""
    return bool(
        "forward" in vars(module)
        or _has_any_global_hook()
        or module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
    )


def _can_fuse(conv: Any, weight: torch.Tensor, norm: Any, x: torch.Tensor) -> bool:
    # Whoever traces, transforms or watches operators is to see convolution, norm and activation.
    if (
        torch.compiler.is_compiling()
        or torch.jit.is_tracing()
        or type(x) is not torch.Tensor
        or type(weight) not in (nn.Parameter, torch.Tensor)
        or torch._C._len_torch_dispatch_stack() > 0
        or torch._C._are_functorch_transforms_active()
    ):
        return False
    if x.dim() != 4 or x.numel() == 0 or x.is_meta or not x.is_floating_point():
        return False
    if x.dtype == torch.float64 and torch.is_autocast_enabled(x.device.type):
        return False  # autocast leaves float64 alone
    if conv.padding_mode != "zeros" or isinstance(conv.padding, str):
        return False
    if norm is None:
        return True
    return type(norm) is FrozenBatchNorm2d and conv.bias is None and not has_hooks(norm)


def _is_channels_last(x: torch.Tensor) -> bool:
    return x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()


def _fold(
    weight: torch.Tensor, scale: torch.Tensor | None, dtype: torch.dtype, channels_last: bool
) -> torch.Tensor:
    """``weight * scale`` in a dtype and a memory format, in one pass; without gradients enabled."""
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    as_it_is = not channels_last or weight.shape[2:] == (1, 1)  # which is in either format
    if scale is not None and as_it_is and weight.dtype == scale.dtype == dtype:
        return weight * scale
    if scale is None:
        return weight.to(dtype=dtype, memory_format=memory_format)
    folded = torch.empty(
        weight.shape, dtype=dtype, device=weight.device, memory_format=memory_format
    )
    return torch.mul(weight, scale, out=folded)


def _is_batched(x: torch.Tensor) -> bool:
    """Whether ``x`` stands for several, as ``is_grads_batched`` and ``torch.vmap`` have it."""
    functorch = torch._C._functorch
    return functorch.is_batchedtensor(x) or functorch.is_legacy_batchedtensor(x)


# Convolutions for which cuDNN turned out to have no kernel with ReLU.
_WITHOUT_KERNEL: set[tuple[Any, ...]] = set()


def _cudnn_conv_relu(
    x: torch.Tensor,
    weight: torch.Tensor,
    shift: torch.Tensor,
    residual: torch.Tensor | None,
    geometry: tuple[Any, ...],
) -> torch.Tensor | None:
    """Everything in one kernel of cuDNN; None if it has none."""
    if not torch.backends.cudnn.enabled or x.dtype == torch.float64:
        return None
    # It indexes with 32 bits. The output may have more channels than the input, but not more rows.
    if x.numel() // x.shape[1] * max(x.shape[1], weight.shape[0]) >= 2**31:
        return None
    if _WITHOUT_KERNEL and _key(x, weight, residual, geometry) in _WITHOUT_KERNEL:
        return None
    try:
        if residual is None:
            return torch.cudnn_convolution_relu(x, weight, shift, *geometry)
        return torch.cudnn_convolution_add_relu(x, weight, residual, 1.0, shift, *geometry)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError:
        # If it was for another reason, the ordinary convolution raises again.
        _WITHOUT_KERNEL.add(_key(x, weight, residual, geometry))
        return None


def _key(x: torch.Tensor, weight: torch.Tensor, residual: Any, geometry: Any) -> tuple[Any, ...]:
    """What cuDNN's having a kernel depends on, but for the size of the feature map."""
    return (x.device, x.dtype, _is_channels_last(x), weight.shape, geometry, residual is None)


def _compute(
    x: torch.Tensor,
    weight: torch.Tensor,
    scale: torch.Tensor | None,
    shift: torch.Tensor | None,
    residual: torch.Tensor | None,
    geometry: tuple[Any, ...],
    relu: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The output, and the folded weight."""
    folded = _fold(weight, scale, x.dtype, _is_channels_last(x))
    bias = None if shift is None else shift.to(x.dtype)
    if relu and bias is not None and x.is_cuda and torch.version.hip is None:
        y = _cudnn_conv_relu(x, folded, bias, residual, geometry)
        if y is not None:
            return y, folded
    stride, padding, dilation, groups = geometry
    y = F.conv2d(x, folded, bias, stride, padding, dilation, groups)
    if residual is not None:
        y += residual
    return F.relu_(y) if relu else y, folded


class _FusedConv(torch.autograd.Function):
    """What :func:`fused_conv` does, on tensors of one dtype but for ``weight`` and ``scale``.

    A ReLU is in the values only. Its gradient is :class:`_ReLUOfOutput`'s.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        scale: torch.Tensor | None,
        shift: torch.Tensor | None,
        residual: torch.Tensor | None,
        geometry: tuple[Any, ...],
        relu: bool,
    ) -> torch.Tensor:
        y, folded = _compute(x, weight, scale, shift, residual, geometry, relu)
        # Kept as autocast keeps its copies. In the weight's own dtype an ordinary convolution
        # keeps none, and so it is folded again.
        kept = None if folded.dtype == weight.dtype else folded
        ctx.save_for_backward(x, weight, scale, kept)
        ctx.geometry = geometry
        ctx.shift_dtype = None if shift is None else shift.dtype
        return y

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight, scale, folded = ctx.saved_tensors
        if torch.is_grad_enabled():
            # There will be a second backward pass, which needs the way from the weight to here.
            folded = (weight if scale is None else weight * scale).to(x.dtype)
        elif folded is None:
            folded = _fold(weight, scale, x.dtype, _is_channels_last(x))
        needs_x, needs_weight, _, needs_shift, needs_residual = ctx.needs_input_grad[:5]
        stride, padding, dilation, groups = ctx.geometry
        grad_x, grad_weight, grad_shift = torch.ops.aten.convolution_backward(
            grad,
            x,
            folded,
            [folded.shape[0]],
            stride,
            padding,
            dilation,
            False,
            [0, 0],
            groups,
            [needs_x, needs_weight, needs_shift],
        )
        if needs_weight:
            if scale is None:
                grad_weight = grad_weight.to(weight.dtype)
            elif torch.is_grad_enabled() or _is_batched(grad_weight):
                grad_weight = (grad_weight * scale).to(weight.dtype)
            else:
                grad_weight = torch.mul(grad_weight, scale, out=torch.empty_like(weight))
        if needs_shift:
            grad_shift = grad_shift.to(ctx.shift_dtype)
        grad_residual = grad if needs_residual else None
        return grad_x, grad_weight, None, grad_shift, grad_residual, None, None


class _ReLUOfOutput(torch.autograd.Function):
    """The gradient of a ReLU that has been applied.

    As a node of its own it lets go of the output and of the gradient that comes in before the
    convolution's backward pass starts, which needs as much memory as these.
    """

    @staticmethod
    def forward(ctx: Any, y: torch.Tensor) -> torch.Tensor:
        ctx.mark_dirty(y)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
        (y,) = ctx.saved_tensors
        return torch.ops.aten.threshold_backward(grad, y, 0)
