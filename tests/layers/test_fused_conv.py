"""Convolution with a frozen batch norm, ReLU and residual, against its parts one by one."""

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from detectron2.layers import Conv2d, FrozenBatchNorm2d
from detectron2.layers._fused_conv import _WITHOUT_KERNEL, fused_conv
from detectron2.layers.wrappers import conv_norm, conv_relu

FORMATS = [torch.contiguous_format, torch.channels_last]


def numbers(seed, *shape, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)


def layer(norm=True, bias=False, activation=None, dtype=torch.float64, **options):
    options = {"kernel_size": 3, "padding": 1, **options}
    norm = FrozenBatchNorm2d(6) if norm else None
    conv = Conv2d(4, 6, bias=bias, norm=norm, activation=activation, **options).to(dtype)
    for i, (name, tensor) in enumerate(conv.state_dict().items()):
        values = numbers(i, *tensor.shape)
        tensor.copy_(values.abs() + 0.5 if name.endswith("var") else values)
    return conv


def in_parts(conv, x, relu=False, residual=None):
    geometry = (conv.stride, conv.padding, conv.dilation, conv.groups)
    y = F.conv2d(x, conv.weight, conv.bias, *geometry)
    if conv.norm is not None:
        norm = conv.norm
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        y = (y - norm.running_mean[:, None, None]) * scale[:, None, None]
        y = y + norm.bias[:, None, None]
    if residual is not None:
        y = y + residual
    return y.relu() if relu else y


def results(function, conv, inputs):
    """The output, and the gradients of inputs and weights for a gradient of the output."""
    inputs = [x.clone(memory_format=torch.preserve_format).requires_grad_() for x in inputs]
    wanted = [*inputs, *conv.parameters()]
    y = function(*inputs)
    grad = numbers(99, *y.shape).to(y)
    return [y, *torch.autograd.grad(y, wanted, grad)]


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"stride": 2},
        {"dilation": 2, "padding": 2, "groups": 2},
        {"kernel_size": 1, "padding": 0, "stride": (2, 1)},
    ],
    ids=["plain", "strided", "dilated in groups", "1 x 1"],
)
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("adds", [False, True])
def test_values_and_gradients(options, relu, adds, memory_format):
    conv = layer(**options)
    x = numbers(1, 2, 4, 7, 8).contiguous(memory_format=memory_format)
    inputs = [x, numbers(2, *conv(x).shape)] if adds else [x]
    got = results(lambda *a: fused_conv(conv, conv.norm, a[0], relu, *a[1:]), conv, inputs)
    expected = results(lambda *a: in_parts(conv, a[0], relu, *a[1:]), conv, inputs)
    torch.testing.assert_close(got, expected)
    assert [g.stride() for g in got[-1:]] == [conv.weight.stride()]


@pytest.mark.parametrize("activation", [None, F.relu, nn.ReLU(inplace=True), torch.tanh])
@pytest.mark.parametrize(("norm", "bias"), [(True, False), (False, True), (False, False)])
def test_conv2d_gives_the_same(norm, bias, activation):
    conv = layer(norm, bias, activation)
    x = numbers(3, 2, 4, 5, 6)
    expected = results(lambda x: (activation or (lambda y: y))(in_parts(conv, x)), conv, [x])
    torch.testing.assert_close(results(conv, conv, [x]), expected)


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("options", [{}, {"padding_mode": "reflect"}, {"padding": "same"}])
def test_what_cannot_be_fused_is_not(norm, options):
    """Padding of other kinds, and a bias before a norm."""
    conv = layer(norm, bias=True, activation=F.relu, **options)
    plain = nn.Conv2d(4, 6, 3, **{"padding": 1, **options}).double()
    plain.load_state_dict({name: getattr(conv, name) for name in ("weight", "bias")})
    x = numbers(3, 2, 4, 5, 6)
    expected = plain(x) if conv.norm is None else conv.norm(plain(x))
    torch.testing.assert_close(conv(x), expected.relu())


