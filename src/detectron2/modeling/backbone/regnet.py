"""RegNets, and the space of networks that they are chosen from (AnyNet).

Radosavovic et al., "Designing Network Design Spaces", CVPR 2020. Arguments have the names of the
paper: w are widths, d depths, b bottleneck ratios and g group widths.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, Self

import numpy as np
import torch
from torch import nn

from detectron2.layers.batch_norm import FrozenBatchNorm2d, get_norm
from detectron2.layers.blocks import CNNBlockBase

# Code written for upstream imports this name from here.
from detectron2.layers.shape_spec import ShapeSpec  # noqa: F401
from detectron2.layers.wrappers import conv_norm
from detectron2.modeling.backbone.backbone import Backbone

__all__ = [
    "AnyNet",
    "RegNet",
    "ResBasicBlock",
    "ResBottleneckBlock",
    "ResStem",
    "SimpleStem",
    "VanillaBlock",
]

_Norm = str | Callable[[int], nn.Module] | None
_Activation = Callable[[], nn.Module]


def conv2d(
    w_in: int, w_out: int, k: int, *, stride: int = 1, groups: int = 1, bias: bool = False
) -> nn.Conv2d:
    """A convolution of an odd kernel size ``k``, padded so that it keeps the size at stride 1."""
    _check_odd(k)
    return nn.Conv2d(w_in, w_out, k, stride=stride, padding=k // 2, groups=groups, bias=bias)


def pool2d(k: int, *, stride: int = 1) -> nn.MaxPool2d:
    """Max-pooling of an odd kernel size ``k``, padded so that it keeps the size at stride 1."""
    _check_odd(k)
    return nn.MaxPool2d(k, stride=stride, padding=k // 2)


def gap2d() -> nn.AdaptiveAvgPool2d:
    """The mean over the whole feature map."""
    return nn.AdaptiveAvgPool2d((1, 1))


def _check_odd(k: int) -> None:
    if k % 2 == 0:
        raise ValueError(f"only odd kernel sizes keep the size of a feature map, got {k}")


def _make_norm(norm: _Norm, channels: int) -> nn.Module:
    return get_norm(norm, channels) or nn.Identity()


def init_weights(m: nn.Module) -> None:
    """Initialise a convolution, batch norm or linear layer; leave other modules alone."""
    if isinstance(m, nn.BatchNorm2d):
        m.reset_parameters()
    elif isinstance(m, nn.Linear):
        nn.init.normal_(m.weight, std=0.01)
        nn.init.zeros_(m.bias)
    elif isinstance(m, nn.Conv2d):
        # All output channels count, also where there are groups.
        fan_out = m.out_channels * math.prod(m.kernel_size)
        nn.init.normal_(m.weight, std=math.sqrt(2 / fan_out))


class _Stem(CNNBlockBase):
    """A convolution of stride 2, and what may follow it."""

    def __init__(
        self, channels: tuple[int, int], kernel_size: int, stride: int, norm: _Norm, activation: Any
    ) -> None:
        super().__init__(*channels, stride)
        self.conv = conv2d(*channels, kernel_size, stride=2)
        self.bn = _make_norm(norm, channels[1])
        self.af = activation()

    def _convolved(self, x: torch.Tensor) -> torch.Tensor:
        if torch.jit.is_scripting():
            return self.af(self.bn(self.conv(x)))
        return conv_norm(self.conv, self.bn, x, self.af)


class SimpleStem(_Stem):
    """A 3 x 3 convolution of stride 2.

    Args:
        w_in: channels of the images.
        w_out: channels of the output.
        norm: normalisation, as for :func:`detectron2.layers.get_norm`.
        activation_class: makes the activation.
    """

    def __init__(self, w_in: int, w_out: int, norm: _Norm, activation_class: _Activation) -> None:
        super().__init__((w_in, w_out), 3, 2, norm, activation_class)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map images ``(N, w_in, H, W)`` to ``(N, w_out, H / 2, W / 2)``."""
        return self._convolved(x)


