"""Deformable convolution, without and with a mask."""

from collections.abc import Callable

import torch
from torch import nn
from torch.nn.modules.utils import _pair

from detectron2._ops.deform_conv import convolve

# Code written for upstream imports these names from here.
from detectron2.utils.develop import create_dummy_class, create_dummy_func

__all__ = [
    "DeformConv",
    "ModulatedDeformConv",
    "create_dummy_class",
    "create_dummy_func",
    "deform_conv",
    "modulated_deform_conv",
]


_Size = int | tuple[int, int]  # one for both sides, or (rows, columns)


def _check_sizes(
    input: torch.Tensor,
    weight: torch.Tensor,
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
) -> None:
    if input.dim() != 4:
        raise ValueError(f"input must have the shape (N, C, H, W), got {list(input.shape)}")
    kernel, size = weight.shape[2:], input.shape[2:]
    for side in (0, 1):
        extent = dilation[side] * (kernel[side] - 1) + 1
        if size[side] + 2 * padding[side] < extent:
            raise ValueError(
                f"a kernel of {list(weight.shape[2:])} with dilation {dilation} does not fit into "
                f"an input of {list(input.shape)} with padding {padding}"
            )


def deform_conv(
    input: torch.Tensor,
    offset: torch.Tensor,
    weight: torch.Tensor,
    stride: _Size = 1,
    padding: _Size = 0,
    dilation: _Size = 1,
    groups: int = 1,
    deformable_groups: int = 1,
    im2col_step: int = 64,
) -> torch.Tensor:
    """Convolve with a kernel whose taps are moved, each at each place, by an offset.

    Dai et al., "Deformable Convolutional Networks", ICCV 2017. Tap (i, j) of output (y, x) samples
    the input bilinearly at ``(y * stride - padding + i * dilation + dy, x * ...  + dx)``, where
    pixels outside the input count as zero. Differentiable once with respect to all tensors.

    Args:
        input: ``(N, C, H, W)``; N may be 0, or any number.
        offset: ``(N, deformable_groups * KH * KW * 2, H', W')``, in pixels: for each group of
            channels and each tap, row by row, dy and then dx. Where one is not finite, the tap
            counts as zero. Its dtype may differ from that of ``input``.
        weight: ``(C', C / groups, KH, KW)``.
        stride: one int, or one for rows and one for columns; so for the next two.
        padding: zeros that are added on all four sides.
        dilation: distance of neighbouring taps.
        groups: into how many groups channels are parted, as in ``torch.nn.Conv2d``.
        deformable_groups: how many groups of channels have offsets of their own.
        im2col_step: of no effect; upstream handles so many images at a time.

    Returns:
        ``(N, C', H', W')`` in the dtype and memory format of ``input``, with
        ``H' = (H + 2 * padding - dilation * (KH - 1) - 1) // stride + 1``.

    Raises:
        ValueError: ``input`` is not 4-dimensional, or smaller than the kernel.
        RuntimeError: shapes, dtypes or devices do not fit one another.
    """
    strides, paddings, dilations = _pair(stride), _pair(padding), _pair(dilation)
    _check_sizes(input, weight, strides, paddings, dilations)
    return convolve(
        input,
        offset,
        None,
        weight,
        None,
        strides,
        paddings,
        dilations,
        groups,
        deformable_groups,
    )


def modulated_deform_conv(
    input: torch.Tensor,
    offset: torch.Tensor,
    mask: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    stride: _Size = 1,
    padding: _Size = 0,
    dilation: _Size = 1,
    groups: int = 1,
    deformable_groups: int = 1,
) -> torch.Tensor:
    """:func:`deform_conv` whose samples are multiplied by a mask.

    Zhu et al., "Deformable ConvNets v2", CVPR 2019.

    Args:
        input: as for `deform_conv`.
        offset: as for `deform_conv`.
        mask: ``(N, deformable_groups * KH * KW, H', W')``, usually in [0, 1]: a sigmoid's output.
        weight: as for `deform_conv`.
        bias: ``(C',)``, what is added to each channel of the output.
        stride: as for `deform_conv`.
        padding: as for `deform_conv`.
        dilation: as for `deform_conv`.
        groups: as for `deform_conv`.
        deformable_groups: how many groups of channels have offsets and masks of their own.

    Returns:
        as `deform_conv`.

    Raises:
        ValueError: as `deform_conv`.
        RuntimeError: as `deform_conv`.
    """
    strides, paddings, dilations = _pair(stride), _pair(padding), _pair(dilation)
    _check_sizes(input, weight, strides, paddings, dilations)
    return convolve(
        input,
        offset,
        mask,
        weight,
        bias,
        strides,
        paddings,
        dilations,
        groups,
        deformable_groups,
    )


