"""``deform_conv(input (N, C, H, W), offset (N, G * KH * KW * 2, OH, OW), mask (N, G * KH * KW, OH,
OW) or None, weight (O, C / groups, KH, KW), bias (O,) or None, stride, padding, dilation, groups,
offset_groups = G) -> (N, O, OH, OW)``, and its ``_backward``.

The deformable convolution of Dai et al., "Deformable Convolutional Networks", ICCV 2017, and with a
mask that of Zhu et al., "Deformable ConvNets v2", CVPR 2019. Each of the G groups of channels has
offsets (dy, dx), in pixels, for each tap of the kernel, row by row: tap (i, j) of output (y, x)
samples the input bilinearly at ``(y * stride - padding + i * dilation + dy, ...)`` and multiplies
the sample by the mask. Pixels outside the input count as zero. A point with an offset that is not
finite has a sample, and gradients, of zero.

Differentiable once with respect to all tensors; on CUDA the gradients are added up in no fixed
order, which ``torch.use_deterministic_algorithms`` reports. ``input``, ``weight`` and ``bias`` must
agree in dtype. ``offset`` and ``mask`` need not: on the CPU they are read as float32, or float64 if
the features are; on CUDA an ``offset`` with the features' dtype takes the fastest kernels, and any
other is read as on the CPU. Under autocast ``input``, ``weight`` and ``bias`` are cast as for a
convolution, and ``offset`` and ``mask``, whose digits are positions, left as they are. The output
has the memory format of ``input``, which may be ``torch.channels_last``.

Devices other than the CPU and CUDA take the formulation of ``deform_conv_composite``.
"""

from typing import Any

import torch
from torch import Tensor

from detectron2 import _C  # noqa: F401  (loads the operators)
from detectron2._ops import deform_conv_composite
from detectron2._ops.eager import EagerOperator, is_transformed
from detectron2._ops.gradients import alert_not_deterministic

_library = torch.library.Library("detectron2", "IMPL")


# ---- Shapes --------------------------------------------------------------------------------------


def _memory_format(input: Tensor) -> torch.memory_format:
    if not input.is_contiguous() and input.is_contiguous(memory_format=torch.channels_last):
        return torch.channels_last
    return torch.contiguous_format


@torch.library.register_fake("detectron2::deform_conv")
def _fake_deform_conv(
    input: Tensor,
    offset: Tensor,
    mask: Tensor | None,
    weight: Tensor,
    bias: Tensor | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
    offset_groups: int,
) -> Tensor:
    size = [input.shape[0], weight.shape[0]]
    for side in range(2):
        extent = dilation[side] * (weight.shape[2 + side] - 1) + 1
        size.append((input.shape[2 + side] + 2 * padding[side] - extent) // stride[side] + 1)
    return input.new_empty(size).to(memory_format=_memory_format(input))


@torch.library.register_fake("detectron2::deform_conv_backward")
def _fake_deform_conv_backward(
    grad_output: Tensor,
    input: Tensor,
    offset: Tensor,
    mask: Tensor | None,
    weight: Tensor,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
    offset_groups: int,
    need_data_gradients: bool,
    need_weight_gradient: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    gradients = [
        input.new_empty(input.shape).to(memory_format=_memory_format(input)),
        offset.new_empty(offset.shape),
        input.new_empty(0) if mask is None else mask.new_empty(mask.shape),
    ]
    if not need_data_gradients:
        gradients = [
            tensor.new_empty(0) for tensor in (input, offset, input if mask is None else mask)
        ]
    grad_weight = weight.new_empty(weight.shape if need_weight_gradient else (0,))
    return (*gradients, grad_weight)


# ---- Gradients -----------------------------------------------------------------------------------


def _save_forward(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    input, offset, mask, weight, _, *ctx.convolution = inputs
    ctx.save_for_backward(input, offset, mask, weight)


def _grad_of_forward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    *need_data, need_weight, need_bias = ctx.needs_input_grad[:5]
    gradients: list[Tensor | None] = [None] * 4
    if any(need_data) or need_weight:
        if grad.is_cuda:
            alert_not_deterministic("deform_conv_backward on CUDA")
        results = deform_conv_backward(
            grad, *ctx.saved_tensors, *ctx.convolution, any(need_data), need_weight
        )
        gradients = [
            result if needed else None
            for result, needed in zip(results, (*need_data, need_weight), strict=True)
        ]
    grad_bias = grad.sum((0, 2, 3)) if need_bias else None
    return (*gradients, grad_bias, *(None,) * 5)


def _save_nothing(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    pass


def _no_second_derivatives(ctx: Any, *grads: Tensor) -> None:
    raise NotImplementedError("deform_conv has no second derivatives")


_deform_conv = EagerOperator("deform_conv", _grad_of_forward, _save_forward)
deform_conv_backward = EagerOperator("deform_conv_backward", _no_second_derivatives, _save_nothing)


# ---- Autocast ------------------------------------------------------------------------------------

_AUTOCAST_KEYS = {
    device_type: torch._C.DispatchKeySet(getattr(torch._C.DispatchKey, key))
    for device_type, key in (("cpu", "AutocastCPU"), ("cuda", "AutocastCUDA"))
}


def _cast(device_type: str, *tensors: Tensor | None) -> tuple[Tensor | None, ...]:
    # As PyTorch does for its convolutions, which leave float64 alone.
    dtype = torch.get_autocast_dtype(device_type)
    return tuple(
        tensor if tensor is None or tensor.dtype == torch.float64 else tensor.to(dtype)
        for tensor in tensors
    )


def _register_autocast(device_type: str, keys: torch._C.DispatchKeySet) -> None:
    def cast_and_convolve(
        input: Tensor,
        offset: Tensor,
        mask: Tensor | None,
        weight: Tensor,
        bias: Tensor | None,
        *convolution: Any,
    ) -> Tensor:
        input, weight, bias = _cast(device_type, input, weight, bias)
        with torch._C._ExcludeDispatchKeyGuard(keys):
            return torch.ops.detectron2.deform_conv(input, offset, mask, weight, bias, *convolution)

    _library.impl("deform_conv", cast_and_convolve, keys.highestPriorityTypeId().name)


for _device_type, _keys in _AUTOCAST_KEYS.items():
    _register_autocast(_device_type, _keys)


def convolve(
    input: Tensor,
    offset: Tensor,
    mask: Tensor | None,
    weight: Tensor,
    bias: Tensor | None,
    *convolution: Any,
) -> Tensor:
    """``torch.ops.detectron2.deform_conv``, sooner where nothing is traced or compiled."""
    device_type = "cuda" if input.is_cuda else "cpu"
    casts = torch.is_autocast_enabled(device_type) and input.device.type == device_type
    if not casts or is_transformed():
        return _deform_conv(input, offset, mask, weight, bias, *convolution)
    input, weight, bias = _cast(device_type, input, weight, bias)
    with torch._C._ExcludeDispatchKeyGuard(_AUTOCAST_KEYS[device_type]):
        return _deform_conv(input, offset, mask, weight, bias, *convolution)


# ---- Other devices -------------------------------------------------------------------------------

_library.impl("deform_conv", deform_conv_composite.deform_conv, "CompositeExplicitAutograd")
_library.impl(
    "deform_conv_backward",
    deform_conv_composite.deform_conv_backward,
    "CompositeExplicitAutograd",
)