class ResStem(_Stem):
    """The stem of a ResNet: a 7 x 7 convolution and a 3 x 3 max-pooling, both of stride 2.

    Args:
        w_in: as for :class:`SimpleStem`, like the others.
        w_out: see there.
        norm: see there.
        activation_class: see there.
    """

    def __init__(self, w_in: int, w_out: int, norm: _Norm, activation_class: _Activation) -> None:
        super().__init__((w_in, w_out), 7, 4, norm, activation_class)
        self.pool = pool2d(3, stride=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map images ``(N, w_in, H, W)`` to ``(N, w_out, H / 4, W / 4)``."""
        return self.pool(self._convolved(x))


class SE(nn.Module):
    """Squeeze and excitation: channels are scaled by what the whole feature map says.

    Hu et al., "Squeeze-and-Excitation Networks", CVPR 2018.

    Args:
        w_in: channels.
        w_se: channels between the two layers.
        activation_class: makes the activation between them.
    """

    def __init__(self, w_in: int, w_se: int, activation_class: _Activation) -> None:
        super().__init__()
        self.avg_pool = gap2d()
        squeeze, excite = conv2d(w_in, w_se, 1, bias=True), conv2d(w_se, w_in, 1, bias=True)
        self.f_ex = nn.Sequential(squeeze, activation_class(), excite, nn.Sigmoid())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``(N, w_in, H, W)`` to the same shape."""
        return x * self.f_ex(self.avg_pool(x))


def _add_conv(
    module: nn.Module, name: str, conv: nn.Conv2d, norm: _Norm, activation: _Activation | None
) -> None:
    """Add a convolution to ``module``, as ``name``, and its norm and activation after it."""
    module.add_module(name, conv)
    module.add_module(f"{name}_bn", _make_norm(norm, conv.out_channels))
    if activation is not None:
        module.add_module(f"{name}_af", activation())


class VanillaBlock(CNNBlockBase):
    """Two 3 x 3 convolutions, without a shortcut.

    Args:
        w_in: channels of the input.
        w_out: channels of the output.
        stride: of the first convolution.
        norm: normalisation after each convolution, as for :func:`detectron2.layers.get_norm`.
        activation_class: makes the activations after them.
        _params: of no effect; blocks are all made in the same way.
    """

    def __init__(
        self,
        w_in: int,
        w_out: int,
        stride: int,
        norm: _Norm,
        activation_class: _Activation,
        _params: dict[str, Any],
    ) -> None:
        super().__init__(w_in, w_out, stride)
        _add_conv(self, "a", conv2d(w_in, w_out, 3, stride=stride), norm, activation_class)
        _add_conv(self, "b", conv2d(w_out, w_out, 3), norm, activation_class)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``(N, w_in, H, W)`` to ``(N, w_out, H / stride, W / stride)``."""
        if torch.jit.is_scripting():
            return self.b_af(self.b_bn(self.b(self.a_af(self.a_bn(self.a(x))))))
        y = conv_norm(self.a, self.a_bn, x, self.a_af)
        return conv_norm(self.b, self.b_bn, y, self.b_af)


class BasicTransform(nn.Module):
    """The convolutions of :class:`ResBasicBlock`; arguments as for :class:`VanillaBlock`."""

    def __init__(
        self,
        w_in: int,
        w_out: int,
        stride: int,
        norm: _Norm,
        activation_class: _Activation,
        _params: dict[str, Any],
    ) -> None:
        super().__init__()
        _add_conv(self, "a", conv2d(w_in, w_out, 3, stride=stride), norm, activation_class)
        _add_conv(self, "b", conv2d(w_out, w_out, 3), norm, None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``(N, w_in, H, W)`` to ``(N, w_out, H / stride, W / stride)``."""
        if torch.jit.is_scripting():
            return self.b_bn(self.b(self.a_af(self.a_bn(self.a(x)))))
        return conv_norm(self.b, self.b_bn, conv_norm(self.a, self.a_bn, x, self.a_af))


class BottleneckTransform(nn.Module):
    """The convolutions of :class:`ResBottleneckBlock`, which has the same arguments."""

    def __init__(
        self,
        w_in: int,
        w_out: int,
        stride: int,
        norm: _Norm,
        activation_class: _Activation,
        params: dict[str, Any],
    ) -> None:
        super().__init__()
        width = round(w_out * params["bottleneck_ratio"])
        grouped = conv2d(width, width, 3, stride=stride, groups=width // params["group_width"])
        _add_conv(self, "a", conv2d(w_in, width, 1), norm, activation_class)
        _add_conv(self, "b", grouped, norm, activation_class)
        # Of the block's input, not of the bottleneck.
        squeezed = round(w_in * params["se_ratio"])
        self.se = SE(width, squeezed, activation_class) if squeezed > 0 else None
        _add_conv(self, "c", conv2d(width, w_out, 1), norm, None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``(N, w_in, H, W)`` to ``(N, w_out, H / stride, W / stride)``."""
        if torch.jit.is_scripting():
            y = self.b_af(self.b_bn(self.b(self.a_af(self.a_bn(self.a(x))))))
        else:
            y = conv_norm(self.a, self.a_bn, x, self.a_af)
            y = conv_norm(self.b, self.b_bn, y, self.b_af)
        if self.se is not None:
            y = self.se(y)
        if torch.jit.is_scripting():
            return self.c_bn(self.c(y))
        return conv_norm(self.c, self.c_bn, y)


class _ResidualBlock(CNNBlockBase):
    """A transform ``f`` whose input, projected if its shape changes, is added to the output."""

    transform: type[nn.Module]

    def __init__(
        self,
        w_in: int,
        w_out: int,
        stride: int,
        norm: _Norm,
        activation_class: _Activation,
        params: dict[str, Any],
    ) -> None:
        super().__init__(w_in, w_out, stride)
        self.proj, self.bn = None, None
        if w_in != w_out or stride != 1:
            self.proj = conv2d(w_in, w_out, 1, stride=stride)
            self.bn = _make_norm(norm, w_out)
        self.f = self.transform(w_in, w_out, stride, norm, activation_class, params)
        self.af = activation_class()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``(N, w_in, H, W)`` to ``(N, w_out, H / stride, W / stride)``."""
        y = self.f(x)
        if self.proj is None:
            shortcut = x
        elif torch.jit.is_scripting():
            shortcut = self.bn(self.proj(x))
        else:
            shortcut = conv_norm(self.proj, self.bn, x)
        return self.af(y + shortcut)


class ResBasicBlock(_ResidualBlock):
    """A residual block of two 3 x 3 convolutions; arguments as for :class:`VanillaBlock`."""

    transform = BasicTransform


class ResBottleneckBlock(_ResidualBlock):
    """A residual block of a 1 x 1, a grouped 3 x 3 and a 1 x 1 convolution: the X block.

    Args:
        w_in: as for :class:`VanillaBlock`, like what is not listed here.
        w_out: channels of the output.
        stride: of the 3 x 3 convolution.
        params: ``"bottleneck_ratio"``, channels between the convolutions as a multiple of
            ``w_out``; ``"group_width"``, how many of them make a group; and ``"se_ratio"``,
            channels within :class:`SE` as a multiple of ``w_in``, 0 for none.
    """

    transform = BottleneckTransform


class AnyStage(nn.Module):
    """``d`` blocks ``b1``, ``b2``, ..., the first of which has the stride.

    Args:
        w_in: channels of the input.
        w_out: channels of every block's output.
        stride: of the first block.
        d: how many blocks.
        block_class: their class, called with the other arguments.
        norm: as for :class:`VanillaBlock`.
        activation_class: see there.
        params: as for :class:`ResBottleneckBlock`.
    """

    def __init__(
        self,
        w_in: int,
        w_out: int,
        stride: int,
        d: int,
        block_class: type[nn.Module],
        norm: _Norm,
        activation_class: _Activation,
        params: dict[str, Any],
    ) -> None:
        super().__init__()
        for i in range(d):
            block = block_class(
                w_out if i else w_in, w_out, 1 if i else stride, norm, activation_class, params
            )
            self.add_module(f"b{i + 1}", block)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``(N, w_in, H, W)`` to ``(N, w_out, H / stride, W / stride)``."""
        for block in self.children():
            x = block(x)
        return x


class AnyNet(Backbone):
    """A stem and stages ``s1``, ``s2``, ... of any widths and depths; arguments are by stage.

    Args:
        stem_class: makes the stem, called with channels of the images (3), ``stem_width``,
            ``norm`` and ``activation_class``.
        stem_width: channels of the stem's output.
        block_class: of all blocks.
        depths: how many blocks.
        widths: channels.
        group_widths: channels of a group.
        strides: of the first blocks.
        bottleneck_ratios: channels of a bottleneck as a multiple of the width.
        se_ratio: of all blocks; see :class:`ResBottleneckBlock`.
        activation_class: makes the activations.
        freeze_at: stages that are not trained, as for :meth:`freeze`.
        norm: normalisation after each convolution, as for :func:`detectron2.layers.get_norm`.
        out_features: names of the outputs, among ``"stem"``, ``"s1"`` and so on; None: the last.

    Raises:
        ValueError: ``out_features`` is empty or names what there is not, or the lists differ in
            length.
    """

    def __init__(
        self,
        *,
        stem_class: Callable[..., CNNBlockBase],
        stem_width: int,
        block_class: type[nn.Module],
        depths: Sequence[int],
        widths: Sequence[int],
        group_widths: Sequence[int],
        strides: Sequence[int],
        bottleneck_ratios: Sequence[float],
        se_ratio: float,
        activation_class: _Activation,
        freeze_at: int = 0,
        norm: _Norm = "BN",
        out_features: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        self.stages_and_names: list[tuple[nn.Module, str]] = []
        self.stem = stem_class(3, stem_width, norm, activation_class)
        self._out_feature_strides = {"stem": self.stem.stride}
        self._out_feature_channels = {"stem": self.stem.out_channels}
        stride, width = self.stem.stride, stem_width
        stages = zip(depths, widths, strides, bottleneck_ratios, group_widths, strict=True)
        for i, (d, w, s, b, g) in enumerate(stages):
            params = {"bottleneck_ratio": b, "group_width": g, "se_ratio": se_ratio}
            name = f"s{i + 1}"
            stage = AnyStage(width, w, s, d, block_class, norm, activation_class, params)
            self.add_module(name, stage)
            self.stages_and_names.append((stage, name))
            stride, width = stride * s, w
            self._out_feature_strides[name] = stride
            self._out_feature_channels[name] = width
        self.apply(init_weights)

        names = list(self._out_feature_strides)
        self._out_features = names[-1:] if out_features is None else list(out_features)
        if not self._out_features or not set(names).issuperset(self._out_features):
            raise ValueError(
                f"out_features must be some of {names}, got {list(self._out_features)}"
            )
        # A tuple is a constant of TorchScript.
        self._names = tuple(names)
        self.freeze(freeze_at)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """Map images ``(N, 3, H, W)`` to the wanted feature maps by name.

        Raises:
            ValueError: the input is not 4-dimensional.
        """
        if x.dim() != 4:
            raise ValueError(f"a RegNet takes images of the shape (N, 3, H, W), got {x.shape}")
        outputs = {}
        if not torch.jit.is_scripting() and x.is_cuda and self._folds():
            # What cuDNN computes in.
            x = x.contiguous(memory_format=torch.channels_last)
        for name, stage in self.named_children():
            if name in self._names:
                x = stage(x)
                if name in self._out_features:
                    outputs[name] = x
        return outputs

    @torch.jit.unused
    def _folds(self) -> bool:
        """Whether norms are frozen, and folded into the convolutions, up to the last block."""
        last = list(self.stages_and_names[-1][0].children())[-1] if self.stages_and_names else self
        return any(isinstance(module, FrozenBatchNorm2d) for module in last.modules())

    def freeze(self, freeze_at: int = 0) -> Self:
        """Exclude the first stages from training, in place; see :meth:`CNNBlockBase.freeze`.

        Args:
            freeze_at: 0 for none, 1 for the stem, 2 for the stem and ``s1``, and so on.

        Returns:
            The network itself.
        """
        stages = [stage.children() for stage, _ in self.stages_and_names]
        for blocks in [[self.stem], *stages][: max(freeze_at, 0)]:
            for block in blocks:
                block.freeze()
        return self


def adjust_block_compatibility(
    ws: Sequence[int], bs: Sequence[float], gs: Sequence[int]
) -> tuple[list[int], list[float], list[int]]:
    """Change widths and group widths so that groups divide the bottlenecks.

    Args:
        ws: widths, a stage each.
        bs: bottleneck ratios; above 1 they are taken to be integers.
        gs: group widths.

    Returns:
        The three, changed.

    Raises:
        ValueError: the lists differ in length, or a value is not positive.
    """
    if not len(ws) == len(bs) == len(gs) or min([*ws, *bs, *gs], default=1) <= 0:
        raise ValueError(f"stages must have positive w, b and g each, got {ws}, {bs} and {gs}")
    widths, group_widths = [], []
    for w, b, g in zip(ws, bs, gs, strict=True):
        bottleneck = max(1, int(w * b))
        g = int(min(g, bottleneck))
        step = math.lcm(g, int(b)) if b > 1 else g
        bottleneck = max(step, round(bottleneck / step) * step)
        widths.append(int(bottleneck / b))
        group_widths.append(g)
    return widths, list(bs), group_widths


def generate_regnet_parameters(
    w_a: float, w_0: int, w_m: float, d: int, q: int = 8
) -> tuple[list[int], list[int], int, int, list[int], list[float]]:
    """Give the stages of a RegNet, whose widths grow linearly, but in steps.

    Args:
        w_a: slope: growth of the width a block, at least 0.
        w_0: width of the first block, a multiple of ``q``.
        w_m: factor from one step to the next, above 1.
        d: blocks.
        q: what widths are rounded to multiples of.

    Returns:
        Widths and depths of the stages; how many stages there are, and how many steps are within
        reach; width of every block, with steps and without.

    Raises:
        ValueError: an argument is out of range.
    """
    if w_a < 0 or w_0 <= 0 or w_m <= 1 or w_0 % q != 0:
        raise ValueError(f"no RegNet has w_a={w_a}, w_0={w_0}, w_m={w_m}, q={q}")
    linear = w_0 + w_a * np.arange(d)
    steps = np.round(np.log(linear / w_0) / np.log(w_m))
    stepped = q * np.round(w_0 * np.power(w_m, steps) / q).astype(int)
    widths, depths = np.unique(stepped, return_counts=True)
    reach = int(steps.max()) + 1
    return (
        widths.tolist(),
        depths.tolist(),
        len(widths),
        reach,
        stepped.tolist(),
        linear.tolist(),
    )


def _relu() -> nn.Module:
    return nn.ReLU(inplace=True)


class RegNet(AnyNet):
    """The :class:`AnyNet` that a few numbers determine.

    Args:
        stem_class: as for :class:`AnyNet`, like what is not listed here.
        depth: blocks of all stages together.
        w_a: as for :func:`generate_regnet_parameters`, like the next two.
        w_0: see there.
        w_m: see there.
        group_width: of all stages.
        stride: of all stages.
        bottleneck_ratio: of all stages.
        activation_class: None: ReLU.
    """

    def __init__(
        self,
        *,
        stem_class: Callable[..., CNNBlockBase],
        stem_width: int,
        block_class: type[nn.Module],
        depth: int,
        w_a: float,
        w_0: int,
        w_m: float,
        group_width: int,
        stride: int = 2,
        bottleneck_ratio: float = 1.0,
        se_ratio: float = 0.0,
        activation_class: _Activation | None = None,
        freeze_at: int = 0,
        norm: _Norm = "BN",
        out_features: Sequence[str] | None = None,
    ) -> None:
        widths, depths, stages, *_ = generate_regnet_parameters(w_a, w_0, w_m, depth)
        widths, ratios, group_widths = adjust_block_compatibility(
            widths, [bottleneck_ratio] * stages, [group_width] * stages
        )
        super().__init__(
            stem_class=stem_class,
            stem_width=stem_width,
            block_class=block_class,
            depths=depths,
            widths=widths,
            group_widths=group_widths,
            strides=[stride] * stages,
            bottleneck_ratios=ratios,
            se_ratio=se_ratio,
            activation_class=activation_class or _relu,
            freeze_at=freeze_at,
            norm=norm,
            out_features=out_features,
        )