def test_float64_stays_under_autocast():
    conv, x = layer(activation=F.relu), numbers(3, 2, 4, 5, 6)
    expected = conv(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(conv(x), expected)


def test_second_derivatives():
    conv = layer()
    inputs = [numbers(4, 1, 4, 3, 4).requires_grad_(), numbers(5, 1, 6, 3, 4).requires_grad_()]

    weight = conv.weight.detach().requires_grad_()
    del conv.weight

    def function(x, residual, weight):
        conv.weight = weight
        return fused_conv(conv, conv.norm, x, False, residual)

    assert torch.autograd.gradcheck(function, (*inputs, weight), fast_mode=True)
    assert torch.autograd.gradgradcheck(function, (*inputs, weight), fast_mode=True)


def test_several_gradients_at_once():
    conv = layer(activation=F.relu)
    leaves = (numbers(23, 2, 4, 5, 6).requires_grad_(), conv.weight)
    y = conv(leaves[0])
    grads = numbers(24, 3, *y.shape)
    one_by_one = [torch.autograd.grad(y, leaves, grad, retain_graph=True) for grad in grads]
    at_once = torch.autograd.grad(y, leaves, grads, is_grads_batched=True)
    for actual, expected in zip(at_once, zip(*one_by_one, strict=True), strict=True):
        torch.testing.assert_close(actual, torch.stack(expected))


def test_a_graph_that_is_kept_can_be_gone_through_again():
    conv = layer()
    x = numbers(23, 2, 4, 5, 6).requires_grad_()
    y = conv_relu(conv, conv_relu(layer(kernel_size=1, padding=0), x)[:, :4])
    grads = [torch.autograd.grad(y.sum(), [x, conv.weight], retain_graph=True) for _ in range(2)]
    torch.testing.assert_close(*grads)


@pytest.mark.parametrize("autocasts", [False, True])
def test_it_keeps_what_the_backward_pass_needs_and_no_more(autocasts):
    """Input, output, weight and scale; nothing between convolution, norm and ReLU. As autocast
    does, it keeps the copy of the weight in another dtype."""
    conv = layer(dtype=torch.float32)
    kept = []
    x = numbers(6, 2, 4, 16, 16).float().requires_grad_()
    with (
        torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()), lambda t: t),
        torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocasts),
    ):
        y = conv_relu(conv, x)
    weights = [conv.weight.numel()] * (2 if autocasts else 1)
    assert sorted(kept) == sorted([x.numel(), y.numel(), *weights, 6])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast(dtype):
    conv = layer(dtype=torch.float32)
    inputs = [numbers(7, 2, 4, 5, 6).float(), numbers(8, 2, 6, 5, 6).float()]
    with torch.autocast("cpu", dtype=dtype):
        got = results(lambda x, residual: conv_relu(conv, x, residual), conv, inputs)
    expected = results(lambda x, residual: in_parts(conv, x, True, residual), conv, inputs)
    assert [y.dtype for y in got] == [dtype, *[torch.float32] * 3]
    for y, wanted in zip(got, expected, strict=True):
        # Where rounding decides about the ReLU, a gradient is off.
        assert (y.float() - wanted).norm() < 0.05 * wanted.norm()


def test_half_precision_rounds_the_folded_weight_once():
    conv = layer(dtype=torch.float32)
    x = numbers(9, 2, 4, 5, 6).bfloat16()
    expected = in_parts(copy.deepcopy(conv).double(), x.double())
    y = conv.bfloat16()(x)
    assert y.dtype == torch.bfloat16
    assert (y.double() - expected).abs().max() < 0.1


# What must be seen


@pytest.mark.parametrize("grad", [False, True])
def test_changes_are_seen(grad):
    """Weights at once, however they change; statistics when they change as tensors do."""
    conv = layer()
    x = numbers(10, 1, 4, 5, 6)

    def check():
        with torch.set_grad_enabled(grad):
            torch.testing.assert_close(conv(x), in_parts(conv, x))

    check()
    conv.weight.data.mul_(2)
    check()
    with torch.no_grad():
        conv.weight.add_(1)
    check()
    conv.norm.running_var.mul_(3)
    check()
    conv.norm.weight = conv.norm.weight * 2
    check()
    conv.load_state_dict({name: 1 - 0.1 * t.abs() for name, t in conv.state_dict().items()})
    check()
    conv.norm.bias.data.add_(1)
    conv.eval()
    check()
    with torch.inference_mode():
        conv.norm.running_mean.add_(1)
        torch.testing.assert_close(conv(x), in_parts(conv, x))
    check()
    conv.float().double()
    check()


