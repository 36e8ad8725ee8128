"""``roi_align_forward(features [(N, C, H_l, W_l)], rois (K, 5), levels (K,) or None,
spatial_scales, pooled_height, pooled_width, sampling_ratio, aligned) -> (K, C, pooled_height,
pooled_width)``, and its ``_backward``: RoIAlign from the levels of a feature pyramid in one call.

RoIs are rows ``(batch index, x0, y0, x1, y1)`` in the pixels of the image. RoI ``k`` is pooled from
``features[levels[k]]``, whose scale is ``spatial_scales[levels[k]]``; there are up to 8 levels, and
for one ``levels`` may be None. Samples are those of ``torchvision.ops.roi_align``, except that a
RoI with a value that is not finite gives zeros, and that a bin has at most 2**20 adaptive samples
along a side. A batch index or a level out of range is an error on the CPU and gives zeros on CUDA,
where finding out would mean waiting for the device.

Differentiable with respect to ``features``, any number of times. Sums are in float32, or float64
for float64 features, and are rounded once, to the features' dtype. Forward and backward give the
same bits on every run, on CUDA too: each pixel's gradient is gathered from the RoIs in their order,
without atomics. Gradients have the memory format of the features where all levels agree in it.

Features whose channels are side by side in memory (``torch.channels_last``) are pooled as they are;
on CUDA, of others a copy in that order is made first if there are many RoIs, as large as they are.

RoIs need not agree with the features in dtype: they are read as float32, or float64 if the features
are, never in the features' half precision. Autocast leaves the features in their dtype.
"""

from typing import Any

import torch
from torch import Tensor

from detectron2 import _C  # noqa: F401  (loads the operators)
from detectron2._ops.eager import EagerOperator


@torch.library.register_fake("detectron2::roi_align_forward")
def _fake_roi_align_forward(
    features: list[Tensor],
    rois: Tensor,
    levels: Tensor | None,
    spatial_scales: list[float],
    pooled_height: int,
    pooled_width: int,
    sampling_ratio: int,
    aligned: bool,
) -> Tensor:
    channels = features[0].shape[1]
    return features[0].new_empty((rois.shape[0], channels, pooled_height, pooled_width))


@torch.library.register_fake("detectron2::roi_align_backward")
def _fake_roi_align_backward(
    grad: Tensor,
    rois: Tensor,
    levels: Tensor | None,
    spatial_scales: list[float],
    batch_size: int,
    heights: list[int],
    widths: list[int],
    sampling_ratio: int,
    aligned: bool,
    channels_last: bool,
) -> list[Tensor]:
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    return [
        torch.empty(
            (batch_size, grad.shape[1], height, width),
            dtype=grad.dtype,
            device=grad.device,
            memory_format=memory_format,
        )
        for height, width in zip(heights, widths, strict=True)
    ]


def _is_channels_last(features: Tensor) -> bool:
    return not features.is_contiguous() and features.is_contiguous(
        memory_format=torch.channels_last
    )


def _save_forward(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    features, rois, levels, ctx.spatial_scales, _, _, *ctx.sampling = inputs
    ctx.batch_size = features[0].shape[0]
    ctx.sizes = [level.shape[2] for level in features], [level.shape[3] for level in features]
    ctx.channels_last = all(_is_channels_last(level) for level in features)
    ctx.save_for_backward(rois, levels)


def _grad_of_forward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    needed = ctx.needs_input_grad[0]
    grads: list[Tensor | None] = [None] * len(needed)
    if any(needed):
        gradients = roi_align_backward(
            grad,
            *ctx.saved_tensors,
            ctx.spatial_scales,
            ctx.batch_size,
            *ctx.sizes,
            *ctx.sampling,
            ctx.channels_last,
        )
        grads = [g if wanted else None for g, wanted in zip(gradients, needed, strict=True)]
    return grads, None, None, None, None, None, None, None


def _save_backward(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    grad, rois, levels, ctx.spatial_scales, _, _, _, *ctx.sampling, _ = inputs
    ctx.pooled_size = grad.shape[2:]
    ctx.save_for_backward(rois, levels)


def _grad_of_backward(ctx: Any, grads: list[Tensor]) -> tuple[Tensor | None, ...]:
    # Pooling is linear in the features, so the derivative of its transpose is pooling itself.
    grad_grad = None
    if ctx.needs_input_grad[0]:
        grad_grad = roi_align_forward(
            grads, *ctx.saved_tensors, ctx.spatial_scales, *ctx.pooled_size, *ctx.sampling
        )
    return (grad_grad, *(None,) * 9)


roi_align_forward = EagerOperator("roi_align_forward", _grad_of_forward, _save_forward)
roi_align_backward = EagerOperator("roi_align_backward", _grad_of_backward, _save_backward)
