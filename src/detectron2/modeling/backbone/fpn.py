"""Feature pyramid networks.

Lin et al., "Feature Pyramid Networks for Object Detection", CVPR 2017.
"""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from detectron2.layers._weight_init import c2_xavier_fill
from detectron2.layers.batch_norm import get_norm
from detectron2.layers.shape_spec import ShapeSpec
from detectron2.layers.wrappers import Conv2d
from detectron2.modeling.backbone.backbone import Backbone
from detectron2.modeling.backbone.build import BACKBONE_REGISTRY
from detectron2.modeling.backbone.resnet import build_resnet_backbone

__all__ = ["FPN", "build_resnet_fpn_backbone", "build_retinanet_resnet_fpn_backbone"]


class FeaturePyramid(Backbone):
    """What pyramids share: outputs of equal width by the logarithm of their stride, a top block
    and squares.

    The output of stride ``2**k`` is ``"p{k}"``.
    """

    def _set_outputs(
        self,
        strides: Sequence[int],
        out_channels: int,
        top_block: nn.Module | None,
        square_pad: int,
    ) -> None:
        """
        Args:
            strides: of the outputs but the top block's, from fine to coarse.
            out_channels: of every output.
            top_block: as for :class:`FPN`.
            square_pad: as for :class:`FPN`.
        """
        self.top_block = top_block
        self._size_divisibility = strides[-1]
        self._square_pad = square_pad
        num_levels = 0 if top_block is None else top_block.num_levels
        strides = [*strides, *(strides[-1] * 2 ** (i + 1) for i in range(num_levels))]
        self._out_feature_strides = {f"p{level_of(stride)}": stride for stride in strides}
        self._out_features = list(self._out_feature_strides)
        self._out_feature_channels = dict.fromkeys(self._out_features, out_channels)

    def _with_top(
        self, features: dict[str, torch.Tensor], outputs: list[torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        """All outputs by name: those that are there, and the top block's."""
        if self.top_block is not None:
            name = self.top_block.in_feature
            top = features[name] if name in features else outputs[self._out_features.index(name)]
            outputs.extend(self.top_block(top))
        # TorchScript has no strict zip.
        return {name: y for name, y in zip(self._out_features, outputs)}  # noqa: B905, C416

    @property
    def size_divisibility(self) -> int:
        """The largest stride that is not the top block's."""
        return self._size_divisibility


class FPN(FeaturePyramid):
    """A pyramid of feature maps of equal width, on top of a backbone.

    From the coarsest level on down, the level above is enlarged twice and added to a 1 x 1
    convolution of the backbone's feature map; a 3 x 3 convolution of the sum is the output. The
    output of stride ``2**k`` is ``"p{k}"``.

    Args:
        bottom_up: the backbone.
        in_features: names of the backbone's feature maps that enter, from fine to coarse; each has
            twice the stride of the one before.
        out_channels: of every output.
        norm: normalisation after each convolution, as for :func:`detectron2.layers.get_norm`.
            Convolutions have a bias where it is ``""``.
        top_block: a module that makes coarser outputs. It has ``in_feature``, the name of what it
            takes, one of the backbone's or of the pyramid's, and ``num_levels``, the length of the
            list that it returns.
        fuse_type: ``"sum"``, or ``"avg"`` for the mean of the level above and the convolution.
        square_pad: where above 0, the height and width that images are padded to.

    Raises:
        ValueError: ``in_features`` is empty or does not double its strides, or ``fuse_type`` is
            another.
    """

    _fuse_type: torch.jit.Final[str]

    def __init__(
        self,
        bottom_up: Backbone,
        in_features: Sequence[str],
        out_channels: int,
        norm: str | Callable[[int], nn.Module] | None = "",
        top_block: nn.Module | None = None,
        fuse_type: str = "sum",
        square_pad: int = 0,
    ) -> None:
        super().__init__()
        if not in_features:
            raise ValueError("an FPN takes at least one feature map, got no in_features")
        if fuse_type not in ("sum", "avg"):
            raise ValueError(f"fuse_type must be 'sum' or 'avg', got {fuse_type!r}")
        shapes = bottom_up.output_shape()
        strides = [shapes[name].stride for name in in_features]
        _assert_strides_are_log2_contiguous(strides)

        lateral_convs, output_convs = [], []
        for name, stride in zip(in_features, strides, strict=True):
            convs = (
                self._conv(shapes[name].channels, out_channels, 1, norm),
                self._conv(out_channels, out_channels, 3, norm),
            )
            level = level_of(stride)
            self.add_module(f"fpn_lateral{level}", convs[0])
            self.add_module(f"fpn_output{level}", convs[1])
            lateral_convs.append(convs[0])
            output_convs.append(convs[1])
        # From coarse to fine.
        self.lateral_convs = lateral_convs[::-1]
        self.output_convs = output_convs[::-1]

        # A tuple is a constant of TorchScript.
        self.in_features = tuple(in_features)
        self._set_outputs(strides, out_channels, top_block, square_pad)
        self.bottom_up = bottom_up
        self._fuse_type = fuse_type

    @staticmethod
    def _conv(in_channels: int, out_channels: int, kernel_size: int, norm: Any) -> Conv2d:
        return c2_xavier_fill(
            Conv2d(
                in_channels,
                out_channels,
                kernel_size,
                padding=kernel_size // 2,
                bias=norm == "",
                norm=get_norm(norm, out_channels),
            )
        )

    @property
    def padding_constraints(self) -> dict[str, int]:
        """``square_size``, which is 0 where images are not padded to squares."""
        return {"square_size": self._square_pad}

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """Map images ``(N, C, H, W)`` to the outputs by name, from fine to coarse.

        H and W must be divisible by :attr:`size_divisibility`.
        """
        features = self.bottom_up(x)
        # Over the children: TorchScript knows nothing of lists of modules. It compiles the loop's
        # body for each of them, and must leave out those that are no convolution.
        fused = []
        for name, conv in self.named_children():
            if not torch.jit.is_scripting() or hasattr(conv, "kernel_size"):  # noqa: SIM102
                if name.startswith("fpn_lateral"):
                    fused.append(conv(features[self.in_features[len(fused)]]))
        for i in range(len(fused) - 2, -1, -1):
            fused[i] = self._fuse(fused[i], fused[i + 1])
        outputs = []
        for name, conv in self.named_children():
            if not torch.jit.is_scripting() or hasattr(conv, "kernel_size"):  # noqa: SIM102
                if name.startswith("fpn_output"):
                    outputs.append(conv(fused[len(outputs)]))
        return self._with_top(features, outputs)

    def _fuse(self, lateral: torch.Tensor, above: torch.Tensor) -> torch.Tensor:
        fused = lateral + F.interpolate(above, scale_factor=2.0, mode="nearest")
        return fused / 2 if self._fuse_type == "avg" else fused


def level_of(stride: int) -> int:
    """The k of a stride of ``2**k``."""
    return int(math.log2(stride))


def _assert_strides_are_log2_contiguous(strides: Sequence[int]) -> None:
    """Raise a ValueError unless every stride is twice the one before."""
    for stride, following in pairwise(strides):
        if following != 2 * stride:
            raise ValueError(f"each stride must be twice the one before, got {list(strides)}")


class LastLevelP6P7(nn.Module):
    """The top block of RetinaNet: two 3 x 3 convolutions of stride 2, ``p6`` and ``p7``.

    Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017.

    Args:
        in_channels: of the input.
        out_channels: of both outputs.
        in_feature: name of the feature map that :class:`FPN` hands in.
    """

    def __init__(self, in_channels: int, out_channels: int, in_feature: str = "res5") -> None:
        super().__init__()
        self.in_feature, self.num_levels = in_feature, 2
        self.p6 = self._halving_conv(in_channels, out_channels)
        self.p7 = self._halving_conv(out_channels, out_channels)

    @staticmethod
    def _halving_conv(in_channels: int, out_channels: int) -> nn.Conv2d:
        return c2_xavier_fill(nn.Conv2d(in_channels, out_channels, 3, stride=2, padding=1))

    def forward(self, c5: torch.Tensor) -> list[torch.Tensor]:
        """Map ``(N, in_channels, H, W)`` to the feature maps of half and of a quarter the size."""
        p6 = self.p6(c5)
        return [p6, self.p7(p6.relu())]


class LastLevelMaxPool(nn.Module):
    """A top block of :class:`FPN`: every other pixel of ``p5``, which becomes ``p6``."""

    def __init__(self) -> None:
        super().__init__()
        self.in_feature, self.num_levels = "p5", 1

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Map ``(N, C, H, W)`` to one feature map ``(N, C, H / 2, W / 2)``."""
        return [F.max_pool2d(x, 1, stride=2)]


def _build(cfg: Any, bottom_up: Backbone, top_block: nn.Module) -> FPN:
    return FPN(
        bottom_up=bottom_up,
        in_features=cfg.MODEL.FPN.IN_FEATURES,
        out_channels=cfg.MODEL.FPN.OUT_CHANNELS,
        norm=cfg.MODEL.FPN.NORM,
        top_block=top_block,
        fuse_type=cfg.MODEL.FPN.FUSE_TYPE,
    )


@BACKBONE_REGISTRY.register()
def build_resnet_fpn_backbone(cfg: Any, input_shape: ShapeSpec) -> FPN:
    """Make a ResNet with a pyramid, as ``cfg.MODEL.FPN`` says, and ``p6`` by subsampling."""
    return _build(cfg, build_resnet_backbone(cfg, input_shape), LastLevelMaxPool())


@BACKBONE_REGISTRY.register()
def build_retinanet_resnet_fpn_backbone(cfg: Any, input_shape: ShapeSpec) -> FPN:
    """Make a ResNet with a pyramid, as ``cfg.MODEL.FPN`` says, and RetinaNet's top levels."""
    bottom_up = build_resnet_backbone(cfg, input_shape)
    channels = bottom_up.output_shape()["res5"].channels
    return _build(cfg, bottom_up, LastLevelP6P7(channels, cfg.MODEL.FPN.OUT_CHANNELS))
