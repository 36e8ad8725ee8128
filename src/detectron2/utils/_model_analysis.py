"""fvcore's analyses of traced models, for models that take and return more than tensors."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import fvcore.nn
import torch
from fvcore.nn.jit_handles import generic_activation_jit
from torch import nn

# Their cost is small beside that of convolutions and products: no need to warn of them.
# fmt: off
_CHEAP_OPERATORS = (
    "__ior__", "abs", "add", "add_", "addcmul", "all", "amax", "any", "argmax", "argsort",
    "bitwise_and", "bitwise_not", "clamp", "clamp_", "clone", "constant_pad_nd", "copy_",
    "count_nonzero", "cumsum", "div", "div_", "eq", "exp", "expand_as", "fill_", "floor",
    "floor_divide", "gather", "ge", "gelu", "gt", "histc", "index_put_", "index_select", "isfinite",
    "le", "log", "log2", "logical_and", "lt", "masked_fill_", "max", "max_pool2d", "maximum",
    "mean", "meshgrid", "min", "minimum", "mul", "mul_", "nan_to_num", "ne", "neg", "new_ones",
    "new_zeros", "nonzero_numpy", "pad", "pow", "prod", "reciprocal", "relu", "relu_", "repeat",
    "repeat_interleave", "round", "rsub", "scatter_", "sigmoid", "sigmoid_", "softmax", "sort",
    "sqrt", "sub", "sub_", "sum", "topk", "unflatten", "upsample_bicubic2d", "upsample_linear1d",
    "where", "zero_", "zeros_like",
)
# fmt: on
_IGNORED_OPERATORS = [
    *(f"aten::{name}" for name in _CHEAP_OPERATORS),
    "detectron2::box_iou_rotated",
    "detectron2::nms_rotated",
    "detectron2::pairwise_ioa",
    "detectron2::pairwise_iou",
    "detectron2::paste_masks",
    "detectron2::roi_align_rotated_forward",
    "prim::CallFunction",  # a scripted function, such as NMS
    "torchvision::nms",
    "torchvision::roi_align",
]


def _deform_conv_flops(inputs: list[Any], outputs: list[Any]) -> int:
    """Multiplications of a deformable convolution, without those of its interpolation."""
    weight = inputs[3].type().sizes()  # (C_out, C_in / groups, kernel height, kernel width)
    return math.prod(outputs[0].type().sizes()) * math.prod(weight[1:])


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    """Every tensor in a nested structure of containers, ``Instances`` and ``Boxes``."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _tensors(item)
    elif hasattr(value, "get_fields"):
        yield from _tensors(value.get_fields())
    elif isinstance(getattr(value, "tensor", None), torch.Tensor):
        yield value.tensor
    elif isinstance(value, Iterable) and not isinstance(value, str | bytes):
        for item in value:
            yield from _tensors(item)


class _StructuredAnalysis:
    """Has an analysis trace the model itself, whatever its inputs and outputs are.

    A wrapper module would do for the tracer, but the names of all modules would begin with its.
    """

    _deform_conv_handle: Callable[[list[Any], list[Any]], Any]

    def __init__(self, model: nn.Module, inputs: Any) -> None:
        super().__init__(model, ())
        self._arguments = inputs if isinstance(inputs, tuple) else (inputs,)
        self.set_op_handle(**dict.fromkeys(_IGNORED_OPERATORS))
        self.set_op_handle("detectron2::deform_conv", type(self)._deform_conv_handle)

    def _analyze(self) -> Any:
        model = self._model
        if isinstance(model, nn.parallel.DistributedDataParallel | nn.DataParallel):
            model = model.module
        forward = model.forward

        def forward_arguments() -> tuple[torch.Tensor, ...]:
            return tuple(_tensors(forward(*self._arguments)))

        model.forward = forward_arguments
        try:
            return super()._analyze()
        finally:
            del model.forward


class FlopCountAnalysis(_StructuredAnalysis, fvcore.nn.FlopCountAnalysis):
    """fvcore's ``FlopCountAnalysis``, for any inputs that the model takes.

    The names of modules are those of ``model.named_modules()``, as in ``parameter_count``. Most
    element-wise operators count nothing; normalisation and interpolation do.

    Args:
        model: the module to run, in the mode that it is in.
        inputs: its argument, or a tuple of arguments: for the models of this library a list of
            dicts with ``"image"``.
    """

    _deform_conv_handle = staticmethod(_deform_conv_flops)


class ActivationCountAnalysis(_StructuredAnalysis, fvcore.nn.ActivationCountAnalysis):
    """fvcore's ``ActivationCountAnalysis``, for any inputs that the model takes."""

    _deform_conv_handle = staticmethod(generic_activation_jit("deform_conv"))
