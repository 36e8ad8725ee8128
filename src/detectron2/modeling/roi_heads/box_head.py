"""Heads that turn the pooled features of a box into a vector, from which it is classified."""

import math
from typing import Any

import torch
from torch import nn

from detectron2.config.config import CfgNode, configurable
from detectron2.layers._weight_init import c2_msra_fill, c2_xavier_fill
from detectron2.layers.batch_norm import get_norm
from detectron2.layers.shape_spec import ShapeSpec
from detectron2.layers.wrappers import Conv2d
from detectron2.utils.registry import Registry

__all__ = ["ROI_BOX_HEAD_REGISTRY", "FastRCNNConvFCHead", "build_box_head"]

ROI_BOX_HEAD_REGISTRY = Registry("ROI_BOX_HEAD")
"""Box heads by name; each is called with ``(cfg, input_shape)`` and has an ``output_shape``."""


@ROI_BOX_HEAD_REGISTRY.register()
class FastRCNNConvFCHead(nn.Sequential):
    """3 x 3 convolutions, then fully connected layers, each with a ReLU."""

    @configurable
    def __init__(
        self,
        input_shape: ShapeSpec,
        *,
        conv_dims: list[int],
        fc_dims: list[int],
        conv_norm: Any = "",
    ) -> None:
        """
        Args:
            input_shape: channels, height and width of the pooled features.
            conv_dims: output channels of each convolution.
            fc_dims: outputs of each fully connected layer.
            conv_norm: normalisation after each convolution, as for ``get_norm``.

        Raises:
            ValueError: no layers at all.
        """
        super().__init__()
        if len(conv_dims) + len(fc_dims) == 0:
            raise ValueError("a box head needs at least one layer, got conv_dims=[], fc_dims=[]")
        channels, height, width = input_shape.channels, input_shape.height, input_shape.width

        self.conv_norm_relus = []
        for i, dim in enumerate(conv_dims, start=1):
            conv = Conv2d(
                channels,
                dim,
                3,
                padding=1,
                bias=not conv_norm,
                norm=get_norm(conv_norm, dim),
                activation=nn.ReLU(inplace=True),
            )
            c2_msra_fill(conv)
            self.add_module(f"conv{i}", conv)
            self.conv_norm_relus.append(conv)
            channels = dim
        self._output_shape = ShapeSpec(channels=channels, height=height, width=width)

        self.fcs = []
        if fc_dims:
            self.add_module("flatten", nn.Flatten())
            channels = math.prod([channels, height or 1, width or 1])
        for i, dim in enumerate(fc_dims, start=1):
            fc = nn.Linear(channels, dim)
            c2_xavier_fill(fc)
            self.add_module(f"fc{i}", fc)
            self.add_module(f"fc_relu{i}", nn.ReLU(inplace=True))
            self.fcs.append(fc)
            self._output_shape = ShapeSpec(channels=dim)
            channels = dim

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: ShapeSpec) -> dict[str, Any]:
        head = cfg.MODEL.ROI_BOX_HEAD
        return {
            "input_shape": input_shape,
            "conv_dims": [head.CONV_DIM] * head.NUM_CONV,
            "fc_dims": [head.FC_DIM] * head.NUM_FC,
            "conv_norm": head.NORM,
        }

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map pooled features ``(R, C, H, W)`` to ``(R, C')`` (``(R, C', H, W)`` without fully
        connected layers)."""
        for layer in self:
            x = layer(x)
        return x

    @property
    @torch.jit.unused
    def output_shape(self) -> ShapeSpec:
        """Shape of an output; only channels after fully connected layers."""
        return self._output_shape


def build_box_head(cfg: CfgNode, input_shape: ShapeSpec) -> nn.Module:
    """Make the box head that ``cfg.MODEL.ROI_BOX_HEAD.NAME`` names."""
    return ROI_BOX_HEAD_REGISTRY.get(cfg.MODEL.ROI_BOX_HEAD.NAME)(cfg, input_shape)
