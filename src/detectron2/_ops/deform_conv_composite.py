"""``deform_conv`` and ``deform_conv_backward`` in terms of PyTorch's own operators.

For devices that have no kernels of their own. It gathers the four pixels around every point for
every channel, and so takes memory for several times ``N * C * KH * KW * OH * OW`` elements.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812


class _Points(NamedTuple):
    """The sampling points of G groups, T taps and P pixels of the output: ``(N, G, 1, T, P)``."""

    corners: tuple[Tensor, Tensor, Tensor, Tensor]  # int64 index into the padded image, row by row
    part_y: Tensor  # of a pixel that the point is below the first corner
    part_x: Tensor
    inside: Tensor  # False where the sample is zero

    def weights(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        y, x = self.part_y, self.part_x
        return (1 - y) * (1 - x), (1 - y) * x, y * (1 - x), y * x


def _points(
    offset: Tensor,
    size: tuple[int, int],
    kernel: tuple[int, int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    offset_groups: int,
) -> _Points:
    """Where an input of ``size`` is sampled that has a frame of zeros, one pixel wide, around it.

    All corners of a point that is less than a pixel outside the input lie within the frame.
    """
    batch, _, *out_size = offset.shape
    moves = offset.reshape(batch, offset_groups, 1, kernel[0] * kernel[1], 2, -1).unbind(4)

    def along(axis: int) -> Tensor:
        taps = torch.arange(kernel[axis], device=offset.device) * dilation[axis]
        outputs = torch.arange(out_size[axis], device=offset.device) * stride[axis]
        places = taps[:, None] + outputs[None, :] - padding[axis]
        grid = (kernel[0], kernel[1], out_size[0], out_size[1])
        places = places[:, None, :, None] if axis == 0 else places[None, :, None, :]
        return places.expand(grid).reshape(kernel[0] * kernel[1], -1) + moves[axis]

    y, x = along(0), along(1)
    inside = (y > -1) & (y < size[0]) & (x > -1) & (x < size[1])
    y, x = torch.where(inside, y, -1), torch.where(inside, x, -1)
    top, left = y.floor(), x.floor()
    width = size[1] + 2
    first = (top.long() + 1) * width + left.long() + 1
    corners = (first, first + 1, first + width, first + width + 1)
    return _Points(corners, y - top, x - left, inside)


def _gather(input: Tensor, points: _Points, offset_groups: int) -> list[Tensor]:
    """The four pixels around the points, each ``(N, G, C / G, T, P)``."""
    batch, channels = input.shape[:2]
    pixels = F.pad(input, (1, 1, 1, 1)).reshape(batch, offset_groups, channels // offset_groups, -1)
    return [
        pixels.gather(3, corner.flatten(3).expand(-1, -1, pixels.shape[2], -1)).unflatten(
            3, corner.shape[3:]
        )
        for corner in points.corners
    ]


def _arithmetic_dtype(input: Tensor) -> torch.dtype:
    return torch.promote_types(input.dtype, torch.float32)


def deform_conv(
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
    """The operator's forward."""
    dtype = _arithmetic_dtype(input)
    batch, channels, *size = input.shape
    outputs, _, *kernel = weight.shape
    points = _points(offset.to(dtype), size, kernel, stride, padding, dilation, offset_groups)
    pixels = _gather(input.to(dtype), points, offset_groups)
    samples = sum(w * pixel for w, pixel in zip(points.weights(), pixels, strict=True))
    if mask is not None:
        samples = samples * mask.to(dtype).reshape(points.inside.shape)
    columns = samples.reshape(batch, groups, channels // groups * kernel[0] * kernel[1], -1)
    output = torch.matmul(weight.to(dtype).reshape(groups, outputs // groups, -1), columns)
    output = output.reshape(batch, outputs, *offset.shape[2:])
    if bias is not None:
        output = output + bias.to(dtype)[:, None, None]
    return output.to(input.dtype)


def deform_conv_backward(
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
    """The operator's backward: gradients of input, offset, mask and weight."""
    dtype = _arithmetic_dtype(input)
    batch, channels, *size = input.shape
    outputs, _, *kernel = weight.shape
    points = _points(offset.to(dtype), size, kernel, stride, padding, dilation, offset_groups)
    pixels = _gather(input.to(dtype), points, offset_groups)
    weights = points.weights()
    samples = sum(w * pixel for w, pixel in zip(weights, pixels, strict=True))
    factor = torch.ones_like(points.part_y)
    if mask is not None:
        factor = mask.to(dtype).reshape(points.inside.shape)
    depth = channels // groups * kernel[0] * kernel[1]
    grad = grad_output.to(dtype).reshape(batch, groups, outputs // groups, -1)
    grad_input, grad_offset, grad_mask, grad_weight = (input.new_empty(0) for _ in range(4))
    if need_weight_gradient:
        columns = (samples * factor).reshape(batch, groups, depth, -1)
        grad_weight = torch.matmul(grad, columns.transpose(2, 3)).sum(0)
        grad_weight = grad_weight.reshape(weight.shape).to(weight.dtype)
    if need_data_gradients:
        matrices = weight.to(dtype).reshape(groups, outputs // groups, depth)
        grad_columns = torch.matmul(matrices.transpose(1, 2), grad).reshape(samples.shape)
        if mask is not None:
            grad_mask = (grad_columns * samples).sum(2).reshape(mask.shape).to(mask.dtype)
        # A point that is not inside stands at the frame's corner, and moves nothing there.
        grad_samples = torch.where(points.inside, grad_columns * factor, 0)
        first, right, below, last = ((grad_samples * pixel).sum(2, True) for pixel in pixels)
        grad_y = (1 - points.part_x) * (below - first) + points.part_x * (last - right)
        grad_x = (1 - points.part_y) * (right - first) + points.part_y * (last - below)
        grad_offset = torch.stack([grad_y, grad_x], 4).reshape(offset.shape).to(offset.dtype)

        rows, columns = size[0] + 2, size[1] + 2
        padded = grad_samples.new_zeros(*grad_samples.shape[:3], rows * columns)
        for corner, w in zip(points.corners, weights, strict=True):
            index = corner.flatten(3).expand(-1, -1, padded.shape[2], -1)
            padded.scatter_add_(3, index, (grad_samples * w).flatten(3))
        padded = padded.reshape(batch, channels, rows, columns)
        grad_input = padded[:, :, 1:-1, 1:-1].to(input.dtype).contiguous()
    return grad_input, grad_offset, grad_mask, grad_weight
