"""ResNets, against torchvision's and against convolutions written out."""

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional as F  # noqa: N812

from detectron2.config import get_cfg
from detectron2.layers import CNNBlockBase, DeformConv, FrozenBatchNorm2d, ModulatedDeformConv
from detectron2.layers import ShapeSpec as Shape
from detectron2.modeling import BACKBONE_REGISTRY, Backbone, build_backbone, make_stage
from detectron2.modeling.backbone.resnet import (
    BasicBlock,
    BasicStem,
    BottleneckBlock,
    DeformBottleneckBlock,
    ResNet,
    build_resnet_backbone,
)

STAGES = ["res2", "res3", "res4", "res5"]


def images(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(len(shape)))


def disturb(module):
    """Statistics and affine parameters of norms as after some training."""
    generator = torch.Generator().manual_seed(0)
    for name, tensor in module.state_dict().items():
        if "norm" in name and tensor.dtype.is_floating_point:
            values = torch.rand(tensor.shape, generator=generator)
            tensor.copy_(values + 0.5 if name.endswith(("var", "weight")) else values - 0.5)
    return module


def from_torchvision(model, network):
    """Load ``network`` with the weights of torchvision's ``model``."""
    state = model.state_dict()
    names = {}
    for name in network.state_dict():
        stage, _, rest = name.partition(".")
        if stage == "stem":
            other = rest.replace("conv1.norm", "bn1")
        elif stage == "linear":
            other = f"fc.{rest}"
        else:
            other = f"layer{int(stage[3:]) - 1}.{rest}"
            other = other.replace("shortcut.norm", "downsample.1")
            other = other.replace("shortcut", "downsample.0")
            for i in (1, 2, 3):
                other = other.replace(f"conv{i}.norm", f"bn{i}")
        names[name] = other
    assert sorted(names.values()) == sorted(state)
    network.load_state_dict({name: state[other] for name, other in names.items()})
    return network.eval()


def features_of_torchvision(model, x):
    x = model.maxpool(model.relu(model.bn1(model.conv1(x))))
    features = {"stem": x}
    for name, layer in zip(STAGES, (model.layer1, model.layer2, model.layer3, model.layer4)):  # noqa: B905
        x = features[name] = layer(x)
    features["linear"] = model.fc(model.avgpool(x).flatten(1))
    return features


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize(
    ("name", "depth", "options"),
    [
        ("resnet18", 18, {}),
        ("resnet50", 50, {}),
        ("resnext50_32x4d", 50, {"num_groups": 32}),
    ],
)
def test_features_are_those_of_torchvision(name, depth, options, frozen):
    torch.manual_seed(0)
    model = disturb(getattr(torchvision.models, name)(num_classes=7)).eval()
    stages = ResNet.make_default_stages(depth, norm="BN", **options)
    if options:
        widths = [128, 256, 512, 1024]
        stages = [
            make_stage(
                BottleneckBlock,
                len(blocks),
                in_channels=blocks[0].in_channels,
                out_channels=blocks[0].out_channels,
                bottleneck_channels=width,
                stride=blocks[0].stride,
                norm="BN",
                **options,
            )
            for blocks, width in zip(stages, widths, strict=True)
        ]
    outputs = ["stem", *STAGES, "linear"]
    network = from_torchvision(model, ResNet(BasicStem(), stages, 7, outputs))
    if frozen:
        network.freeze(5)
        assert not any(isinstance(m, nn.BatchNorm2d) for m in network.modules())
    x = images(2, 3, 70, 65)
    expected = features_of_torchvision(model, x)
    for grad in (False, True):
        with torch.set_grad_enabled(grad):
            got = network(x)
        assert list(got) == outputs
        for key, feature in got.items():
            torch.testing.assert_close(feature, expected[key], rtol=1e-3, atol=1e-4)


