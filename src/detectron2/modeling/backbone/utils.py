"""Windows, positions and patches of vision transformers.

Tokens are feature maps with the channels last, ``(B, H, W, C)``.
"""

import math

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

__all__ = [
    "PatchEmbed",
    "add_decomposed_rel_pos",
    "get_abs_pos",
    "window_partition",
    "window_unpartition",
]


def missing_to_multiple(size: int, divisor: int) -> int:
    """What is missing from ``size`` to a multiple of ``divisor``.

    Without remainders, which PyTorch's compiler is slow with where sizes are dynamic.
    """
    return (size + divisor - 1) // divisor * divisor - size


def window_partition(x: torch.Tensor, window_size: int) -> tuple[torch.Tensor, tuple[int, int]]:
    """Cut a feature map into square windows, after padding it with zeros right and below.

    Args:
        x: ``(B, H, W, C)``.
        window_size: side of a window.

    Returns:
        The windows, image by image and row by row, ``(B * windows, window_size, window_size, C)``,
        and the padded height and width.
    """
    batch, height, width, channels = x.shape
    below = missing_to_multiple(height, window_size)
    right = missing_to_multiple(width, window_size)
    if below > 0 or right > 0:
        x = F.pad(x, (0, 0, 0, right, 0, below))
    rows, columns = (height + below) // window_size, (width + right) // window_size
    x = x.view(batch, rows, window_size, columns, window_size, channels)
    windows = x.transpose(2, 3).reshape(-1, window_size, window_size, channels)
    return windows, (height + below, width + right)


def window_unpartition(
    windows: torch.Tensor, window_size: int, pad_hw: tuple[int, int], hw: tuple[int, int]
) -> torch.Tensor:
    """Put the windows of :func:`window_partition` together again, and cut the padding off.

    Args:
        windows: ``(B * windows, window_size, window_size, C)``.
        window_size: side of a window.
        pad_hw: padded height and width.
        hw: height and width without the padding.

    Returns:
        ``(B, H, W, C)``.
    """
    rows, columns = pad_hw[0] // window_size, pad_hw[1] // window_size
    x = windows.reshape(-1, rows, columns, window_size, window_size, windows.shape[-1])
    x = x.transpose(2, 3).reshape(-1, pad_hw[0], pad_hw[1], windows.shape[-1])
    return x if tuple(pad_hw) == tuple(hw) else x[:, : hw[0], : hw[1]].contiguous()


def get_rel_pos(q_size: int, k_size: int, rel_pos: torch.Tensor) -> torch.Tensor:
    """Look up the embedding of each pair of a query's and a key's place along one side.

    Where queries and keys have different strides, their distance is measured in the smaller of
    them.

    Args:
        q_size: places of queries.
        k_size: places of keys.
        rel_pos: ``(L, C)``, an embedding a distance; interpolated linearly unless L is
            ``2 * max(q_size, k_size) - 1``.

    Returns:
        ``(q_size, k_size, C)``.
    """
    length = 2 * max(q_size, k_size) - 1
    if rel_pos.shape[0] != length:
        table = rel_pos.transpose(0, 1)[None]
        rel_pos = F.interpolate(table, size=length, mode="linear")[0].transpose(0, 1)
    q_stride, k_stride = max(k_size / q_size, 1.0), max(q_size / k_size, 1.0)
    q = torch.arange(q_size, device=rel_pos.device)[:, None] * q_stride
    k = torch.arange(k_size, device=rel_pos.device)[None, :] * k_stride
    distances = (q - k + (k_size - 1) * k_stride).long()
    # Unlike indexing it has a backward pass that does not sort.
    return rel_pos.index_select(0, distances.flatten()).view(q_size, k_size, -1)


