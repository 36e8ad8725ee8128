"""torch.ops.detectron2.roi_align_rotated_* against sampling written out in Python."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from .harness import (
    DTYPES,
    check_compiled,
    check_raises,
    check_traceable,
    interpolate,
    on_each_device,
    strided,
)

roi_align_rotated_forward = torch.ops.detectron2.roi_align_rotated_forward
roi_align_rotated_backward = torch.ops.detectron2.roi_align_rotated_backward

CHANNELS, HEIGHT, WIDTH = 3, 14, 18
# Of the values that follow input and rois: scale, bins in each direction, samples.
POOLINGS = [(0.5, 3, 4, 2), (1.0, 2, 2, 0), (0.25, 1, 5, 1)]


def reference(
    input: Tensor, rois: Tensor, scale: float, rows: int, columns: int, sampling_ratio: int
) -> Tensor:
    images = input.double().cpu().numpy()
    pooled = np.zeros((len(rois), images.shape[1], rows, columns))
    for k, roi in enumerate(rois.double().tolist()):
        index, *box = roi
        if not all(math.isfinite(value) for value in roi):
            continue
        cx, cy, w, h = (value * scale for value in box[:4])
        cosine, sine = math.cos(math.radians(box[4])), math.sin(math.radians(box[4]))
        ny = sampling_ratio if sampling_ratio > 0 else math.ceil(h / rows)
        nx = sampling_ratio if sampling_ratio > 0 else math.ceil(w / columns)
        for row in range(rows):
            for column in range(columns):
                for i in range(ny):
                    for j in range(nx):
                        y = (row + (i + 0.5) / ny) * h / rows - h / 2
                        x = (column + (j + 0.5) / nx) * w / columns - w / 2
                        pooled[k, :, row, column] += interpolate(
                            images[int(index)],
                            y * cosine - x * sine + cy - 0.5,
                            y * sine + x * cosine + cx - 0.5,
                        ) / (ny * nx)
    return torch.from_numpy(pooled)


def random_features(seed: int = 0, batch: int = 2) -> Tensor:
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.standard_normal((batch, CHANNELS, HEIGHT, WIDTH))).float()


def random_rois(count: int, scale: float, seed: int = 0, batch: int = 2) -> Tensor:
    """Inside the features, across their border and beyond it."""
    rng = np.random.default_rng(seed)
    columns = [
        rng.integers(0, batch, (count, 1)),
        rng.uniform(-4, WIDTH + 4, (count, 1)) / scale,
        rng.uniform(-4, HEIGHT + 4, (count, 1)) / scale,
        rng.uniform(0.5, 12, (count, 2)) / scale,
        rng.uniform(-360, 360, (count, 1)),
    ]
    return torch.from_numpy(np.concatenate(columns, axis=1)).float()


def tolerance(dtype: torch.dtype) -> dict[str, float]:
    precision = {torch.float16: 2e-3, torch.bfloat16: 2e-2, torch.float32: 1e-4}
    return {"rtol": precision.get(dtype, 1e-9), "atol": precision.get(dtype, 1e-9)}


@on_each_device
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", [Tensor.contiguous, strided, "channels_last"])
@pytest.mark.parametrize("count", [0, 1, 12])
def test_forward_and_backward(count: int, layout: object, dtype: torch.dtype, device: str) -> None:
    for pooling in POOLINGS:
        input = random_features().to(device, dtype)
        rois = random_rois(count, pooling[0])
        expected = reference(input, rois, *pooling)
        if layout == "channels_last":
            input, rois = input.contiguous(memory_format=torch.channels_last), rois.to(device)
        else:
            input, rois = layout(input), layout(rois.to(device))
        pooled = roi_align_rotated_forward(input.requires_grad_(), rois, *pooling)
        assert pooled.dtype == dtype
        assert pooled.shape == expected.shape
        torch.testing.assert_close(pooled.double().cpu(), expected, **tolerance(dtype))

        # Pooling is linear: what a gradient g gives the features is the transpose of pooling.
        grad = torch.from_numpy(np.random.default_rng(1).standard_normal(expected.shape))
        grad = grad.to(device, dtype)
        pooled.backward(strided(grad) if layout is strided else grad)
        probe = random_features(seed=2)
        assert input.grad.dtype == dtype
        with torch.no_grad():
            transposed = (input.grad.double().cpu() * probe).sum()
        direct = (grad.double().cpu() * reference(probe, rois, *pooling)).sum()
        scale = 1 + input.grad.double().abs().sum().item()
        assert abs(transposed - direct).item() <= tolerance(dtype)["atol"] * scale


@on_each_device
def test_gradients_of_both_orders(device: str) -> None:
    input = random_features()[:, :1, :6, :7].double().to(device).requires_grad_()
    rois = random_rois(4, 2.0).double().to(device)

    def pool(input: Tensor) -> Tensor:
        return roi_align_rotated_forward(input, rois, 2.0, 2, 3, 0)

    # On CUDA the order of additions, and so the last bits, differ from run to run.
    nondet_tol = 1e-12 if device == "cuda" else 0.0
    assert torch.autograd.gradcheck(pool, input, nondet_tol=nondet_tol)
    assert torch.autograd.gradgradcheck(pool, input, nondet_tol=nondet_tol)


@on_each_device
@pytest.mark.parametrize("angle", [0, 90, 180, -90, 450])
def test_upright(angle: float, device: str) -> None:
    """At whole quarters of a turn a bin of one pixel, sampled once, is that pixel."""
    input = random_features().to(device)
    side = 4
    rois = torch.tensor([[1.0, 8.0, 6.0, side, side, angle]], device=device)
    pooled = roi_align_rotated_forward(input, rois, 1.0, side, side, 1)
    window = input[1:, :, 4:8, 6:10]
    # The RoI's own axes turn counter-clockwise: its top row is read upwards at 90 degrees.
    expected = torch.rot90(window, -(angle // 90), dims=(2, 3))
    assert torch.equal(pooled, expected)


@on_each_device
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_roi_coordinates_keep_float32(dtype: torch.dtype, device: str) -> None:
    """Rounded to either dtype, the centres move by a quarter of a pixel at least."""
    ramp = torch.arange(2000) % 16  # all values between are exact in either dtype
    input = ramp.to(dtype).expand(1, 1, 1, -1).to(device)
    rois = torch.tensor([[0, centre, 0.5, 1, 1, 0] for centre in (1026.75, 1339.25, 1998.25)])
    expected = torch.tensor([2.25, 10.75, 13.75]).to(dtype)
    pooled = roi_align_rotated_forward(input, rois.to(device), 1.0, 1, 1, 1).cpu()
    assert torch.equal(pooled.flatten(), expected)
    rounded = reference(input, rois.to(dtype), 1.0, 1, 1, 1)
    assert (rounded.flatten() != expected).all()


@on_each_device
@pytest.mark.parametrize("sampling_ratio", [0, 2])
def test_rois_that_are_not_finite_give_zeros(sampling_ratio: int, device: str) -> None:
    good = [0.0, 8.0, 7.0, 5.0, 4.0, 30.0]
    rows = [
        [*good[:column], value, *good[column + 1 :]]
        for column in range(6)
        for value in (math.nan, math.inf, -math.inf)
    ]
    input = random_features().to(device).requires_grad_()
    rois = torch.tensor([good, *rows], device=device)
    pooled = roi_align_rotated_forward(input, rois, 1.0, 2, 2, sampling_ratio)
    assert pooled[0].abs().sum() > 0
    assert (pooled[1:] == 0).all()
    pooled[1:].sum().backward()
    assert (input.grad == 0).all()


@on_each_device
def test_gradient_of_very_many_samples(device: str) -> None:
    """More than the CPU's kernel takes at a time, in one RoI."""
    input = torch.ones(1, 1, 6, 6, device=device, requires_grad=True)
    rois = torch.tensor([[0, 3, 3, 2, 2, 10.0], [0, 3, 3, 4, 4, 0]], device=device)
    roi_align_rotated_forward(input, rois, 1.0, 1, 1, 600).sum().backward()
    assert input.grad.sum().item() == pytest.approx(2, rel=1e-3)