def test_gradients_with_frozen_norms_are_those_of_torchvision():
    torch.manual_seed(0)
    model = disturb(torchvision.models.resnet18()).eval()
    network = ResNet(BasicStem(), ResNet.make_default_stages(18, norm="BN"), 1000)
    from_torchvision(model, network)
    FrozenBatchNorm2d.convert_frozen_batchnorm(network)
    x = images(2, 3, 64, 64)
    for m in (model, network):
        (m(x) if m is model else m(x)["linear"]).square().mean().backward()
    expected = model.layer2[0].downsample[0].weight.grad
    torch.testing.assert_close(network.res3[0].shortcut.weight.grad, expected, rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(
        network.stem.conv1.weight.grad, model.conv1.weight.grad, rtol=1e-3, atol=1e-6
    )


def test_where_the_stride_is_and_dilation():
    for stride_in_1x1 in (False, True):
        block = BottleneckBlock(
            4, 8, bottleneck_channels=4, stride=2, stride_in_1x1=stride_in_1x1, dilation=3
        )
        strides = [block.conv1.stride[0], block.conv2.stride[0], block.shortcut.stride[0]]
        assert strides == ([2, 1, 2] if stride_in_1x1 else [1, 2, 2])
        assert block.conv2.dilation == block.conv2.padding == (3, 3)
        assert block(images(1, 4, 9, 10)).shape == (1, 8, 5, 5)
    assert BottleneckBlock(4, 4, bottleneck_channels=2).shortcut is None
    names = [name for name, _ in block.named_children()]
    assert names == ["shortcut", "conv1", "conv2", "conv3"]


def test_weights_at_first():
    """Kaiming's normal distribution by fan out."""
    torch.manual_seed(0)
    block = BottleneckBlock(64, 256, bottleneck_channels=64)
    for conv in (block.shortcut, block.conv1, block.conv2, block.conv3):
        fan_out = conv.out_channels * conv.kernel_size[0] ** 2
        assert conv.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.05)
        assert conv.bias is None


@pytest.mark.parametrize("modulated", [False, True])
def test_deformable_block(modulated):
    torch.manual_seed(0)
    block = DeformBottleneckBlock(
        4,
        6,
        bottleneck_channels=4,
        stride=2,
        norm="FrozenBN",
        dilation=2,
        deform_modulated=modulated,
        deform_num_groups=2,
    )
    assert type(block.conv2) is (ModulatedDeformConv if modulated else DeformConv)
    assert block.conv2_offset.out_channels == (54 if modulated else 36)
    assert block.conv2.bias is None
    x = images(2, 4, 9, 8)
    disturb(block)
    # Without offsets it is an ordinary convolution, times the mask, a half.
    y = block.conv1(x).relu()
    z = F.conv2d(y, block.conv2.weight, stride=2, padding=2, dilation=2)
    z = block.conv2.norm(z / 2 if modulated else z).relu()
    expected = (block.conv3(z) + block.shortcut(x)).relu()
    torch.testing.assert_close(block(x), expected, rtol=1e-4, atol=1e-5)

    nn.init.normal_(block.conv2_offset.weight)
    offset = block.conv2_offset(y)
    extra = [offset[:, 36:].sigmoid()] if modulated else []
    z = block.conv2(y, offset[:, :36], *extra).relu()
    expected = (block.conv3(z) + block.shortcut(x)).relu()
    torch.testing.assert_close(block(x), expected, rtol=1e-4, atol=1e-5)
    block(x).sum().backward()
    assert block.conv2_offset.weight.grad.abs().max() > 0


def test_make_stage():
    blocks = make_stage(
        BottleneckBlock,
        3,
        in_channels=4,
        out_channels=8,
        bottleneck_channels=4,
        stride=2,
        dilation_per_block=[1, 2, 4],
    )
    assert [b.in_channels for b in blocks] == [4, 8, 8]
    assert [b.stride for b in blocks] == [2, 1, 1]
    assert [b.conv2.dilation[0] for b in blocks] == [1, 2, 4]
    common = {"in_channels": 4, "out_channels": 4}
    with pytest.raises(ValueError, match=r"stride_per_block must have 2 values, got \[1\]"):
        make_stage(BasicBlock, 2, stride_per_block=[1], **common)
    with pytest.raises(ValueError, match="one of 'norm_per_block' and 'norm', got both"):
        make_stage(BasicBlock, 1, norm="BN", norm_per_block=["BN"], **common)
    with pytest.raises(ValueError, match="got 51"):
        ResNet.make_default_stages(51)


