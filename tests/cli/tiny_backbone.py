"""A module for ``--import``: a backbone of few channels, and a key of the configuration."""

import itertools

import torch
from torch import nn

from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY
from detectron2.modeling.backbone import Backbone


class TinyBackbone(Backbone):
    """Four convolutions, and a pyramid of one level: p4."""

    def __init__(self, channels: int = 8) -> None:
        super().__init__()
        widths = (3, channels, channels, channels, channels)
        self.layers = nn.Sequential(
            *(
                nn.Sequential(nn.Conv2d(i, o, 3, stride=2, padding=1), nn.ReLU())
                for i, o in itertools.pairwise(widths)
            )
        )
        self.channels = channels

    def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"p4": self.layers(image)}

    def output_shape(self) -> dict[str, ShapeSpec]:
        return {"p4": ShapeSpec(channels=self.channels, stride=16)}


def add_tiny_config(cfg):
    cfg.MODEL.TINY_CHANNELS = 8


if "build_tiny_cli_backbone" not in BACKBONE_REGISTRY:

    @BACKBONE_REGISTRY.register()
    def build_tiny_cli_backbone(cfg, input_shape):
        return TinyBackbone(cfg.MODEL.TINY_CHANNELS)