@on_each_device
def test_finite_extremes(device: str) -> None:
    """Huge RoIs come to an end, and RoIs without extent have no adaptive samples."""
    input = (random_features() + 3).to(device)
    huge = torch.tensor(
        [[0, 8, 7, 3e38, 3e38, 30], [0, 3e38, -3e38, 4, 4, 30], [0, 8, 7, 5e3, 5e3, 0.0]],
        device=device,
    )
    pooled = roi_align_rotated_forward(input, huge, 1.0, 2, 2, 0)
    assert (pooled[:2] == 0).all()
    # The bins' average still tends to the integral over the map, divided by the bin's area.
    quadrants = reference(input, torch.tensor([[0, 8, 7, 5e1, 5e1, 0.0]]), 1.0, 2, 2, 0)
    expected = quadrants[0] * (5e1 / 5e3) ** 2
    assert (pooled[2].double().cpu() - expected).abs().max() < 0.01

    # As many samples as twice the diagonal of the map has pixels, no more.
    most = math.ceil(2 * math.hypot(*input.shape[2:]))
    large = torch.tensor([[0, 8, 7, 2 * 1.3 * most, 1.3 * most, 30]], device=device)
    pooled = [roi_align_rotated_forward(input, large, 1.0, 1, 2, n) for n in (0, most)]
    assert pooled[0].all()
    torch.testing.assert_close(*pooled, rtol=1e-5, atol=0)

    point = torch.tensor([[0, 8, 7, 0, 0, 30.0]], device=device)
    assert (roi_align_rotated_forward(input, point, 1.0, 2, 2, 0) == 0).all()
    sampled = roi_align_rotated_forward(input, point, 1.0, 2, 2, 3).cpu()
    expected = reference(input, point, 1.0, 2, 2, 3)
    torch.testing.assert_close(sampled.double(), expected, **tolerance(torch.float32))


