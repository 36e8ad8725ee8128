"""``roi_align_rotated_forward(input (N, C, H, W), rois (K, 6), spatial_scale, pooled_height,
pooled_width, sampling_ratio) -> (K, C, pooled_height, pooled_width)``, and its ``_backward``.

Differentiable with respect to ``input``, any number of times. RoIs with a value that is not finite
give zeros; a batch index out of range or a negative side is an error on the CPU and gives zeros on
CUDA, where finding out would mean waiting for the device. A RoI whose bins are longer than twice
the feature map's diagonal gets no more than that many adaptive samples along a side.

On CUDA, features whose channels are side by side in memory (``torch.channels_last``) are pooled as
they are; of others a copy in that order is made first if there are many RoIs, as large as they are.
The forward gives the same bits on each run; the backward adds with atomics.

RoIs need not agree with the features in dtype: they are read as float32, or float64 if the features
are, never in the features' half precision.
"""

from typing import Any

import torch
from torch import Tensor

from detectron2 import _C  # noqa: F401  (loads the operators)
from detectron2._ops.eager import EagerOperator
from detectron2._ops.gradients import alert_not_deterministic


@torch.library.register_fake("detectron2::roi_align_rotated_forward")
def _fake_roi_align_rotated_forward(
    input: Tensor,
    rois: Tensor,
    spatial_scale: float,
    pooled_height: int,
    pooled_width: int,
    sampling_ratio: int,
) -> Tensor:
    return input.new_empty((rois.shape[0], input.shape[1], pooled_height, pooled_width))


@torch.library.register_fake("detectron2::roi_align_rotated_backward")
def _fake_roi_align_rotated_backward(
    grad: Tensor,
    rois: Tensor,
    spatial_scale: float,
    pooled_height: int,
    pooled_width: int,
    batch_size: int,
    channels: int,
    height: int,
    width: int,
    sampling_ratio: int,
) -> Tensor:
    return grad.new_empty((batch_size, channels, height, width))


def _save_forward(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    input, rois, *ctx.pooling = inputs
    ctx.input_shape = input.shape
    ctx.save_for_backward(rois)


def _grad_of_forward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    grad_input = None
    if ctx.needs_input_grad[0]:
        if grad.is_cuda:
            alert_not_deterministic("roi_align_rotated_backward on CUDA")
        (rois,) = ctx.saved_tensors
        *scale_and_size, sampling_ratio = ctx.pooling
        grad_input = roi_align_rotated_backward(
            grad, rois, *scale_and_size, *ctx.input_shape, sampling_ratio
        )
    return grad_input, None, None, None, None, None


def _save_backward(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, rois, spatial_scale, pooled_height, pooled_width, *_, sampling_ratio = inputs
    ctx.pooling = (spatial_scale, pooled_height, pooled_width, sampling_ratio)
    ctx.save_for_backward(rois)


def _grad_of_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    # Pooling is linear in the features, so the derivative of its transpose is pooling itself.
    grad_grad = None
    if ctx.needs_input_grad[0]:
        (rois,) = ctx.saved_tensors
        grad_grad = roi_align_rotated_forward(grad, rois, *ctx.pooling)
    return (grad_grad, *(None,) * 9)


roi_align_rotated_forward = EagerOperator(
    "roi_align_rotated_forward", _grad_of_forward, _save_forward
)
roi_align_rotated_backward = EagerOperator(
    "roi_align_rotated_backward", _grad_of_backward, _save_backward
)
