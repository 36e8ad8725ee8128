"""Multiscale vision transformers, against attention written out."""

import math

import pytest
import torch
from torch.nn import functional as F  # noqa: N812

from detectron2.layers import ShapeSpec as Shape
from detectron2.modeling import MViT
from detectron2.modeling.backbone import _transformer
from detectron2.modeling.backbone.mvit import MultiScaleAttention, MultiScaleBlock
from detectron2.modeling.backbone.utils import get_abs_pos, get_rel_pos

from .transformer_checks import check_half_precision, check_recomputation, numbers, randomize


def slow_attention(module, x, window):
    """Of one image ``(H, W, dim)``, head by head and window by window."""
    dim = module.proj.in_features
    size = dim // module.num_heads
    qkv = module.qkv(x)
    heads = []
    for head in range(module.num_heads):
        pooled = []
        for i, name in enumerate("qkv"):
            part = qkv[..., i * dim + head * size : i * dim + (head + 1) * size]
            part = getattr(module, f"pool_{name}")(part.permute(2, 0, 1)[None])[0]
            pooled.append(getattr(module, f"norm_{name}")(part.permute(1, 2, 0)))
        q, k, v = pooled
        q_window, k_window = window or q.shape[0], window or k.shape[0]
        if window:
            q_window //= module.pool_q.stride[0]
            k_window //= module.pool_k.stride[0]
        out = torch.zeros_like(q)
        for row in range(math.ceil(q.shape[0] / q_window)):
            for column in range(math.ceil(q.shape[1] / q_window)):
                if window:
                    parts = []
                    for y, side in ((q, q_window), (k, k_window), (v, k_window)):
                        cut = y[row * side : (row + 1) * side, column * side : (column + 1) * side]
                        cut = F.pad(cut, (0, 0, 0, side - cut.shape[1], 0, side - cut.shape[0]))
                        parts.append(cut)
                else:
                    parts = [q, k, v]
                flat_q, flat_k, flat_v = (y.flatten(0, 1) for y in parts)
                logits = flat_q @ flat_k.T / math.sqrt(size)
                sides = [(parts[0].shape[i], parts[1].shape[i]) for i in (0, 1)]
                rows = get_rel_pos(*sides[0], module.rel_pos_h)
                columns = get_rel_pos(*sides[1], module.rel_pos_w)
                bias = torch.einsum("yxc,ykc->yxk", parts[0], rows)[..., None]
                bias = bias + torch.einsum("yxc,xkc->yxk", parts[0], columns)[:, :, None]
                logits = logits + bias.reshape(logits.shape)
                result = (logits.softmax(1) @ flat_v).view(parts[0].shape)
                place = out[
                    row * q_window : (row + 1) * q_window,
                    column * q_window : (column + 1) * q_window,
                ]
                place.copy_(result[: place.shape[0], : place.shape[1]])
            if not window:
                break
        heads.append(out + q if module.residual_pooling else out)
    return module.proj(torch.cat(heads, -1))