def test_statistics_of_inference_mode():
    """Such tensors do not count their changes."""
    with torch.inference_mode():
        conv = layer()
        x = numbers(11, 1, 4, 5, 6)
        for _ in range(2):
            torch.testing.assert_close(conv(x), in_parts(conv, x))
            conv.norm.bias.add_(1)


def test_nothing_kept_goes_into_copies_or_files():
    conv = layer()
    conv(numbers(12, 1, 4, 5, 6))
    names = ["weight", "norm.weight", "norm.bias", "norm.running_mean", "norm.running_var"]
    assert list(conv.state_dict()) == names
    for other in (copy.deepcopy(conv), pickle.loads(pickle.dumps(conv))):
        assert other.norm._affine_map is None
    assert conv.norm._affine_map is not None


def test_gradients_of_statistics():
    """None of this library asks for them; who does gets them."""
    conv = layer()
    conv.norm.weight.requires_grad_()
    conv(numbers(13, 1, 4, 5, 6)).sum().backward()
    assert conv.norm.weight.grad is not None


def test_hooks_see_the_parts():
    conv = layer()
    seen = []
    conv.norm.register_forward_hook(lambda module, args, output: seen.append("norm"))
    conv.register_forward_hook(lambda module, args, output: seen.append(output.min() < 0))
    x = numbers(14, 1, 4, 5, 6)
    torch.testing.assert_close(conv_relu(conv, x), in_parts(conv, x, True))
    assert seen == ["norm", True]


def test_global_hooks_see_the_parts():
    conv = layer(activation=nn.ReLU())
    seen = []
    handle = nn.modules.module.register_module_forward_hook(
        lambda module, args, output: seen.append(type(module))
    )
    try:
        conv(numbers(14, 1, 4, 5, 6))
    finally:
        handle.remove()
    assert seen == [FrozenBatchNorm2d, nn.ReLU, Conv2d]


@pytest.mark.parametrize("of", ["norm", "activation", "conv"])
def test_a_forward_of_the_instance_is_heeded(of):
    conv = layer(activation=None if of == "conv" else nn.ReLU())
    part = conv if of == "conv" else getattr(conv, of)
    part.forward = lambda x: torch.full_like(x, 3)
    x = numbers(14, 1, 4, 5, 6)
    assert (conv_relu(conv, x) == 3).all()


class Standardized(Conv2d):
    def _conv_forward(self, x, weight, bias):
        return super()._conv_forward(x, weight - weight.mean((1, 2, 3), keepdim=True), bias)


def test_subclasses_and_other_modules_do_what_they_do():
    conv = Standardized(4, 6, 3, bias=False, norm=FrozenBatchNorm2d(6))
    x = numbers(15, 1, 4, 5, 6, dtype=torch.float32)
    weight = conv.weight - conv.weight.mean((1, 2, 3), keepdim=True)
    torch.testing.assert_close(conv_relu(conv, x), F.conv2d(x, weight).relu())
    residual = numbers(16, 1, 4, 5, 6, dtype=torch.float32)
    torch.testing.assert_close(conv_relu(nn.Tanh(), x, residual), (x.tanh() + residual).relu())


def test_transforms_and_traces_see_the_parts():
    conv = layer(activation=F.relu)
    x = numbers(17, 3, 2, 4, 5, 6)
    y = torch.func.vmap(conv)(x)
    torch.testing.assert_close(y, torch.stack([in_parts(conv, one, True) for one in x]))
    for program in (
        torch.jit.trace(conv, x[0]),
        torch.export.export(conv, (x[0],)).module(),
        torch.compile(conv, backend="eager", fullgraph=True),
    ):
        torch.testing.assert_close(program(x[1]), in_parts(conv, x[1], True))
    nodes = {str(n.target) for n in torch.export.export(conv, (x[0],)).graph.nodes}
    assert {"aten.conv2d.default", "aten.relu.default"} <= nodes


