"""Residual networks.

He et al., "Deep Residual Learning for Image Recognition", CVPR 2016; with groups Xie et al.,
"Aggregated Residual Transformations for Deep Neural Networks" (ResNeXt), CVPR 2017; with deformable
convolutions Dai et al., ICCV 2017, and Zhu et al., CVPR 2019.
"""

from collections.abc import Callable, Sequence
from typing import Any, Self

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from detectron2.layers._weight_init import c2_msra_fill
from detectron2.layers.batch_norm import FrozenBatchNorm2d, get_norm
from detectron2.layers.blocks import CNNBlockBase
from detectron2.layers.deform_conv import DeformConv, ModulatedDeformConv
from detectron2.layers.shape_spec import ShapeSpec
from detectron2.layers.wrappers import Conv2d, conv_relu
from detectron2.modeling.backbone.backbone import Backbone
from detectron2.modeling.backbone.build import BACKBONE_REGISTRY

__all__ = [
    "BasicBlock",
    "BasicStem",
    "BottleneckBlock",
    "DeformBottleneckBlock",
    "ResNet",
    "ResNetBlockBase",
    "build_resnet_backbone",
    "make_stage",
]

_Norm = str | Callable[[int], nn.Module] | None

ResNetBlockBase = CNNBlockBase
"""Another name of :class:`CNNBlockBase`."""

# Blocks of the stages res2 to res5.
_BLOCKS_OF_DEPTH = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}


def _blocks_of(depth: int) -> tuple[int, ...]:
    if depth not in _BLOCKS_OF_DEPTH:
        raise ValueError(f"a ResNet has a depth of {sorted(_BLOCKS_OF_DEPTH)}, got {depth}")
    return _BLOCKS_OF_DEPTH[depth]


def _conv(
    in_channels: int, out_channels: int, kernel_size: int, norm: _Norm, **options: Any
) -> Conv2d:
    """A convolution without bias, followed by a norm."""
    return c2_msra_fill(
        Conv2d(
            in_channels,
            out_channels,
            kernel_size,
            bias=False,
            norm=get_norm(norm, out_channels),
            **options,
        )
    )


