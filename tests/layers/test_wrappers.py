"""Thin layers over PyTorch: what they add, and that the rest is PyTorch's."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from detectron2 import layers
from detectron2.layers import (
    Conv2d,
    ShapeSpec,
    cat,
    cross_entropy,
    empty_input_loss_func_wrapper,
    move_device_like,
    nonzero_tuple,
    shapes_to_tensor,
)
from detectron2.layers.wrappers import (
    TORCH_VERSION,
    _NewEmptyTensorOp,
    check_if_dynamo_compiling,
    disable_torch_compiler,
)


def test_pytorch_originals():
    assert layers.BatchNorm2d is nn.BatchNorm2d
    assert layers.ConvTranspose2d is nn.ConvTranspose2d
    assert layers.Linear is nn.Linear
    assert layers.interpolate is F.interpolate
    assert tuple(int(part) for part in torch.__version__.split(".")[:2]) == TORCH_VERSION


def test_conv_normalises_then_activates():
    torch.manual_seed(0)
    x = torch.randn(2, 3, 8, 9)
    conv = Conv2d(3, 4, 3, stride=2, padding=1, norm=nn.BatchNorm2d(4), activation=torch.tanh)
    plain = F.conv2d(x, conv.weight, conv.bias, stride=2, padding=1)
    mean, var = plain.mean((0, 2, 3), keepdim=True), plain.var((0, 2, 3), False, keepdim=True)
    expected = torch.tanh((plain - mean) / (var + 1e-5).sqrt())
    torch.testing.assert_close(conv(x), expected, rtol=1e-4, atol=1e-5)
    assert [name for name in conv.state_dict() if name.startswith("norm.")] == [
        "norm.weight",
        "norm.bias",
        "norm.running_mean",
        "norm.running_var",
        "norm.num_batches_tracked",
    ]


def test_conv_without_extras_is_pytorchs():
    torch.manual_seed(0)
    conv = Conv2d(3, 4, 3, padding=1, padding_mode="reflect", bias=False)
    assert isinstance(conv, nn.Conv2d)
    assert list(conv.state_dict()) == ["weight"]
    plain = nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect", bias=False)
    plain.load_state_dict(conv.state_dict())
    x = torch.randn(1, 3, 6, 6)
    assert torch.equal(conv(x), plain(x))


def test_conv_on_an_empty_batch():
    conv = Conv2d(3, 4, 3, stride=2, padding=1, activation=F.relu)
    x = torch.zeros(0, 3, 8, 10, requires_grad=True)
    y = conv(x)
    assert y.shape == (0, 4, 4, 5)
    y.sum().backward()
    assert conv.weight.grad is not None
    assert x.grad.shape == x.shape


def test_sync_batch_norm_rejects_an_empty_batch_only_in_training():
    conv = Conv2d(3, 4, 1, norm=nn.SyncBatchNorm(4))
    with pytest.raises(ValueError, match=r"\[0, 3, 5, 5\]"):
        conv(torch.zeros(0, 3, 5, 5))
    assert conv.eval()(torch.zeros(0, 3, 5, 5)).shape == (0, 4, 5, 5)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_conv_scripted_and_compiled():
    x = torch.ones(1, 3, 5, 5)
    for conv in (Conv2d(3, 4, 3), Conv2d(3, 4, 3, norm=nn.BatchNorm2d(4), activation=nn.ReLU())):
        conv.eval()
        assert torch.equal(torch.jit.script(conv)(x), conv(x))
        assert torch.equal(torch.compile(conv, backend="eager", fullgraph=True)(x), conv(x))


def test_cat():
    a = torch.ones(2, 3)
    assert cat([a]) is a
    assert torch.equal(cat((a, a * 2), dim=1), torch.cat([a, a * 2], dim=1))
    with pytest.raises(TypeError, match="got Tensor"):
        cat(a)


def test_losses_of_nothing_are_zero_and_stay_on_the_graph():
    logits = torch.zeros(0, 4, requires_grad=True)
    nothing = torch.zeros(0, dtype=torch.int64)
    assert F.cross_entropy(logits, nothing).isnan()
    loss = cross_entropy(logits, nothing)
    assert loss.item() == 0
    loss.backward()
    assert logits.grad.shape == (0, 4)
    assert cross_entropy(logits, nothing, reduction="none").shape == (0,)

    logits, target = torch.randn(5, 4), torch.tensor([0, 3, -100, 1, 2])
    weight = torch.tensor([1.0, 2, 3, 4])
    for reduction in ("mean", "sum", "none"):
        options = {"reduction": reduction, "weight": weight, "ignore_index": -100}
        assert torch.equal(
            cross_entropy(logits, target, **options), F.cross_entropy(logits, target, **options)
        )
    wrapped = empty_input_loss_func_wrapper(F.mse_loss)
    assert wrapped(torch.ones(0), torch.ones(0)).item() == 0
    assert wrapped(torch.ones(3), torch.zeros(3), reduction="sum").item() == 3


def test_nonzero_tuple():
    for x in (torch.rand(3, 4, 2) > 0.5, torch.zeros(0, 3), torch.tensor([1, 0, 2])):
        expected = x.nonzero(as_tuple=True)
        result = nonzero_tuple(x)
        assert len(result) == len(expected)
        assert all(map(torch.equal, result, expected))
    assert [t.tolist() for t in nonzero_tuple(torch.tensor(5))] == [[0]]


def test_shapes_to_tensor():
    assert torch.equal(shapes_to_tensor([4, 5]), torch.tensor([4, 5]))
    assert shapes_to_tensor([4, 5], torch.device("meta")).device.type == "meta"


def size_on_device_of(x: torch.Tensor, y: torch.Tensor):
    """At module level, since TorchScript reads the source."""
    return move_device_like(shapes_to_tensor([x.shape[0], x.shape[1]]), y)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.filterwarnings("error::torch.jit.TracerWarning")
def test_sizes_stay_dynamic_in_scripts_and_traces():
    example = torch.zeros(2, 3), torch.zeros(1)
    for function in (
        torch.jit.script(size_on_device_of),
        torch.jit.trace(size_on_device_of, example),
    ):
        assert function(torch.zeros(7, 9), torch.zeros(1)).tolist() == [7, 9]


def test_compiler_helpers():
    def is_compiling(x):
        return x + 1 if check_if_dynamo_compiling() else x - 1

    zero = torch.zeros(())
    assert not check_if_dynamo_compiling()
    assert is_compiling(zero).item() == -1
    assert torch.compile(is_compiling, backend="eager")(zero).item() == 1

    left_out = disable_torch_compiler(is_compiling)
    assert torch.compile(lambda x: left_out(x + 10), backend="eager")(zero).item() == 9


def test_new_empty_tensor_stays_on_the_graph():
    x = torch.zeros(0, 3, requires_grad=True)
    y = _NewEmptyTensorOp.apply(x, (0, 7, 2))
    assert y.shape == (0, 7, 2)
    y.sum().backward()
    assert x.grad.shape == (0, 3)


def test_shape_spec():
    spec = ShapeSpec(channels=3, stride=8)
    assert spec == ShapeSpec(3, None, None, 8)
    assert spec != ShapeSpec(3)
    assert repr(spec) == "ShapeSpec(channels=3, height=None, width=None, stride=8)"