@pytest.mark.parametrize("appended", [False, True])
@pytest.mark.parametrize(
    ("window", "stride_q", "stride_kv", "residual"),
    [(0, 1, 1, True), (0, 2, 1, False), (4, 1, 2, True), (4, 2, 2, False), (4, 2, 1, True)],
)
@torch.no_grad()
def test_attention(window, stride_q, stride_kv, residual, appended, monkeypatch):
    monkeypatch.setattr(_transformer, "_appends", lambda q, k: appended)
    module = randomize(
        MultiScaleAttention(
            6,
            8,
            2,
            stride_q=stride_q,
            stride_kv=stride_kv,
            residual_pooling=residual,
            window_size=window,
            use_rel_pos=True,
            input_size=(8, 8),
        )
    )
    assert module.rel_pos_h.shape == (2 * 8 // min(stride_q, stride_kv) - 1, 4)
    size = (8, 8) if window == 0 else (6, 9)
    x = numbers(0, 2, *size, 6)
    expected = torch.stack([slow_attention(module, image, window) for image in x])
    torch.testing.assert_close(module(x), expected, rtol=1e-4, atol=1e-5)


def test_positions_are_those_of_a_square():
    with pytest.raises(ValueError, match=r"those of a square, got \(8, 6\)"):
        MultiScaleAttention(6, 8, 2, use_rel_pos=True, input_size=(8, 6))


@pytest.mark.parametrize(("dim_out", "stride_q"), [(6, 1), (12, 2)])
def test_block(dim_out, stride_q):
    block = randomize(MultiScaleBlock(6, dim_out, 2, 2.0, stride_q=stride_q))
    x = numbers(1, 2, 7, 8, 6)
    normalized = block.norm1(x)
    y = x
    if dim_out != 6:
        y = normalized @ block.proj.weight.T + block.proj.bias
    if stride_q == 2:
        y = F.max_pool2d(y.permute(0, 3, 1, 2), 3, 2, 1).permute(0, 2, 3, 1)
    y = y + block.attn(normalized)
    expected = y + block.mlp.fc2(F.gelu(block.mlp.fc1(block.norm2(y))))
    torch.testing.assert_close(block(x), expected, rtol=1e-4, atol=1e-5)
    assert block.mlp.fc1.out_features == 2 * dim_out


def tiny(**options):
    return MViT(
        **{
            "img_size": 64,
            "embed_dim": 8,
            "depth": 6,
            "last_block_indexes": (0, 2, 4, 5),
            "adaptive_window_size": 8,
            "pretrain_img_size": 32,
            **options,
        }
    )


def test_stages():
    """Strides, windows and widths as in table 2 and section 4.2 of the paper."""
    blocks = tiny(drop_path_rate=0.5).blocks
    attention = [block.attn for block in blocks]
    assert [a.pool_q.stride[0] for a in attention] == [1, 2, 1, 2, 1, 2]
    assert [a.pool_k.stride[0] for a in attention] == [4, 2, 4, 1, 2, 1]
    assert [a.window_size for a in attention] == [8, 8, 0, 4, 0, 0]
    assert [a.num_heads for a in attention] == [1, 2, 2, 4, 4, 8]
    assert [a.proj.out_features for a in attention] == [8, 16, 16, 32, 32, 64]
    assert [a.rel_pos_h.shape[0] for a in attention] == [31, 15, 15, 15, 7, 7]
    rates = [getattr(block.drop_path, "drop_prob", 0) for block in blocks]
    assert rates == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.5])
    assert [block.pool_skip is not None for block in blocks] == [0, 1, 0, 1, 0, 1]


def test_outputs():
    network = randomize(tiny(use_abs_pos=True, out_features=("scale3", "scale5")))
    assert network.output_shape() == {
        "scale3": Shape(channels=16, stride=8),
        "scale5": Shape(channels=64, stride=32),
    }
    x = numbers(2, 2, 3, 64, 96)
    outputs = network(x)
    assert {name: list(y.shape) for name, y in outputs.items()} == {
        "scale3": [2, 16, 8, 12],
        "scale5": [2, 64, 2, 3],
    }
    y = network.patch_embed(x)
    y = y + get_abs_pos(network.pos_embed, True, y.shape[1:3])
    for block in network.blocks[:3]:
        y = block(y)
    torch.testing.assert_close(outputs["scale3"], network.scale3_norm(y).permute(0, 3, 1, 2))
    assert network.pos_embed.shape == (1, 65, 8)
    assert network.patch_embed.proj.kernel_size == (7, 7)
    with pytest.raises(ValueError, match=r"some of \['scale2', .* got \['scale6'\]"):
        tiny(out_features=("scale6",))


def test_activations_are_computed_again():
    x = numbers(3, 1, 3, 64, 64)
    check_recomputation(lambda again: tiny(use_act_checkpoint=again), x, "scale5", 5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype):
    check_half_precision(randomize(tiny()), numbers(4, 1, 3, 64, 64), "scale5", dtype)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_programs():
    network = randomize(tiny(depth=2, last_block_indexes=(0, 1), out_features=("scale3",)))
    torch._dynamo.reset()
    compiled = torch.compile(network, backend="eager", fullgraph=True)
    x = numbers(5, 1, 3, 64, 64)
    torch.testing.assert_close(compiled(x), network(x), rtol=1e-4, atol=1e-5)