class _DeformableConv(nn.Module):
    """What both versions share: the parameters, and what follows the convolution."""

    def __init__(
        self,
        channels: tuple[int, int],
        kernel_size: _Size,
        placing: tuple[_Size, _Size, _Size],
        groups: tuple[int, int],
        bias: bool,
        norm: nn.Module | None,
        activation: Callable[[torch.Tensor], torch.Tensor] | None,
    ) -> None:
        super().__init__()
        self.in_channels, self.out_channels = channels
        self.groups, self.deformable_groups = groups
        for name, count, divisor_name, divisor in (
            ("in_channels", self.in_channels, "groups", self.groups),
            ("out_channels", self.out_channels, "groups", self.groups),
            ("in_channels", self.in_channels, "deformable_groups", self.deformable_groups),
        ):
            if count % divisor != 0:
                raise ValueError(
                    f"{name} must be divisible by {divisor_name}, got {count} and {divisor}"
                )
        self.kernel_size = _pair(kernel_size)
        self.stride, self.padding, self.dilation = placing
        weight_size = (self.out_channels, self.in_channels // self.groups, *self.kernel_size)
        self.weight = nn.Parameter(torch.empty(weight_size))
        self.bias = nn.Parameter(torch.zeros(self.out_channels)) if bias else None
        nn.init.kaiming_uniform_(self.weight, nonlinearity="relu")
        self.norm = norm
        self.activation = activation

    def _normalise_and_activate(self, x: torch.Tensor) -> torch.Tensor:
        if x.shape[0] == 0:  # some norms cannot
            return x
        if self.norm is not None:
            x = self.norm(x)
        return x if self.activation is None else self.activation(x)

    def extra_repr(self) -> str:
        names = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation")
        names = (*names, "groups", "deformable_groups")
        values = [f"{name}={getattr(self, name)}" for name in names]
        return ", ".join([*values, f"bias={self.bias is not None}"])


class DeformConv(_DeformableConv):
    """:func:`deform_conv` as a module, then optionally normalisation and activation.

    Args:
        in_channels: C.
        out_channels: C'.
        kernel_size: one int, or (rows, columns).
        stride: one int, or (rows, columns).
        padding: one int, or (rows, columns).
        dilation: one int, or (rows, columns).
        groups: must divide C and C'.
        deformable_groups: must divide C.
        bias: must be False, there is none.
        norm: a module that is applied to the output.
        activation: a callable that is applied to the (normalised) output.

    Raises:
        ValueError: channels are not divisible by their groups, or ``bias`` is True.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: _Size,
        stride: _Size = 1,
        padding: _Size = 0,
        dilation: _Size = 1,
        groups: int = 1,
        deformable_groups: int = 1,
        bias: bool = False,
        norm: nn.Module | None = None,
        activation: Callable[[torch.Tensor], torch.Tensor] | None = None,
    ) -> None:
        if bias:
            raise ValueError("DeformConv has no bias, got bias=True")
        super().__init__(
            (in_channels, out_channels),
            kernel_size,
            (_pair(stride), _pair(padding), _pair(dilation)),
            (groups, deformable_groups),
            False,
            norm,
            activation,
        )

    def forward(self, x: torch.Tensor, offset: torch.Tensor) -> torch.Tensor:
        """Convolve ``x`` ``(N, C, H, W)`` as `deform_conv` does; an empty batch is not normalised.

        Raises:
            ValueError: as `deform_conv`.
        """
        placing = (self.stride, self.padding, self.dilation)
        x = deform_conv(x, offset, self.weight, *placing, self.groups, self.deformable_groups)
        return self._normalise_and_activate(x)


class ModulatedDeformConv(_DeformableConv):
    """:func:`modulated_deform_conv` as a module, then optionally normalisation and activation.

    Args:
        in_channels: C.
        out_channels: C'.
        kernel_size: one int, or (rows, columns).
        stride: one int, or (rows, columns).
        padding: one int, or (rows, columns).
        dilation: one int, or (rows, columns).
        groups: must divide C and C'.
        deformable_groups: must divide C.
        bias: whether there is one; it is 0 at first.
        norm: a module that is applied to the output.
        activation: a callable that is applied to the (normalised) output.

    Raises:
        ValueError: channels are not divisible by their groups.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: _Size,
        stride: _Size = 1,
        padding: _Size = 0,
        dilation: _Size = 1,
        groups: int = 1,
        deformable_groups: int = 1,
        bias: bool = True,
        norm: nn.Module | None = None,
        activation: Callable[[torch.Tensor], torch.Tensor] | None = None,
    ) -> None:
        # Unlike DeformConv's, stride, padding and dilation stay as they were given.
        super().__init__(
            (in_channels, out_channels),
            kernel_size,
            (stride, padding, dilation),
            (groups, deformable_groups),
            bias,
            norm,
            activation,
        )
        self.with_bias = bias

    def forward(self, x: torch.Tensor, offset: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Convolve ``x`` ``(N, C, H, W)`` as `modulated_deform_conv` does; an empty batch is not
        normalised.

        Raises:
            ValueError: as `deform_conv`.
        """
        placing = (self.stride, self.padding, self.dilation)
        groups = (self.groups, self.deformable_groups)
        x = modulated_deform_conv(x, offset, mask, self.weight, self.bias, *placing, *groups)
        return self._normalise_and_activate(x)
