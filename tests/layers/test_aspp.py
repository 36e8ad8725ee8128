"""Atrous spatial pyramid pooling, against its branches written out."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from detectron2.layers import ASPP, Conv2d, DepthwiseSeparableConv2d

DILATIONS = [1, 2, 3]


def make_aspp(**options):
    torch.manual_seed(0)
    arguments = {"norm": "BN", "activation": nn.ReLU(), **options}
    return ASPP(6, 8, DILATIONS, **arguments).eval()


def pool(x, window):
    """Means of all windows at stride 1, or of the whole image."""
    if window is None:
        return x.mean((2, 3), keepdim=True)
    return x.unfold(2, window[0], 1).unfold(3, window[1], 1).mean((4, 5))


@pytest.mark.parametrize("window", [None, (6, 8), (12, 16)])
def test_branches(window):
    aspp = make_aspp(pool_kernel_size=window)
    x = torch.randn(2, 6, 12, 16)
    branches = [F.relu(aspp.convs[0].norm(F.conv2d(x, aspp.convs[0].weight)))]
    for conv, dilation in zip(aspp.convs[1:4], DILATIONS, strict=True):
        y = F.conv2d(x, conv.weight, padding=dilation, dilation=dilation)
        branches.append(F.relu(conv.norm(y)))
    pooled = F.relu(F.conv2d(pool(x, window), aspp.convs[4][1].weight, aspp.convs[4][1].bias))
    branches.append(F.interpolate(pooled, (12, 16), mode="bilinear", align_corners=False))
    mixed = F.conv2d(torch.cat(branches, dim=1), aspp.project.weight)
    expected = F.relu(aspp.project.norm(mixed))
    torch.testing.assert_close(aspp(x), expected, rtol=1e-4, atol=1e-5)


def test_depthwise_separable_branches():
    aspp = make_aspp(use_depthwise_separable_conv=True)
    assert [type(conv) for conv in aspp.convs] == [
        Conv2d,
        *[DepthwiseSeparableConv2d] * 3,
        nn.Sequential,
    ]
    assert [conv.depthwise.dilation[0] for conv in aspp.convs[1:4]] == DILATIONS
    assert aspp(torch.zeros(1, 6, 5, 7)).shape == (1, 8, 5, 7)


@pytest.mark.parametrize("is_separable", [False, True])
def test_biases_stand_where_there_is_no_norm(is_separable):
    for norm in ("", "BN"):
        aspp = make_aspp(norm=norm, use_depthwise_separable_conv=is_separable)
        biases = {
            name: conv.bias is not None
            for name, conv in aspp.named_modules()
            if isinstance(conv, Conv2d)
        }
        assert biases.pop("convs.4.1")
        assert set(biases.values()) == {norm == ""}
        for conv in aspp.modules():
            if isinstance(conv, Conv2d) and conv.bias is not None:
                assert not conv.bias.any()


def test_activations_share_no_parameters():
    aspp = make_aspp(activation=nn.PReLU())
    assert len([module for module in aspp.modules() if isinstance(module, nn.PReLU)]) == 6


def test_dropout_acts_in_training_only():
    x = torch.randn(2, 6, 12, 16)
    aspp = make_aspp(dropout=0.5, norm="", activation=nn.Identity())
    expected = aspp(x)
    y = aspp.train()(x)
    dropped = y == 0
    assert 0.4 < dropped.float().mean() < 0.6
    torch.testing.assert_close(y[~dropped], 2 * expected[~dropped])
    without = make_aspp(norm="", activation=nn.Identity())
    torch.testing.assert_close(without.train()(x), expected)


def test_bad_arguments_raise_with_the_values():
    aspp = make_aspp(pool_kernel_size=(6, 8))
    with pytest.raises(ValueError, match=r"6 x 8, got an input of \[2, 6, 13, 16\]"):
        aspp(torch.zeros(2, 6, 13, 16))
    with pytest.raises(ValueError, match=r"3 dilations, got \[1, 2\]"):
        ASPP(6, 8, [1, 2], norm="", activation=nn.ReLU())
