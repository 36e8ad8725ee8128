"""The functions and modules around the deformable convolution operator."""

import inspect

import pytest
import torch
from torch import nn

from detectron2.layers import DeformConv, ModulatedDeformConv
from detectron2.layers.deform_conv import deform_conv, modulated_deform_conv

BOTH = [DeformConv, ModulatedDeformConv]


def make_inputs(conv, batch=2, size=(9, 11), seed=0):
    """What ``conv`` takes: x, offset and, for v2, mask."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, conv.in_channels, *size, generator=generator)
    plain = nn.Conv2d(
        conv.in_channels, 1, conv.kernel_size, conv.stride, conv.padding, conv.dilation
    )
    out_size = plain(x).shape[2:]
    taps = conv.kernel_size[0] * conv.kernel_size[1] * conv.deformable_groups
    offset = torch.randn(batch, 2 * taps, *out_size, generator=generator)
    mask = torch.rand(batch, taps, *out_size, generator=generator)
    return (x, offset) if isinstance(conv, DeformConv) else (x, offset, mask)


def without_offsets(inputs):
    """With all taps where those of a plain convolution are."""
    x, offset, *mask = inputs
    return (x, offset * 0, *(torch.ones_like(m) for m in mask))


@pytest.mark.parametrize("cls", BOTH)
@pytest.mark.parametrize(
    "kwargs",
    [
        {"kernel_size": 3},
        {"kernel_size": 3, "stride": 2, "padding": 2, "dilation": 2},
        {"kernel_size": (1, 3), "stride": (2, 1), "padding": (0, 1), "groups": 2},
        {"kernel_size": 3, "padding": 1, "groups": 2, "deformable_groups": 4},
    ],
)
def test_without_offsets_it_is_conv2d(cls, kwargs):
    conv = cls(4, 6, **kwargs)
    kwargs = {name: value for name, value in kwargs.items() if name != "deformable_groups"}
    plain = nn.Conv2d(4, 6, bias=conv.bias is not None, **kwargs)
    if conv.bias is not None:
        nn.init.normal_(conv.bias)
    plain.load_state_dict(conv.state_dict())
    inputs = without_offsets(make_inputs(conv))
    torch.testing.assert_close(conv(*inputs), plain(inputs[0]), rtol=1e-4, atol=1e-5)


def test_modules_call_the_functions():
    v1 = DeformConv(4, 6, 3, stride=2, padding=1, groups=2, deformable_groups=2)
    x, offset = make_inputs(v1)
    expected = deform_conv(x, offset, v1.weight, 2, 1, 1, 2, 2, 64)
    assert torch.equal(v1(x, offset), expected)

    v2 = ModulatedDeformConv(4, 6, 3, stride=2, padding=1, groups=2, deformable_groups=2)
    nn.init.normal_(v2.bias)
    x, offset, mask = make_inputs(v2)
    expected = modulated_deform_conv(x, offset, mask, v2.weight, v2.bias, 2, 1, 1, 2, 2)
    assert torch.equal(v2(x, offset, mask), expected)


def test_a_mask_of_one_changes_nothing():
    v1 = DeformConv(4, 6, 3, padding=1)
    v2 = ModulatedDeformConv(4, 6, 3, padding=1, bias=False)
    v2.load_state_dict(v1.state_dict())
    x, offset, mask = make_inputs(v2)
    assert torch.equal(v2(x, offset, torch.ones_like(mask)), v1(x, offset))


@pytest.mark.parametrize("cls", BOTH)
def test_norm_and_activation(cls):
    conv = cls(4, 6, 3, padding=1, norm=nn.GroupNorm(2, 6), activation=torch.tanh)
    nn.init.normal_(conv.norm.weight)
    inputs = make_inputs(conv)
    bare = cls(4, 6, 3, padding=1)
    bare.load_state_dict(conv.state_dict(), strict=False)
    assert torch.equal(conv(*inputs), torch.tanh(conv.norm(bare(*inputs))))


@pytest.mark.parametrize("cls", BOTH)
@pytest.mark.parametrize("stride", [2, (2, 1)])
def test_empty_batch(cls, stride):
    """Upstream raises TypeError for ModulatedDeformConv with an int stride."""
    conv = cls(4, 6, 3, stride=stride, padding=1, norm=nn.BatchNorm2d(6))
    inputs = [tensor.requires_grad_() for tensor in make_inputs(conv, batch=0)]
    output = conv(*inputs)
    assert output.shape == (0, 6, 5, 6 if stride == 2 else 11)
    assert (conv.norm.running_mean == 0).all()
    output.sum().backward()
    assert (conv.weight.grad == 0).all()
    assert all(tensor.grad.shape == tensor.shape for tensor in inputs)


@pytest.mark.parametrize("cls", BOTH)
@pytest.mark.parametrize("batch", [65, 67])
def test_batches_beyond_upstreams_im2col_step(cls, batch):
    conv = cls(2, 3, 3)
    inputs = make_inputs(conv, batch=batch, size=(4, 5))
    singly = [conv(*(tensor[n : n + 1] for tensor in inputs)) for n in range(batch)]
    torch.testing.assert_close(conv(*inputs), torch.cat(singly))


@pytest.mark.parametrize("cls", BOTH)
def test_gradients_on_the_cpu(cls):
    """Upstream raises NotImplementedError."""
    conv = cls(2, 2, 2, groups=2, deformable_groups=2).double()
    inputs = [t.double().requires_grad_() for t in make_inputs(conv, batch=1, size=(3, 4))]
    assert torch.autograd.gradcheck(conv, inputs)
    conv(*inputs).sum().backward()
    assert all(parameter.grad is not None for parameter in conv.parameters())


def test_init_attributes_and_repr():
    torch.manual_seed(0)
    v1 = DeformConv(4, 6, 3, stride=2, padding=1)
    assert v1.bias is None
    assert list(v1.state_dict()) == ["weight"]
    assert (v1.kernel_size, v1.stride, v1.padding, v1.dilation) == ((3, 3), (2, 2), (1, 1), (1, 1))
    bound = (6 / (4 * 9)) ** 0.5
    assert 0.8 * bound < v1.weight.abs().max() <= bound
    assert repr(v1) == (
        "DeformConv(in_channels=4, out_channels=6, kernel_size=(3, 3), stride=(2, 2), "
        "padding=(1, 1), dilation=(1, 1), groups=1, deformable_groups=1, bias=False)"
    )
    v2 = ModulatedDeformConv(4, 6, 3, stride=2, padding=1, groups=2)
    assert list(v2.state_dict()) == ["weight", "bias"]
    assert v2.weight.shape == (6, 2, 3, 3)
    assert (v2.bias == 0).all()
    assert (v2.stride, v2.padding, v2.dilation, v2.with_bias) == (2, 1, 1, True)
    assert repr(v2) == (
        "ModulatedDeformConv(in_channels=4, out_channels=6, kernel_size=(3, 3), stride=2, "
        "padding=1, dilation=1, groups=2, deformable_groups=1, bias=True)"
    )
    assert ModulatedDeformConv(4, 6, 3, bias=False).bias is None


def test_signatures():
    assert list(inspect.signature(deform_conv).parameters) == [
        "input", "offset", "weight", "stride", "padding", "dilation", "groups",
        "deformable_groups", "im2col_step",
    ]  # fmt: skip
    assert list(inspect.signature(modulated_deform_conv).parameters) == [
        "input", "offset", "mask", "weight", "bias", "stride", "padding", "dilation", "groups",
        "deformable_groups",
    ]  # fmt: skip


def test_errors():
    with pytest.raises(ValueError, match="no bias, got bias=True"):
        DeformConv(4, 6, 3, bias=True)
    for cls in BOTH:
        with pytest.raises(ValueError, match="in_channels must be divisible by groups, got 4 and"):
            cls(4, 6, 3, groups=3)
        with pytest.raises(ValueError, match="out_channels must be divisible by groups, got 6 and"):
            cls(4, 6, 3, groups=4)
        with pytest.raises(ValueError, match="by deformable_groups, got 4 and 3"):
            cls(4, 6, 3, deformable_groups=3)
        conv = cls(4, 6, 3, dilation=2)
        inputs = make_inputs(conv)
        with pytest.raises(ValueError, match=r"got \[4, 9, 11\]"):
            conv(inputs[0][0], *inputs[1:])
        with pytest.raises(ValueError, match=r"does not fit into an input of \[2, 4, 4, 11\]"):
            conv(inputs[0][:, :, :4], *inputs[1:])
        with pytest.raises(RuntimeError, match="deform_conv: offset must have the shape"):
            conv(inputs[0], inputs[1][:, 1:], *inputs[2:])


@pytest.mark.parametrize("cls", BOTH)
def test_compiled_for_any_size(cls):
    conv = cls(4, 6, 3, stride=2, padding=1, norm=nn.GroupNorm(2, 6), activation=torch.relu)
    torch._dynamo.reset()
    compiled = torch.compile(conv, fullgraph=True, backend="aot_eager", dynamic=True)
    for number, (batch, size) in enumerate([(2, (10, 13)), (3, (12, 8))]):
        inputs = [tensor.requires_grad_() for tensor in make_inputs(conv, batch, size)]
        with torch.compiler.set_stance("default" if number == 0 else "fail_on_recompile"):
            actual = compiled(*inputs)
        expected = conv(*inputs)
        torch.testing.assert_close(actual, expected)
        grads = torch.autograd.grad(actual.square().sum(), inputs)
        right = torch.autograd.grad(expected.square().sum(), inputs)
        torch.testing.assert_close(grads, right)


@pytest.mark.parametrize("cls", BOTH)
def test_exported(cls):
    conv = cls(4, 6, 3, padding=1, activation=torch.relu).eval()
    inputs = make_inputs(conv)
    expected = conv(*inputs)
    with torch.no_grad():
        assert torch.equal(torch.export.export(conv, inputs).module()(*inputs), expected)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("cls", BOTH)
def test_cuda_gives_what_the_cpu_gives(cls, dtype):
    torch.manual_seed(0)
    conv = cls(64, 64, 3, padding=1, bias=False).to(dtype)
    inputs = [tensor.to(dtype) for tensor in make_inputs(conv)]
    expected = conv(*inputs)
    conv = conv.cuda()
    tolerance = 1e-4 if dtype == torch.float32 else 2e-2
    for memory_format in (torch.contiguous_format, torch.channels_last):
        x = inputs[0].cuda().to(memory_format=memory_format)
        result = conv(x, *(tensor.cuda() for tensor in inputs[1:]))
        assert result.is_contiguous(memory_format=memory_format)
        torch.testing.assert_close(result.cpu(), expected, rtol=tolerance, atol=tolerance)