def decomposed_rel_pos(
    q: torch.Tensor,
    rel_pos_h: torch.Tensor,
    rel_pos_w: torch.Tensor,
    q_size: tuple[int, int],
    k_size: tuple[int, int],
) -> tuple[torch.Tensor, torch.Tensor]:
    """What :func:`add_decomposed_rel_pos` adds, as a term for rows and a term for columns.

    Args:
        q: ``(..., q_h * q_w, C)``.
        rel_pos_h: ``(L_h, C)``.
        rel_pos_w: ``(L_w, C)``.
        q_size: ``(q_h, q_w)``.
        k_size: ``(k_h, k_w)``.

    Returns:
        ``(..., q_h, q_w, k_h)`` and ``(..., q_h, q_w, k_w)``.
    """
    grid = q.unflatten(-2, q_size)
    rows = torch.einsum("...hwc,hkc->...hwk", grid, get_rel_pos(q_size[0], k_size[0], rel_pos_h))
    columns = torch.einsum("...hwc,wkc->...hwk", grid, get_rel_pos(q_size[1], k_size[1], rel_pos_w))
    return rows, columns


def add_decomposed_rel_pos(
    attn: torch.Tensor,
    q: torch.Tensor,
    rel_pos_h: torch.Tensor,
    rel_pos_w: torch.Tensor,
    q_size: tuple[int, int],
    k_size: tuple[int, int],
) -> torch.Tensor:
    """Add relative positions, decomposed into rows and columns, to attention logits.

    Li et al., "MViTv2: Improved Multiscale Vision Transformers for Classification and Detection",
    CVPR 2022, section 4.1.

    Args:
        attn: logits ``(B, q_h * q_w, k_h * k_w)``.
        q: queries ``(B, q_h * q_w, C)``, not scaled.
        rel_pos_h: embeddings ``(L_h, C)`` of distances in rows, as for :func:`get_rel_pos`.
        rel_pos_w: embeddings ``(L_w, C)`` of distances in columns.
        q_size: ``(q_h, q_w)``.
        k_size: ``(k_h, k_w)``.

    Returns:
        A new tensor like ``attn``.
    """
    rows, columns = decomposed_rel_pos(q, rel_pos_h, rel_pos_w, q_size, k_size)
    logits = attn.view(-1, *q_size, *k_size) + rows[..., :, None] + columns[..., None, :]
    return logits.view(attn.shape)


def get_abs_pos(abs_pos: torch.Tensor, has_cls_token: bool, hw: tuple[int, int]) -> torch.Tensor:
    """Fit a table of absolute positions to a grid, by bicubic interpolation where it differs.

    Args:
        abs_pos: ``(1, L, C)``, row by row for a square grid.
        has_cls_token: whether its first entry is that of a class token, which is dropped.
        hw: height and width of the grid.

    Returns:
        ``(1, H, W, C)``.

    Raises:
        ValueError: the table is not that of a square grid.
    """
    if has_cls_token:
        abs_pos = abs_pos[:, 1:]
    side = math.isqrt(abs_pos.shape[1])
    if side * side != abs_pos.shape[1]:
        raise ValueError(f"positions must be those of a square, got {abs_pos.shape[1]} of them")
    grid = abs_pos.reshape(1, side, side, -1)
    if (side, side) == tuple(hw):
        return grid
    resized = F.interpolate(grid.permute(0, 3, 1, 2), size=tuple(hw), mode="bicubic")
    return resized.permute(0, 2, 3, 1)


class PatchEmbed(nn.Module):
    """A convolution that turns patches of an image into tokens.

    Args:
        kernel_size: height and width of a patch.
        stride: distance of patches, down and across.
        padding: zeros around the image, above and below and on the sides.
        in_chans: channels of the image.
        embed_dim: channels of a token.
    """

    def __init__(
        self,
        kernel_size: tuple[int, int] = (16, 16),
        stride: tuple[int, int] = (16, 16),
        padding: tuple[int, int] = (0, 0),
        in_chans: int = 3,
        embed_dim: int = 768,
    ) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_chans, embed_dim, kernel_size, stride, padding)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map images ``(B, in_chans, H, W)`` to tokens ``(B, H', W', embed_dim)``."""
        return self.proj(x).permute(0, 2, 3, 1)
