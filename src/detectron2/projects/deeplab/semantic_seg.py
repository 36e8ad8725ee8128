"""Heads of DeepLabv3 and DeepLabv3+."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from detectron2.config import CfgNode, configurable
from detectron2.layers._weight_init import c2_xavier_fill
from detectron2.layers.aspp import ASPP
from detectron2.layers.batch_norm import get_norm
from detectron2.layers.blocks import DepthwiseSeparableConv2d
from detectron2.layers.shape_spec import ShapeSpec
from detectron2.layers.wrappers import Conv2d
from detectron2.modeling.meta_arch._pixel_head import PixelHead
from detectron2.modeling.meta_arch.semantic_seg import SEM_SEG_HEADS_REGISTRY
from detectron2.projects.deeplab.loss import DeepLabCE

__all__ = ["DeepLabV3Head", "DeepLabV3PlusHead"]

_Norm = str | Callable[[int], nn.Module]


def conv3x3(in_channels: int, out_channels: int, norm: _Norm) -> Conv2d:
    """A 3 x 3 convolution, a norm instead of its bias, and ReLU."""
    return _conv(in_channels, out_channels, 3, norm)


def separable_conv5x5(in_channels: int, out_channels: int, norm: _Norm) -> nn.Module:
    """A 5 x 5 convolution that is separable in depth, with norms and ReLU."""
    return DepthwiseSeparableConv2d(
        in_channels,
        out_channels,
        kernel_size=5,
        padding=2,
        norm1=norm,
        activation1=F.relu,
        norm2=norm,
        activation2=F.relu,
    )


def pixel_predictor(in_channels: int, out_channels: int) -> Conv2d:
    """A 1 x 1 convolution that begins near 0."""
    layer = Conv2d(in_channels, out_channels, 1)
    nn.init.normal_(layer.weight, std=0.001)
    nn.init.zeros_(layer.bias)
    return layer


def _conv(in_channels: int, out_channels: int, kernel_size: int, norm: _Norm) -> Conv2d:
    return c2_xavier_fill(
        Conv2d(
            in_channels,
            out_channels,
            kernel_size,
            padding=kernel_size // 2,
            bias=norm == "",
            norm=get_norm(norm, out_channels),
            activation=F.relu,
        )
    )


def absolute_crop_size(cfg: CfgNode) -> tuple[int, int] | None:
    """(height, width) of the crops that are trained on; None if they have no fixed size."""
    crop = cfg.INPUT.CROP
    return tuple(crop.SIZE) if crop.ENABLED and crop.TYPE == "absolute" else None


def _pool_kernel_size(train_size: tuple[int, int] | None, stride: int) -> tuple[int, int] | None:
    if train_size is None:
        return None
    height, width = train_size
    if height % stride != 0 or width % stride != 0:
        raise ValueError(f"crops must be divisible by the stride {stride}, got {train_size}")
    return height // stride, width // stride


def pixel_loss(loss_type: str, ignore_value: int, top_k: float = 0.2) -> nn.Module:
    """The loss of a head.

    Args:
        loss_type: "cross_entropy" or "hard_pixel_mining".
        ignore_value: label of pixels that do not count.
        top_k: fraction of the pixels that the latter averages over.

    Raises:
        ValueError: another loss.
    """
    if loss_type == "cross_entropy":
        return nn.CrossEntropyLoss(reduction="mean", ignore_index=ignore_value)
    if loss_type == "hard_pixel_mining":
        return DeepLabCE(ignore_label=ignore_value, top_k_percent_pixels=top_k)
    raise ValueError(f"the loss must be 'cross_entropy' or 'hard_pixel_mining', got {loss_type!r}")


def decoder_arguments(
    cfg: CfgNode, head: CfgNode, input_shape: dict[str, ShapeSpec]
) -> dict[str, Any]:
    """What :class:`DeepLabV3PlusHead` reads of the section of a head whose decoder it is."""
    return {
        "input_shape": {k: v for k, v in input_shape.items() if k in head.IN_FEATURES},
        "project_channels": head.PROJECT_CHANNELS,
        "aspp_dilations": head.ASPP_DILATIONS,
        "aspp_dropout": head.ASPP_DROPOUT,
        "decoder_channels": [head.CONVS_DIM] * (len(head.IN_FEATURES) - 1) + [head.ASPP_CHANNELS],
        "common_stride": head.COMMON_STRIDE,
        "norm": head.NORM,
        "train_size": absolute_crop_size(cfg),
        "use_depthwise_separable_conv": cfg.MODEL.SEM_SEG_HEAD.USE_DEPTHWISE_SEPARABLE_CONV,
    }


def _by_stride(input_shape: dict[str, ShapeSpec]) -> list[tuple[str, ShapeSpec]]:
    return sorted(input_shape.items(), key=lambda item: item[1].stride)


class _PixelClassifier(PixelHead):
    """A head whose loss is a module."""

    def _loss(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return self.loss(logits, targets)


@SEM_SEG_HEADS_REGISTRY.register()
class DeepLabV3PlusHead(_PixelClassifier):
    """The coarsest features with atrous spatial pyramid pooling, refined by finer ones in turn."""

    @configurable
    def __init__(
        self,
        input_shape: dict[str, ShapeSpec],
        *,
        project_channels: list[int],
        aspp_dilations: list[int],
        aspp_dropout: float,
        decoder_channels: list[int],
        common_stride: int,
        norm: _Norm,
        train_size: tuple[int, int] | None,
        loss_weight: float = 1.0,
        loss_type: str = "cross_entropy",
        ignore_value: int = -1,
        num_classes: int | None = None,
        use_depthwise_separable_conv: bool = False,
    ) -> None:
        """
        Args:
            input_shape: the F feature maps by name, with channels and strides.
            project_channels: F - 1 numbers, for all but the coarsest map, from the finest on: the
                channels that it is reduced to.
            aspp_dilations: of the three branches of the pyramid pooling.
            aspp_dropout: probability of dropping what comes out of it.
            decoder_channels: F numbers, from the finest map on: the channels after it is fused;
                the last ones are those of the pyramid pooling.
            common_stride: stride of the finest map.
            norm: normalisation after each convolution, as for ``get_norm``.
            train_size: (height, width) of the images in training. The windows of the image pooling
                are as large; None pools the whole image.
            loss_weight: what the loss is multiplied by.
            loss_type: "cross_entropy", or "hard_pixel_mining", the mean over the 20 % of pixels of
                the largest losses.
            ignore_value: label of pixels that do not count.
            num_classes: K; None leaves out the predictor and the loss, for subclasses that have
                their own.
            use_depthwise_separable_conv: make the convolutions depthwise separable.

        Raises:
            ValueError: lists of other lengths, another loss, or a ``train_size`` that cannot be
                divided by the stride.
        """
        super().__init__()
        levels = _by_stride(input_shape)
        if len(project_channels) != len(levels) - 1 or len(decoder_channels) != len(levels):
            raise ValueError(
                f"{len(levels)} features need {len(levels) - 1} project_channels and "
                f"{len(levels)} decoder_channels, got {project_channels} and {decoder_channels}"
            )
        self.in_features = [name for name, _ in levels]
        self.ignore_value = ignore_value
        self.common_stride = common_stride
        self.loss_weight, self.loss_type = loss_weight, loss_type
        self.decoder_only = num_classes is None
        self.use_depthwise_separable_conv = use_depthwise_separable_conv

        self.decoder = nn.ModuleDict()
        for i, (name, shape) in enumerate(levels[:-1]):
            project_conv = _conv(shape.channels, project_channels[i], 1, norm)
            fused_channels = project_channels[i] + decoder_channels[i + 1]
            fuse_conv = self._two_convs(fused_channels, decoder_channels[i], norm)
            self.decoder[name] = nn.ModuleDict(
                {"project_conv": project_conv, "fuse_conv": fuse_conv}
            )
        coarsest, shape = levels[-1]
        aspp = ASPP(
            shape.channels,
            decoder_channels[-1],
            aspp_dilations,
            norm=norm,
            activation=F.relu,
            pool_kernel_size=_pool_kernel_size(train_size, shape.stride),
            dropout=aspp_dropout,
            use_depthwise_separable_conv=use_depthwise_separable_conv,
        )
        self.decoder[coarsest] = nn.ModuleDict({"project_conv": aspp, "fuse_conv": None})
        if num_classes is not None:
            self.predictor = pixel_predictor(decoder_channels[0], num_classes)
            self.loss = pixel_loss(loss_type, ignore_value)

    def _two_convs(
        self, in_channels: int, out_channels: int, norm: _Norm, channels: int | None = None
    ) -> nn.Module:
        """Two convolutions, with ``channels``, by default ``out_channels``, between them; or a
        separable one, of as large a window."""
        if self.use_depthwise_separable_conv:
            return separable_conv5x5(in_channels, out_channels, norm)
        between = out_channels if channels is None else channels
        return nn.Sequential(
            conv3x3(in_channels, between, norm), conv3x3(between, out_channels, norm)
        )

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        head = cfg.MODEL.SEM_SEG_HEAD
        return {
            **decoder_arguments(cfg, head, input_shape),
            "loss_weight": head.LOSS_WEIGHT,
            "loss_type": head.LOSS_TYPE,
            "ignore_value": head.IGNORE_VALUE,
            "num_classes": head.NUM_CLASSES,
        }

    def layers(self, features: dict[str, torch.Tensor]) -> torch.Tensor:
        """Logits at the common stride, or without a predictor the features that it would take."""
        coarsest = self.in_features[-1]
        x = self.decoder[coarsest]["project_conv"](features[coarsest])
        for name in self.in_features[-2::-1]:
            stage = self.decoder[name]
            finer = stage["project_conv"](features[name])
            x = F.interpolate(x, size=finer.shape[-2:], mode="bilinear", align_corners=False)
            x = stage["fuse_conv"](torch.cat([finer, x], dim=1))
        return x if self.decoder_only else self.predictor(x)


@SEM_SEG_HEADS_REGISTRY.register()
class DeepLabV3Head(_PixelClassifier):
    """Atrous spatial pyramid pooling of one feature map, and a classifier of its pixels."""

    def __init__(self, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> None:
        """
        Args:
            cfg: a configuration; ``MODEL.SEM_SEG_HEAD`` is read.
            input_shape: feature maps by name, with channels and strides.

        Raises:
            ValueError: not one feature map, another loss, or crops that cannot be divided by the
                stride.
        """
        super().__init__()
        head = cfg.MODEL.SEM_SEG_HEAD
        self.in_features = [k for k, _ in _by_stride(input_shape) if k in head.IN_FEATURES]
        if len(self.in_features) != 1:
            raise ValueError(f"DeepLabV3Head takes one feature map, got {self.in_features}")
        shape = input_shape[self.in_features[0]]
        self.ignore_value = head.IGNORE_VALUE
        self.common_stride = head.COMMON_STRIDE
        self.loss_weight, self.loss_type = head.LOSS_WEIGHT, head.LOSS_TYPE
        self.aspp = ASPP(
            shape.channels,
            head.ASPP_CHANNELS,
            head.ASPP_DILATIONS,
            norm=head.NORM,
            activation=F.relu,
            pool_kernel_size=_pool_kernel_size(absolute_crop_size(cfg), shape.stride),
            dropout=head.ASPP_DROPOUT,
        )
        self.predictor = pixel_predictor(head.ASPP_CHANNELS, head.NUM_CLASSES)
        self.loss = pixel_loss(head.LOSS_TYPE, head.IGNORE_VALUE)

    def layers(self, features: dict[str, torch.Tensor]) -> torch.Tensor:
        """Logits at the common stride."""
        return self.predictor(self.aspp(features[self.in_features[0]]))