def test_rois_that_no_caller_can_mean_are_errors_on_the_cpu() -> None:
    input = random_features()
    good = random_rois(3, 1.0)
    for column, value, message in [
        (0, 2, r"rois\[1\] has the batch index 2, but the batch has 2"),
        (0, -1, r"rois\[1\] has the batch index -1"),
        (0, 1e20, r"rois\[1\] has the batch index 1e\+20"),
        (3, -2.5, r"rois\[1\] must not have a negative side, got width -2.5"),
        (4, -2.5, r"rois\[1\] must not have a negative side.*height -2.5"),
    ]:
        rois = good.clone()
        rois[1, column] = value
        check_raises(message, roi_align_rotated_forward, input, rois, 1.0, 2, 2, 0)
        grad = torch.zeros(3, CHANNELS, 2, 2)
        check_raises(message, roi_align_rotated_backward, grad, rois, 1.0, 2, 2, *input.shape, 0)


@pytest.mark.gpu
def test_rois_that_no_caller_can_mean_give_zeros_on_cuda() -> None:
    input = random_features().cuda().requires_grad_()
    rois = random_rois(6, 1.0).cuda()
    rois[0, 0], rois[1, 0], rois[2, 0], rois[3, 3], rois[4, 4] = 2, -1, 1e20, -2.5, -2.5
    pooled = roi_align_rotated_forward(input, rois, 1.0, 2, 2, 0)
    assert (pooled[:5] == 0).all()
    pooled[:5].sum().backward()
    assert (input.grad == 0).all()


def test_errors_name_what_was_given() -> None:
    input, rois = random_features(), random_rois(3, 1.0)
    pool = roi_align_rotated_forward
    check_raises(r"input must have the shape \(N, C, H, W\), got \(3, 14, 18\)",
                 pool, input[0], rois, 1.0, 2, 2, 0)  # fmt: skip
    check_raises(r"rois must have the shape \(K, 6\), got \(3, 5\)",
                 pool, input, rois[:, :5], 1.0, 2, 2, 0)  # fmt: skip
    check_raises("input must be float32.*got int64", pool, input.long(), rois, 1.0, 2, 2, 0)
    check_raises("rois must be float32.*got int64", pool, input, rois.long(), 1.0, 2, 2, 0)
    check_raises("must be positive, got 0 and 2", pool, input, rois, 1.0, 0, 2, 0)
    check_raises("must be positive, got 2 and -3", pool, input, rois, 1.0, 2, -3, 0)
    check_raises("height 0 and width 18", pool, input[:, :, :0], rois, 1.0, 2, 2, 0)
    for scale in (0.0, -1.0, math.nan, math.inf):
        check_raises("spatial_scale must be", pool, input, rois, scale, 2, 2, 0)
    check_raises(r"grad must have the shape.*got \(3, 3, 2, 1\)", roi_align_rotated_backward,
                 torch.zeros(3, 3, 2, 1), rois, 1.0, 2, 2, *input.shape, 0)  # fmt: skip
    check_raises("height 0 and width 18", roi_align_rotated_backward,
                 torch.zeros(3, 3, 2, 2), rois, 1.0, 2, 2, 2, 3, 0, 18, 0)  # fmt: skip


