"""RegNets, against torchvision's."""

import functools

import pytest
import torch
import torchvision
from torch import nn

from detectron2.layers import FrozenBatchNorm2d, wrappers
from detectron2.layers import ShapeSpec as Shape
from detectron2.modeling.backbone.regnet import (
    AnyNet,
    RegNet,
    ResBasicBlock,
    ResBottleneckBlock,
    ResStem,
    SimpleStem,
    VanillaBlock,
    adjust_block_compatibility,
    conv2d,
    gap2d,
    generate_regnet_parameters,
    init_weights,
    pool2d,
)

STAGES = ["s1", "s2", "s3", "s4"]


def images(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def disturb(module):
    generator = torch.Generator().manual_seed(0)
    for name, tensor in module.state_dict().items():
        if tensor.dim() == 1:
            values = torch.rand(tensor.shape, generator=generator)
            tensor.copy_(values + 0.5 if name.endswith(("var", "weight")) else values - 0.5)
    return module


def other_name(name):
    """What torchvision calls a tensor."""
    stage, block, *rest = name.split(".")
    if stage == "stem":
        return ".".join(["stem", {"conv": "0", "bn": "1"}[block], *rest])
    i, j = int(stage[1:]), int(block[1:]) - 1
    rest = ".".join(rest)
    if rest.startswith(("proj", "bn")):
        rest = rest.replace("proj", "proj.0").replace("bn", "proj.1")
    elif rest.startswith("f.se"):
        rest = rest.replace("f_ex.0", "fc1").replace("f_ex.2", "fc2")
    elif "_bn." in rest:
        rest = rest.replace("_bn.", ".1.")
    else:
        rest = rest.replace(".weight", ".0.weight")
    return f"trunk_output.block{i}.block{i}-{j}.{rest}"


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("regnet_y_400mf", {"depth": 16, "w_0": 48, "w_a": 27.89, "w_m": 2.09, "se_ratio": 0.25}),
        ("regnet_x_800mf", {"depth": 16, "w_0": 56, "w_a": 35.73, "w_m": 2.28}),
    ],
)
def test_features_are_those_of_torchvision(name, options):
    torch.manual_seed(0)
    model = disturb(getattr(torchvision.models, name)()).eval()
    network = RegNet(
        stem_class=SimpleStem,
        stem_width=32,
        block_class=ResBottleneckBlock,
        group_width=8 if "_y_" in name else 16,
        out_features=["stem", *STAGES],
        **options,
    ).eval()
    state = model.state_dict()
    network.load_state_dict({key: state[other_name(key)] for key in network.state_dict()})
    assert len(network.state_dict()) == len([key for key in state if not key.startswith("fc")])
    x = images(1, 3, 66, 64)
    y = model.stem(x)
    expected = [y, *(y := block(y) for block in model.trunk_output)]
    outputs = network(x)
    assert list(outputs) == ["stem", *STAGES]
    for (key, got), wanted in zip(outputs.items(), expected, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-3, atol=1e-3 * wanted.abs().max().item())
        shape = network.output_shape()[key]
        assert shape == Shape(channels=wanted.shape[1], stride=2 ** (1 + list(outputs).index(key)))


def test_weights_at_first():
    torch.manual_seed(0)
    conv = conv2d(32, 64, 3, groups=4, bias=True)
    init_weights(conv)
    # The channels of all groups count.
    assert conv.weight.std().item() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.05)
    linear, norm = nn.Linear(300, 30), nn.BatchNorm2d(3)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    for module in (linear, norm, nn.ReLU()):
        init_weights(module)
    assert linear.weight.std().item() == pytest.approx(0.01, rel=0.05)
    assert linear.bias.abs().max() == 0
    assert norm.weight.tolist() == [1, 1, 1]
    assert norm.bias.tolist() == [0, 0, 0]


def test_layers():
    x = images(1, 4, 7, 8)
    assert conv2d(4, 6, 5, stride=2)(x).shape == (1, 6, 4, 4)
    assert pool2d(3)(x).shape == x.shape
    torch.testing.assert_close(gap2d()(x), x.mean((2, 3), keepdim=True))
    for layer in (functools.partial(conv2d, 4, 4), pool2d):
        with pytest.raises(ValueError, match=r"odd kernel sizes .*, got 4"):
            layer(4)


def anynet(block_class=VanillaBlock, stem_class=ResStem, norm="BN", **options):
    return AnyNet(
        **{
            "stem_class": stem_class,
            "stem_width": 4,
            "block_class": block_class,
            "depths": [1, 2],
            "widths": [4, 6],
            "group_widths": [2, 3],
            "strides": [1, 2],
            "bottleneck_ratios": [1, 0.5],
            "se_ratio": 0.5,
            "activation_class": nn.SiLU,
            "norm": norm,
            **options,
        }
    )


