"""Swin transformers, against torchvision's."""

import pytest
import torch
from torch import nn
from torchvision.models.swin_transformer import SwinTransformer as Reference

from detectron2.layers import ShapeSpec as Shape
from detectron2.modeling import FPN, SwinTransformer
from detectron2.modeling.backbone.swin import (
    BasicLayer,
    PatchEmbed,
    PatchMerging,
    SwinTransformerBlock,
    WindowAttention,
    window_partition,
    window_reverse,
)

from .transformer_checks import check_half_precision, check_recomputation, randomize


def images(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def tiny(**options):
    options = {"embed_dim": 8, "depths": (2, 2, 2), "num_heads": (2, 2, 4), **options}
    outputs = (0, 2) if len(options["depths"]) == 3 else (0, 1)
    return SwinTransformer(out_indices=outputs, window_size=3, drop_path_rate=0.0, **options)


def reference(network):
    """torchvision's, with the weights of ``network``; its stages and mergings take turns.

    Where a feature map is no larger than a window, it does not shift.
    """
    model = Reference([4, 4], 8, [2, 2, 2], [2, 2, 4], [3, 3], stochastic_depth_prob=0.0)
    state = {}
    for name, tensor in network.state_dict().items():
        first, *rest = name.split(".")
        if first == "patch_embed":
            other = ["features", "0", "0" if rest[0] == "proj" else "2", rest[1]]
        elif first == "layers" and rest[1] == "blocks":
            other = ["features", str(2 * int(rest[0]) + 1), *rest[2:]]
            other = [{"fc1": "0", "fc2": "3"}.get(part, part) for part in other]
        elif first == "layers":
            other = ["features", str(2 * int(rest[0]) + 2), *rest[2:]]
        else:
            continue
        if name.endswith("index"):
            tensor = tensor.flatten()
        state[".".join(other)] = tensor
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert unexpected == []
    assert {name.split(".")[0] for name in missing} == {"norm", "head"}
    return model.eval()


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("size", [(68, 100), (96, 84)])
def test_features_are_those_of_torchvision(size, count):
    network = randomize(tiny())
    model = reference(network)
    x = images(count, 3, *size)
    outputs = network(x)
    assert list(outputs) == ["p0", "p2"]
    y = x
    for i, layer in enumerate(model.features):
        y = layer(y)
        if i in (1, 5):
            name = f"p{i // 2}"
            expected = getattr(network, f"norm{i // 2}")(y).permute(0, 3, 1, 2)
            torch.testing.assert_close(outputs[name], expected, rtol=1e-3, atol=1e-4)


def test_gradients_are_those_of_torchvision():
    network = randomize(tiny())
    model = reference(network)
    x = images(2, 3, 68, 68)
    network(x)["p2"].square().mean().backward()
    y = network.norm2(model.features(x))
    y.square().mean().backward()
    ours, theirs = network.layers[1].blocks[1].attn, model.features[3][1].attn
    for name in ("relative_position_bias_table", "qkv.weight", "proj.bias"):
        got, expected = ours.get_parameter(name).grad, theirs.get_parameter(name).grad
        torch.testing.assert_close(
            got, expected, rtol=1e-3, atol=1e-5 * expected.abs().max().item()
        )


def test_outputs():
    network = tiny(patch_norm=False)
    assert network.output_shape() == {
        "p0": Shape(channels=8, stride=4),
        "p2": Shape(channels=32, stride=16),
    }
    assert network.patch_embed.norm is None
    assert network.layers[2].downsample is None
    # Images are padded to whole patches, windows and pairs of tokens.
    outputs = network(images(1, 3, 33, 18))
    assert [list(y.shape[2:]) for y in outputs.values()] == [[9, 5], [3, 2]]


def test_size_divisibility():
    """Upstream misspells the attribute, and raises."""
    network = tiny()
    assert network.size_divisibility == 32
    pyramid = FPN(network, ["p2"], 8)
    assert pyramid.size_divisibility == 16


def test_absolute_positions():
    network = randomize(tiny(ape=True, pretrain_img_size=32))
    assert network.absolute_pos_embed.shape == (1, 8, 8, 8)
    x = images(1, 3, 40, 32)
    y = network.patch_embed(x)
    resized = nn.functional.interpolate(network.absolute_pos_embed, size=(10, 8), mode="bicubic")
    y = (y + resized).flatten(2).transpose(1, 2)
    expected = network.norm0(network.layers[0](y, 10, 8)[0])
    torch.testing.assert_close(network(x)["p0"].flatten(2).transpose(1, 2), expected)
    assert tiny(ape=True, pretrain_img_size=(32, 16)).absolute_pos_embed.shape == (1, 8, 8, 4)


@pytest.mark.parametrize("stages", [-1, 0, 1, 2, 3])
def test_freezing(stages):
    network = tiny(ape=True, pretrain_img_size=32, frozen_stages=stages)
    assert network.patch_embed.proj.weight.requires_grad == (stages < 0)
    assert network.absolute_pos_embed.requires_grad == (stages < 1)
    for i, layer in enumerate(network.layers):
        frozen = i < stages - 1
        assert all(p.requires_grad != frozen for p in layer.parameters())
        assert layer.training != frozen


def test_drop_path_and_weights_at_first():
    torch.manual_seed(0)
    network = SwinTransformer(embed_dim=24, depths=(1, 2), num_heads=(1, 2), out_indices=(1,))
    blocks = [block for layer in network.layers for block in layer.blocks]
    rates = [getattr(block.drop_path, "drop_prob", 0) for block in blocks]
    assert rates == pytest.approx([0, 0.1, 0.2])
    assert [block.shift_size for block in blocks] == [0, 0, 3]
    assert blocks[1].mlp.fc1.weight.std().item() == pytest.approx(0.02, rel=0.1)
    table = blocks[0].attn.relative_position_bias_table
    assert table.shape == (169, 1)
    assert 0 < table.abs().max() < 0.1


def test_activations_are_computed_again():
    check_recomputation(lambda again: tiny(use_checkpoint=again), images(1, 3, 48, 48), "p2", 3)


def test_attention_can_be_seen_and_changed():
    attention = WindowAttention(12, (3, 3), 2, attn_drop=0.5)
    randomize(attention)
    x, mask = images(4, 9, 12), torch.randn(2, 9, 9)
    with torch.no_grad():
        wanted = attention.eval()(x, mask)
        for module in (attention.softmax, attention.attn_drop):
            seen = []
            handle = module.register_forward_hook(lambda _, args, y: seen.append(y))  # noqa: B023
            torch.testing.assert_close(attention(x, mask), wanted)
            handle.remove()
            torch.testing.assert_close(seen[0].sum(-1), torch.ones(4, 2, 9))
        # Dropout in evaluation, for the uncertainty of predictions.
        attention.attn_drop.train()
        assert not torch.allclose(attention(x, mask), wanted)
        attention.train().attn_drop = nn.Identity()
        torch.testing.assert_close(attention(x, mask), wanted)


def test_parts():
    x = images(2, 6, 9, 4)
    windows = window_partition(x, 3)
    assert torch.equal(windows[4], x[0, 3:6, 3:6])
    assert torch.equal(window_reverse(windows, 3, 6, 9), x)
    with pytest.raises(ValueError, match=r"windows of 4 do not divide .*6, 9"):
        window_partition(x, 4)
    with pytest.raises(ValueError, match="windows of 3 cannot be shifted by 3"):
        SwinTransformerBlock(4, 2, 3, 3)
    block = SwinTransformerBlock(4, 2, 3)
    with pytest.raises(ValueError, match="got 54 tokens for a height and width of None"):
        block(x.flatten(1, 2), None)
    with pytest.raises(ValueError, match="got 54 tokens for a height and width of 5, 9"):
        PatchMerging(4)(x.flatten(1, 2), 5, 9)
    layer = BasicLayer(4, 1, 2, window_size=3)
    y = layer(x.flatten(1, 2), 6, 9)
    assert y[0] is y[3]
    assert (y[1:3], y[4:]) == ((6, 9), (6, 9))
    assert PatchEmbed(4, 3, 8)(images(1, 3, 10, 8)).shape == (1, 8, 3, 2)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype):
    check_half_precision(randomize(tiny()), images(2, 3, 40, 40), "p2", dtype)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_programs():
    torch.manual_seed(0)
    layer = BasicLayer(4, 2, 2, window_size=3, downsample=PatchMerging).eval()
    torch._dynamo.reset()
    compiled = torch.compile(layer, backend="eager", fullgraph=True)
    for height, width in ((6, 7), (8, 10)):
        x = images(2, height * width, 4)
        y, expected = compiled(x, height, width), layer(x, height, width)
        torch.testing.assert_close(y[3], expected[3], rtol=1e-4, atol=1e-5)
