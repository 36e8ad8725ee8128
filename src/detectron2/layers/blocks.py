"""Building blocks of convolutional networks."""

from collections.abc import Callable
from typing import Any, Self

import torch
from torch import nn

from detectron2.layers._weight_init import c2_msra_fill
from detectron2.layers.batch_norm import FrozenBatchNorm2d, get_norm
from detectron2.layers.wrappers import Conv2d

__all__ = ["CNNBlockBase", "DepthwiseSeparableConv2d"]


class CNNBlockBase(nn.Module):
    """A block of a backbone: maps ``(N, in_channels, H, W)`` to
    ``(N, out_channels, H / stride, W / stride)``, and can be frozen.

    Attributes:
        in_channels: channels of the input.
        out_channels: channels of the output.
        stride: of the whole block.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.stride = stride

    def freeze(self) -> Self:
        """Exclude the block from training, in place.

        No parameter asks for a gradient any more, and batch norms become ``FrozenBatchNorm2d``.

        Returns:
            The block itself.
        """
        for parameter in self.parameters():
            parameter.requires_grad_(False)
        FrozenBatchNorm2d.convert_frozen_batchnorm(self)
        return self


def _conv(
    size: tuple[int, int, int | tuple[int, int]],
    norm: str | Callable[[int], nn.Module] | None,
    activation: Callable[[torch.Tensor], torch.Tensor] | None,
    **options: Any,
) -> Conv2d:
    """A convolution of a size (channels in, channels out, kernel); a norm replaces its bias."""
    return c2_msra_fill(
        Conv2d(*size, bias=not norm, norm=get_norm(norm, size[1]), activation=activation, **options)
    )


class DepthwiseSeparableConv2d(nn.Module):
    """A convolution within each channel, then a 1 x 1 convolution across them.

    Chollet, "Xception: Deep Learning with Depthwise Separable Convolutions", CVPR 2017.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: of the first convolution, like ``padding`` and ``dilation``.
        padding: zeros around the input.
        dilation: distance of the kernel's taps.
        norm1: normalisation after the first convolution, as for :func:`get_norm`. Without one the
            convolution has a bias.
        activation1: callable that is applied after it.
        norm2: the same for the second convolution.
        activation2: the same for the second convolution.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int] = 3,
        padding: int | tuple[int, int] = 1,
        dilation: int | tuple[int, int] = 1,
        *,
        norm1: str | Callable[[int], nn.Module] | None = None,
        activation1: Callable[[torch.Tensor], torch.Tensor] | None = None,
        norm2: str | Callable[[int], nn.Module] | None = None,
        activation2: Callable[[torch.Tensor], torch.Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.depthwise = _conv(
            (in_channels, in_channels, kernel_size),
            norm1,
            activation1,
            groups=in_channels,
            padding=padding,
            dilation=dilation,
        )
        self.pointwise = _conv((in_channels, out_channels, 1), norm2, activation2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``(N, in_channels, H, W)`` to ``(N, out_channels, H', W')``."""
        return self.pointwise(self.depthwise(x))
