"""Parts that the vision transformers share."""

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812
from torch.utils.checkpoint import checkpoint

from detectron2.modeling.backbone.utils import (
    add_decomposed_rel_pos,
    decomposed_rel_pos,
    get_abs_pos,
    missing_to_multiple,
)


class Mlp(nn.Module):
    """Two linear layers with an activation between them.

    Args:
        in_features: channels of the input.
        hidden_features: channels between the layers; None: as many as ``in_features``.
        out_features: channels of the output; None: as many as ``in_features``.
        act_layer: makes the activation.
        drop: probability that an element is dropped in training, after each layer.
    """

    def __init__(
        self,
        in_features: int,
        hidden_features: int | None = None,
        out_features: int | None = None,
        act_layer: Callable[[], nn.Module] = nn.GELU,
        drop: float = 0.0,
    ) -> None:
        super().__init__()
        hidden_features = hidden_features or in_features
        self.fc1 = nn.Linear(in_features, hidden_features)
        self.act = act_layer()
        self.fc2 = nn.Linear(hidden_features, out_features or in_features)
        self.drop = nn.Dropout(drop)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``(..., in_features)`` to ``(..., out_features)``."""
        x = self.drop(self.act(self.fc1(x)))
        return self.drop(self.fc2(x))


class DropPath(nn.Module):
    """Stochastic depth: in training, drops whole samples, and scales up the others.

    Huang et al., "Deep Networks with Stochastic Depth", ECCV 2016.

    Args:
        drop_prob: probability that a sample is dropped.

    Raises:
        ValueError: it is not in [0, 1).
    """

    def __init__(self, drop_prob: float) -> None:
        super().__init__()
        if not 0 <= drop_prob < 1:
            raise ValueError(f"a path is dropped with a probability in [0, 1), got {drop_prob}")
        self.drop_prob = drop_prob

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``(B, ...)`` to the same shape."""
        if not self.training:
            return x
        keep = 1 - self.drop_prob
        mask = x.new_empty([x.shape[0]] + [1] * (x.dim() - 1)).bernoulli_(keep)
        return x * mask.div_(keep)

    def extra_repr(self) -> str:
        return f"drop_prob={self.drop_prob:.3f}"


def drop_path_layer(drop_prob: float) -> nn.Module:
    """:class:`DropPath`, or nothing where the probability is 0."""
    return DropPath(drop_prob) if drop_prob > 0 else nn.Identity()


def drop_path_rates(last: float, depth: int) -> list[float]:
    """Probabilities for ``depth`` blocks, which rise evenly from 0 to ``last``."""
    return [last * i / max(depth - 1, 1) for i in range(depth)]


