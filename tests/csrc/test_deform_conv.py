"""torch.ops.detectron2.deform_conv against the definition written out in Python."""

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor

from detectron2._ops import deform_conv_composite

from .harness import (
    DTYPES,
    check_compiled,
    check_raises,
    check_traceable,
    on_each_device,
    strided,
)

deform_conv = torch.ops.detectron2.deform_conv
deform_conv_backward = torch.ops.detectron2.deform_conv_backward

NAMES = ("input", "offset", "mask", "weight", "bias")

# Batch, channels in and out, height, width, kernel, stride, padding, dilation, groups, offset
# groups.
PLAIN = (2, 4, 6, 5, 7, (3, 3), (1, 1), (1, 1), (1, 1), 1, 1)
SHAPES = [
    PLAIN,
    (1, 1, 1, 1, 1, (1, 1), (1, 1), (0, 0), (1, 1), 1, 1),
    (2, 3, 2, 9, 6, (1, 3), (2, 1), (0, 2), (1, 2), 1, 1),
    (1, 8, 4, 7, 8, (2, 3), (1, 2), (1, 0), (2, 1), 2, 4),
    (3, 12, 6, 4, 5, (3, 2), (2, 2), (2, 1), (1, 1), 3, 2),
    (2, 6, 6, 5, 4, (3, 3), (1, 1), (1, 1), (1, 1), 6, 6),
]
# As above, of sizes that fill the tiles of the tensor-core kernels, and of sizes just beside them.
LARGE_SHAPES = [
    (2, 64, 64, 17, 19, (3, 3), (1, 1), (1, 1), (1, 1), 1, 1),
    (1, 128, 256, 20, 31, (3, 3), (1, 1), (1, 1), (1, 1), 1, 1),
    (1, 256, 96, 13, 21, (3, 3), (2, 2), (1, 1), (1, 1), 1, 1),
    (2, 64, 128, 16, 16, (1, 1), (1, 1), (0, 0), (1, 1), 1, 1),
    (1, 64, 40, 11, 13, (5, 5), (1, 1), (4, 4), (2, 2), 1, 1),
    (1, 128, 128, 12, 15, (3, 3), (1, 1), (1, 1), (1, 1), 1, 4),
    (1, 128, 64, 12, 15, (3, 3), (1, 1), (1, 1), (1, 1), 2, 2),
    (1, 72, 56, 9, 14, (3, 3), (1, 1), (1, 1), (1, 1), 1, 1),
    (1, 36, 20, 9, 14, (3, 3), (1, 1), (1, 1), (1, 1), 1, 1),
    (1, 33, 17, 9, 14, (3, 3), (1, 1), (1, 1), (1, 1), 1, 1),
    (1, 64, 704, 6, 7, (3, 3), (1, 1), (1, 1), (1, 1), 1, 1),
]
# As above, with enough pixels for the largest tiles and those next to them.
MANY_PIXELS = [
    (2, 64, 256, 86, 78, (3, 3), (1, 1), (1, 1), (1, 1), 1, 1),
    (3, 72, 200, 70, 90, (3, 3), (1, 1), (1, 1), (1, 1), 1, 2),
    (2, 40, 160, 89, 83, (5, 4), (1, 1), (2, 1), (1, 1), 1, 1),
    (2, 64, 600, 60, 58, (1, 1), (1, 1), (0, 0), (1, 1), 1, 1),
    (2, 136, 128, 86, 78, (3, 3), (1, 1), (1, 1), (1, 1), 1, 1),
]


def convolution_of(shape: tuple) -> tuple:
    """The arguments of the operator that follow the tensors."""
    *_, stride, padding, dilation, groups, offset_groups = shape
    return list(stride), list(padding), list(dilation), groups, offset_groups


