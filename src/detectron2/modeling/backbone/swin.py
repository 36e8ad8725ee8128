"""Swin transformers: attention within windows, which are shifted from one block to the next.

Liu et al., "Swin Transformer: Hierarchical Vision Transformer using Shifted Windows", ICCV 2021.
Tokens are ``(B, H * W, C)`` outside the blocks and ``(B, H, W, C)`` within.
"""

from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from detectron2.layers._fused_conv import has_hooks
from detectron2.modeling.backbone import utils
from detectron2.modeling.backbone._transformer import (
    Mlp,
    drop_path_layer,
    drop_path_rates,
    init_weights,
    run_block,
)
from detectron2.modeling.backbone.backbone import Backbone

__all__ = ["SwinTransformer"]

_LayerFactory = Callable[..., nn.Module]


def window_partition(x: torch.Tensor, window_size: int) -> torch.Tensor:
    """Cut ``(B, H, W, C)``, whose sides are multiples of ``window_size``, into windows.

    Returns:
        ``(B * windows, window_size, window_size, C)``, image by image and row by row.

    Raises:
        ValueError: H or W is no multiple of the size.
    """
    if x.shape[1] % window_size != 0 or x.shape[2] % window_size != 0:
        raise ValueError(f"windows of {window_size} do not divide tokens of {list(x.shape)}")
    return utils.window_partition(x, window_size)[0]


def window_reverse(windows: torch.Tensor, window_size: int, H: int, W: int) -> torch.Tensor:  # noqa: N803
    """Put windows of :func:`window_partition` together again, to ``(B, H, W, C)``."""
    return utils.window_unpartition(windows, window_size, (H, W), (H, W))


def _shift_mask(
    height: int, width: int, window_size: int, shift: int, like: torch.Tensor
) -> torch.Tensor:
    """What to add to the logits of windows of a feature map that was rolled by ``shift``.

    After rolling, the last row and the last column of windows hold pixels from opposite sides of
    the image, which shall not see one another.

    Returns:
        ``(windows, N, N)``, N pixels a window; 0 or -100, in dtype and place of ``like``.
    """

    def part(size: int) -> torch.Tensor:
        place = torch.arange(size, device=like.device)
        return (place >= size - window_size).int() + (place >= size - shift).int()

    regions = part(height)[:, None] * 3 + part(width)
    windows = window_partition(regions[None, :, :, None], window_size).flatten(1)
    apart = windows[:, :, None] != windows[:, None, :]
    return apart.to(like.dtype) * -100.0