@on_each_device
def test_tracing(device: str) -> None:
    input, rois = random_features().to(device), random_rois(4, 1.0).to(device)
    forward = torch.ops.detectron2.roi_align_rotated_forward
    backward = torch.ops.detectron2.roi_align_rotated_backward
    for features in (input, input.double(), input.half()):
        check_traceable(forward, (features.clone().requires_grad_(), rois, 1.0, 2, 3, 2))
    grad = torch.ones(4, CHANNELS, 2, 3, device=device)
    if device == "cpu":  # opcheck compares bits, and CUDA adds gradients in no fixed order
        check_traceable(backward, (grad.requires_grad_(), rois, 1.0, 2, 3, *input.shape, 2))

    larger = torch.nn.functional.pad(random_features(batch=3), (0, 5, 0, 2)).to(device)
    check_compiled(
        lambda x, r: roi_align_rotated_forward(x * 2, r, 1.0, 2, 3, 2) + 1,
        (input, rois),
        (larger, random_rois(7, 1.0).to(device)),
    )


def test_compiled_backward_with_dynamic_shapes() -> None:
    def pool(input: Tensor, rois: Tensor) -> Tensor:
        return roi_align_rotated_forward(input * 2, rois, 1.0, 2, 3, 2).square().sum()

    torch._dynamo.reset()
    compiled = torch.compile(pool, fullgraph=True, backend="aot_eager", dynamic=True)
    for number in range(3):
        input = torch.nn.functional.pad(random_features(), (0, number, number, 0))
        rois = random_rois(4 + number, 1.0)
        grads = []
        for function in (pool, compiled):
            leaf = input.clone().requires_grad_()
            with torch.compiler.set_stance("default" if number == 0 else "fail_on_recompile"):
                function(leaf, rois).backward()
            grads.append(leaf.grad)
        torch.testing.assert_close(*grads)


@on_each_device
def test_under_autocast(device: str) -> None:
    """Autocast leaves the dtype of the features alone, and float32 RoIs beside them."""
    input, rois = random_features().to(device), random_rois(4, 1.0).to(device)
    for dtype in (torch.float32, torch.bfloat16):
        features = input.detach().clone().to(dtype).requires_grad_()
        with torch.autocast(device, torch.bfloat16):
            pooled = roi_align_rotated_forward(features, rois, 1.0, 2, 3, 2)
        assert pooled.dtype == dtype
        pooled.sum().backward()
        assert features.grad.dtype == dtype


def test_cpu_gives_the_same_bits_for_any_number_of_threads() -> None:
    input, rois = random_features(), random_rois(40, 1.0)
    results = []
    threads = torch.get_num_threads()
    try:
        for number in (1, 2, 3):
            torch.set_num_threads(number)
            leaf = input.clone().requires_grad_()
            pooled = roi_align_rotated_forward(leaf, rois, 1.0, 3, 3, 0)
            pooled.square().sum().backward()
            results.append((pooled.detach(), leaf.grad))
    finally:
        torch.set_num_threads(threads)
    for pooled, grad in results[1:]:
        assert torch.equal(pooled, results[0][0])
        assert torch.equal(grad, results[0][1])


@pytest.mark.gpu
def test_cuda_forward_gives_the_same_bits_twice_and_backward_alerts() -> None:
    input, rois = random_features().cuda().requires_grad_(), random_rois(40, 1.0).cuda()
    pooled = roi_align_rotated_forward(input, rois, 1.0, 3, 3, 0)
    assert torch.equal(pooled, roi_align_rotated_forward(input, rois, 1.0, 3, 3, 0))
    try:
        torch.use_deterministic_algorithms(True)
        with pytest.raises(RuntimeError, match="does not have a deterministic implementation"):
            pooled.sum().backward(retain_graph=True)
        torch.use_deterministic_algorithms(True, warn_only=True)
        with pytest.warns(UserWarning, match="does not have a deterministic implementation"):
            pooled.sum().backward()
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sampling_ratio", [0, 2])
def test_cuda_agrees_with_the_cpu(sampling_ratio: int, dtype: torch.dtype) -> None:
    input, rois = random_features(seed=5).to(dtype), random_rois(300, 0.5, seed=6)
    results = []
    for device in ("cpu", "cuda"):
        leaf = input.detach().to(device).requires_grad_()
        pooled = roi_align_rotated_forward(leaf, rois.to(device), 0.5, 7, 7, sampling_ratio)
        pooled.backward(torch.ones_like(pooled))
        results.append((pooled.detach().cpu(), leaf.grad.cpu()))
    for on_cpu, on_cuda in zip(*results, strict=True):
        torch.testing.assert_close(on_cuda, on_cpu, **tolerance(dtype))