class _ResidualBlock(CNNBlockBase):
    """A block whose input, projected if channels change, is added to what it computes."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, norm: _Norm = "") -> None:
        super().__init__(in_channels, out_channels, stride)
        self.shortcut: nn.Module | None = None
        if in_channels != out_channels:
            self.shortcut = _conv(in_channels, out_channels, 1, norm, stride=stride)


class BasicBlock(_ResidualBlock):
    """Two 3 x 3 convolutions: the block of ResNet-18 and ResNet-34.

    Args:
        in_channels: of the input. Where it differs from ``out_channels``, a 1 x 1 convolution
            projects the shortcut.
        out_channels: of the output.
        stride: of the first convolution.
        norm: normalisation after each convolution, as for :func:`detectron2.layers.get_norm`.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, stride: int = 1, norm: _Norm = "BN"
    ) -> None:
        super().__init__(in_channels, out_channels, stride, norm)
        self.conv1 = _conv(in_channels, out_channels, 3, norm, stride=stride, padding=1)
        self.conv2 = _conv(out_channels, out_channels, 3, norm, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``(N, in_channels, H, W)`` to ``(N, out_channels, H / stride, W / stride)``."""
        shortcut = x if self.shortcut is None else self.shortcut(x)
        if torch.jit.is_scripting():
            y = F.relu_(self.conv1(x))
            return F.relu_(self.conv2(y) + shortcut)
        return conv_relu(self.conv2, conv_relu(self.conv1, x), shortcut)


class BottleneckBlock(_ResidualBlock):
    """A 1 x 1, a 3 x 3 and a 1 x 1 convolution: the block of ResNet-50 and deeper ones.

    Args:
        in_channels: of the input. Where it differs from ``out_channels``, a 1 x 1 convolution
            projects the shortcut.
        out_channels: of the output.
        bottleneck_channels: of what is between the convolutions.
        stride: of the block.
        num_groups: of the 3 x 3 convolution.
        norm: normalisation after each convolution, as for :func:`detectron2.layers.get_norm`.
        stride_in_1x1: whether the first convolution strides, as in the original (Caffe, MSRA)
            models, and not the 3 x 3, as in those of Torch and torchvision.
        dilation: of the 3 x 3 convolution.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        bottleneck_channels: int,
        stride: int = 1,
        num_groups: int = 1,
        norm: _Norm = "BN",
        stride_in_1x1: bool = False,
        dilation: int = 1,
    ) -> None:
        super().__init__(in_channels, out_channels, stride, norm)
        strides = (stride, 1) if stride_in_1x1 else (1, stride)
        self.conv1 = _conv(in_channels, bottleneck_channels, 1, norm, stride=strides[0])
        self.conv2 = _conv(
            bottleneck_channels,
            bottleneck_channels,
            3,
            norm,
            stride=strides[1],
            padding=dilation,
            groups=num_groups,
            dilation=dilation,
        )
        self.conv3 = _conv(bottleneck_channels, out_channels, 1, norm)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``(N, in_channels, H, W)`` to ``(N, out_channels, H / stride, W / stride)``."""
        shortcut = x if self.shortcut is None else self.shortcut(x)
        if torch.jit.is_scripting():
            y = F.relu_(self.conv2(F.relu_(self.conv1(x))))
            return F.relu_(self.conv3(y) + shortcut)
        y = conv_relu(self.conv2, conv_relu(self.conv1, x))
        return conv_relu(self.conv3, y, shortcut)


class DeformBottleneckBlock(_ResidualBlock):
    """:class:`BottleneckBlock` whose 3 x 3 convolution is deformable.

    Another 3 x 3 convolution, 0 at first, predicts the offsets of the taps, and their mask.

    Args:
        in_channels: as for :class:`BottleneckBlock`, like what is not listed here.
        out_channels: of the output.
        deform_modulated: whether taps are masked, too (Deformable ConvNets v2).
        deform_num_groups: how many groups of channels have offsets of their own.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        bottleneck_channels: int,
        stride: int = 1,
        num_groups: int = 1,
        norm: _Norm = "BN",
        stride_in_1x1: bool = False,
        dilation: int = 1,
        deform_modulated: bool = False,
        deform_num_groups: int = 1,
    ) -> None:
        super().__init__(in_channels, out_channels, stride, norm)
        self.deform_modulated = deform_modulated
        strides = (stride, 1) if stride_in_1x1 else (1, stride)
        self.conv1 = _conv(in_channels, bottleneck_channels, 1, norm, stride=strides[0])
        # (y, x) of each of 9 taps, and how much it counts.
        channels_of_tap = 3 if deform_modulated else 2
        self.conv2_offset = Conv2d(
            bottleneck_channels,
            channels_of_tap * 9 * deform_num_groups,
            3,
            stride=strides[1],
            padding=dilation,
            dilation=dilation,
        )
        nn.init.zeros_(self.conv2_offset.weight)
        nn.init.zeros_(self.conv2_offset.bias)
        deform_conv = ModulatedDeformConv if deform_modulated else DeformConv
        self.conv2 = deform_conv(
            bottleneck_channels,
            bottleneck_channels,
            3,
            stride=strides[1],
            padding=dilation,
            bias=False,
            groups=num_groups,
            dilation=dilation,
            deformable_groups=deform_num_groups,
            norm=get_norm(norm, bottleneck_channels),
        )
        c2_msra_fill(self.conv2)
        self.conv3 = _conv(bottleneck_channels, out_channels, 1, norm)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``(N, in_channels, H, W)`` to ``(N, out_channels, H / stride, W / stride)``."""
        shortcut = x if self.shortcut is None else self.shortcut(x)
        y = conv_relu(self.conv1, x)
        offset = self.conv2_offset(y)
        if self.deform_modulated:
            taps = offset.shape[1] // 3
            offset, mask = offset.split([2 * taps, taps], dim=1)
            y = self.conv2(y, offset, mask.sigmoid())
        else:
            y = self.conv2(y, offset)
        return conv_relu(self.conv3, F.relu_(y), shortcut)


class BasicStem(CNNBlockBase):
    """A 7 x 7 convolution and a 3 x 3 max-pooling, both of stride 2.

    Args:
        in_channels: of the images.
        out_channels: of the output.
        norm: normalisation after the convolution, as for :func:`detectron2.layers.get_norm`.
    """

    def __init__(self, in_channels: int = 3, out_channels: int = 64, norm: _Norm = "BN") -> None:
        super().__init__(in_channels, out_channels, 4)
        self.conv1 = _conv(in_channels, out_channels, 7, norm, stride=2, padding=3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map images ``(N, in_channels, H, W)`` to ``(N, out_channels, H / 4, W / 4)``."""
        x = F.relu_(self.conv1(x)) if torch.jit.is_scripting() else conv_relu(self.conv1, x)
        return F.max_pool2d(x, kernel_size=3, stride=2, padding=1)