class WindowAttention(nn.Module):
    """Attention within windows, with a bias for each relative position.

    Args:
        dim: channels, a multiple of ``num_heads``.
        window_size: height and width of a window.
        num_heads: how many heads.
        qkv_bias: whether queries, keys and values have a bias.
        qk_scale: what logits are scaled by; None: ``(dim / num_heads) ** -0.5``.
        attn_drop: probability that an element of the attention is dropped in training.
        proj_drop: the same for the output.
    """

    def __init__(
        self,
        dim: int,
        window_size: tuple[int, int],
        num_heads: int,
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
    ) -> None:
        super().__init__()
        self.dim = dim
        self.window_size = window_size
        self.num_heads = num_heads
        self.scale = qk_scale or (dim // num_heads) ** -0.5
        height, width = window_size
        self.relative_position_bias_table = nn.Parameter(
            torch.zeros((2 * height - 1) * (2 * width - 1), num_heads)
        )
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
        # Row of the table, for each pair of pixels (query, key) of a window.
        y = torch.arange(height).repeat_interleave(width)
        x = torch.arange(width).repeat(height)
        rows = y[:, None] - y + height - 1
        self.register_buffer(
            "relative_position_index", rows * (2 * width - 1) + x[:, None] - x + width - 1
        )
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.softmax = nn.Softmax(dim=-1)
        self.attn_drop = nn.Dropout(attn_drop)
        self.proj = nn.Linear(dim, dim)
        self.proj_drop = nn.Dropout(proj_drop)

    def _bias(self, count: int, mask: torch.Tensor | None) -> torch.Tensor:
        """What to add to the logits of ``count`` windows, in a shape that broadcasts over them."""
        pixels = self.relative_position_index.shape[0]
        bias = self.relative_position_bias_table.index_select(
            0, self.relative_position_index.flatten()
        )
        bias = bias.view(1, pixels, pixels, self.num_heads).permute(0, 3, 1, 2)
        if mask is None:
            return bias
        masked = (bias + mask[:, None]).to(bias.dtype)
        return masked.repeat(count // mask.shape[0], 1, 1, 1)

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """Map windows ``(B * windows, N, dim)`` of N pixels to the same shape.

        Args:
            x: the windows, image by image.
            mask: ``(windows, N, N)``, what is added to the logits of (query, key).
        """
        count, pixels, dim = x.shape
        qkv = self.qkv(x).view(count, pixels, 3, self.num_heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        bias = self._bias(count, mask).to(q.dtype)
        if self._is_plain():
            x = F.scaled_dot_product_attention(
                q,
                k,
                v,
                attn_mask=bias,
                dropout_p=self.attn_drop.p if self.attn_drop.training else 0.0,
                scale=self.scale,
            )
        else:  # Somebody is to see the attention itself, or has something else done with it.
            attention = self.softmax(q * self.scale @ k.transpose(-2, -1) + bias)
            x = self.attn_drop(attention) @ v
        return self.proj_drop(self.proj(x.transpose(1, 2).reshape(count, pixels, dim)))

    def _is_plain(self) -> bool:
        own = ((self.softmax, nn.Softmax), (self.attn_drop, nn.Dropout))
        return all(type(module) is kind and not has_hooks(module) for module, kind in own)


class SwinTransformerBlock(nn.Module):
    """Attention within windows, then a perceptron; each added to its input.

    Attributes ``H`` and ``W``, the height and width of the tokens, must be set before each call.

    Args:
        dim: channels.
        num_heads: as for :class:`WindowAttention`, like other arguments of its names.
        window_size: side of the windows.
        shift_size: how far they are shifted, from 0 to below ``window_size``.
        mlp_ratio: channels within the perceptron, as a multiple of ``dim``.
        qkv_bias: see there.
        qk_scale: see there.
        drop: probability that an element of either's output is dropped in training.
        attn_drop: see there.
        drop_path: probability that a sample skips attention, and that it skips the perceptron.
        act_layer: makes the activation of the perceptron.
        norm_layer: makes the norm before either.

    Raises:
        ValueError: ``shift_size`` is out of range.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        window_size: int = 7,
        shift_size: int = 0,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        drop: float = 0.0,
        attn_drop: float = 0.0,
        drop_path: float = 0.0,
        act_layer: _LayerFactory = nn.GELU,
        norm_layer: _LayerFactory = nn.LayerNorm,
    ) -> None:
        super().__init__()
        if not 0 <= shift_size < window_size:
            raise ValueError(f"windows of {window_size} cannot be shifted by {shift_size}")
        self.dim = dim
        self.num_heads = num_heads
        self.window_size = window_size
        self.shift_size = shift_size
        self.mlp_ratio = mlp_ratio
        self.norm1 = norm_layer(dim)
        self.attn = WindowAttention(
            dim,
            (window_size, window_size),
            num_heads,
            qkv_bias=qkv_bias,
            qk_scale=qk_scale,
            attn_drop=attn_drop,
            proj_drop=drop,
        )
        self.drop_path = drop_path_layer(drop_path)
        self.norm2 = norm_layer(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), act_layer=act_layer, drop=drop)
        self.H: int | None = None
        self.W: int | None = None

    def _attend(self, x: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        size, shift = self.window_size, self.shift_size
        height, width = x.shape[1:3]
        below = utils.missing_to_multiple(height, size)
        right = utils.missing_to_multiple(width, size)
        if below > 0 or right > 0:
            x = F.pad(x, (0, 0, 0, right, 0, below))
        if shift > 0:
            x = x.roll((-shift, -shift), dims=(1, 2))
        windows, padded = utils.window_partition(x, size)
        attended = self.attn(windows.flatten(1, 2), mask if shift > 0 else None)
        x = utils.window_unpartition(attended.view(windows.shape), size, padded, padded)
        if shift > 0:
            x = x.roll((shift, shift), dims=(1, 2))
        return x[:, :height, :width]

    def forward(self, x: torch.Tensor, mask_matrix: torch.Tensor | None) -> torch.Tensor:
        """Map ``(B, H * W, dim)`` to the same shape.

        Args:
            x: the tokens.
            mask_matrix: as ``mask`` of :class:`WindowAttention`; read where windows are shifted.

        Raises:
            ValueError: there are not ``H * W`` tokens.
        """
        batch, tokens, dim = x.shape
        if self.H is None or tokens != self.H * self.W:
            raise ValueError(f"got {tokens} tokens for a height and width of {self.H}, {self.W}")
        attended = self._attend(self.norm1(x).view(batch, self.H, self.W, dim), mask_matrix)
        x = x + self.drop_path(attended.reshape(x.shape))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class PatchMerging(nn.Module):
    """A linear layer on 2 x 2 tokens together, which become one of twice the channels.

    Args:
        dim: channels of the input.
        norm_layer: makes the norm before it.
    """

    def __init__(self, dim: int, norm_layer: _LayerFactory = nn.LayerNorm) -> None:
        super().__init__()
        merged = 4 * dim
        self.dim = dim
        self.reduction = nn.Linear(merged, 2 * dim, bias=False)
        self.norm = norm_layer(merged)

    def forward(self, x: torch.Tensor, H: int, W: int) -> torch.Tensor:  # noqa: N803
        """Map ``(B, H * W, dim)`` to ``(B, ceil(H / 2) * ceil(W / 2), 2 * dim)``.

        Raises:
            ValueError: there are not ``H * W`` tokens.
        """
        batch, tokens, dim = x.shape
        if tokens != H * W:
            raise ValueError(f"got {tokens} tokens for a height and width of {H}, {W}")
        x = x.view(batch, H, W, dim)
        if H % 2 == 1 or W % 2 == 1:
            x = F.pad(x, (0, 0, 0, W % 2, 0, H % 2))
        rows, columns = (H + 1) // 2, (W + 1) // 2
        # Top left, bottom left, top right, bottom right.
        x = x.view(batch, rows, 2, columns, 2, dim).permute(0, 1, 3, 4, 2, 5)
        return self.reduction(self.norm(x.reshape(batch, rows * columns, 4 * dim)))


class BasicLayer(nn.Module):
    """The blocks of one stage, every other one with shifted windows.

    Args:
        dim: as for :class:`SwinTransformerBlock`, like what is not listed here.
        depth: blocks.
        drop_path: one probability for all blocks, or one for each.
        downsample: None, or makes what follows the blocks, called with ``dim`` and ``norm_layer``,
            such as :class:`PatchMerging`.
        use_checkpoint: whether the backward pass computes the blocks' activations again, which
            saves memory.
    """

    def __init__(
        self,
        dim: int,
        depth: int,
        num_heads: int,
        window_size: int = 7,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        drop: float = 0.0,
        attn_drop: float = 0.0,
        drop_path: float | Sequence[float] = 0.0,
        norm_layer: _LayerFactory = nn.LayerNorm,
        downsample: _LayerFactory | None = None,
        use_checkpoint: bool = False,
    ) -> None:
        super().__init__()
        self.window_size = window_size
        self.shift_size = window_size // 2
        self.depth = depth
        self.use_checkpoint = use_checkpoint
        rates = drop_path if isinstance(drop_path, Sequence) else [drop_path] * depth
        self.blocks = nn.ModuleList(
            SwinTransformerBlock(
                dim,
                num_heads,
                window_size,
                0 if i % 2 == 0 else self.shift_size,
                mlp_ratio,
                qkv_bias,
                qk_scale,
                drop,
                attn_drop,
                rates[i],
                norm_layer=norm_layer,
            )
            for i in range(depth)
        )
        self.downsample = None if downsample is None else downsample(dim=dim, norm_layer=norm_layer)

    def forward(
        self,
        x: torch.Tensor,
        H: int,  # noqa: N803
        W: int,  # noqa: N803
    ) -> tuple[torch.Tensor, int, int, torch.Tensor, int, int]:
        """Map ``(B, H * W, dim)`` to the output of the blocks and of ``downsample``.

        Returns:
            Either with its height and width; twice the same where there is no ``downsample``.
        """
        size = self.window_size
        mask = None
        if self.depth > 1 and self.shift_size > 0:
            height, width = (s + utils.missing_to_multiple(s, size) for s in (H, W))
            mask = _shift_mask(height, width, size, self.shift_size, x)
        for block in self.blocks:
            block.H, block.W = H, W
            x = run_block(block, x, mask, recompute=self.use_checkpoint)
        if self.downsample is None:
            return x, H, W, x, H, W
        return x, H, W, self.downsample(x, H, W), (H + 1) // 2, (W + 1) // 2


class PatchEmbed(nn.Module):
    """A convolution that turns patches of an image into tokens.

    Args:
        patch_size: side of a patch.
        in_chans: channels of the image.
        embed_dim: channels of a token.
        norm_layer: None, or makes the norm of the tokens.
    """

    def __init__(
        self,
        patch_size: int = 4,
        in_chans: int = 3,
        embed_dim: int = 96,
        norm_layer: _LayerFactory | None = None,
    ) -> None:
        super().__init__()
        self.patch_size = (patch_size, patch_size)
        self.in_chans = in_chans
        self.embed_dim = embed_dim
        self.proj = nn.Conv2d(in_chans, embed_dim, patch_size, stride=patch_size)
        self.norm = None if norm_layer is None else norm_layer(embed_dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map images ``(B, in_chans, H, W)`` to ``(B, embed_dim, H', W')``.

        Images are padded with zeros right and below to whole patches.
        """
        below = utils.missing_to_multiple(x.shape[2], self.patch_size[0])
        right = utils.missing_to_multiple(x.shape[3], self.patch_size[1])
        if below > 0 or right > 0:
            x = F.pad(x, (0, right, 0, below))
        x = self.proj(x)
        if self.norm is not None:
            x = self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return x


class SwinTransformer(Backbone):
    """A Swin transformer. Its outputs are ``"p0"``, ``"p1"``, ..., a stage each.

    Args:
        pretrain_img_size: side, or height and width, of the images for which there are absolute
            positions; for other sizes they are interpolated.
        patch_size: side of a patch.
        in_chans: channels of the images.
        embed_dim: channels of the first stage; each has twice those of the one before.
        depths: blocks of every stage.
        num_heads: heads of every stage's attention.
        window_size: side of the windows.
        mlp_ratio: as for :class:`SwinTransformerBlock`, like the next two.
        qkv_bias: see there.
        qk_scale: see there.
        drop_rate: its ``drop``, and the probability that an element of the patches is dropped.
        attn_drop_rate: its ``attn_drop``.
        drop_path_rate: its ``drop_path``, for the last block; it rises evenly from 0 at the first.
        norm_layer: makes all norms.
        ape: whether absolute positions are added to the patches.
        patch_norm: whether patches are normalised.
        out_indices: stages that are outputs, each through a norm of its own.
        frozen_stages: what is not trained: from 0 on the patches, from 1 on also the absolute
            positions, from 2 on also the first ``frozen_stages - 1`` stages.
        use_checkpoint: as for :class:`BasicLayer`.
    """

    def __init__(
        self,
        pretrain_img_size: int | tuple[int, int] = 224,
        patch_size: int = 4,
        in_chans: int = 3,
        embed_dim: int = 96,
        depths: Sequence[int] = (2, 2, 6, 2),
        num_heads: Sequence[int] = (3, 6, 12, 24),
        window_size: int = 7,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        drop_path_rate: float = 0.2,
        norm_layer: _LayerFactory = nn.LayerNorm,
        ape: bool = False,
        patch_norm: bool = True,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        frozen_stages: int = -1,
        use_checkpoint: bool = False,
    ) -> None:
        super().__init__()
        self.frozen_stages, self.out_indices = frozen_stages, out_indices
        self.ape, self.patch_norm = ape, patch_norm
        self.pretrain_img_size = pretrain_img_size
        self.embed_dim, self.num_layers = embed_dim, len(depths)
        self.patch_embed = PatchEmbed(
            patch_size, in_chans, embed_dim, norm_layer if patch_norm else None
        )
        if ape:
            sides = pretrain_img_size
            height, width = (sides, sides) if isinstance(sides, int) else sides
            self.absolute_pos_embed = nn.Parameter(
                torch.zeros(1, embed_dim, height // patch_size, width // patch_size)
            )
            nn.init.trunc_normal_(self.absolute_pos_embed, std=0.02)
        self.pos_drop = nn.Dropout(drop_rate)

        rates = drop_path_rates(drop_path_rate, sum(depths))
        self.num_features = [embed_dim * 2**i for i in range(self.num_layers)]
        self.layers = nn.ModuleList()
        for i, depth in enumerate(depths):
            first = sum(depths[:i])
            self.layers.append(
                BasicLayer(
                    self.num_features[i],
                    depth,
                    num_heads[i],
                    window_size,
                    mlp_ratio,
                    qkv_bias,
                    qk_scale,
                    drop_rate,
                    attn_drop_rate,
                    rates[first : first + depth],
                    norm_layer,
                    PatchMerging if i < self.num_layers - 1 else None,
                    use_checkpoint,
                )
            )
        for i in out_indices:
            self.add_module(f"norm{i}", norm_layer(self.num_features[i]))

        self._out_features = [f"p{i}" for i in out_indices]
        self._out_feature_channels = {f"p{i}": self.num_features[i] for i in out_indices}
        self._out_feature_strides = {f"p{i}": patch_size * 2**i for i in out_indices}
        # Of four stages, and of patches of 4 pixels. Upstream's spelling is read elsewhere.
        self._size_divisibility = self._size_devisibility = 32
        self._freeze_stages()
        self.apply(self._init_weights)

    def _freeze_stages(self) -> None:
        frozen: list[nn.Module] = []
        if self.frozen_stages >= 0:
            frozen.append(self.patch_embed)
        if self.frozen_stages >= 1 and self.ape:
            self.absolute_pos_embed.requires_grad_(False)
        if self.frozen_stages >= 2:
            self.pos_drop.eval()
            frozen.extend(self.layers[: self.frozen_stages - 1])
        for module in frozen:
            module.eval().requires_grad_(False)

    _init_weights = staticmethod(init_weights)

    @property
    def size_divisibility(self) -> int:
        """32, the stride of the last of four stages."""
        return self._size_divisibility

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """Map images ``(N, C, H, W)`` to the outputs ``(N, C_i, H_i, W_i)`` by name."""
        x = self.patch_embed(x)
        height, width = x.shape[2:]
        if self.ape:
            x = x + F.interpolate(self.absolute_pos_embed, size=(height, width), mode="bicubic")
        x = self.pos_drop(x.flatten(2).transpose(1, 2))
        outputs = {}
        for i, layer in enumerate(self.layers):
            y, y_height, y_width, x, height, width = layer(x, height, width)
            if i in self.out_indices:
                y = getattr(self, f"norm{i}")(y)
                y = y.view(-1, y_height, y_width, self.num_features[i])
                outputs[f"p{i}"] = y.permute(0, 3, 1, 2)
        return outputs