def init_weights(module: nn.Module) -> None:
    """Initialise linear layers and layer norms as transformers do; leave other modules alone."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
    if isinstance(module, nn.LayerNorm):
        nn.init.ones_(module.weight)
    if isinstance(module, (nn.Linear, nn.LayerNorm)) and module.bias is not None:
        nn.init.zeros_(module.bias)


def absolute_position_parameter(
    sides: tuple[int, int], has_cls_token: bool, dim: int
) -> nn.Parameter:
    """A table of positions of a grid, ``(1, L, dim)``, as :func:`get_abs_pos` takes it."""
    table = nn.Parameter(torch.zeros(1, sides[0] * sides[1] + int(has_cls_token), dim))
    nn.init.trunc_normal_(table, std=0.02)
    return table


def add_positions(
    tokens: torch.Tensor, table: torch.Tensor | None, has_cls_token: bool
) -> torch.Tensor:
    """``tokens`` ``(B, H, W, C)`` plus their absolute positions, if there is a table of them."""
    if table is None:
        return tokens
    return tokens + get_abs_pos(table, has_cls_token, tokens.shape[1:3])


def run_block(block: nn.Module, *inputs: torch.Tensor | None, recompute: bool) -> torch.Tensor:
    """``block(*inputs)``; with ``recompute`` the backward pass computes its activations again."""
    if recompute and torch.is_grad_enabled():
        return checkpoint(block, *inputs, use_reentrant=False)
    return block(*inputs)


def relative_position_parameters(
    size: tuple[int, int], dim: int, zero_init: bool
) -> tuple[nn.Parameter, nn.Parameter]:
    """Embeddings ``(2 * side - 1, dim)`` of distances in rows and in columns."""
    tables = [nn.Parameter(torch.zeros(2 * side - 1, dim)) for side in size]
    if not zero_init:
        for table in tables:
            nn.init.trunc_normal_(table, std=0.02)
    return tables[0], tables[1]


def _places(size: tuple[int, int], like: torch.Tensor) -> torch.Tensor:
    """For each pixel, row by row, its row and its column, one-hot: ``(h * w, h + w)``."""
    height, width = size
    rows = torch.eye(height, dtype=like.dtype, device=like.device)
    columns = torch.eye(width, dtype=like.dtype, device=like.device)
    places = (
        rows[:, None].expand(height, width, height),
        columns[None].expand(height, width, width),
    )
    return torch.cat(places, dim=-1).flatten(0, 1)


def _appends(q: torch.Tensor, k: torch.Tensor) -> bool:
    """Whether fused attention is faster although queries and keys are longer for it.

    In half precision it is. In float32, PyTorch's kernel for CUDA has a slow backward pass for
    more than 128 channels, and pays off forward for very many keys only; elsewhere there is none.
    """
    if not q.is_cuda:
        return False
    if q.dtype in (torch.float16, torch.bfloat16):
        return True
    return k.shape[2] > 1024 and not (torch.is_grad_enabled() and q.requires_grad)


def attention_with_relative_positions(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    rel_pos_h: torch.Tensor,
    rel_pos_w: torch.Tensor,
    q_size: tuple[int, int],
    k_size: tuple[int, int],
) -> torch.Tensor:
    """Scaled dot-product attention with relative positions, as `add_decomposed_rel_pos` adds them.

    The bias of a query and a key is ``rows[query, row of key] + columns[query, column of key]``:
    the dot product of ``[rows, columns]`` with the key's place, one-hot. Where there is a fast
    kernel, both are appended to query and key, and no matrix of all pairs is ever in memory.

    Args:
        q: ``(B, heads, q_h * q_w, C)``, like ``k`` and ``v`` for their size.
        k: keys.
        v: values.
        rel_pos_h: ``(L_h, C)``.
        rel_pos_w: ``(L_w, C)``.
        q_size: ``(q_h, q_w)``.
        k_size: ``(k_h, k_w)``.

    Returns:
        ``(B, heads, q_h * q_w, C)``.
    """
    batch, heads, length, channels = q.shape
    if not _appends(q, k):
        logits = (q * channels**-0.5) @ k.transpose(-2, -1)
        logits = add_decomposed_rel_pos(
            logits.flatten(0, 1), q.flatten(0, 1), rel_pos_h, rel_pos_w, q_size, k_size
        )
        return logits.softmax(dim=-1).view(batch, heads, length, -1).to(v.dtype) @ v
    rows, columns = decomposed_rel_pos(q, rel_pos_h, rel_pos_w, q_size, k_size)
    places = _places(k_size, k).expand(batch, heads, -1, -1)
    parts_q = [q * channels**-0.5, rows.flatten(2, 3), columns.flatten(2, 3)]
    parts_k = [k, places]
    # Kernels want rows of 16 bytes, in half precision 8 elements. Where programs are compiled for
    # all sizes there is always something to fill: of none and some they make two cases.
    excess = missing_to_multiple(channels + sum(k_size), 8)
    if torch.compiler.is_compiling():
        excess += 8
    if excess:
        parts_q.append(q.new_zeros(()).expand(batch, heads, length, excess))
        parts_k.append(k.new_zeros(()).expand(batch, heads, k.shape[2], excess))
    q, k = torch.cat(parts_q, dim=-1), torch.cat(parts_k, dim=-1)
    return F.scaled_dot_product_attention(q, k, v, scale=1.0)