# What the CUDA kernels choose by: channels in float32 or pairs of them, 32 or more of these; bins
# that are written at once or in parts; samples of a bin that are found at once or in parts; RoIs
# that fit in a tile of shared memory, in several or in none.
CUDA_CASES = [
    # channels, scale, rows, columns, sampling ratio, largest side in pixels of the features
    (1, 1.0, 7, 7, 2, 12),
    (3, 1.0, 1, 1, 0, 60),
    (33, 0.5, 14, 3, 3, 12),
    (33, 1.0, 2, 2, 0, 90),
    (40, 1.0, 14, 14, 2, 30),
    (64, 0.25, 7, 7, 2, 26),
    (130, 1.0, 7, 7, 0, 60),
    (256, 1.0, 7, 7, 2, 12),
    (257, 0.5, 5, 9, 1, 40),
    (24, 1.0, 1, 70, 1, 70),
    (24, 1.0, 2, 3, 11, 50),
    (24, 1.0, 7, 7, 2, 900),
]


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("layout", [Tensor.contiguous, strided, "channels_last"])
@pytest.mark.parametrize("case", CUDA_CASES)
def test_every_path_on_cuda_gives_what_the_cpu_gives(
    case: tuple[int, float, int, int, int, int], layout: object, dtype: torch.dtype
) -> None:
    channels, *pooling, largest = case
    for height, width, count in ((37, 52, 60), (61, 43, 3)):
        rng = np.random.default_rng(channels + height)
        features = torch.from_numpy(rng.standard_normal((2, channels, height, width))).to(dtype)
        boxes = np.concatenate(
            [
                rng.integers(0, 2, (count, 1)),
                rng.uniform(-9, width + 9, (count, 1)) / pooling[0],
                rng.uniform(-9, height + 9, (count, 1)) / pooling[0],
                np.exp(rng.uniform(-1, np.log(largest), (count, 2))) / pooling[0],
                rng.uniform(-200, 200, (count, 1)),
            ],
            axis=1,
        )
        rois = torch.from_numpy(boxes).float()
        grad = torch.from_numpy(rng.standard_normal((count, channels, *pooling[1:3]))).to(dtype)

        results = []
        for device in ("cpu", "cuda"):
            input = features.to(device)
            if layout == "channels_last":
                input = input.contiguous(memory_format=torch.channels_last)
            else:
                input = layout(input)
            leaf = input.detach().requires_grad_()
            pooled = roi_align_rotated_forward(leaf, rois.to(device), *pooling)
            assert pooled.is_contiguous()
            pooled.backward(strided(grad.to(device)) if layout is strided else grad.to(device))
            results.append((pooled.detach(), leaf.grad))
            again = roi_align_rotated_forward(leaf.detach(), rois.to(device), *pooling)
            assert torch.equal(again, pooled)
        for on_cpu, on_cuda in zip(*results, strict=True):
            torch.testing.assert_close(on_cuda.cpu(), on_cpu, **tolerance(dtype))


@pytest.mark.gpu
def test_channels_last_of_an_odd_address_or_an_odd_number_of_channels_on_cuda() -> None:
    """Views that cannot be read 16 bytes at a time."""
    rois = random_rois(40, 1.0)
    for dtype, channels in ((torch.float32, 8), (torch.float16, 24), (torch.float16, 21)):
        rng = np.random.default_rng(channels)
        features = torch.from_numpy(rng.standard_normal((2, channels, HEIGHT, WIDTH))).to(dtype)
        flat = torch.zeros(features.numel() + 1, dtype=dtype, device="cuda")[1:]
        view = flat.view(2, HEIGHT, WIDTH, channels).permute(0, 3, 1, 2)
        view.copy_(features)
        expected = roi_align_rotated_forward(features, rois, 1.0, 3, 3, 2)
        pooled = roi_align_rotated_forward(view, rois.cuda(), 1.0, 3, 3, 2)
        torch.testing.assert_close(pooled.cpu(), expected, **tolerance(dtype))
        # Of the planes of such a view, too, no two pixels may be read at a time.
        shifted = torch.zeros(features.numel() + 1, dtype=dtype, device="cuda")[1:]
        shifted = shifted.view(features.shape).copy_(features)
        pooled = roi_align_rotated_forward(shifted, rois.cuda(), 1.0, 3, 3, 2)
        torch.testing.assert_close(pooled.cpu(), expected, **tolerance(dtype))


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("roi_dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_what_no_roi_samples_is_not_read_on_cuda(
    dtype: torch.dtype, roi_dtype: torch.dtype
) -> None:
    """Few RoIs on a large map: at its corners, partly and just outside, large and turned."""
    height, width = 90, 130
    features = torch.randn(2, 64, height, width, generator=torch.Generator().manual_seed(0))
    rows = [[0, 0, 0, 3, 3, 0], [0, 130, 90, 4, 2, 45], [0, -1, 50, 1.5, 1, 0]]
    rows += [[0, 60, 90.5, 2, 1.5, 90], [1, 64, 31, 0, 0, 0], [1, 130.5, 20, 1, 60, 5]]
    rows += [[1, 30, 60, 70, 1, 30], [1, 3e6, 3e6, 8.4e6, 4, 45], [1, 80, 80, math.nan, 3, 0]]
    rois = torch.tensor(rows).repeat(40, 1).to(roi_dtype)
    arguments = (rois, 1.0, 7, 7, 2)
    expected = roi_align_rotated_forward(features.to(dtype), *arguments)
    # The memory that the operator is given next.
    torch.full((features.numel() * 2,), math.nan, device="cuda")
    result = roi_align_rotated_forward(features.to(dtype).cuda(), rois.cuda(), *arguments[1:])
    torch.testing.assert_close(result.cpu(), expected, **tolerance(dtype))