@pytest.mark.gpu
@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float64, 1e-9), (torch.float32, 2e-3), (torch.float16, 5e-3), (torch.bfloat16, 4e-2)],
)
@pytest.mark.parametrize("options", [{}, {"groups": 2}, {"dilation": 2, "padding": 2}])
def test_cuda(dtype, tolerance, options, memory_format):
    """The output's memory held NaN before, which must not get into it."""
    conv = layer(**options).cuda()
    inputs = [numbers(18, 2, 4, 9, 10).cuda(), numbers(19, 2, 6, 9, 10).cuda()]
    expected = results(lambda x, residual: in_parts(conv, x, True, residual), conv, inputs)
    conv.to(dtype)
    inputs = [x.to(dtype).contiguous(memory_format=memory_format) for x in inputs]
    for adds in (True, False):
        torch.full((1 << 20,), float("nan"), device="cuda")
        got = results(lambda *a: conv_relu(conv, *a), conv, inputs if adds else inputs[:1])
        if not adds:
            expected = results(
                lambda x: in_parts(conv.double(), x.double(), True), conv, inputs[:1]
            )
        errors = [
            ((y.double() - wanted).norm() / wanted.norm()).item()
            for y, wanted in zip(got, expected, strict=True)
        ]
        assert errors[0] < tolerance
        # Where rounding decides about the ReLU, a gradient is off.
        assert max(errors[1:]) < (1e-9 if dtype == torch.float64 else 0.2)


@pytest.mark.gpu
def test_cuda_without_a_kernel(monkeypatch):
    def fail(*args):
        raise RuntimeError("no engine")

    monkeypatch.setattr(torch, "cudnn_convolution_relu", fail)
    conv = layer(dtype=torch.float32).cuda()
    x = numbers(20, 2, 4, 9, 10).float().cuda()
    before = set(_WITHOUT_KERNEL)
    try:
        torch.testing.assert_close(conv_relu(conv, x), in_parts(conv, x, True), rtol=0, atol=0.01)
        assert len(_WITHOUT_KERNEL) == len(before) + 1
    finally:
        _WITHOUT_KERNEL.intersection_update(before)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_cuda_needs_no_more_memory_than_an_ordinary_convolution(dtype):
    conv = nn.Conv2d(64, 64, 3, padding=1).cuda().to(dtype)
    fused = Conv2d(64, 64, 3, padding=1, activation=F.relu).cuda().to(dtype)

    def peak(function):
        x = numbers(22, 8, 64, 200, 200).to("cuda", dtype).requires_grad_()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        # The gradient is not held by anyone else.
        (function(x) * 1).sum().backward()
        return torch.cuda.max_memory_allocated() - before

    peak(fused), peak(lambda x: F.relu_(conv(x)))  # cuDNN has loaded its kernels then.
    bytes_of_map = 8 * 64 * 200 * 200 * dtype.itemsize
    assert peak(fused) < peak(lambda x: F.relu_(conv(x))) + bytes_of_map / 4


@pytest.mark.gpu
@torch.no_grad()
def test_cuda_graph():
    """A graph keeps nothing that goes away when the layer forgets what it knows."""
    conv = layer(dtype=torch.float32).cuda()
    x = numbers(21, 2, 4, 9, 10).float().cuda()
    expected = conv_relu(conv, x)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = conv_relu(conv, x)
    conv.eval()
    junk = [torch.full((6,), 1e6, device="cuda") for _ in range(100)]
    graph.replay()
    torch.testing.assert_close(y, expected)
    del junk


@pytest.mark.parametrize("activation", [None, nn.ReLU(inplace=True), nn.SiLU()])
def test_norms_that_are_other_modules(activation):
    """As RegNets have them."""
    plain = layer(norm=False)
    conv, norm = nn.Conv2d(4, 6, 3, padding=1, bias=False).double(), layer().norm
    conv.load_state_dict(plain.state_dict())
    plain.norm = norm
    inputs = [numbers(7, 2, 4, 7, 8)]

    def expected(x):
        y = in_parts(plain, x)
        return y if activation is None else activation(y.clone())

    got = results(lambda x: conv_norm(conv, norm, x, activation), conv, inputs)
    torch.testing.assert_close(got, [*results(expected, plain, inputs)])
    assert "_FusedConv" in type(fused_conv(conv, norm, *inputs).grad_fn).__name__
    for module, hook in ((conv, -1), (norm, 2), (activation, 3)):
        if module is not None:
            handle = module.register_forward_hook(lambda *a, hook=hook: a[2] * hook)
            torch.testing.assert_close(
                conv_norm(conv, norm, *inputs, activation),
                nn.Sequential(*filter(None, (conv, norm, activation)))(*inputs),
            )
            handle.remove()