def test_blocks_by_hand():
    torch.manual_seed(0)
    network = disturb(anynet(ResBasicBlock, out_features=["stem", "s1", "s2"])).eval()
    x = images(1, 3, 32, 32)
    outputs = network(x)
    stem = network.stem
    y = nn.functional.max_pool2d(nn.functional.silu(stem.bn(stem.conv(x))), 3, 2, 1)
    torch.testing.assert_close(outputs["stem"], y)
    block = network.s1.b1
    assert block.proj is None
    z = block.f.b_bn(block.f.b(nn.functional.silu(block.f.a_bn(block.f.a(y)))))
    torch.testing.assert_close(outputs["s1"], nn.functional.silu(y + z))
    assert [name for name, _ in network.s2.named_children()] == ["b1", "b2"]
    assert network.s2.b1.proj.stride == (2, 2)

    vanilla = disturb(anynet()).eval()
    block = vanilla.s1.b1
    y = vanilla.stem(x)
    z = nn.functional.silu(block.a_bn(block.a(y)))
    expected = nn.functional.silu(block.b_bn(block.b(z)))
    torch.testing.assert_close(vanilla.s1(y), expected)
    assert list(vanilla(x)) == ["s2"]


@pytest.mark.parametrize("block_class", [VanillaBlock, ResBasicBlock, ResBottleneckBlock])
def test_frozen_norms_are_folded(block_class, monkeypatch):
    """Each convolution's own, none of squeeze and excitation; values and gradients stay."""
    torch.manual_seed(0)
    options = {"norm": "FrozenBN", "activation_class": nn.ReLU}
    network = disturb(anynet(block_class, **options)).double()
    x = images(1, 3, 32, 32).double()
    fused, calls = wrappers.fused_conv, []

    def counted(*arguments):
        calls.append(fused(*arguments))
        return calls[-1]

    results = []
    for replacement in (counted, lambda *arguments: None):
        monkeypatch.setattr(wrappers, "fused_conv", replacement)
        y = network(x)["s2"]
        results.append([y, *torch.autograd.grad(y.square().sum(), list(network.parameters()))])
    torch.testing.assert_close(*results)
    convs = [m for m in network.modules() if isinstance(m, nn.Conv2d) and m.bias is None]
    assert len(calls) == len(convs)
    assert all(y is not None for y in calls)


def test_networks_without_norms():
    network = anynet(ResBottleneckBlock, norm="")
    assert network(images(1, 3, 32, 32))["s2"].shape == (1, 6, 4, 4)
    assert not any("bn" in name for name in network.state_dict())


@pytest.mark.parametrize("freeze_at", [0, 1, 2])
def test_freezing(freeze_at):
    network = anynet(ResBottleneckBlock, freeze_at=freeze_at)
    for i, part in enumerate((network.stem, network.s1, network.s2)):
        frozen = i < freeze_at
        assert all(p.requires_grad != frozen for p in part.parameters())
        assert any(isinstance(m, FrozenBatchNorm2d) for m in part.modules()) == frozen
    assert network.freeze(0) is network


def test_wrong_arguments():
    with pytest.raises(ValueError, match=r"some of \['stem', 's1', 's2'\], got \['s3'\]"):
        anynet(out_features=["s3"])
    with pytest.raises(ValueError, match="zip"):
        anynet(depths=[1])
    with pytest.raises(ValueError, match=r"got torch\.Size"):
        anynet()(images(3, 4, 4))


def test_compatibility():
    """Published RegNetX-4.0GF: widths 80, 240, 560, 1360 in groups of 40."""
    widths, depths, stages, reach, of_blocks, linear = generate_regnet_parameters(
        38.65, 96, 2.43, 23
    )
    assert depths == [2, 5, 14, 2]
    assert (stages, reach, len(of_blocks)) == (4, 4, 23)
    assert linear[1] - linear[0] == pytest.approx(38.65)
    assert sorted(set(of_blocks)) == widths
    ws, bs, gs = adjust_block_compatibility(widths, [1.0] * 4, [40] * 4)
    assert ws == [80, 240, 560, 1360]
    assert (bs, gs) == ([1.0] * 4, [40] * 4)
    # Groups are no wider than the bottleneck; and with a ratio above 1 it divides, too.
    assert adjust_block_compatibility([10], [0.5], [40]) == ([10], [0.5], [5])
    assert adjust_block_compatibility([11], [3], [4]) == ([12], [3], [4])
    with pytest.raises(ValueError, match="positive w, b and g"):
        adjust_block_compatibility([10], [0], [4])
    for wrong in ((-1, 96, 2, 5), (1, 0, 2, 5), (1, 96, 1, 5), (1, 97, 2, 5)):
        with pytest.raises(ValueError, match="no RegNet has"):
            generate_regnet_parameters(*wrong)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_programs():
    network = anynet(ResBottleneckBlock, norm="FrozenBN", out_features=["s1", "s2"]).eval()
    x, other = images(1, 3, 32, 48), images(2, 3, 64, 32)
    torch._dynamo.reset()
    for program in (
        torch.jit.script(network),
        torch.compile(network, backend="eager", fullgraph=True, dynamic=True),
    ):
        for inputs in (x, other):
            torch.testing.assert_close(program(inputs), network(inputs), rtol=1e-4, atol=1e-5)
