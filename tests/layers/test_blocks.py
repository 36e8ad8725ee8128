"""Blocks of convolutional networks."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from detectron2.layers import CNNBlockBase, DepthwiseSeparableConv2d, FrozenBatchNorm2d, get_norm


class Block(CNNBlockBase):
    def __init__(self):
        super().__init__(3, 4, 2)
        self.conv = nn.Conv2d(3, 4, 3, stride=2)
        self.norms = nn.Sequential(nn.BatchNorm2d(4), nn.GroupNorm(2, 4))


def test_a_block_is_frozen_in_place():
    block = Block()
    assert (block.in_channels, block.out_channels, block.stride) == (3, 4, 2)
    names = list(block.state_dict())
    assert block.freeze() is block
    assert not any(parameter.requires_grad for parameter in block.parameters())
    assert type(block.norms[0]) is FrozenBatchNorm2d
    assert type(block.norms[1]) is nn.GroupNorm
    assert list(block.state_dict()) == names


def test_depthwise_separable_convolution():
    torch.manual_seed(0)
    conv = DepthwiseSeparableConv2d(
        6,
        9,
        kernel_size=5,
        padding=4,
        dilation=2,
        norm1="BN",
        activation1=F.relu,
        norm2=lambda channels: get_norm("LN", channels),
        activation2=torch.tanh,
    ).eval()
    x = torch.randn(2, 6, 9, 8)
    channels = [
        F.conv2d(x[:, i : i + 1], conv.depthwise.weight[i : i + 1], padding=4, dilation=2)
        for i in range(6)
    ]
    hidden = F.relu(conv.depthwise.norm(torch.cat(channels, dim=1)))
    mixed = torch.einsum("nihw,oi->nohw", hidden, conv.pointwise.weight[:, :, 0, 0])
    expected = torch.tanh(conv.pointwise.norm(mixed))
    torch.testing.assert_close(conv(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("norm", ["BN", "", None])
def test_a_norm_replaces_the_bias(norm):
    conv = DepthwiseSeparableConv2d(6, 9, norm1=norm, norm2=norm)
    names = [name.split(".")[1] for name in conv.state_dict()]
    assert ("bias" in names) is not bool(norm)
    assert conv(torch.zeros(2, 6, 5, 7)).shape == (2, 9, 5, 7)
    if not norm:
        assert not conv.depthwise.bias.any()


def test_initialisation_keeps_the_variance_of_gradients():
    """He et al., "Delving Deep into Rectifiers", 2015, equation 14."""
    torch.manual_seed(0)
    conv = DepthwiseSeparableConv2d(400, 300)
    # PyTorch counts the output channels of all groups.
    expected = (2 / (400 * 9)) ** 0.5
    assert conv.depthwise.weight.std().item() == pytest.approx(expected, rel=0.05)
    assert conv.pointwise.weight.std().item() == pytest.approx((2 / 300) ** 0.5, rel=0.05)
