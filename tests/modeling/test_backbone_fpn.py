"""Feature pyramids, against torchvision's."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812
from torchvision.ops import FeaturePyramidNetwork

from detectron2.config import get_cfg
from detectron2.layers import ShapeSpec as Shape
from detectron2.modeling import FPN, Backbone, ResNet, build_backbone, make_stage
from detectron2.modeling.backbone.fpn import (
    LastLevelMaxPool,
    LastLevelP6P7,
    _assert_strides_are_log2_contiguous,
)
from detectron2.modeling.backbone.resnet import BasicBlock, BasicStem

CHANNELS = {"res3": 4, "res4": 6, "res5": 8}
STRIDES = {"res3": 8, "res4": 16, "res5": 32}


class Given(Backbone):
    """Feature maps made from the input, so that they depend on it."""

    def __init__(self, strides=STRIDES):
        super().__init__()
        self._out_features = list(strides)
        self._out_feature_strides = strides
        self._out_feature_channels = CHANNELS
        self.convs = nn.ModuleList(nn.Conv2d(3, CHANNELS[name], 1) for name in strides)

    def forward(self, x):
        outputs = {}
        for conv, (name, stride) in zip(self.convs, self._out_feature_strides.items()):  # noqa: B905
            outputs[name] = conv(F.avg_pool2d(x, stride))
        return outputs


def images(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def references(pyramid, features):
    """torchvision's pyramid, with the weights of ``pyramid``."""
    reference = FeaturePyramidNetwork(list(CHANNELS.values()), 5)
    for i, level in enumerate((3, 4, 5)):
        for name, blocks in (
            ("lateral", reference.inner_blocks),
            ("output", reference.layer_blocks),
        ):
            conv = getattr(pyramid, f"fpn_{name}{level}")
            blocks[i][0].load_state_dict(conv.state_dict())
    return list(reference(features).values())


@pytest.mark.parametrize("top", [None, "pool", "res5", "p5"])
def test_values(top):
    torch.manual_seed(0)
    top_block = {
        None: None,
        "pool": LastLevelMaxPool(),
        "res5": LastLevelP6P7(8, 5),
        "p5": LastLevelP6P7(5, 5, "p5"),
    }[top]
    bottom_up = Given()
    pyramid = FPN(bottom_up, list(CHANNELS), 5, top_block=top_block)
    for parameter in pyramid.parameters():
        nn.init.normal_(parameter)  # biases are 0 at first
    x = images(2, 3, 64, 96)
    features = bottom_up(x)
    expected = references(pyramid, features)
    if top == "pool":
        expected.append(expected[-1][:, :, ::2, ::2])
    elif top is not None:
        source = features["res5"] if top == "res5" else expected[-1]
        p6 = F.conv2d(source, top_block.p6.weight, top_block.p6.bias, 2, 1)
        p7 = F.conv2d(p6.clamp(min=0), top_block.p7.weight, top_block.p7.bias, 2, 1)
        expected += [p6, p7]
    outputs = pyramid(x)
    names = ["p3", "p4", "p5", "p6", "p7"][: len(expected)]
    assert list(outputs) == list(pyramid.output_shape()) == names
    for name, y in zip(names, expected, strict=True):
        torch.testing.assert_close(outputs[name], y, rtol=1e-4, atol=1e-4)
        assert pyramid.output_shape()[name] == Shape(channels=5, stride=2 ** int(name[1]))
    assert pyramid.size_divisibility == 32
    assert pyramid.padding_constraints == {"square_size": 0}


def test_average():
    torch.manual_seed(0)
    pyramid = FPN(Given(), ["res4", "res5"], 5, fuse_type="avg", square_pad=64)
    x = images(1, 3, 64, 64)
    features = pyramid.bottom_up(x)
    above = pyramid.fpn_lateral5(features["res5"])
    mean = (
        pyramid.fpn_lateral4(features["res4"])
        + above.repeat_interleave(2, 2).repeat_interleave(2, 3)
    ) / 2
    torch.testing.assert_close(pyramid(x)["p4"], pyramid.fpn_output4(mean))
    assert pyramid.padding_constraints == {"square_size": 64}


