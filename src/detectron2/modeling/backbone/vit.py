"""Plain vision transformers as backbones, and the pyramid that is made from their last layer.

Li et al., "Exploring Plain Vision Transformer Backbones for Object Detection" (ViTDet), ECCV 2022.
"""

from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from detectron2.layers._weight_init import c2_msra_fill
from detectron2.layers.batch_norm import get_norm
from detectron2.layers.blocks import CNNBlockBase
from detectron2.layers.wrappers import Conv2d
from detectron2.modeling.backbone._transformer import (
    Mlp,
    absolute_position_parameter,
    add_positions,
    attention_with_relative_positions,
    drop_path_layer,
    drop_path_rates,
    init_weights,
    relative_position_parameters,
    run_block,
)
from detectron2.modeling.backbone.backbone import Backbone
from detectron2.modeling.backbone.fpn import (
    FeaturePyramid,
    _assert_strides_are_log2_contiguous,
    level_of,
)

# Code written for upstream imports all of these names from here.
from detectron2.modeling.backbone.utils import (
    PatchEmbed,
    add_decomposed_rel_pos,  # noqa: F401
    get_abs_pos,  # noqa: F401
    window_partition,
    window_unpartition,
)

__all__ = ["SimpleFeaturePyramid", "ViT", "get_vit_lr_decay_rate"]

_Norm = str | Callable[[int], nn.Module] | None


