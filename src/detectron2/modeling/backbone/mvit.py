"""Multiscale vision transformers, whose attention pools queries, keys and values.

Li et al., "MViTv2: Improved Multiscale Vision Transformers for Classification and Detection",
CVPR 2022.
"""

from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

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

# Code written for upstream imports all of these names from here.
from detectron2.modeling.backbone.utils import (
    PatchEmbed,
    add_decomposed_rel_pos,  # noqa: F401
    get_abs_pos,  # noqa: F401
    window_partition,
    window_unpartition,
)

__all__ = ["MViT"]


def attention_pool(x: torch.Tensor, pool: nn.Module, norm: nn.Module | None = None) -> torch.Tensor:
    """Apply ``pool``, a module for ``(B, C, H, W)``, to ``(B, H, W, C)``, and then ``norm``."""
    x = pool(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    return x if norm is None else norm(x)


class MultiScaleAttention(nn.Module):
    """Attention of pooled queries to pooled keys and values, in several heads.

    Args:
        dim: channels of the input.
        dim_out: channels of the output, a multiple of ``num_heads``.
        num_heads: how many heads.
        qkv_bias: whether queries, keys and values have a bias.
        norm_layer: makes the norms after pooling.
        pool_kernel: height and width of the pooling, which is a convolution within each channel.
        stride_q: of the pooling of queries, and so of the output.
        stride_kv: of the pooling of keys and values.
        residual_pooling: whether pooled queries are added to what attention gives.
        window_size: side of the windows within which there is attention, a multiple of the
            strides; 0: attention is of all tokens.
        use_rel_pos: whether relative positions are added to the logits.
        rel_pos_zero_init: whether their embeddings are 0 at first, and not random.
        input_size: height and width, which are the same, for which there are embeddings of
            relative positions; for other sizes they are interpolated.

    Raises:
        ValueError: ``input_size`` is no square.
    """

    def __init__(
        self,
        dim: int,
        dim_out: int,
        num_heads: int,
        qkv_bias: bool = True,
        norm_layer: Callable[[int], nn.Module] = nn.LayerNorm,
        pool_kernel: tuple[int, int] = (3, 3),
        stride_q: int = 1,
        stride_kv: int = 1,
        residual_pooling: bool = True,
        window_size: int = 0,
        use_rel_pos: bool = False,
        rel_pos_zero_init: bool = True,
        input_size: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        head_dim = dim_out // num_heads
        self.num_heads = num_heads
        self.scale = head_dim**-0.5
        self.qkv = nn.Linear(dim, 3 * dim_out, bias=qkv_bias)
        self.proj = nn.Linear(dim_out, dim_out)
        for name, stride in (("q", stride_q), ("k", stride_kv), ("v", stride_kv)):
            pool = nn.Conv2d(
                head_dim,
                head_dim,
                pool_kernel,
                stride=stride,
                padding=(pool_kernel[0] // 2, pool_kernel[1] // 2),
                groups=head_dim,
                bias=False,
            )
            self.add_module(f"pool_{name}", pool)
            self.add_module(f"norm_{name}", norm_layer(head_dim))
        self.window_size = window_size
        if window_size > 0:
            self.q_win_size = window_size // stride_q
            self.kv_win_size = window_size // stride_kv
        self.residual_pooling = residual_pooling
        self.use_rel_pos = use_rel_pos
        if use_rel_pos:
            if input_size[0] != input_size[1]:
                raise ValueError(f"relative positions are those of a square, got {input_size}")
            side = max(input_size[0] // stride_q, input_size[0] // stride_kv)
            self.rel_pos_h, self.rel_pos_w = relative_position_parameters(
                (side, side), head_dim, rel_pos_zero_init
            )

    def _attend(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """Attention of ``(B, h, w, C)``, each image by itself."""
        size, kv_size = q.shape[1:3], k.shape[1:3]
        q, k, v = (x.flatten(1, 2)[:, None] for x in (q, k, v))
        if self.use_rel_pos:
            x = attention_with_relative_positions(
                q, k, v, self.rel_pos_h, self.rel_pos_w, size, kv_size
            )
        else:
            x = F.scaled_dot_product_attention(q, k, v, scale=self.scale)
        return x.view(-1, *size, x.shape[-1])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``(B, H, W, dim)`` to ``(B, ceil(H / stride_q), ceil(W / stride_q), dim_out)``."""
        batch, height, width, _ = x.shape
        qkv = self.qkv(x).view(batch, height, width, 3, self.num_heads, -1)
        # Heads are images of their own.
        qkv = qkv.permute(3, 0, 4, 1, 2, 5).flatten(1, 2)
        q = attention_pool(qkv[0], self.pool_q, self.norm_q)
        k = attention_pool(qkv[1], self.pool_k, self.norm_k)
        v = attention_pool(qkv[2], self.pool_v, self.norm_v)
        if self.window_size > 0:
            windows, padded = window_partition(q, self.q_win_size)
            x = self._attend(
                windows,
                window_partition(k, self.kv_win_size)[0],
                window_partition(v, self.kv_win_size)[0],
            )
            x = window_unpartition(x, self.q_win_size, padded, q.shape[1:3])
        else:
            x = self._attend(q, k, v)
        if self.residual_pooling:
            x = x + q
        x = x.unflatten(0, (batch, self.num_heads)).permute(0, 2, 3, 1, 4)
        return self.proj(x.flatten(3))


class MultiScaleBlock(nn.Module):
    """Attention, then a perceptron; each added to its input.

    Args:
        dim: channels of the input.
        dim_out: channels of the output. Where it differs, the shortcut around attention is
            projected.
        num_heads: as for :class:`MultiScaleAttention`, like other arguments of its names.
        mlp_ratio: channels within the perceptron, as a multiple of ``dim_out``.
        qkv_bias: see there.
        drop_path: probability that a sample skips attention, and that it skips the perceptron.
        norm_layer: makes all norms.
        act_layer: makes the activation of the perceptron.
        qkv_pool_kernel: its ``pool_kernel``.
        stride_q: see there. Above 1 the shortcut around attention is max-pooled.
        stride_kv: see there.
        residual_pooling: see there.
        window_size: see there.
        use_rel_pos: see there.
        rel_pos_zero_init: see there.
        input_size: see there.
    """

    def __init__(
        self,
        dim: int,
        dim_out: int,
        num_heads: int,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        drop_path: float = 0.0,
        norm_layer: Callable[[int], nn.Module] = nn.LayerNorm,
        act_layer: Callable[[], nn.Module] = nn.GELU,
        qkv_pool_kernel: tuple[int, int] = (3, 3),
        stride_q: int = 1,
        stride_kv: int = 1,
        residual_pooling: bool = True,
        window_size: int = 0,
        use_rel_pos: bool = False,
        rel_pos_zero_init: bool = True,
        input_size: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        self.norm1 = norm_layer(dim)
        self.attn = MultiScaleAttention(
            dim,
            dim_out,
            num_heads,
            qkv_bias,
            norm_layer,
            qkv_pool_kernel,
            stride_q,
            stride_kv,
            residual_pooling,
            window_size,
            use_rel_pos,
            rel_pos_zero_init,
            input_size,
        )
        self.drop_path = drop_path_layer(drop_path)
        self.norm2 = norm_layer(dim_out)
        self.mlp = Mlp(dim_out, int(dim_out * mlp_ratio), act_layer=act_layer)
        self.proj = nn.Linear(dim, dim_out) if dim != dim_out else None
        self.pool_skip = None
        if stride_q > 1:
            kernel_size = stride_q + 1
            self.pool_skip = nn.MaxPool2d(kernel_size, stride_q, kernel_size // 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``(B, H, W, dim)`` to ``(B, ceil(H / stride_q), ceil(W / stride_q), dim_out)``."""
        normalized = self.norm1(x)
        if self.proj is not None:
            x = self.proj(normalized)
        if self.pool_skip is not None:
            x = attention_pool(x, self.pool_skip)
        x = x + self.drop_path(self.attn(normalized))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class MViT(Backbone):
    """A multiscale vision transformer. Its outputs are ``"scale2"``, ``"scale3"``, ..., of stride
    4, 8, ...

    The first block of each stage after the first halves the size. Channels and heads double from
    one stage to the next. Attention is within windows, but for the last block of each stage after
    the first.

    Args:
        img_size: side of the images; embeddings of relative positions are made for it.
        patch_kernel: height and width of a patch.
        patch_stride: distance of patches, down and across.
        patch_padding: zeros around the image, above and below and on the sides.
        in_chans: channels of the images.
        embed_dim: channels of the first stage.
        depth: blocks.
        num_heads: heads of the first stage.
        last_block_indexes: the last block of each stage.
        qkv_pool_kernel: as for :class:`MultiScaleBlock`, like other arguments of its names.
        adaptive_kv_stride: ``stride_kv`` of the first stage; it halves from stage to stage.
        adaptive_window_size: ``window_size`` of the first stage; it halves from stage to stage.
        residual_pooling: see there.
        mlp_ratio: see there.
        qkv_bias: see there.
        drop_path_rate: its ``drop_path``, for the last block; it rises evenly from 0 at the first.
        norm_layer: see there.
        act_layer: see there.
        use_abs_pos: whether absolute positions are added to the patches.
        use_rel_pos: see there.
        rel_pos_zero_init: see there.
        use_act_checkpoint: whether the backward pass computes the blocks' activations again, which
            saves memory.
        pretrain_img_size: side of the images for which there are absolute positions; for other
            sizes they are interpolated.
        pretrain_use_cls_token: whether there is a position of a class token, too; it is not used.
        out_features: names of the outputs.
    """

    def __init__(
        self,
        img_size: int = 224,
        patch_kernel: tuple[int, int] = (7, 7),
        patch_stride: tuple[int, int] = (4, 4),
        patch_padding: tuple[int, int] = (3, 3),
        in_chans: int = 3,
        embed_dim: int = 96,
        depth: int = 16,
        num_heads: int = 1,
        last_block_indexes: Sequence[int] = (0, 2, 11, 15),
        qkv_pool_kernel: tuple[int, int] = (3, 3),
        adaptive_kv_stride: int = 4,
        adaptive_window_size: int = 56,
        residual_pooling: bool = True,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        drop_path_rate: float = 0.0,
        norm_layer: Callable[[int], nn.Module] = nn.LayerNorm,
        act_layer: Callable[[], nn.Module] = nn.GELU,
        use_abs_pos: bool = False,
        use_rel_pos: bool = True,
        rel_pos_zero_init: bool = True,
        use_act_checkpoint: bool = False,
        pretrain_img_size: int = 224,
        pretrain_use_cls_token: bool = True,
        out_features: Sequence[str] = ("scale2", "scale3", "scale4", "scale5"),
    ) -> None:
        super().__init__()
        self.pretrain_use_cls_token = pretrain_use_cls_token
        self.use_act_checkpoint = use_act_checkpoint
        self.patch_embed = PatchEmbed(
            patch_kernel, patch_stride, patch_padding, in_chans=in_chans, embed_dim=embed_dim
        )
        self.pos_embed: nn.Parameter | None = None
        if use_abs_pos:
            sides = (pretrain_img_size // patch_stride[0], pretrain_img_size // patch_stride[1])
            self.pos_embed = absolute_position_parameter(sides, pretrain_use_cls_token, embed_dim)

        dim, dim_out = embed_dim, embed_dim
        stride, kv_stride = patch_stride[0], adaptive_kv_stride
        side, window_size = img_size // stride, adaptive_window_size
        self._out_feature_strides: dict[str, int] = {}
        self._out_feature_channels: dict[str, int] = {}
        # By the index of the block that it is the output of.
        self._names: dict[int, str] = {}
        self.blocks = nn.ModuleList()
        for i, rate in enumerate(drop_path_rates(drop_path_rate, depth)):
            is_first = i - 1 in last_block_indexes
            self.blocks.append(
                MultiScaleBlock(
                    dim,
                    dim_out,
                    num_heads,
                    mlp_ratio,
                    qkv_bias,
                    rate,
                    norm_layer,
                    act_layer,
                    qkv_pool_kernel,
                    2 if is_first else 1,
                    # Where attention is of all tokens, keys and values are fewer.
                    kv_stride * 2 if i in last_block_indexes[1:3] else kv_stride,
                    residual_pooling,
                    0 if i in last_block_indexes[1:] else window_size,
                    use_rel_pos,
                    rel_pos_zero_init,
                    (side, side),
                )
            )
            dim = dim_out
            if is_first:
                side, window_size = side // 2, window_size // 2
            if i in last_block_indexes:
                name = f"scale{len(self._out_feature_strides) + 2}"
                self._out_feature_strides[name] = stride
                self._out_feature_channels[name] = dim_out
                if name in out_features:
                    self._names[i] = name
                    self.add_module(f"{name}_norm", norm_layer(dim_out))
                dim_out, num_heads = dim_out * 2, num_heads * 2
                stride, kv_stride = stride * 2, max(kv_stride // 2, 1)

        self._out_features = list(out_features)
        if not out_features or set(out_features) != set(self._names.values()):
            raise ValueError(
                f"out_features must be some of {list(self._out_feature_strides)}, "
                f"got {list(out_features)}"
            )
        self.apply(self._init_weights)

    _init_weights = staticmethod(init_weights)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """Map images ``(N, C, H, W)`` to the outputs ``(N, C_i, H_i, W_i)`` by name."""
        patches = self.patch_embed(x)
        x = add_positions(patches, self.pos_embed, self.pretrain_use_cls_token)
        outputs = {}
        for i, block in enumerate(self.blocks):
            x = run_block(block, x, recompute=self.use_act_checkpoint)
            if i in self._names:
                name = self._names[i]
                outputs[name] = getattr(self, f"{name}_norm")(x).permute(0, 3, 1, 2)
        return outputs
