"""Semantic segmentation: a class for each pixel."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from detectron2.config.config import CfgNode, configurable
from detectron2.layers._weight_init import c2_msra_fill
from detectron2.layers.batch_norm import get_norm
from detectron2.layers.shape_spec import ShapeSpec
from detectron2.layers.wrappers import Conv2d

# Code written for upstream imports some of these names from here.
from detectron2.modeling.backbone.backbone import Backbone
from detectron2.modeling.backbone.build import build_backbone
from detectron2.modeling.meta_arch._images import ImageModel
from detectron2.modeling.meta_arch._pixel_head import PixelHead
from detectron2.modeling.meta_arch.build import META_ARCH_REGISTRY
from detectron2.modeling.postprocessing import sem_seg_postprocess
from detectron2.structures.image_list import ImageList  # noqa: F401
from detectron2.utils.registry import Registry

__all__ = [
    "META_ARCH_REGISTRY",
    "SEM_SEG_HEADS_REGISTRY",
    "SemSegFPNHead",
    "SemanticSegmentor",
    "build_backbone",
    "build_sem_seg_head",
]

SEM_SEG_HEADS_REGISTRY = Registry("SEM_SEG_HEADS")
"""Heads that label the pixels of feature maps, by name; called with ``(cfg, input_shape)``."""


def build_sem_seg_head(cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> nn.Module:
    """Make the head that ``cfg.MODEL.SEM_SEG_HEAD.NAME`` names."""
    return SEM_SEG_HEADS_REGISTRY.get(cfg.MODEL.SEM_SEG_HEAD.NAME)(cfg, input_shape)


def sem_seg_targets(model: ImageModel, batched_inputs: list[dict[str, Any]]) -> torch.Tensor | None:
    """The ``"sem_seg"`` of a batch, int64 ``(N, H, W)``, padded as the images are; None if there
    is none."""
    if "sem_seg" not in batched_inputs[0]:
        return None
    return model._padded_maps(batched_inputs, "sem_seg", model.sem_seg_head.ignore_value)


@META_ARCH_REGISTRY.register()
class SemanticSegmentor(ImageModel):
    """A backbone and a head that labels the pixels."""

    @configurable
    def __init__(
        self,
        *,
        backbone: Backbone,
        sem_seg_head: nn.Module,
        pixel_mean: tuple[float, ...],
        pixel_std: tuple[float, ...],
    ) -> None:
        """
        Args:
            backbone: makes feature maps of a batch of images.
            sem_seg_head: makes logits, or losses, of them.
            pixel_mean: of each channel, what is subtracted.
            pixel_std: of each channel, what is divided by.
        """
        super().__init__(backbone, pixel_mean, pixel_std)
        self.sem_seg_head = sem_seg_head

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        arguments = cls._image_arguments(cfg)
        shapes = arguments["backbone"].output_shape()
        return {**arguments, "sem_seg_head": build_sem_seg_head(cfg, shapes)}

    def forward(
        self, batched_inputs: list[dict[str, Any]]
    ) -> dict[str, torch.Tensor] | list[dict[str, torch.Tensor]]:
        """Label pixels, or compute losses.

        Args:
            batched_inputs: a dict for each image, with ``image``, ``(C, H, W)`` with values in
                [0, 255]; optionally ``height`` and ``width``, the size of the output; in training
                ``sem_seg``, int64 ``(H, W)``.

        Returns:
            In training losses by name; otherwise for each image ``{"sem_seg": logits}``,
            ``(K, height, width)``.
        """
        images = self.preprocess_image(batched_inputs)
        targets = sem_seg_targets(self, batched_inputs)
        logits, losses = self.sem_seg_head(self.backbone(images.tensor), targets)
        if self.training:
            return losses
        wanted = self._output_sizes(batched_inputs, images)
        return [
            {"sem_seg": sem_seg_postprocess(of_image, size, *size_wanted)}
            for of_image, size, size_wanted in zip(logits, images.image_sizes, wanted, strict=True)
        ]


@SEM_SEG_HEADS_REGISTRY.register()
class SemSegFPNHead(PixelHead):
    """Brings the levels of a pyramid to a common stride, adds them up, and classifies.

    Kirillov et al., "Panoptic Feature Pyramid Networks", CVPR 2019, figure 3.
    """

    @configurable
    def __init__(
        self,
        input_shape: dict[str, ShapeSpec],
        *,
        num_classes: int,
        conv_dims: int,
        common_stride: int,
        loss_weight: float = 1.0,
        norm: str | Callable[[int], nn.Module] | None = None,
        ignore_value: int = -1,
    ) -> None:
        """
        Args:
            input_shape: the levels by name, with channels and strides.
            num_classes: K.
            conv_dims: channels of the convolutions.
            common_stride: stride of the sum.
            loss_weight: what the loss is multiplied by.
            norm: normalisation after each convolution, as for ``get_norm``.
            ignore_value: label of pixels that do not count.

        Raises:
            ValueError: no levels.
        """
        super().__init__()
        levels = sorted(input_shape.items(), key=lambda item: item[1].stride)
        if not levels:
            raise ValueError("SemSegFPNHead needs at least one feature map, got input_shape={}")
        self.in_features = [name for name, _ in levels]
        self.ignore_value = ignore_value
        self.common_stride = common_stride
        self.loss_weight = loss_weight

        self.scale_heads = []
        for name, shape in levels:
            head = _scale_head(shape, conv_dims, common_stride, norm)
            self.scale_heads.append(head)
            self.add_module(name, head)
        self.predictor = c2_msra_fill(Conv2d(conv_dims, num_classes, 1))

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        head = cfg.MODEL.SEM_SEG_HEAD
        return {
            "input_shape": {k: v for k, v in input_shape.items() if k in head.IN_FEATURES},
            "num_classes": head.NUM_CLASSES,
            "conv_dims": head.CONVS_DIM,
            "common_stride": head.COMMON_STRIDE,
            "loss_weight": head.LOSS_WEIGHT,
            "norm": head.NORM,
            "ignore_value": head.IGNORE_VALUE,
        }

    def layers(self, features: dict[str, torch.Tensor]) -> torch.Tensor:
        """Logits at the common stride."""
        total = self.scale_heads[0](features[self.in_features[0]])
        for name, head in zip(self.in_features[1:], self.scale_heads[1:], strict=True):
            total = total + head(features[name])
        return self.predictor(total)

    def _loss(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(logits, targets, reduction="mean", ignore_index=self.ignore_value)


def _scale_head(shape: ShapeSpec, conv_dims: int, common_stride: int, norm: Any) -> nn.Sequential:
    """A convolution for each doubling of the size up to the common stride, at least one."""
    doublings = int(math.log2(shape.stride) - math.log2(common_stride))
    layers: list[nn.Module] = []
    channels = shape.channels
    for _ in range(max(1, doublings)):
        conv = Conv2d(
            channels,
            conv_dims,
            3,
            padding=1,
            bias=not norm,
            norm=get_norm(norm, conv_dims),
            activation=F.relu,
        )
        layers.append(c2_msra_fill(conv))
        if shape.stride != common_stride:
            layers.append(nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False))
        channels = conv_dims
    return nn.Sequential(*layers)
