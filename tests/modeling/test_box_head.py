"""The box head's layers, names and shapes."""

import pytest
import torch

from detectron2.layers import ShapeSpec
from detectron2.modeling.roi_heads.box_head import FastRCNNConvFCHead

SHAPE = ShapeSpec(channels=4, height=6, width=5)


@pytest.mark.parametrize(
    ("conv_dims", "fc_dims", "output", "names"),
    [
        ([8, 6], [], (6, 6, 5), ["conv1.weight", "conv1.bias", "conv2.weight", "conv2.bias"]),
        ([], [9], (9, None, None), ["fc1.weight", "fc1.bias"]),
        ([8], [9], (9, None, None), ["conv1.weight", "conv1.bias", "fc1.weight", "fc1.bias"]),
    ],
)
def test_layers(conv_dims: list[int], fc_dims: list[int], output: tuple, names: list[str]) -> None:
    head = FastRCNNConvFCHead(SHAPE, conv_dims=conv_dims, fc_dims=fc_dims)
    assert list(head.state_dict()) == names
    spec = head.output_shape
    assert (spec.channels, spec.height, spec.width) == output
    x = torch.randn(3, 4, 6, 5)
    before = x.clone()
    y = head(x)
    assert y.shape == (3, *(size for size in output if size is not None))
    assert (y >= 0).all()
    assert torch.equal(x, before)
    assert head(x[:0]).shape[0] == 0
    torch.testing.assert_close(torch.jit.script(head)(x), y)
    torch.testing.assert_close(torch.compile(head, backend="eager", fullgraph=True)(x), y)


def test_norm_has_no_bias_beside_it() -> None:
    head = FastRCNNConvFCHead(SHAPE, conv_dims=[32], fc_dims=[], conv_norm="GN")
    assert list(head.state_dict()) == ["conv1.weight", "conv1.norm.weight", "conv1.norm.bias"]


def test_no_layers() -> None:
    with pytest.raises(ValueError, match="at least one layer"):
        FastRCNNConvFCHead(SHAPE, conv_dims=[], fc_dims=[])