def tiny(out_features=None, num_classes=None, freeze_at=0, norm="BN"):
    stages = [
        make_stage(BasicBlock, 2, in_channels=4, out_channels=4, norm=norm),
        make_stage(BasicBlock, 1, in_channels=4, out_channels=8, stride=2, norm=norm),
        make_stage(BasicBlock, 1, in_channels=8, out_channels=12, stride=2, norm=norm),
    ]
    return ResNet(BasicStem(3, 4, norm), stages, num_classes, out_features, freeze_at)


def test_outputs():
    network = tiny(["res3", "stem"])
    assert network.stage_names == ("res2", "res3")  # what nobody wants is not built
    assert len(network.stages) == 2
    assert not hasattr(network, "res4")
    shapes = network.output_shape()
    assert shapes == {"res3": Shape(channels=8, stride=8), "stem": Shape(channels=4, stride=4)}
    assert list(shapes) == ["res3", "stem"]
    outputs = network(images(1, 3, 32, 48))
    assert {name: list(y.shape) for name, y in outputs.items()} == {
        "stem": [1, 4, 8, 12],
        "res3": [1, 8, 4, 6],
    }
    assert list(tiny().output_shape()) == ["res4"]
    assert network.size_divisibility == 0
    assert network.padding_constraints == {}
    classifier = tiny(num_classes=5)
    assert classifier.output_shape() == {"linear": Shape(channels=5)}
    assert classifier(images(2, 3, 32, 32))["linear"].shape == (2, 5)
    assert list(tiny(["linear", "res2"], 5)(images(2, 3, 32, 32))) == ["res2", "linear"]


def test_wrong_outputs_and_inputs():
    with pytest.raises(ValueError, match=r"some of \['res2', 'res3', 'res4', 'stem'\].*'res6'"):
        tiny(["res6"])
    with pytest.raises(ValueError, match=r"got \['linear'\]"):
        tiny(["linear"])
    with pytest.raises(ValueError, match="got none for 'res2'"):
        ResNet(BasicStem(), [[]])
    with pytest.raises(ValueError, match=r"\(N, C, H, W\), got torch.Size\(\[3, 8, 8\]\)"):
        tiny()(images(3, 8, 8))


