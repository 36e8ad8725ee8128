"""Residual networks whose last stages dilate instead of stride."""

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from detectron2.config import CfgNode
from detectron2.layers._weight_init import c2_msra_fill
from detectron2.layers.batch_norm import get_norm
from detectron2.layers.blocks import CNNBlockBase
from detectron2.layers.shape_spec import ShapeSpec
from detectron2.layers.wrappers import Conv2d, conv_relu
from detectron2.modeling.backbone.build import BACKBONE_REGISTRY
from detectron2.modeling.backbone.resnet import (
    BasicStem,
    BottleneckBlock,
    DeformBottleneckBlock,
    ResNet,
)

__all__ = ["DeepLabStem", "build_resnet_deeplab_backbone"]

_BLOCKS_OF_DEPTH = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


class DeepLabStem(CNNBlockBase):
    """Three 3 x 3 convolutions, the first of stride 2, and a 3 x 3 max-pooling of stride 2.

    Args:
        in_channels: of the images.
        out_channels: of the output; the first two convolutions have half as many.
        norm: normalisation after each convolution, as for :func:`detectron2.layers.get_norm`.
    """

    def __init__(self, in_channels: int = 3, out_channels: int = 128, norm: str = "BN") -> None:
        super().__init__(in_channels, out_channels, 4)
        widths = [in_channels, out_channels // 2, out_channels // 2, out_channels]
        for i, stride in enumerate((2, 1, 1)):
            conv = Conv2d(
                widths[i],
                widths[i + 1],
                3,
                stride=stride,
                padding=1,
                bias=False,
                norm=get_norm(norm, widths[i + 1]),
            )
            c2_msra_fill(conv)
            self.add_module(f"conv{i + 1}", conv)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map images ``(N, in_channels, H, W)`` to ``(N, out_channels, H / 4, W / 4)``."""
        for conv in (self.conv1, self.conv2, self.conv3):
            x = conv_relu(conv, x)
        return F.max_pool2d(x, kernel_size=3, stride=2, padding=1)


def _stem(cfg: CfgNode, in_channels: int) -> nn.Module:
    options = cfg.MODEL.RESNETS
    stems = {"basic": BasicStem, "deeplab": DeepLabStem}
    if options.STEM_TYPE not in stems:
        raise ValueError(
            f"MODEL.RESNETS.STEM_TYPE must be one of {sorted(stems)}, got {options.STEM_TYPE!r}"
        )
    return stems[options.STEM_TYPE](in_channels, options.STEM_OUT_CHANNELS, options.NORM)


def _dilations(options: CfgNode) -> tuple[int, int, int, int]:
    """Of the four stages."""
    res4, res5 = options.RES4_DILATION, options.RES5_DILATION
    if res4 not in (1, 2) or res5 not in (1, 2, 4):
        raise ValueError(
            "MODEL.RESNETS.RES4_DILATION must be 1 or 2, and RES5_DILATION 1, 2 or 4, got "
            f"{res4} and {res5}"
        )
    if res4 == 2 and res5 != 4:
        raise ValueError(f"MODEL.RESNETS.RES5_DILATION must be 4 for RES4_DILATION 2, got {res5}")
    return 1, 1, res4, res5


@BACKBONE_REGISTRY.register()
def build_resnet_deeplab_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> ResNet:
    """Make a ResNet for dense prediction as ``cfg.MODEL.RESNETS`` says.

    A stage with a dilation does not stride. In res5 the dilation of each block is multiplied by its
    entry of RES5_MULTI_GRID.

    Args:
        cfg: a configuration with the keys of :func:`add_deeplab_config`.
        input_shape: of the images; ``channels`` is read.

    Raises:
        ValueError: an option is out of range, or does not go with another.
    """
    options = cfg.MODEL.RESNETS
    if options.DEPTH not in _BLOCKS_OF_DEPTH:
        raise ValueError(
            f"MODEL.RESNETS.DEPTH must be one of {sorted(_BLOCKS_OF_DEPTH)}, got {options.DEPTH}"
        )
    stages = []
    channels, width = options.STEM_OUT_CHANNELS, options.RES2_OUT_CHANNELS
    bottleneck = options.NUM_GROUPS * options.WIDTH_PER_GROUP
    counts, dilations = _BLOCKS_OF_DEPTH[options.DEPTH], _dilations(options)
    for i, (count, dilation) in enumerate(zip(counts, dilations, strict=True)):
        block_class, deform = BottleneckBlock, {}
        if options.DEFORM_ON_PER_STAGE[i]:
            block_class = DeformBottleneckBlock
            deform = {
                "deform_modulated": options.DEFORM_MODULATED,
                "deform_num_groups": options.DEFORM_NUM_GROUPS,
            }
        grid = options.RES5_MULTI_GRID if i == 3 else [1] * count
        stages.append(
            ResNet.make_stage(
                block_class,
                count,
                in_channels=channels,
                out_channels=width,
                bottleneck_channels=bottleneck,
                stride=1 if i == 0 or dilation > 1 else 2,
                dilation_per_block=[dilation * factor for factor in grid],
                num_groups=options.NUM_GROUPS,
                norm=options.NORM,
                stride_in_1x1=options.STRIDE_IN_1X1,
                **deform,
            )
        )
        channels, width, bottleneck = width, 2 * width, 2 * bottleneck
    return ResNet(
        _stem(cfg, input_shape.channels),
        stages,
        out_features=options.OUT_FEATURES,
        freeze_at=cfg.MODEL.BACKBONE.FREEZE_AT,
    )