def output_size(shape: tuple) -> tuple[int, int]:
    _, _, _, height, width, kernel, stride, padding, dilation, _, _ = shape
    sizes = zip((height, width), kernel, stride, padding, dilation, strict=True)
    return tuple((size + 2 * p - d * (k - 1) - 1) // s + 1 for size, k, s, p, d in sizes)


def random_tensors(
    shape: tuple, dtype: torch.dtype, device: str = "cpu", seed: int = 0
) -> list[Tensor]:
    """input, offset, mask, weight, bias; points lie inside the input, at its border, beyond it.

    Offsets are odd multiples of 1/16, exact in every dtype and nowhere on a pixel, where the
    derivative jumps.
    """
    batch, channels, outputs, height, width, kernel, _, _, _, groups, offset_groups = shape
    taps = kernel[0] * kernel[1]
    rows, columns = output_size(shape)
    rng = np.random.default_rng(seed)
    points = rng.standard_normal((batch, offset_groups * taps * 2, rows, columns))
    arrays = [
        rng.standard_normal((batch, channels, height, width)),
        np.floor(points * 16) / 8 + 1 / 16,
        rng.uniform(0, 1, (batch, offset_groups * taps, rows, columns)),
        rng.standard_normal((outputs, channels // groups, *kernel)) / math.sqrt(channels * taps),
        rng.standard_normal(outputs),
    ]
    return [torch.from_numpy(array).to(dtype).to(device) for array in arrays]


def reference(
    input: Tensor,
    offset: Tensor,
    mask: Tensor | None,
    weight: Tensor,
    bias: Tensor | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
    offset_groups: int,
) -> Tensor:
    """The paper's sum over all pixels q of the input, weighted by ``max(0, 1 - |q - p|)`` along
    each axis, in float64; differentiable with respect to all tensors."""
    tensors = (input, offset, mask, weight, bias)
    input, offset, mask, weight, bias = (t if t is None else t.double().cpu() for t in tensors)
    batch, channels, height, width = input.shape
    outputs, _, rows, columns = weight.shape
    out_h, out_w = offset.shape[2:]

    def near(points: Tensor, size: int) -> Tensor:
        far = torch.where(points.isfinite(), points, -1e6)
        return (1 - (far[..., None] - torch.arange(size)).abs()).clamp(min=0)

    samples = []
    for g, i, j in itertools.product(range(offset_groups), range(rows), range(columns)):
        tap = (g * rows + i) * columns + j
        y = torch.arange(out_h)[:, None] * stride[0] - padding[0] + i * dilation[0]
        x = torch.arange(out_w)[None, :] * stride[1] - padding[1] + j * dilation[1]
        near_y = near(y + offset[:, 2 * tap], height)
        near_x = near(x + offset[:, 2 * tap + 1], width)
        shared = input.chunk(offset_groups, 1)[g]
        sample = torch.einsum("nyxh,nyxw,nchw->ncyx", near_y, near_x, shared)
        samples.append(sample if mask is None else sample * mask[:, tap : tap + 1])
    by_channel = torch.stack(samples).view(
        offset_groups, rows * columns, batch, channels // offset_groups, out_h, out_w
    )
    by_group = by_channel.permute(2, 0, 3, 1, 4, 5).reshape(
        batch, groups, channels // groups * rows * columns, out_h, out_w
    )
    kernels = weight.reshape(groups, outputs // groups, -1)
    result = torch.einsum("gok,ngkyx->ngoyx", kernels, by_group)
    result = result.reshape(batch, outputs, out_h, out_w)
    return result if bias is None else result + bias.view(-1, 1, 1)


def gradients(
    function: Callable[..., Tensor],
    tensors: list[Tensor | None],
    convolution: tuple,
    grad_output: Tensor,
) -> list[Tensor]:
    """The output, and the gradient of each tensor that is not None."""
    leaves = [t if t is None else t.detach().requires_grad_() for t in tensors]
    output = function(*leaves, *convolution)
    given = [leaf for leaf in leaves if leaf is not None]
    grads = torch.autograd.grad(output, given, grad_output.to(output))
    return [output.detach(), *grads]


def tolerance(dtype: torch.dtype) -> float:
    """Largest error, as a share of the largest value, or of 0.1 where sums cancel."""
    return {torch.float16: 4e-3, torch.bfloat16: 3e-2, torch.float32: 2e-5}.get(dtype, 1e-12)


def check_close(actual: list[Tensor], expected: list[Tensor], dtype: torch.dtype) -> None:
    for name, result, right in zip(("output", *NAMES), actual, expected, strict=False):
        assert result.shape == right.shape, name
        scale = max(0.1, right.double().abs().max().item()) if right.numel() else 0.1
        error = (result.double().cpu() - right.double().cpu()).abs()
        largest = error.max().item() if error.numel() else 0.0
        assert largest <= tolerance(dtype) * scale, (name, largest, scale)


def channels_last(tensor: Tensor) -> Tensor:
    if tensor.dim() != 4:
        return tensor
    return tensor.contiguous(memory_format=torch.channels_last)


@on_each_device
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", [Tensor.contiguous, strided, channels_last])
@pytest.mark.parametrize("modulated", [False, True])
def test_forward_and_backward(
    modulated: bool, layout: Callable[[Tensor], Tensor], dtype: torch.dtype, device: str
) -> None:
    shapes = SHAPES if layout is Tensor.contiguous and modulated else SHAPES[:1] + SHAPES[3:4]
    for shape in shapes:
        tensors = random_tensors(shape, dtype, device)
        if not modulated:
            tensors[2] = tensors[4] = None
        convolution = convolution_of(shape)
        grad = torch.randn(shape[0], shape[2], *output_size(shape)).to(dtype)
        expected = gradients(reference, tensors, convolution, grad)
        laid_out = [t if t is None else layout(t) for t in tensors]
        actual = gradients(deform_conv, laid_out, convolution, layout(grad.to(device)))
        given = [tensor for tensor in tensors if tensor is not None]
        assert [t.dtype for t in actual] == [dtype] * len(actual)
        assert [t.shape for t in actual[1:]] == [t.shape for t in given]
        check_close(actual, expected, dtype)


@on_each_device
@pytest.mark.parametrize("batch", [0, 1, 65, 130])
def test_any_batch(batch: int, device: str) -> None:
    """Upstream fails for a batch above im2col_step, 64, that is prime or has a large divisor."""
    shape = (batch, 2, 3, 4, 4, (3, 3), (2, 2), (1, 1), (1, 1), 1, 1)
    tensors = random_tensors(shape, torch.float32, device)
    grad = torch.randn(batch, 3, 2, 2)
    actual = gradients(deform_conv, tensors, convolution_of(shape), grad)
    expected = gradients(reference, tensors, convolution_of(shape), grad) if batch else [
        torch.zeros(0, 3, 2, 2), *(torch.zeros_like(tensor) for tensor in tensors)
    ]  # fmt: skip
    check_close(actual, expected, torch.float32)


@on_each_device
def test_several_chunks(device: str) -> None:
    """More samples than one chunk of columns holds."""
    shape = (2, 256, 8, 48, 50, (3, 3), (1, 1), (1, 1), (1, 1), 1, 2)
    tensors = random_tensors(shape, torch.float64, device)
    tensors[2] = torch.ones_like(tensors[2])
    grad = torch.randn(2, 8, 48, 50, dtype=torch.float64)
    actual = gradients(deform_conv, tensors, convolution_of(shape), grad)
    parts = [
        gradients(deform_conv, [*(t[n : n + 1] for t in tensors[:3]), *tensors[3:]],
                  convolution_of(shape), grad[n : n + 1])
        for n in range(2)
    ]  # fmt: skip
    joined = [torch.cat([first, second]) for first, second in zip(*parts, strict=True)]
    joined[4:] = [first + second for first, second in zip(parts[0][4:], parts[1][4:], strict=True)]
    check_close(actual, joined, torch.float64)


@on_each_device
def test_masks_of_one_change_nothing(device: str) -> None:
    tensors = random_tensors(PLAIN, torch.float32, device)
    tensors[2] = torch.ones_like(tensors[2])
    masked = deform_conv(*tensors, *convolution_of(PLAIN))
    tensors[2] = None
    plain = deform_conv(*tensors, *convolution_of(PLAIN))
    assert torch.equal(masked, plain)


@on_each_device
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_without_offsets_it_is_a_convolution(dtype: torch.dtype, device: str) -> None:
    for shape in SHAPES:
        input, offset, _, weight, bias = random_tensors(shape, dtype, device)
        stride, padding, dilation, groups, offset_groups = convolution_of(shape)
        actual = deform_conv(input, offset * 0, None, weight, bias, stride, padding, dilation,
                             groups, offset_groups)  # fmt: skip
        expected = torch.nn.functional.conv2d(
            input.double(), weight.double(), bias.double(), stride, padding, dilation, groups
        )
        check_close([actual], [expected], dtype)


@on_each_device
def test_as_torchvision(device: str) -> None:
    shape = (3, 8, 6, 9, 11, (3, 3), (2, 1), (1, 2), (1, 2), 2, 4)
    tensors = random_tensors(shape, torch.float64, device)
    stride, padding, dilation, _, _ = convolution_of(shape)

    def other(
        input: Tensor, offset: Tensor, mask: Tensor, weight: Tensor, bias: Tensor, *_: object
    ) -> Tensor:
        return torchvision.ops.deform_conv2d(
            input, offset, weight, bias, stride, padding, dilation, mask
        )

    grad = torch.randn(3, 6, *output_size(shape), dtype=torch.float64)
    actual = gradients(deform_conv, tensors, convolution_of(shape), grad)
    check_close(actual, gradients(other, tensors, convolution_of(shape), grad), torch.float64)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_composite(dtype: torch.dtype) -> None:
    """What devices without kernels of their own take."""
    for shape, modulated in ((PLAIN, True), (SHAPES[3], True), (SHAPES[4], False)):
        tensors = random_tensors(shape, dtype)
        tensors[1][0, 0, 0, 0] = math.nan
        tensors[1][0, 3, 0, 0] = math.inf
        if not modulated:
            tensors[2] = tensors[4] = None
        grad = torch.randn(shape[0], shape[2], *output_size(shape)).to(dtype)
        expected = gradients(deform_conv, tensors, convolution_of(shape), grad)
        output = deform_conv_composite.deform_conv(*tensors, *convolution_of(shape))
        results = deform_conv_composite.deform_conv_backward(
            grad, *tensors[:4], *convolution_of(shape), True, True
        )
        given = [result for result in results if modulated or result.numel()]
        check_close([output, *given], expected[: 1 + len(given)], dtype)
        for result, tensor in zip(given, [t for t in tensors if t is not None], strict=False):
            assert result.dtype == tensor.dtype


@on_each_device
@pytest.mark.parametrize("modulated", [False, True])
def test_gradcheck(modulated: bool, device: str) -> None:
    shape = (2, 4, 2, 4, 5, (2, 2), (1, 2), (1, 0), (1, 1), 2, 2)
    tensors = random_tensors(shape, torch.float64, device)
    if not modulated:
        tensors[2] = tensors[4] = None
    leaves = [t if t is None else t.requires_grad_() for t in tensors]
    # On CUDA the order of additions, and so the last bits, differ from run to run.
    nondet_tol = 1e-12 if device == "cuda" else 0.0
    assert torch.autograd.gradcheck(
        deform_conv, (*leaves, *convolution_of(shape)), nondet_tol=nondet_tol
    )


@on_each_device
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_offsets_that_are_not_finite(dtype: torch.dtype, device: str) -> None:
    shape = (1, 64, 64, 6, 6, (3, 3), (1, 1), (1, 1), (1, 1), 1, 1)
    tensors = random_tensors(shape, dtype, device)
    bad = torch.zeros(1, 9, 2, 6, 6, dtype=torch.bool, device=device)
    for number, value in enumerate((math.nan, math.inf, -math.inf)):
        for axis in range(2):
            bad[0, 3 * axis + number, axis, number::3] = True
            tensors[1][0, 2 * (3 * axis + number) + axis, number::3] = value
    grad = torch.randn(1, 64, 6, 6)
    output, *grads = gradients(deform_conv, tensors, convolution_of(shape), grad)
    check_close([output], [reference(*tensors, *convolution_of(shape))], dtype)
    lost = bad.any(2, keepdim=True)
    assert 0 < lost.sum() < lost.numel()
    assert (grads[1].view(1, 9, 2, 6, 6)[lost.expand_as(bad)] == 0).all()
    assert (grads[2][lost.squeeze(2)] == 0).all()
    # The rest as if those taps had a mask of zero.
    tensors[1] = torch.where(lost.expand_as(bad).reshape(1, 18, 6, 6), 0, tensors[1])
    tensors[2] = torch.where(lost.squeeze(2), 0, tensors[2])
    right = gradients(deform_conv, tensors, convolution_of(shape), grad)
    check_close([grads[0], grads[3], grads[4]], [right[1], right[4], right[5]], dtype)


@on_each_device
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_points_outside(dtype: torch.dtype, device: str) -> None:
    """A point a pixel or more outside counts as zero, whatever the pixels are."""
    shape = (1, 64, 64, 5, 5, (1, 1), (1, 1), (0, 0), (1, 1), 1, 1)
    input, offset, mask, weight, _ = random_tensors(shape, dtype, device)
    ys = torch.arange(5.0)
    for target, inside in ((-1.0, 0.0), (-0.5, 0.5), (5.0, 0.0), (4.5, 0.5), (1e4, 0.0)):
        offset = offset * 0
        offset[:, 0] = (target - ys)[:, None].to(offset)
        ones = torch.ones_like(input)
        actual = deform_conv(ones, offset, None, weight, None, *convolution_of(shape))
        whole = deform_conv(ones, offset * 0, None, weight, None, *convolution_of(shape))
        check_close([actual], [whole * inside], dtype)
    input = torch.full_like(input, math.inf)
    assert (deform_conv(input, offset, mask, weight, None, *convolution_of(shape)) == 0).all()
    mask = torch.full_like(mask, math.nan)
    assert deform_conv(input, offset, mask, weight, None, *convolution_of(shape)).isnan().all()


@on_each_device
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_offsets_and_masks_keep_float32(dtype: torch.dtype, device: str) -> None:
    """A ramp tells where it was sampled: at 100 pixels float16 has steps of 1/16, bfloat16 of 1/2.

    Upstream fails for dtypes that differ."""
    input = (torch.arange(256.0) % 8).expand(1, 64, 1, 256).to(dtype).to(device)
    offset = torch.zeros(1, 2, 1, 256, device=device)
    offset[0, 1, 0, 0] = 100.03125
    weight = torch.eye(64).view(64, 64, 1, 1).to(dtype).to(device)
    convolution = ([1, 1], [0, 0], [1, 1], 1, 1)
    output = deform_conv(input, offset, None, weight, None, *convolution)
    assert output.dtype == dtype
    assert (output[0, :, 0, 0] == torch.tensor(4.03125).to(dtype)).all()
    for mask in (torch.rand(1, 1, 1, 256), torch.rand(1, 1, 1, 256).to(dtype)):
        leaves = [t.requires_grad_() for t in (input.clone(), offset, mask.to(device), weight)]
        output = deform_conv(*leaves, None, *convolution)
        grads = torch.autograd.grad(output.sum(), leaves)
        assert [grad.dtype for grad in grads] == [leaf.dtype for leaf in leaves]


@on_each_device
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [PLAIN, LARGE_SHAPES[0]])
def test_same_bits_twice(shape: tuple, dtype: torch.dtype, device: str) -> None:
    tensors = random_tensors(shape, dtype, device)
    first = deform_conv(*tensors, *convolution_of(shape))
    for _ in range(3):
        assert torch.equal(deform_conv(*tensors, *convolution_of(shape)), first)
    if device == "cpu":
        grad = torch.randn(first.shape)
        once, again = (gradients(deform_conv, tensors, convolution_of(shape), grad) for _ in "ab")
        assert all(torch.equal(one, other) for one, other in zip(once, again, strict=True))


@pytest.mark.gpu
def test_backward_alerts_where_it_is_not_deterministic() -> None:
    tensors = random_tensors(PLAIN, torch.float32, "cuda")
    torch.use_deterministic_algorithms(True)
    try:
        for position in range(5):
            leaves = [t.detach().requires_grad_(i == position) for i, t in enumerate(tensors)]
            output = deform_conv(*leaves, *convolution_of(PLAIN))
            if position < 4:
                message = "deform_conv_backward on CUDA does not have a deterministic"
                with pytest.raises(RuntimeError, match=message):
                    output.sum().backward()
            else:  # the bias is a plain sum
                output.sum().backward()
    finally:
        torch.use_deterministic_algorithms(False)


def test_no_second_derivatives() -> None:
    tensors = [t.requires_grad_() for t in random_tensors(PLAIN, torch.float32)]
    output = deform_conv(*tensors, *convolution_of(PLAIN))
    (grad,) = torch.autograd.grad(output.square().sum(), tensors[0], create_graph=True)
    with pytest.raises(NotImplementedError, match="deform_conv has no second derivatives"):
        grad.sum().backward()


@on_each_device
def test_only_what_is_needed(device: str) -> None:
    tensors = random_tensors(PLAIN, torch.float32, device)
    grad = torch.randn(2, 6, 5, 7)
    everything = gradients(deform_conv, tensors, convolution_of(PLAIN), grad)[1:]
    for position in range(5):
        leaves = [t.detach().requires_grad_(i == position) for i, t in enumerate(tensors)]
        output = deform_conv(*leaves, *convolution_of(PLAIN))
        (alone,) = torch.autograd.grad(output, leaves[position], grad.to(device))
        torch.testing.assert_close(alone, everything[position], rtol=1e-5, atol=1e-5)
    input, offset, mask, weight, _ = tensors
    for data, for_weight in itertools.product((False, True), repeat=2):
        results = deform_conv_backward(
            grad.to(device), input, offset, mask, weight, *convolution_of(PLAIN), data, for_weight
        )
        sizes = [tuple(result.shape) for result in results]
        assert sizes[:3] == [tuple(t.shape) if data else (0,) for t in tensors[:3]]
        assert sizes[3] == (tuple(weight.shape) if for_weight else (0,))


@on_each_device
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_memory_format(dtype: torch.dtype, device: str) -> None:
    for shape in (PLAIN, LARGE_SHAPES[0]):
        for layout in (Tensor.contiguous, channels_last):
            tensors = random_tensors(shape, dtype, device)
            input = layout(tensors[0]).requires_grad_()
            output = deform_conv(input, *tensors[1:], *convolution_of(shape))
            (grad,) = torch.autograd.grad(output.sum(), input)
            for result in (output, grad):
                assert result.is_contiguous() == (layout is Tensor.contiguous)
                assert layout(result).stride() == result.stride()


@on_each_device
def test_autocast(device: str) -> None:
    tensors = random_tensors(PLAIN, torch.float32, device)
    dtype = torch.bfloat16
    low = [tensor.to(dtype) if i in (0, 3, 4) else tensor for i, tensor in enumerate(tensors)]
    expected = deform_conv(*low, *convolution_of(PLAIN))
    leaves = [tensor.requires_grad_() for tensor in tensors]
    with torch.autocast(device, dtype=dtype):
        output = deform_conv(*leaves, *convolution_of(PLAIN))
    assert output.dtype == dtype
    assert torch.equal(output, expected)
    output.sum().backward()
    assert all(leaf.grad.dtype == torch.float32 for leaf in leaves)
    wide = random_tensors(PLAIN, torch.float64, device)
    with torch.autocast(device, dtype=dtype):
        assert deform_conv(*wide, *convolution_of(PLAIN)).dtype == torch.float64


def test_errors_name_what_was_given() -> None:
    input, offset, mask, weight, bias = random_tensors(PLAIN, torch.float32)

    def check(message: str, *tensors: Tensor | None, **changes: object) -> None:
        names = ("stride", "padding", "dilation", "groups", "offset_groups")
        convolution = dict(zip(names, convolution_of(PLAIN), strict=True)) | changes
        check_raises(message, deform_conv, *tensors, *convolution.values())

    check(r"input must have the shape \(N, C, H, W\), got \(4, 5, 7\)",
          input[0], offset, mask, weight, bias)  # fmt: skip
    check(r"weight must have the shape \(O, C / groups, KH, KW\), got \(6, 4\)",
          input, offset, mask, weight[:, :, 0, 0], bias)  # fmt: skip
    check(r"weight must have.*C = 4 and groups = 1, got \(6, 2, 3, 3\)",
          input, offset, mask, weight[:, :2], bias)  # fmt: skip
    check(r"offset must have the shape.*got \(2, 16, 5, 7\)",
          input, offset[:, :16], mask, weight, bias)  # fmt: skip
    check(r"offset must have the shape.*got \(1, 18, 5, 7\)",
          input, offset[:1], mask, weight, bias)  # fmt: skip
    check(r"mask must have the shape.*got \(2, 9, 4, 7\)",
          input, offset, mask[:, :, 1:], weight, bias)  # fmt: skip
    check(r"bias must have the shape \(O,\), got \(5,\)", input, offset, mask, weight, bias[1:])
    check("weight must not be empty.*0, 4, 3, 3", input, offset, mask, weight[:0], bias)
    check("groups must divide the channels, got groups 4 with 4 channels of input and 6",
          input, offset, mask, weight, bias, groups=4)  # fmt: skip
    check("offset_groups must divide the channels of input, got 3 with 4",
          input, offset, mask, weight, bias, offset_groups=3)  # fmt: skip
    check("must be positive, got 0 and 1", input, offset, mask, weight, bias, groups=0)
    check("must be positive, got 1 and -1", input, offset, mask, weight, bias, offset_groups=-1)
    check("stride must be at least 1.*got 1 and 0",
          input, offset, mask, weight, bias, stride=[1, 0])  # fmt: skip
    check("padding must be at least 0.*got -1 and 1",
          input, offset, mask, weight, bias, padding=[-1, 1])  # fmt: skip
    check("at least one pixel, got -1 x 1 from an input of 5 x 7",
          input, offset, mask, weight, bias, padding=[0, 0], dilation=[3, 3])  # fmt: skip
    check("at least one pixel, got 0 x 1 from an input of 2 x 7",
          input[:, :, :2], offset[:, :, :1], mask[:, :, :1], weight, bias,
          padding=[0, 1], stride=[2, 9])  # fmt: skip
    check("input must be float32.*got int64", input.long(), offset, mask, weight, bias)
    check("offset must be float32.*got int32", input, offset.int(), mask, weight, bias)
    check("mask must be float32.*got bool", input, offset, mask.bool(), weight, bias)
    check("input and weight must have the same dtype, got float32 and float64",
          input, offset, mask, weight.double(), bias)  # fmt: skip
    check("input and bias must have the same dtype, got float32 and float16",
          input, offset, mask, weight, bias.half())  # fmt: skip
    check_raises(r"grad_output must have the shape.*got \(2, 6, 5, 6\)", deform_conv_backward,
                 torch.zeros(2, 6, 5, 6), input, offset, mask, weight,
                 *convolution_of(PLAIN), True, True)  # fmt: skip


@pytest.mark.gpu
def test_devices_must_be_the_same() -> None:
    for position in range(1, 5):
        tensors = random_tensors(PLAIN, torch.float32, "cuda")
        tensors[position] = tensors[position].cpu()
        message = f"input and {NAMES[position]} must be on the same device, got cuda:0 and cpu"
        check_raises(message, deform_conv, *tensors, *convolution_of(PLAIN))


@on_each_device
def test_tracing(device: str) -> None:
    for modulated, layout in ((False, Tensor.contiguous), (True, channels_last)):
        tensors = [layout(tensor) for tensor in random_tensors(PLAIN, torch.float32, device)]
        if not modulated:
            tensors[2] = tensors[4] = None
        leaves = [t if t is None else t.requires_grad_() for t in tensors]
        check_traceable(deform_conv, (*leaves, *convolution_of(PLAIN)))
        if device == "cpu":  # opcheck compares bits, and CUDA adds gradients in no fixed order
            grad = torch.ones(2, 6, 5, 7)
            given = [t if t is None else t.detach() for t in tensors[:4]]
            for needs in ((True, True), (True, False), (False, True)):
                arguments = (grad, *given, *convolution_of(PLAIN), *needs)
                check_traceable(deform_conv_backward, arguments)


@on_each_device
def test_compiled(device: str) -> None:
    def convolve(*tensors: Tensor) -> Tensor:
        return deform_conv(*tensors, *convolution_of(PLAIN))

    later = (3, 4, 6, 8, 9, *PLAIN[5:])
    check_compiled(
        convolve,
        tuple(random_tensors(PLAIN, torch.float32, device)),
        tuple(random_tensors(later, torch.float32, device)),
    )


def test_compiled_gradients_and_autocast() -> None:
    def loss(*tensors: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return deform_conv(*tensors, *convolution_of(PLAIN)).float().square().sum()

    torch._dynamo.reset()
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager", dynamic=True)
    for shape in (PLAIN, (3, 4, 6, 8, 9, *PLAIN[5:])):
        leaves = [tensor.requires_grad_() for tensor in random_tensors(shape, torch.float32)]
        expected = torch.autograd.grad(loss(*leaves), leaves)
        actual = torch.autograd.grad(compiled(*leaves), leaves)
        for name, result, right in zip(NAMES, actual, expected, strict=True):
            torch.testing.assert_close(result, right, rtol=1e-3, atol=1e-2, msg=name)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("shape", [*LARGE_SHAPES, *MANY_PIXELS])
def test_fused_kernels(shape: tuple, dtype: torch.dtype) -> None:
    """Against float64, which takes the general kernels, and the two memory formats alike."""
    for modulated in (False, True):
        tensors = random_tensors(shape, dtype, "cuda")
        if not modulated:
            tensors[2] = tensors[4] = None
        grad = torch.randn(shape[0], shape[2], *output_size(shape)).to(dtype)
        wide = [t if t is None else t.double() for t in tensors]
        expected = gradients(deform_conv, wide, convolution_of(shape), grad.double())
        for layout in (Tensor.contiguous, channels_last):
            laid_out = [None if t is None else layout(t) for t in tensors]
            actual = gradients(deform_conv, laid_out, convolution_of(shape), layout(grad).cuda())
            check_close(actual, expected, dtype)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_views_that_start_beside_16_bytes(dtype: torch.dtype) -> None:
    shape = LARGE_SHAPES[0]
    tensors = random_tensors(shape, dtype, "cuda")
    input = channels_last(tensors[0])
    storage = torch.cat([input.new_zeros(1), input.permute(0, 2, 3, 1).flatten()])
    view = storage.as_strided(input.shape, input.stride(), 1)
    assert view.data_ptr() % 16 != 0
    result = deform_conv(view, *tensors[1:], *convolution_of(shape))
    assert torch.equal(result, deform_conv(input, *tensors[1:], *convolution_of(shape)))


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("place", ["input", "weight", "grad"])
def test_values_that_are_not_finite_show(place: str, value: float, dtype: torch.dtype) -> None:
    """Whatever they reach in float64 is not finite here either: a diverging model is seen."""
    shape = LARGE_SHAPES[0]
    tensors = random_tensors(shape, dtype, "cuda")
    grad = torch.randn(2, 64, *output_size(shape)).to(dtype)
    changed = {"input": tensors[0], "weight": tensors[3], "grad": grad}[place]
    changed[1, 2, 1, 1] = value
    wide = [tensor.double() for tensor in tensors]
    expected = gradients(deform_conv, wide, convolution_of(shape), grad.double())
    actual = gradients(deform_conv, tensors, convolution_of(shape), grad)
    assert not all(right.isfinite().all() for right in expected)
    for result, right in zip(actual, expected, strict=True):
        assert not (result.isfinite() & ~right.isfinite()).any()
    if place != "grad":
        assert torch.equal(actual[0].isfinite(), expected[0].isfinite())


@on_each_device
def test_float32_keeps_small_values_beside_large_ones(device: str) -> None:
    """The fused kernels take a float32 apart into two float16 with a common scale."""
    shape = (2, 64, 64, 8, 9, (3, 3), (1, 1), (1, 1), (1, 1), 1, 1)
    tensors = random_tensors(shape, torch.float32, device)
    tensors[4] = None
    grad = torch.randn(2, 64, 8, 9, device=device)
    for tensor in (tensors[0], grad):
        tensor[1] *= 1e-4
    actual = gradients(deform_conv, tensors, convolution_of(shape), grad)
    expected = gradients(reference, tensors, convolution_of(shape), grad)
    for index in range(4):  # those with a batch
        for image, scale in enumerate((1.0, 1e-4 if index < 2 else 1e-8)):
            result, right = (x[index][image].double() / scale for x in (actual, expected))
            check_close([result], [right], torch.float32)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_large_batch_on_cuda(dtype: torch.dtype) -> None:
    shape = (130, 64, 64, 14, 14, (3, 3), (1, 1), (1, 1), (1, 1), 1, 1)
    tensors = random_tensors(shape, dtype, "cuda")
    grad = torch.randn(130, 64, 14, 14).to(dtype)
    actual = gradients(deform_conv, tensors, convolution_of(shape), grad)
    wide = [tensor.double() for tensor in tensors]
    check_close(actual, gradients(deform_conv, wide, convolution_of(shape), grad.double()), dtype)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_replayed_in_a_cuda_graph(dtype: torch.dtype) -> None:
    shape = LARGE_SHAPES[1]
    tensors = random_tensors(shape, dtype, "cuda")
    convolution = convolution_of(shape)

    def both() -> list[Tensor]:
        output = deform_conv(*tensors, *convolution)
        arguments = (output, *tensors[:4], *convolution, True, True)
        return [output, *deform_conv_backward(*arguments)]

    both()  # loads the kernels
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        replayed = both()
    for seed in (1, 2):
        for tensor, new in zip(tensors, random_tensors(shape, dtype, "cuda", seed), strict=True):
            tensor.copy_(new)
        graph.replay()
        expected = both()
        assert torch.equal(replayed[0], expected[0])
        check_close(replayed[1:], expected[1:], dtype)


@pytest.mark.gpu
@pytest.mark.slow
@pytest.mark.parametrize("offset_dtype", [torch.float16, torch.float32], ids=["fused", "general"])
def test_more_than_two_to_the_31_elements(offset_dtype: torch.dtype) -> None:
    """The last corner of a huge input and offset, as by itself. Takes up to 60 GB."""
    side, near, far = 1700, 64, 24
    groups = 16
    convolution = ([1, 1], [2, 2], [1, 1], 1, groups)
    make = {"device": "cuda", "generator": torch.Generator("cuda").manual_seed(0)}
    input = torch.randn(1, groups * 64, side, side, dtype=torch.float16, **make)
    offset = torch.randn(1, groups * 50, side, side, dtype=torch.float16, **make).to(offset_dtype)
    weight = torch.randn(16, groups * 64, 5, 5, dtype=torch.float16, **make) / 160
    assert min(input.numel(), offset.numel()) > 2**31

    def corner(tensor: Tensor, size: int) -> Tensor:
        return tensor[:, :, -size:, -size:]

    small = [corner(input, near).clone(), corner(offset, near).clone()]
    output = deform_conv(input, offset, None, weight, None, *convolution)
    expected = deform_conv(*small, None, weight, None, *convolution)
    check_close([corner(output, far)], [corner(expected, far)], torch.float16)
    grad = output.zero_()
    corner(grad, far).normal_(generator=make["generator"])
    small_grad = corner(grad, near).clone()
    arguments = (None, weight, *convolution, True, True)
    results = deform_conv_backward(grad, input, offset, *arguments)
    right = deform_conv_backward(small_grad, *small, *arguments)
    for index in (0, 1):
        check_close([corner(results[index], far)], [corner(right[index], far)], torch.float16)
    check_close([results[3]], [right[3]], torch.float16)


@pytest.mark.gpu
def test_cuda_gives_what_the_cpu_gives() -> None:
    for shape in (*SHAPES, LARGE_SHAPES[5], LARGE_SHAPES[7]):
        tensors = random_tensors(shape, torch.float32)
        grad = torch.randn(shape[0], shape[2], *output_size(shape))
        expected = gradients(deform_conv, tensors, convolution_of(shape), grad)
        on_gpu = [tensor.cuda() for tensor in tensors]
        actual = gradients(deform_conv, on_gpu, convolution_of(shape), grad.cuda())
        check_close(actual, expected, torch.float32)