@pytest.mark.gpu
@pytest.mark.parametrize("channels", [3, 48])
def test_infinite_features_stay_where_they_are_on_cuda(channels: int) -> None:
    """Samples outside the map read nothing, and those inside only their own four pixels."""
    input = torch.zeros(1, channels, HEIGHT, WIDTH)
    input[:, :, 0, 0] = input[:, :, -1, -1] = math.inf
    rois = random_rois(60, 1.0, batch=1)
    expected = roi_align_rotated_forward(input, rois, 1.0, 3, 3, 2)
    for memory_format in (torch.contiguous_format, torch.channels_last):
        on_cuda = input.cuda().contiguous(memory_format=memory_format)
        pooled = roi_align_rotated_forward(on_cuda, rois.cuda(), 1.0, 3, 3, 2)
        # With a weight of zero NaN or infinite: a bin may sum up the weights of a pixel first.
        assert torch.equal(pooled.cpu().isfinite(), expected.isfinite())
        assert (pooled.cpu()[expected.isfinite()] == 0).all()


@pytest.mark.gpu
@pytest.mark.parametrize("channels", [CHANNELS, 48])
def test_does_not_wait_for_the_device(channels: int) -> None:
    input = random_features()[:, :1].repeat(1, channels, 1, 1).cuda().requires_grad_()
    rois = random_rois(50, 1.0).cuda()
    torch.cuda.synchronize()
    try:
        torch.cuda.set_sync_debug_mode("error")
        roi_align_rotated_forward(input, rois, 1.0, 2, 2, 0).sum().backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert input.grad.abs().sum() > 0


@pytest.mark.gpu
def test_replayed_in_a_cuda_graph() -> None:
    """Kernels that start before the one ahead of them ends do so in a graph, too."""
    input = random_features()[:, :1].repeat(1, 48, 1, 1).cuda()
    rois = random_rois(50, 1.0).cuda()
    arguments = (rois, 1.0, 7, 7, 2)
    roi_align_rotated_forward(input, *arguments)  # loads the kernels
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        pooled = roi_align_rotated_forward(input, *arguments)
    for seed in (1, 2):
        input.copy_(random_features(seed)[:, :1])
        graph.replay()
        assert torch.equal(pooled, roi_align_rotated_forward(input, *arguments))


@pytest.mark.gpu
def test_more_than_2_to_the_31_elements() -> None:
    """Both the features and the pooled features pass the range of 32-bit offsets."""
    channels, side = 2048, 1050
    input = torch.zeros(1, channels, side, side, dtype=torch.float16, device="cuda")
    input[0, -1] = random_features()[0, 0, 0, 0].half()
    rois = torch.tensor([[0, 500, 500, 7, 7, 30.0]], device="cuda").repeat(22_000, 1)
    pooled = roi_align_rotated_forward(input, rois, 1.0, 7, 7, 1)
    assert input.numel() > 2**31
    assert pooled.numel() > 2**31
    assert (pooled[-1, :-1] == 0).all()
    assert (pooled[-1, -1] == input[0, -1, 0, 0]).all()