class ResNet(Backbone):
    """A stem, and stages of residual blocks after it.

    Args:
        stem: the module before the stages; it has ``stride`` and ``out_channels``.
        stages: up to four lists of blocks, which become the modules ``res2`` to ``res5``; see
            :meth:`make_stage`.
        num_classes: None, or the number of classes of a classifier on the last stage, the output
            ``"linear"``.
        out_features: names of the outputs, among ``"stem"``, ``"res2"`` and so on and
            ``"linear"``. None: the last there is. Stages beyond the last that is wanted are left
            out.
        freeze_at: stages that are not trained, as for :meth:`freeze`.

    Raises:
        ValueError: ``out_features`` is empty or names what there is not, or a stage is empty.
    """

    def __init__(
        self,
        stem: nn.Module,
        stages: Sequence[Sequence[nn.Module]],
        num_classes: int | None = None,
        out_features: Sequence[str] | None = None,
        freeze_at: int = 0,
    ) -> None:
        super().__init__()
        self.stem = stem
        self.num_classes = num_classes
        stride, channels = stem.stride, stem.out_channels
        self._out_feature_strides = {"stem": stride}
        self._out_feature_channels = {"stem": channels}
        names = [f"res{i}" for i in range(2, 2 + len(stages))]
        if out_features is not None:
            wanted = [i for i, name in enumerate(names) if name in out_features]
            names = names[: max(wanted, default=len(names) - 1) + 1]

        self.stages: list[nn.Module] = []
        for name, blocks in zip(names, stages, strict=False):
            if len(blocks) == 0:
                raise ValueError(f"a stage has at least one block, got none for {name!r}")
            stage = nn.Sequential(*blocks)
            self.add_module(name, stage)
            self.stages.append(stage)
            for block in blocks:
                stride *= block.stride
            channels = blocks[-1].out_channels
            self._out_feature_strides[name] = stride
            self._out_feature_channels[name] = channels
        # A tuple is a constant of TorchScript.
        self.stage_names = tuple(names)

        last = names[-1] if names else "stem"
        if num_classes is not None:
            self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
            self.linear = nn.Linear(channels, num_classes)
            # As in Goyal et al., "Accurate, Large Minibatch SGD", section 5.1.
            nn.init.normal_(self.linear.weight, std=0.01)
            last = "linear"

        self._out_features = [last] if out_features is None else list(out_features)
        known = {"stem", *names} | (set() if num_classes is None else {"linear"})
        if not self._out_features or not known.issuperset(self._out_features):
            raise ValueError(
                f"out_features must be some of {sorted(known)}, got {list(self._out_features)}"
            )
        self.freeze(freeze_at)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """Map images ``(N, C, H, W)`` to the wanted feature maps by name.

        ``"linear"`` is ``(N, num_classes)``.

        Raises:
            ValueError: the input is not 4-dimensional.
        """
        if x.dim() != 4:
            raise ValueError(f"a ResNet takes images of the shape (N, C, H, W), got {x.shape}")
        outputs = {}
        if not torch.jit.is_scripting() and x.is_cuda and self._folds():
            # What cuDNN computes in. Other norms than frozen ones are slower in it.
            x = x.contiguous(memory_format=torch.channels_last)
        x = self.stem(x)
        if "stem" in self._out_features:
            outputs["stem"] = x
        # TorchScript can iterate over the children, but not over the list of stages.
        for name, stage in self.named_children():
            if name in self.stage_names:
                x = stage(x)
                if name in self._out_features:
                    outputs[name] = x
        if self.num_classes is not None:
            x = torch.flatten(self.avgpool(x), 1)
            x = self.linear(x)
            if "linear" in self._out_features:
                outputs["linear"] = x
        return outputs

    @torch.jit.unused
    def _folds(self) -> bool:
        """Whether norms are frozen, and folded into the convolutions, up to the last block."""
        last = self.stages[-1][-1] if self.stages else self.stem
        return isinstance(getattr(getattr(last, "conv1", None), "norm", None), FrozenBatchNorm2d)

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Channels and stride of every feature map, by name; of ``"linear"`` the classes."""
        channels = {**self._out_feature_channels, "linear": self.num_classes}
        return {
            name: ShapeSpec(channels=channels[name], stride=self._out_feature_strides.get(name))
            for name in self._out_features
        }

    def freeze(self, freeze_at: int = 0) -> Self:
        """Exclude the first stages from training, in place; see :meth:`CNNBlockBase.freeze`.

        Args:
            freeze_at: 0 for none, 1 for the stem, 2 for the stem and ``res2``, and so on.

        Returns:
            The network itself.
        """
        for blocks in [[self.stem], *self.stages][: max(freeze_at, 0)]:
            for block in blocks:
                block.freeze()
        return self

    @staticmethod
    def make_stage(
        block_class: type[CNNBlockBase],
        num_blocks: int,
        *,
        in_channels: int,
        out_channels: int,
        **kwargs: Any,
    ) -> list[CNNBlockBase]:
        """Make blocks that follow one another.

        Args:
            block_class: their class.
            num_blocks: how many.
            in_channels: of the first block's input; the others' is ``out_channels``.
            out_channels: of every block's output.
            **kwargs: arguments of ``block_class``. One whose name ends in ``_per_block`` is a list
                with a value a block, and goes without that ending. ``stride`` is the first
                block's, the others have 1.

        Raises:
            ValueError: a list does not have ``num_blocks`` values, or an argument comes both ways.
        """
        per_block = {}
        for name in [name for name in kwargs if name.endswith("_per_block")]:
            values, argument = kwargs.pop(name), name.removesuffix("_per_block")
            if len(values) != num_blocks:
                raise ValueError(f"{name} must have {num_blocks} values, got {values}")
            if argument in kwargs:
                raise ValueError(f"make_stage takes one of {name!r} and {argument!r}, got both")
            per_block[argument] = values
        if "stride" in kwargs:
            per_block["stride"] = [kwargs.pop("stride")] + [1] * (num_blocks - 1)
        return [
            block_class(
                in_channels=in_channels if i == 0 else out_channels,
                out_channels=out_channels,
                **{name: values[i] for name, values in per_block.items()},
                **kwargs,
            )
            for i in range(num_blocks)
        ]

    @staticmethod
    def make_default_stages(
        depth: int, block_class: type[CNNBlockBase] | None = None, **kwargs: Any
    ) -> list[list[CNNBlockBase]]:
        """Make the four stages of an ordinary ResNet, for ``ResNet(BasicStem(), stages)``.

        Args:
            depth: 18, 34, 50, 101 or 152.
            block_class: None: :class:`BasicBlock` below a depth of 50, otherwise
                :class:`BottleneckBlock`.
            **kwargs: further arguments of :meth:`make_stage`, but for stride and channels.

        Raises:
            ValueError: ``depth`` is another.
        """
        counts = _blocks_of(depth)
        if block_class is None:
            block_class = BasicBlock if depth < 50 else BottleneckBlock
        widths = (64, 64, 128, 256, 512) if depth < 50 else (64, 256, 512, 1024, 2048)
        stages = []
        for i, count in enumerate(counts):
            if block_class is not BasicBlock:
                kwargs["bottleneck_channels"] = widths[i + 1] // 4
            stages.append(
                ResNet.make_stage(
                    block_class=block_class,
                    num_blocks=count,
                    stride_per_block=[1 if i == 0 else 2] + [1] * (count - 1),
                    in_channels=widths[i],
                    out_channels=widths[i + 1],
                    **kwargs,
                )
            )
        return stages


def make_stage(*args: Any, **kwargs: Any) -> list[CNNBlockBase]:
    """:meth:`ResNet.make_stage` as a function."""
    return ResNet.make_stage(*args, **kwargs)


def _check_basic(options: Any) -> None:
    """ResNet-18 and ResNet-34 are made of :class:`BasicBlock`, which has no options."""
    wanted = {
        "RES2_OUT_CHANNELS": 64,
        "DEFORM_ON_PER_STAGE": [False] * 4,
        "RES5_DILATION": 1,
        "NUM_GROUPS": 1,
    }
    for name, value in wanted.items():
        got = getattr(options, name)
        if (list(got) if isinstance(value, list) else got) != value:
            raise ValueError(
                f"MODEL.RESNETS.{name} must be {value} for a depth of {options.DEPTH}, got {got}"
            )


@BACKBONE_REGISTRY.register()
def build_resnet_backbone(cfg: Any, input_shape: ShapeSpec) -> ResNet:
    """Make a ResNet as ``cfg.MODEL.RESNETS`` and ``cfg.MODEL.BACKBONE.FREEZE_AT`` say.

    Args:
        cfg: a configuration.
        input_shape: of the images; ``channels`` is read.

    Raises:
        ValueError: an option is out of range, or does not go with the depth.
    """
    options = cfg.MODEL.RESNETS
    depth, norm = options.DEPTH, options.NORM
    counts = _blocks_of(depth)
    if options.RES5_DILATION not in (1, 2):
        raise ValueError(f"MODEL.RESNETS.RES5_DILATION must be 1 or 2, got {options.RES5_DILATION}")
    if depth < 50:
        _check_basic(options)

    stem = BasicStem(
        in_channels=input_shape.channels, out_channels=options.STEM_OUT_CHANNELS, norm=norm
    )
    in_channels, out_channels = options.STEM_OUT_CHANNELS, options.RES2_OUT_CHANNELS
    bottleneck_channels = options.NUM_GROUPS * options.WIDTH_PER_GROUP
    stages = []
    for i, count in enumerate(counts):
        dilation = options.RES5_DILATION if i == 3 else 1
        arguments = {"stride": 1 if i == 0 or dilation == 2 else 2, "norm": norm}
        block_class: type[CNNBlockBase] = BasicBlock
        if depth >= 50:
            block_class = BottleneckBlock
            arguments |= {
                "bottleneck_channels": bottleneck_channels,
                "num_groups": options.NUM_GROUPS,
                "stride_in_1x1": options.STRIDE_IN_1X1,
                "dilation": dilation,
            }
            if options.DEFORM_ON_PER_STAGE[i]:
                block_class = DeformBottleneckBlock
                arguments |= {
                    "deform_modulated": options.DEFORM_MODULATED,
                    "deform_num_groups": options.DEFORM_NUM_GROUPS,
                }
        stages.append(
            ResNet.make_stage(
                block_class,
                count,
                in_channels=in_channels,
                out_channels=out_channels,
                **arguments,
            )
        )
        in_channels = out_channels
        out_channels *= 2
        bottleneck_channels *= 2
    return ResNet(
        stem, stages, out_features=options.OUT_FEATURES, freeze_at=cfg.MODEL.BACKBONE.FREEZE_AT
    )