@pytest.mark.parametrize("freeze_at", [0, 1, 2, 3, 9])
def test_freezing(freeze_at):
    network = tiny(freeze_at=freeze_at)
    names = list(tiny().state_dict())
    parts = ["stem", "res2", "res3", "res4"]
    for i, part in enumerate(parts):
        frozen = i < freeze_at
        module = getattr(network, part)
        assert all(p.requires_grad != frozen for p in module.parameters())
        kind = FrozenBatchNorm2d if frozen else nn.BatchNorm2d
        norms = [m for m in module.modules() if "Norm" in type(m).__name__]
        assert {type(m) for m in norms} == {kind}
    assert list(network.state_dict()) == names
    assert network.freeze(1) is network


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_programs():
    network = disturb(tiny(["stem", "res3"], norm="FrozenBN")).eval()
    x, other = images(1, 3, 32, 48), images(2, 3, 64, 32)
    torch._dynamo.reset()
    for program in (
        torch.jit.script(network),
        torch.jit.trace(network, x, strict=False),
        torch.compile(network, backend="eager", fullgraph=True),
    ):
        for inputs in (x, other):
            expected = network(inputs)
            outputs = program(inputs)
            assert outputs.keys() == expected.keys()
            for name, y in outputs.items():
                torch.testing.assert_close(y, expected[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype):
    network = disturb(tiny(["res4"], norm="FrozenBN"))
    x = images(2, 3, 64, 64)
    expected = network(x)["res4"]
    with torch.autocast("cpu", dtype=dtype):
        y = network(x)["res4"]
    y.float().sum().backward()
    assert all(p.grad.isfinite().all() for p in network.parameters())
    with torch.no_grad():
        z = network.to(dtype)(x.to(dtype))["res4"]
    for half in (y, z):
        assert half.dtype == dtype
        assert (half.float() - expected).norm() < 0.03 * expected.norm()


# By configuration


def test_build():
    cfg = get_cfg()
    cfg.MODEL.PIXEL_MEAN = [1.0, 2.0, 3.0, 4.0]
    backbone = build_backbone(cfg)
    assert backbone.stem.conv1.in_channels == 4
    assert list(backbone.output_shape()) == ["res4"]
    assert not backbone.res2[0].conv1.weight.requires_grad
    assert backbone.res3[0].conv1.weight.requires_grad
    assert backbone.res3[0].conv1.stride == (2, 2)
    assert build_backbone(cfg, Shape(channels=1)).stem.conv1.in_channels == 1


def test_dilated_res5():
    cfg = get_cfg()
    cfg.MODEL.RESNETS.OUT_FEATURES = ["res5"]
    cfg.MODEL.RESNETS.RES5_DILATION = 2
    backbone = build_backbone(cfg)
    assert backbone.output_shape()["res5"] == Shape(channels=2048, stride=16)
    assert {block.conv2.dilation for block in backbone.res5} == {(2, 2)}
    assert {block.conv2.dilation for block in backbone.res4} == {(1, 1)}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"RES5_DILATION": 3}, "RES5_DILATION must be 1 or 2, got 3"),
        ({"DEPTH": 49}, "got 49"),
        ({"DEPTH": 18}, "RES2_OUT_CHANNELS must be 64 for a depth of 18, got 256"),
        ({"DEPTH": 34, "RES2_OUT_CHANNELS": 64, "NUM_GROUPS": 2}, "NUM_GROUPS must be 1 .* got 2"),
        (
            {"DEPTH": 18, "RES2_OUT_CHANNELS": 64, "DEFORM_ON_PER_STAGE": [True] * 4},
            "DEFORM_ON_PER_STAGE must be .*False.* got .*True",
        ),
    ],
)
def test_wrong_configurations(options, message):
    cfg = get_cfg()
    for name, value in options.items():
        setattr(cfg.MODEL.RESNETS, name, value)
    with pytest.raises(ValueError, match=message):
        build_resnet_backbone(cfg, Shape(channels=3))


def test_registry():
    assert "build_resnet_backbone" in BACKBONE_REGISTRY
    cfg = get_cfg()
    cfg.MODEL.BACKBONE.NAME = "nothing"
    with pytest.raises(KeyError, match="nothing"):
        build_backbone(cfg)
    cfg.MODEL.BACKBONE.NAME = "make_linear"
    try:
        BACKBONE_REGISTRY._do_register("make_linear", lambda cfg, shape: nn.Linear(1, 1))
        with pytest.raises(TypeError, match="make_linear must make a Backbone, got Linear"):
            build_backbone(cfg)
    finally:
        del BACKBONE_REGISTRY._obj_map["make_linear"]
    with pytest.raises(TypeError, match="abstract"):
        Backbone()
    assert issubclass(BasicBlock, CNNBlockBase)


@pytest.mark.parametrize("kind", [BasicBlock, BottleneckBlock, DeformBottleneckBlock])
def test_subclass_that_sets_all_itself(kind):
    """As blocks of downstream projects, which call the ``__init__`` of CNNBlockBase."""

    class Own(kind):
        def __init__(self, in_channels, out_channels, stride=1):
            super(kind, self).__init__(in_channels, out_channels, stride)
            self.shortcut = None
            self.conv = nn.Conv2d(in_channels, out_channels, 1, stride=stride)

        def forward(self, x):
            return self.conv(x)

    block = Own(3, 4, stride=2)
    assert (block.in_channels, block.out_channels, block.stride) == (3, 4, 2)
    assert list(block.state_dict()) == ["conv.weight", "conv.bias"]
    assert block(images(1, 3, 4, 4)).shape == (1, 4, 2, 2)
