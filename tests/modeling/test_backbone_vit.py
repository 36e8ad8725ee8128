"""Plain vision transformers and their pyramid, against attention written out."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from detectron2.layers import ShapeSpec as Shape
from detectron2.modeling import SimpleFeaturePyramid, ViT, get_vit_lr_decay_rate
from detectron2.modeling.backbone import _transformer, utils
from detectron2.modeling.backbone.fpn import LastLevelMaxPool, LastLevelP6P7
from detectron2.modeling.backbone.vit import Attention, Block, ResBottleneckBlock
from detectron2.structures import ImageList

from .transformer_checks import check_half_precision, check_recomputation, numbers, randomize


@pytest.fixture(params=[False, True], ids=["matrix", "appended"])
def appended(request, monkeypatch):
    """Both ways of attention with relative positions; without CUDA only one is taken."""
    monkeypatch.setattr(_transformer, "_appends", lambda q, k: request.param)


# Windows, positions and patches


@pytest.mark.parametrize("size", [(6, 8), (7, 5), (2, 3)])
def test_windows(size):
    x = numbers(0, 2, *size, 3)
    windows, padded = utils.window_partition(x, 4)
    rows, columns = math.ceil(size[0] / 4), math.ceil(size[1] / 4)
    assert padded == (4 * rows, 4 * columns)
    assert windows.shape == (2 * rows * columns, 4, 4, 3)
    for image in range(2):
        for row in range(rows):
            for column in range(columns):
                window = windows[(image * rows + row) * columns + column]
                part = x[image, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4]
                assert torch.equal(window[: part.shape[0], : part.shape[1]], part)
                assert window[part.shape[0] :].abs().sum() == 0
                assert window[:, part.shape[1] :].abs().sum() == 0
    assert torch.equal(utils.window_unpartition(windows, 4, padded, size), x)


@pytest.mark.parametrize(("q_size", "k_size"), [(4, 4), (4, 2), (2, 4), (6, 4), (3, 5)])
def test_relative_positions(q_size, k_size):
    length = 2 * max(q_size, k_size) - 1
    table = numbers(1, length, 3)
    got = utils.get_rel_pos(q_size, k_size, table)
    for i in range(q_size):
        for j in range(k_size):
            scale = max(q_size / k_size, 1)
            distance = i * max(k_size / q_size, 1) - j * scale + (k_size - 1) * scale
            assert torch.equal(got[i, j], table[int(distance)])
    short = numbers(2, 5, 3)
    resized = F.interpolate(short.T[None], size=length, mode="linear")[0].T
    expected = utils.get_rel_pos(q_size, k_size, resized)
    torch.testing.assert_close(utils.get_rel_pos(q_size, k_size, short), expected)


def slow_bias(q, rel_pos_h, rel_pos_w, q_size, k_size):
    """For each pair of pixels, by loops; ``(q_h * q_w, C)`` to ``(q_h * q_w, k_h * k_w)``."""
    heights = utils.get_rel_pos(q_size[0], k_size[0], rel_pos_h)
    widths = utils.get_rel_pos(q_size[1], k_size[1], rel_pos_w)
    bias = torch.zeros(q_size[0] * q_size[1], k_size[0] * k_size[1], dtype=q.dtype)
    for i in range(bias.shape[0]):
        for j in range(bias.shape[1]):
            (y, x), (other_y, other_x) = divmod(i, q_size[1]), divmod(j, k_size[1])
            bias[i, j] = q[i] @ (heights[y, other_y] + widths[x, other_x])
    return bias


@pytest.mark.parametrize(("q_size", "k_size"), [((3, 4), (3, 4)), ((4, 2), (2, 3))])
def test_attention_with_relative_positions(q_size, k_size, appended):
    lengths = q_size[0] * q_size[1], k_size[0] * k_size[1]
    q = numbers(3, 2, 3, lengths[0], 5, dtype=torch.float64).requires_grad_()
    k, v = (numbers(i, 2, 3, lengths[1], 5, dtype=torch.float64).requires_grad_() for i in (4, 5))
    tables = [numbers(i, 7, 5, dtype=torch.float64).requires_grad_() for i in (6, 7)]
    inputs = [q, k, v, *tables]
    got = _transformer.attention_with_relative_positions(*inputs, q_size, k_size)
    bias = torch.stack([slow_bias(x, *tables, q_size, k_size) for x in q.flatten(0, 1)])
    logits = q @ k.transpose(2, 3) / math.sqrt(5) + bias.view(2, 3, *lengths)
    expected = logits.softmax(-1) @ v
    torch.testing.assert_close(got, expected)
    grad = numbers(8, *got.shape, dtype=torch.float64)
    torch.testing.assert_close(
        torch.autograd.grad(got, inputs, grad), torch.autograd.grad(expected, inputs, grad)
    )
    plain = numbers(9, 6, *lengths, dtype=torch.float64)
    added = utils.add_decomposed_rel_pos(plain, q.flatten(0, 1), *tables, q_size, k_size)
    torch.testing.assert_close(added, plain + bias)


def test_attention_is_compiled_once_for_all_sizes(appended):
    """Also where one size needs no filling of vectors to multiples of eight, and others do."""
    torch._dynamo.reset()
    attention = randomize(Attention(8, num_heads=1, use_rel_pos=True, input_size=(4, 4)))
    compiled = torch.compile(attention, backend="aot_eager", fullgraph=True, dynamic=True)
    for i, size in enumerate([(3, 5), (5, 6), (6, 7)]):
        x = numbers(12, 2, *size, 8)
        with torch._dynamo.config.patch(error_on_recompile=i > 0):
            got = compiled(x)
        torch.testing.assert_close(got, attention(x))


def test_absolute_positions():
    table = numbers(10, 1, 17, 3)
    grid = table[:, 1:].reshape(1, 4, 4, 3)
    assert torch.equal(utils.get_abs_pos(table, True, (4, 4)), grid)
    assert torch.equal(utils.get_abs_pos(table[:, 1:], False, (4, 4)), grid)
    resized = utils.get_abs_pos(table, True, (5, 7))
    expected = F.interpolate(grid.permute(0, 3, 1, 2), size=(5, 7), mode="bicubic")
    torch.testing.assert_close(resized, expected.permute(0, 2, 3, 1))
    with pytest.raises(ValueError, match="those of a square, got 17 of them"):
        utils.get_abs_pos(table, False, (4, 4))


def test_drop_path():
    torch.manual_seed(0)
    layer = _transformer.drop_path_layer(0.25)
    x = torch.ones(4000, 2, 3)
    y = layer(x)
    assert y.unique().tolist() == pytest.approx([0, 4 / 3])
    assert torch.equal(y, y[:, :1, :1].expand_as(y))  # whole samples
    assert y.mean().item() == pytest.approx(1, abs=0.03)
    assert layer.eval()(x) is x
    assert type(_transformer.drop_path_layer(0)) is nn.Identity
    assert _transformer.drop_path_rates(0.3, 4) == pytest.approx([0, 0.1, 0.2, 0.3])
    assert _transformer.drop_path_rates(0.3, 1) == [0]
    with pytest.raises(ValueError, match="got 1"):
        _transformer.drop_path_layer(1.0)


# Blocks


def slow_attention(module, x):
    """``(H, W, C)``, head by head."""
    height, width, dim = x.shape
    q, k, v = (x.reshape(-1, dim) @ module.qkv.weight.T + module.qkv.bias).chunk(3, dim=1)
    size = dim // module.num_heads
    heads = []
    for i in range(module.num_heads):
        head_q, head_k, head_v = (y[:, i * size : (i + 1) * size] for y in (q, k, v))
        logits = head_q @ head_k.T / math.sqrt(size)
        if module.use_rel_pos:
            sizes = ((height, width),) * 2
            logits = logits + slow_bias(head_q, module.rel_pos_h, module.rel_pos_w, *sizes)
        heads.append(logits.softmax(1) @ head_v)
    return module.proj(torch.cat(heads, 1)).view(x.shape)


@pytest.mark.parametrize("use_rel_pos", [False, True])
def test_attention(use_rel_pos, appended):
    module = randomize(Attention(12, 3, use_rel_pos=use_rel_pos, input_size=(4, 5)))
    x = numbers(11, 2, 4, 5, 12)
    expected = torch.stack([slow_attention(module, image) for image in x])
    torch.testing.assert_close(module(x), expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="got 5 and 12"):
        Attention(12, 5)


def test_relative_positions_at_first():
    zero = Attention(8, 2, use_rel_pos=True, input_size=(3, 4))
    assert zero.rel_pos_h.shape == (5, 4)
    assert zero.rel_pos_w.shape == (7, 4)
    assert zero.rel_pos_w.abs().max() == 0
    random = Attention(8, 2, use_rel_pos=True, rel_pos_zero_init=False, input_size=(50, 50))
    assert random.rel_pos_h.std().item() == pytest.approx(0.02, rel=0.2)


@pytest.mark.parametrize("window_size", [0, 3])
def test_block(window_size):
    block = randomize(
        Block(8, 2, 2.0, use_rel_pos=True, window_size=window_size, input_size=(4, 7))
    )
    x = numbers(12, 2, 4, 7, 8)
    y = block.norm1(x)
    if window_size:
        y = F.pad(y, (0, 0, 0, 2, 0, 2))
        attended = torch.zeros_like(y)
        for i in range(0, 6, 3):
            for j in range(0, 9, 3):
                for image in range(2):
                    window = y[image, i : i + 3, j : j + 3]
                    attended[image, i : i + 3, j : j + 3] = slow_attention(block.attn, window)
        attended = attended[:, :4, :7]
    else:
        attended = torch.stack([slow_attention(block.attn, image) for image in y])
    y = x + attended
    mlp = block.mlp
    expected = y + mlp.fc2(F.gelu(mlp.fc1(block.norm2(y))))
    torch.testing.assert_close(block(x), expected, rtol=1e-4, atol=1e-5)
    assert mlp.fc1.out_features == 16


def test_residual_block_is_nothing_at_first():
    torch.manual_seed(0)
    block = ResBottleneckBlock(8, 8, 4)
    x = numbers(13, 2, 8, 5, 6)
    assert torch.equal(block(x), x)
    randomize(block)
    y = F.gelu(block.norm1(F.conv2d(x, block.conv1.weight)))
    y = F.gelu(block.norm2(F.conv2d(y, block.conv2.weight, padding=1)))
    expected = x + block.norm3(F.conv2d(y, block.conv3.weight))
    torch.testing.assert_close(block(x), expected, rtol=1e-4, atol=1e-5)


# Networks


def tiny(**options):
    return ViT(
        **{
            "img_size": 64,
            "patch_size": 8,
            "embed_dim": 16,
            "depth": 3,
            "num_heads": 2,
            "use_rel_pos": True,
            "window_size": 3,
            "window_block_indexes": (0, 2),
            "residual_block_indexes": (1,),
            "pretrain_img_size": 32,
            **options,
        }
    )


def test_vit():
    network = randomize(tiny(drop_path_rate=0.2, out_feature="last"))
    windows = [block.window_size for block in network.blocks]
    assert windows == [3, 0, 3]
    assert [hasattr(block, "residual") for block in network.blocks] == [False, True, False]
    rates = [getattr(block.drop_path, "drop_prob", 0) for block in network.blocks]
    assert rates == pytest.approx([0, 0.1, 0.2])
    assert network.blocks[0].attn.rel_pos_h.shape == (5, 8)
    assert network.blocks[1].attn.rel_pos_h.shape == (15, 8)
    assert network.pos_embed.shape == (1, 17, 16)
    assert network.output_shape() == {"last": Shape(channels=16, stride=8)}

    x = numbers(14, 2, 3, 40, 56)
    y = F.conv2d(x, network.patch_embed.proj.weight, network.patch_embed.proj.bias, 8)
    y = y.permute(0, 2, 3, 1) + utils.get_abs_pos(network.pos_embed, True, (5, 7))
    for block in network.blocks:
        y = block(y)
    assert list(network(x)) == ["last"]
    torch.testing.assert_close(network(x)["last"], y.permute(0, 3, 1, 2))
    assert tiny(use_abs_pos=False).pos_embed is None
    assert tiny(pretrain_use_cls_token=False).pos_embed.shape == (1, 16, 16)


def test_weights_at_first():
    torch.manual_seed(0)
    network = tiny(embed_dim=64)
    weight = network.blocks[0].mlp.fc1.weight
    assert weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert network.pos_embed.std().item() == pytest.approx(0.02, rel=0.1)
    for block in network.blocks:
        assert block.attn.qkv.bias.abs().max() == 0
    assert network.blocks[1].residual.norm3.weight.abs().max() == 0


def test_activations_are_computed_again():
    x = numbers(15, 1, 3, 64, 64)
    check_recomputation(lambda again: tiny(use_act_checkpoint=again), x, "last_feat", 5)
    assert list(tiny(use_act_checkpoint=True).state_dict()) == list(tiny().state_dict())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype, appended):
    check_half_precision(randomize(tiny()), numbers(16, 1, 3, 64, 64), "last_feat", dtype)


@pytest.mark.parametrize("norm", ["LN", ""])
@pytest.mark.parametrize("top", ["pool", "p5"])
def test_simple_feature_pyramid(norm, top):
    torch.manual_seed(0)
    top_block = LastLevelMaxPool() if top == "pool" else LastLevelP6P7(6, 6, "p4")
    net = tiny()
    pyramid = SimpleFeaturePyramid(
        net, "last_feat", 6, (4.0, 2.0, 1.0, 0.5), top_block if top == "p5" else None, norm
    ).eval()
    x = numbers(17, 1, 3, 64, 64)
    outputs = pyramid(x)
    names = ["p1", "p2", "p3", "p4", *(["p5", "p6"] if top == "p5" else [])]
    assert list(outputs) == list(pyramid.output_shape()) == names
    for name, y in outputs.items():
        stride = 2 ** int(name[1])
        assert pyramid.output_shape()[name] == Shape(channels=6, stride=stride)
        assert y.shape == (1, 6, 64 // stride, 64 // stride)
    feature = net(x)["last_feat"]
    stage = pyramid.simfp_1
    y = F.conv_transpose2d(feature, stage[0].weight, stage[0].bias, stride=2)
    y = F.gelu(stage[1](y))
    y = F.conv_transpose2d(y, stage[3].weight, stage[3].bias, stride=2)
    y = stage[5](stage[4](y))
    torch.testing.assert_close(outputs["p1"], y, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(outputs["p4"], pyramid.simfp_4(feature), rtol=1e-4, atol=1e-5)
    assert (pyramid.simfp_3[0].bias is None) == (norm != "")
    assert [name for name, _ in pyramid.named_children()][-2:] == (
        ["net", "top_block"] if top == "p5" else ["simfp_4", "net"]
    )


def test_images_are_padded_to_the_pyramid():
    """Upstream misspells its constraint, and does not."""
    pyramid = SimpleFeaturePyramid(tiny(), "last_feat", 6, (1.0, 0.5))
    assert pyramid.size_divisibility == 16
    image = torch.zeros(3, 40, 50)
    batch = ImageList.from_tensors([image], padding_constraints=pyramid.padding_constraints)
    assert batch.tensor.shape == (1, 3, 48, 64)
    outputs = pyramid(batch.tensor)
    assert [list(y.shape[2:]) for y in outputs.values()] == [[6, 8], [3, 4]]
    square = SimpleFeaturePyramid(tiny(), "last_feat", 6, (1.0, 0.5), square_pad=64)
    assert square.padding_constraints == {"size_divisibility": 16, "square_size": 64}


def test_wrong_scales():
    with pytest.raises(ValueError, match=r"4, 2, 1 or 0\.5, got 8"):
        SimpleFeaturePyramid(tiny(), "last_feat", 6, (8.0,))
    with pytest.raises(ValueError, match=r"got \[2, 8\]"):
        SimpleFeaturePyramid(tiny(), "last_feat", 6, (4.0, 1.0))


def test_learning_rates():
    def exponent(name):
        return round(math.log(get_vit_lr_decay_rate(name, 0.5, 12), 0.5))

    assert exponent("backbone.net.pos_embed") == 13
    assert exponent("backbone.net.patch_embed.proj.weight") == 13
    assert exponent("backbone.net.blocks.0.attn.rel_pos_h") == 12
    assert exponent("backbone.bottom_up.blocks.11.mlp.fc1.bias") == 1
    assert exponent("backbone.net.blocks.3.residual.conv1.weight") == 0
    assert exponent("backbone.simfp_2.0.weight") == 0
    assert exponent("roi_heads.blocks.1.weight") == 0
    assert get_vit_lr_decay_rate("backbone.net.pos_embed") == 1


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_programs(appended):
    net = randomize(tiny(depth=1, window_block_indexes=(0,), residual_block_indexes=()))
    pyramid = SimpleFeaturePyramid(net, "last_feat", 6, (0.5,)).eval()
    torch._dynamo.reset()
    compiled = torch.compile(pyramid, backend="eager", fullgraph=True)
    for x in (numbers(18, 1, 3, 64, 64), numbers(19, 1, 3, 64, 96)):
        torch.testing.assert_close(compiled(x), pyramid(x), rtol=1e-4, atol=1e-5)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_cuda(dtype):
    network = randomize(tiny(img_size=512)).cuda()
    x = numbers(20, 1, 3, 512, 512).cuda()
    with torch.no_grad():
        expected = network.double()(x.double())["last_feat"]
        network.float()
        with torch.autocast("cuda", dtype=dtype, enabled=dtype != torch.float32):
            y = network(x)["last_feat"]
    assert (y.double() - expected).norm() < 0.1 * expected.norm()
