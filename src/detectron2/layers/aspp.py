"""Atrous spatial pyramid pooling."""

from collections.abc import Callable, Sequence
from copy import deepcopy

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from detectron2.layers._weight_init import c2_xavier_fill
from detectron2.layers.batch_norm import get_norm
from detectron2.layers.blocks import DepthwiseSeparableConv2d
from detectron2.layers.wrappers import Conv2d

__all__ = ["ASPP"]


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling: context at several scales, side by side.

    Chen et al., "Rethinking Atrous Convolution for Semantic Image Segmentation", 2017, section
    3.3. A 1 x 1 convolution, three dilated 3 x 3 ones and the pooled image are concatenated, and
    a 1 x 1 convolution mixes them.

    Args:
        in_channels: channels of the input.
        out_channels: channels of each branch, and of the output.
        dilations: of the three 3 x 3 convolutions.
        norm: normalisation after each convolution but the pooled branch's, as for
            :func:`get_norm`. Convolutions have a bias where it is ``""``.
        activation: callable that is applied after each convolution. A module is copied, so that
            no two convolutions share its parameters.
        pool_kernel_size: (rows, columns) of the pooled windows; None pools the whole image.
        dropout: probability that an element of the output is dropped in training.
        use_depthwise_separable_conv: make the 3 x 3 convolutions depthwise separable.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        dilations: Sequence[int],
        *,
        norm: str | Callable[[int], nn.Module],
        activation: Callable[[torch.Tensor], torch.Tensor],
        pool_kernel_size: tuple[int, int] | None = None,
        dropout: float = 0.0,
        use_depthwise_separable_conv: bool = False,
    ) -> None:
        super().__init__()
        if len(dilations) != 3:
            raise ValueError(f"ASPP takes 3 dilations, got {list(dilations)}")
        self.pool_kernel_size = pool_kernel_size
        self.dropout = dropout
        # TorchScript does not subscript what may be None.
        self._window = (1, 1) if pool_kernel_size is None else tuple(pool_kernel_size)

        def conv(channels: int, kernel_size: int, dilation: int) -> Conv2d:
            return c2_xavier_fill(
                Conv2d(
                    channels,
                    out_channels,
                    kernel_size,
                    padding=kernel_size // 2 * dilation,
                    dilation=dilation,
                    bias=norm == "",
                    norm=get_norm(norm, out_channels),
                    activation=deepcopy(activation),
                )
            )

        def dilated_conv(dilation: int) -> nn.Module:
            if not use_depthwise_separable_conv:
                return conv(in_channels, 3, dilation)
            return DepthwiseSeparableConv2d(
                in_channels,
                out_channels,
                padding=dilation,
                dilation=dilation,
                norm1=norm,
                activation1=deepcopy(activation),
                norm2=norm,
                activation2=deepcopy(activation),
            )

        if pool_kernel_size is None:
            pool: nn.Module = nn.AdaptiveAvgPool2d(1)
        else:
            pool = nn.AvgPool2d(pool_kernel_size, stride=1)
        # No norm in the pooled branch: it has a single pixel an image.
        pooled_conv = Conv2d(in_channels, out_channels, 1, activation=deepcopy(activation))
        self.convs = nn.ModuleList(
            [
                conv(in_channels, 1, 1),
                *(dilated_conv(dilation) for dilation in dilations),
                nn.Sequential(pool, c2_xavier_fill(pooled_conv)),
            ]
        )
        self.project = conv(5 * out_channels, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``(N, in_channels, H, W)`` to ``(N, out_channels, H, W)``.

        Raises:
            ValueError: H or W cannot be divided by ``pool_kernel_size``.
        """
        size = x.shape[-2:]
        rows, columns = self._window
        if size[0] % rows != 0 or size[1] % columns != 0:
            raise ValueError(
                "the sides of the input must be divisible by pool_kernel_size, "
                f"{rows} x {columns}, got an input of {list(x.shape)}"
            )
        branches = [conv(x) for conv in self.convs]
        branches[-1] = F.interpolate(branches[-1], size=size, mode="bilinear", align_corners=False)
        x = self.project(torch.cat(branches, dim=1))
        return F.dropout(x, self.dropout, training=self.training) if self.dropout > 0 else x