def test_parameters():
    pyramid = FPN(Given(), list(CHANNELS), 32, norm="GN", top_block=LastLevelP6P7(8, 32))
    names = [name for name, _ in pyramid.named_children()]
    levels = [f"fpn_{kind}{level}" for level in (3, 4, 5) for kind in ("lateral", "output")]
    assert names == [*levels, "top_block", "bottom_up"]
    assert pyramid.fpn_output3.bias is None
    assert pyramid.lateral_convs == [
        pyramid.fpn_lateral5,
        pyramid.fpn_lateral4,
        pyramid.fpn_lateral3,
    ]
    assert pyramid.output_convs[0] is pyramid.fpn_output5
    pyramid = FPN(Given(), list(CHANNELS), 32, top_block=LastLevelP6P7(8, 32))
    for conv in (pyramid.fpn_output3, pyramid.top_block.p7):
        # Uniform within sqrt(3 / fan in).
        bound = (3 / (32 * 9)) ** 0.5
        assert 0.99 * bound < conv.weight.abs().max() <= bound
        assert conv.bias.abs().max() == 0


def test_a_replaced_convolution_is_called():
    pyramid = FPN(Given(), list(CHANNELS), 5)
    pyramid.fpn_output4 = nn.Sequential(pyramid.fpn_output4, nn.Sigmoid())
    assert pyramid(images(1, 3, 32, 32))["p4"].min() >= 0


def test_wrong_arguments():
    with pytest.raises(ValueError, match="no in_features"):
        FPN(Given(), [], 5)
    with pytest.raises(ValueError, match="'sum' or 'avg', got 'max'"):
        FPN(Given(), ["res3"], 5, fuse_type="max")
    with pytest.raises(ValueError, match=r"twice the one before, got \[8, 32\]"):
        FPN(Given(), ["res3", "res5"], 5)
    _assert_strides_are_log2_contiguous([4, 8, 16])


@pytest.mark.parametrize(
    ("name", "features"),
    [
        ("build_resnet_fpn_backbone", ["p3", "p4", "p5", "p6"]),
        ("build_retinanet_resnet_fpn_backbone", ["p3", "p4", "p5", "p6", "p7"]),
    ],
)
def test_build(name, features):
    cfg = get_cfg()
    cfg.MODEL.BACKBONE.NAME = name
    cfg.MODEL.RESNETS.DEPTH = 18
    cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 64
    cfg.MODEL.RESNETS.OUT_FEATURES = cfg.MODEL.FPN.IN_FEATURES = ["res3", "res4", "res5"]
    cfg.MODEL.FPN.OUT_CHANNELS = 8
    cfg.MODEL.FPN.FUSE_TYPE = "avg"
    backbone = build_backbone(cfg)
    outputs = backbone(images(1, 3, 64, 64))
    assert list(outputs) == features
    assert [y.shape[-1] for y in outputs.values()] == [8, 4, 2, 1, 1][: len(features)]


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("top_block", [None, LastLevelMaxPool(), LastLevelP6P7(8, 5)])
def test_programs(top_block):
    torch.manual_seed(0)
    stages = [
        make_stage(BasicBlock, 1, in_channels=4, out_channels=4, norm="FrozenBN"),
        make_stage(BasicBlock, 1, in_channels=4, out_channels=8, stride=2, norm="FrozenBN"),
        make_stage(BasicBlock, 1, in_channels=8, out_channels=6, stride=2, norm="FrozenBN"),
        make_stage(BasicBlock, 1, in_channels=6, out_channels=8, stride=2, norm="FrozenBN"),
    ]
    bottom_up = ResNet(BasicStem(3, 4, "FrozenBN"), stages, out_features=["res4", "res5"])
    pyramid = FPN(bottom_up, ["res4", "res5"], 5, "LN", top_block, "avg").eval()
    programs = [torch.jit.script(pyramid)]
    if isinstance(top_block, LastLevelP6P7):
        torch._dynamo.reset()
        programs.append(torch.compile(pyramid, backend="eager", fullgraph=True))
    for program in programs:
        for x in (images(1, 3, 64, 96), images(1, 3, 96, 64)):
            expected = pyramid(x)
            outputs = program(x)
            assert list(outputs) == list(expected)
            for name, y in outputs.items():
                torch.testing.assert_close(y, expected[name], rtol=1e-4, atol=1e-5)