class Attention(nn.Module):
    """Attention of every token to every other, in several heads.

    Args:
        dim: channels, a multiple of ``num_heads``.
        num_heads: how many heads.
        qkv_bias: whether queries, keys and values have a bias.
        use_rel_pos: whether relative positions are added to the logits.
        rel_pos_zero_init: whether their embeddings are 0 at first, and not random.
        input_size: height and width for which there are embeddings of relative positions; for
            other sizes they are interpolated.

    Raises:
        ValueError: ``num_heads`` does not divide ``dim``.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int = 8,
        qkv_bias: bool = True,
        use_rel_pos: bool = False,
        rel_pos_zero_init: bool = True,
        input_size: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        if dim % num_heads != 0:
            raise ValueError(f"heads must divide the channels, got {num_heads} and {dim}")
        head_dim = dim // num_heads
        self.num_heads = num_heads
        self.scale = head_dim**-0.5
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)
        self.use_rel_pos = use_rel_pos
        if use_rel_pos:
            self.rel_pos_h, self.rel_pos_w = relative_position_parameters(
                input_size, head_dim, rel_pos_zero_init
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``(B, H, W, dim)`` to the same shape."""
        batch, height, width, dim = x.shape
        qkv = self.qkv(x).view(batch, height * width, 3, self.num_heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        if self.use_rel_pos:
            size = (height, width)
            x = attention_with_relative_positions(
                q, k, v, self.rel_pos_h, self.rel_pos_w, size, size
            )
        else:
            x = F.scaled_dot_product_attention(q, k, v, scale=self.scale)
        return self.proj(x.transpose(1, 2).reshape(batch, height, width, dim))


class ResBottleneckBlock(CNNBlockBase):
    """A bottleneck of 1 x 1, 3 x 3 and 1 x 1 convolutions, added to its input; at first 0.

    Args:
        in_channels: of the input.
        out_channels: of the output, which must be the same.
        bottleneck_channels: between the convolutions.
        norm: normalisation after each convolution, as for :func:`detectron2.layers.get_norm`.
        act_layer: makes the activations after the first two.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        bottleneck_channels: int,
        norm: _Norm = "LN",
        act_layer: Callable[[], nn.Module] = nn.GELU,
    ) -> None:
        super().__init__(in_channels, out_channels, 1)
        widths = (in_channels, bottleneck_channels, bottleneck_channels, out_channels)
        for i, kernel_size in enumerate((1, 3, 1)):
            conv = Conv2d(
                widths[i], widths[i + 1], kernel_size, padding=kernel_size // 2, bias=False
            )
            c2_msra_fill(conv)
            self.add_module(f"conv{i + 1}", conv)
            self.add_module(f"norm{i + 1}", get_norm(norm, widths[i + 1]))
            if i < 2:
                self.add_module(f"act{i + 1}", act_layer())
        for parameter in self.norm3.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``(N, in_channels, H, W)`` to ``(N, out_channels, H, W)``."""
        y = self.act1(self.norm1(self.conv1(x)))
        y = self.act2(self.norm2(self.conv2(y)))
        return x + self.norm3(self.conv3(y))


class Block(nn.Module):
    """Attention, of all tokens or within windows, then a perceptron; each added to its input.

    Args:
        dim: channels.
        num_heads: of the attention.
        mlp_ratio: channels within the perceptron, as a multiple of ``dim``.
        qkv_bias: as for :class:`Attention`, like the next ones that have names of its arguments.
        drop_path: probability that a sample skips attention, and that it skips the perceptron.
        norm_layer: makes the norm before either.
        act_layer: makes the activation of the perceptron.
        use_rel_pos: see there.
        rel_pos_zero_init: see there.
        window_size: side of the windows; 0: attention is of all tokens.
        use_residual_block: whether a :class:`ResBottleneckBlock` follows.
        input_size: height and width of the tokens; of no effect with windows.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        drop_path: float = 0.0,
        norm_layer: Callable[[int], nn.Module] = nn.LayerNorm,
        act_layer: Callable[[], nn.Module] = nn.GELU,
        use_rel_pos: bool = False,
        rel_pos_zero_init: bool = True,
        window_size: int = 0,
        use_residual_block: bool = False,
        input_size: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        self.window_size = window_size
        self.use_residual_block = use_residual_block
        if window_size > 0:
            input_size = (window_size, window_size)
        positions = (use_rel_pos, rel_pos_zero_init, input_size)
        self.norm1 = norm_layer(dim)
        self.attn = Attention(dim, num_heads, qkv_bias, *positions)
        self.drop_path = drop_path_layer(drop_path)
        self.norm2 = norm_layer(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), act_layer=act_layer)
        if use_residual_block:
            self.residual = ResBottleneckBlock(dim, dim, dim // 2, "LN")

    def _attend(self, x: torch.Tensor) -> torch.Tensor:
        if self.window_size == 0:
            return self.attn(x)
        windows, padded = window_partition(x, self.window_size)
        return window_unpartition(self.attn(windows), self.window_size, padded, x.shape[1:3])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``(B, H, W, dim)`` to the same shape."""
        x = x + self.drop_path(self._attend(self.norm1(x)))
        x = x + self.drop_path(self.mlp(self.norm2(x)))
        if not self.use_residual_block:
            return x
        return self.residual(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class ViT(Backbone):
    """A plain vision transformer: every layer has the same stride.

    Dosovitskiy et al., "An Image is Worth 16x16 Words", ICLR 2021; windows, relative positions
    and residual blocks as in ViTDet.

    Args:
        img_size: side of the images; embeddings of relative positions are made for it.
        patch_size: side of a patch.
        in_chans: channels of the images.
        embed_dim: channels.
        depth: blocks.
        num_heads: of every attention.
        mlp_ratio: as for :class:`Block`, like the other arguments of the same names.
        qkv_bias: see there.
        drop_path_rate: ``drop_path`` of the last block; it rises evenly from 0 at the first.
        norm_layer: see there.
        act_layer: see there.
        use_abs_pos: whether absolute positions are added to the patches.
        use_rel_pos: see there.
        rel_pos_zero_init: see there.
        window_size: see there.
        window_block_indexes: which blocks attend within windows.
        residual_block_indexes: which blocks have a residual block.
        use_act_checkpoint: whether the backward pass computes the blocks' activations again, which
            saves memory.
        pretrain_img_size: side of the images for which there are absolute positions; for other
            sizes they are interpolated.
        pretrain_use_cls_token: whether there is a position of a class token, too; it is not used.
        out_feature: name of the output.
    """

    def __init__(
        self,
        img_size: int = 1024,
        patch_size: int = 16,
        in_chans: int = 3,
        embed_dim: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        drop_path_rate: float = 0.0,
        norm_layer: Callable[[int], nn.Module] = nn.LayerNorm,
        act_layer: Callable[[], nn.Module] = nn.GELU,
        use_abs_pos: bool = True,
        use_rel_pos: bool = False,
        rel_pos_zero_init: bool = True,
        window_size: int = 0,
        window_block_indexes: Sequence[int] = (),
        residual_block_indexes: Sequence[int] = (),
        use_act_checkpoint: bool = False,
        pretrain_img_size: int = 224,
        pretrain_use_cls_token: bool = True,
        out_feature: str = "last_feat",
    ) -> None:
        super().__init__()
        self.use_act_checkpoint = use_act_checkpoint
        self.pretrain_use_cls_token = pretrain_use_cls_token
        patch = (patch_size, patch_size)
        self.patch_embed = PatchEmbed(patch, patch, in_chans=in_chans, embed_dim=embed_dim)
        self.pos_embed: nn.Parameter | None = None
        if use_abs_pos:
            sides = (pretrain_img_size // patch_size,) * 2
            self.pos_embed = absolute_position_parameter(sides, pretrain_use_cls_token, embed_dim)
        side = img_size // patch_size
        self.blocks = nn.ModuleList(
            Block(
                embed_dim,
                num_heads,
                mlp_ratio,
                qkv_bias,
                rate,
                norm_layer,
                act_layer,
                use_rel_pos,
                rel_pos_zero_init,
                window_size if i in window_block_indexes else 0,
                i in residual_block_indexes,
                (side, side),
            )
            for i, rate in enumerate(drop_path_rates(drop_path_rate, depth))
        )
        self._out_features = [out_feature]
        self._out_feature_channels = {out_feature: embed_dim}
        self._out_feature_strides = {out_feature: patch_size}
        self.apply(self._init_weights)

    _init_weights = staticmethod(init_weights)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """Map images ``(N, C, H, W)`` to ``(N, embed_dim, H / patch_size, W / patch_size)``."""
        patches = self.patch_embed(x)
        x = add_positions(patches, self.pos_embed, self.pretrain_use_cls_token)
        for block in self.blocks:
            x = run_block(block, x, recompute=self.use_act_checkpoint)
        return {self._out_features[0]: x.permute(0, 3, 1, 2)}


class SimpleFeaturePyramid(FeaturePyramid):
    """A pyramid of feature maps of equal width, each made from the same one.

    The output of stride ``2**k`` is ``"p{k}"``.

    Args:
        net: the backbone.
        in_feature: name of its feature map that enters.
        out_channels: of every output.
        scale_factors: size of each output as a multiple of what enters, of 4, 2, 1 and 0.5, from
            fine to coarse.
        top_block: as for :class:`detectron2.modeling.FPN`.
        norm: normalisation after each convolution, as for :func:`detectron2.layers.get_norm`.
            Convolutions have a bias where it is ``""``.
        square_pad: where above 0, the height and width that images are padded to.

    Raises:
        ValueError: a scale factor is another, or they do not halve one after the other.
    """

    def __init__(
        self,
        net: Backbone,
        in_feature: str,
        out_channels: int,
        scale_factors: Sequence[float],
        top_block: nn.Module | None = None,
        norm: _Norm = "LN",
        square_pad: int = 0,
    ) -> None:
        super().__init__()
        self.scale_factors = scale_factors
        shape = net.output_shape()[in_feature]
        strides = [int(shape.stride / scale) for scale in scale_factors]
        _assert_strides_are_log2_contiguous(strides)

        self.stages: list[nn.Module] = []
        for scale, stride in zip(scale_factors, strides, strict=True):
            stage = self._stage(scale, shape.channels, out_channels, norm)
            self.add_module(f"simfp_{level_of(stride)}", stage)
            self.stages.append(stage)

        self.net = net
        self.in_feature = in_feature
        self._set_outputs(strides, out_channels, top_block, square_pad)

    @staticmethod
    def _stage(scale: float, channels: int, out_channels: int, norm: _Norm) -> nn.Sequential:
        if scale == 4.0:
            layers = [
                nn.ConvTranspose2d(channels, channels // 2, kernel_size=2, stride=2),
                get_norm(norm, channels // 2) or nn.Identity(),
                nn.GELU(),
                nn.ConvTranspose2d(channels // 2, channels // 4, kernel_size=2, stride=2),
            ]
            channels = channels // 4
        elif scale == 2.0:
            layers = [nn.ConvTranspose2d(channels, channels // 2, kernel_size=2, stride=2)]
            channels = channels // 2
        elif scale == 1.0:
            layers = []
        elif scale == 0.5:
            layers = [nn.MaxPool2d(kernel_size=2, stride=2)]
        else:
            raise ValueError(f"a scale factor must be 4, 2, 1 or 0.5, got {scale}")
        for width, kernel_size in ((channels, 1), (out_channels, 3)):
            layers.append(
                Conv2d(
                    width,
                    out_channels,
                    kernel_size,
                    padding=kernel_size // 2,
                    bias=norm == "",
                    norm=get_norm(norm, out_channels),
                )
            )
        return nn.Sequential(*layers)

    @property
    def padding_constraints(self) -> dict[str, int]:
        """:attr:`size_divisibility`, and ``square_size``, which is 0 where there are no squares."""
        return {"size_divisibility": self._size_divisibility, "square_size": self._square_pad}

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """Map images ``(N, C, H, W)`` to the outputs by name, from fine to coarse."""
        features = self.net(x)
        outputs = [stage(features[self.in_feature]) for stage in self.stages]
        return self._with_top(features, outputs)


def get_vit_lr_decay_rate(name: str, lr_decay_rate: float = 1.0, num_layers: int = 12) -> float:
    """Give the factor of a parameter's learning rate that decays from the last layer down.

    Args:
        name: of the parameter in a model whose ``backbone`` is, or holds, a :class:`ViT`.
        lr_decay_rate: factor of each layer relative to the one after it.
        num_layers: blocks of the transformer.

    Returns:
        ``lr_decay_rate`` to the power of how many layers come after the parameter's; 1 for those
        of residual blocks and of all that is no part of the transformer.
    """
    layer = num_layers + 1
    if name.startswith("backbone"):
        if ".pos_embed" in name or ".patch_embed" in name:
            layer = 0
        elif ".blocks." in name and ".residual." not in name:
            layer = int(name.split(".blocks.", 1)[1].split(".", 1)[0]) + 1
    return lr_decay_rate ** (num_layers + 1 - layer)
