"""Loads the native operators: after ``import detectron2._ops`` they are ``torch.ops.detectron2.*``.

Importing registers the schemas and CPU kernels (``detectron2._C``), the CUDA kernels
(``detectron2._C_cuda``, under a PyTorch with CUDA), what ``torch.compile`` and ``torch.export``
need to trace the operators, and gradients.

* ``box_iou_rotated(boxes1 (N, 5), boxes2 (M, 5)) -> (N, M)``: float64 for float64 boxes, else
  float32. Not differentiable.
* ``nms_rotated(boxes (N, 5), scores (N,), iou_threshold) -> (K,)``: int64 indices of the kept boxes
  by descending score, equal scores by index; NaN scores rank highest. A box goes if its IoU with a
  kept one is greater than the threshold. CPU and CUDA keep the same boxes.
* ``roi_align_rotated_forward(input (N, C, H, W), rois (K, 6), spatial_scale, pooled_height,
  pooled_width, sampling_ratio) -> (K, C, pooled_height, pooled_width)``, differentiable with
  respect to ``input``, any number of times. RoIs with a value that is not finite give zeros; a
  batch index out of range or a negative side is an error on the CPU and gives zeros on CUDA, where
  finding out would mean waiting for the device. A RoI whose bins are longer than twice the feature
  map's diagonal gets no more than that many adaptive samples along a side.

Boxes are ``(cx, cy, w, h, angle)``, RoIs ``(batch index, cx, cy, w, h, angle)``, in pixels with the
angle in degrees, counter-clockwise on screen. A box with a value that is not finite or with a side
that is not positive has IoU 0 with every box: NMS keeps it, and it removes none.

float16, bfloat16, float32 and float64 are taken everywhere, strided or not; the first two are
computed in float32. Autocast changes nothing: each operator runs in the dtype of its arguments.
Boxes and scores must agree in dtype; RoIs need not agree with the features, and are read as
float32, or float64 if the features are, never in the features' half precision.
"""

import importlib
import warnings
from typing import Any

import torch
from torch import Tensor

from detectron2 import _C  # noqa: F401  (registers the schemas and CPU kernels)


def _load_cuda_kernels() -> None:
    if torch.version.cuda is None:
        return
    name = "detectron2._C_cuda"
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        # Built for the CPU alone: the dispatcher says so when a CUDA tensor comes.
    except ImportError as error:
        warnings.warn(
            f"The CUDA kernels of detectron2 could not be loaded, so torch.ops.detectron2 is "
            f"limited to the CPU: {error}",
            RuntimeWarning,
            stacklevel=2,
        )


def _alert_not_deterministic(operation: str) -> None:
    if not torch.are_deterministic_algorithms_enabled():
        return
    message = (
        f"{operation} does not have a deterministic implementation, but "
        f"torch.use_deterministic_algorithms(True) is set."
    )
    if not torch.is_deterministic_algorithms_warn_only_enabled():
        raise RuntimeError(message)
    warnings.warn(message, UserWarning, stacklevel=2)


def _fake_box_iou_rotated(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    dtype = torch.float64 if boxes1.dtype == torch.float64 else torch.float32
    return boxes1.new_empty((boxes1.shape[0], boxes2.shape[0]), dtype=dtype)


def _fake_nms_rotated(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    num_kept = torch.library.get_ctx().new_dynamic_size()
    return boxes.new_empty((num_kept,), dtype=torch.int64)


def _fake_roi_align_rotated_forward(
    input: Tensor,
    rois: Tensor,
    spatial_scale: float,
    pooled_height: int,
    pooled_width: int,
    sampling_ratio: int,
) -> Tensor:
    return input.new_empty((rois.shape[0], input.shape[1], pooled_height, pooled_width))


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


def _mark_not_differentiable(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.mark_non_differentiable(output)


def _no_gradient(ctx: Any, grad: Tensor) -> tuple[None, ...]:
    return (None,) * len(ctx.needs_input_grad)


def _save_forward(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    input, rois, *ctx.pooling = inputs
    ctx.input_shape = input.shape
    ctx.save_for_backward(rois)


def _grad_of_forward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    grad_input = None
    if ctx.needs_input_grad[0]:
        if grad.is_cuda:
            _alert_not_deterministic("roi_align_rotated_backward on CUDA")
        (rois,) = ctx.saved_tensors
        *scale_and_size, sampling_ratio = ctx.pooling
        grad_input = torch.ops.detectron2.roi_align_rotated_backward(
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
        grad_grad = torch.ops.detectron2.roi_align_rotated_forward(grad, rois, *ctx.pooling)
    return (grad_grad, *(None,) * 9)


def _register() -> None:
    register_fake = torch.library.register_fake
    register_fake("detectron2::box_iou_rotated", _fake_box_iou_rotated)
    register_fake("detectron2::nms_rotated", _fake_nms_rotated)
    register_fake("detectron2::roi_align_rotated_forward", _fake_roi_align_rotated_forward)
    register_fake("detectron2::roi_align_rotated_backward", _fake_roi_align_rotated_backward)

    register_autograd = torch.library.register_autograd
    for name in ("box_iou_rotated", "nms_rotated"):
        register_autograd(
            f"detectron2::{name}", _no_gradient, setup_context=_mark_not_differentiable
        )
    register_autograd(
        "detectron2::roi_align_rotated_forward", _grad_of_forward, setup_context=_save_forward
    )
    register_autograd(
        "detectron2::roi_align_rotated_backward", _grad_of_backward, setup_context=_save_backward
    )


_load_cuda_kernels()
_register()
