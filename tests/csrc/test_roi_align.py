"""torch.ops.detectron2.roi_align_* against sampling written out in Python."""

import math

import numpy as np
import pytest
import torch
import torchvision
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

roi_align_forward = torch.ops.detectron2.roi_align_forward
roi_align_backward = torch.ops.detectron2.roi_align_backward

CHANNELS = 3
SIZES = [(14, 18), (7, 9), (4, 5)]
SCALES = [0.5, 0.25, 0.125]
# Of the values that follow: bins in each direction, samples, aligned.
POOLINGS = [(3, 4, 2, True), (2, 2, 0, True), (1, 5, 1, False), (2, 3, 0, False)]


def channels_last(tensor: Tensor) -> Tensor:
    return tensor.contiguous(memory_format=torch.channels_last)


LAYOUTS = [Tensor.contiguous, strided, channels_last]


def reference(
    features: list[Tensor],
    rois: Tensor,
    levels: Tensor | None,
    scales: list[float],
    rows: int,
    columns: int,
    sampling_ratio: int,
    aligned: bool,
) -> Tensor:
    maps = [level.detach().double().cpu().numpy() for level in features]
    pooled = np.zeros((len(rois), maps[0].shape[1], rows, columns))
    for k, (index, *box) in enumerate(rois.double().tolist()):
        if not all(math.isfinite(value) for value in (index, *box)):
            continue
        level = 0 if levels is None else int(levels[k])
        x0, y0, x1, y1 = (value * scales[level] - (0.5 if aligned else 0) for value in box)
        w, h = x1 - x0, y1 - y0
        if not aligned:
            w, h = max(w, 1), max(h, 1)
        ny = sampling_ratio if sampling_ratio > 0 else math.ceil(h / rows)
        nx = sampling_ratio if sampling_ratio > 0 else math.ceil(w / columns)
        for row in range(rows):
            for column in range(columns):
                for i in range(ny):
                    for j in range(nx):
                        y = y0 + (row + (i + 0.5) / ny) * h / rows
                        x = x0 + (column + (j + 0.5) / nx) * w / columns
                        image = maps[level][int(index)]
                        pooled[k, :, row, column] += interpolate(image, y, x) / (ny * nx)
    return torch.from_numpy(pooled)


def random_features(seed: int = 0, batch: int = 2, channels: int = CHANNELS) -> list[Tensor]:
    rng = np.random.default_rng(seed)
    return [torch.from_numpy(rng.standard_normal((batch, channels, *s))).float() for s in SIZES]


def random_rois(count: int, seed: int = 0, batch: int = 2) -> tuple[Tensor, Tensor]:
    """Inside the features, across their border and beyond it; and the level of each."""
    rng = np.random.default_rng(seed)
    low = rng.uniform(-12, 36, (count, 2))
    sides = np.exp(rng.uniform(-1, 3.7, (count, 2)))
    rois = np.concatenate([rng.integers(0, batch, (count, 1)), low, low + sides], axis=1)
    return torch.from_numpy(rois).float(), torch.from_numpy(rng.integers(0, len(SIZES), count))


def tolerance(dtype: torch.dtype) -> dict[str, float]:
    precision = {torch.float16: 2e-3, torch.bfloat16: 2e-2, torch.float32: 1e-4}
    return {"rtol": precision.get(dtype, 1e-9), "atol": precision.get(dtype, 1e-9)}


@on_each_device
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("count", [0, 1, 12])
def test_forward_and_backward(count: int, layout: object, dtype: torch.dtype, device: str) -> None:
    for pooling in POOLINGS:
        features = [layout(f.to(device, dtype)).requires_grad_() for f in random_features()]
        rois, levels = random_rois(count)
        expected = reference(features, rois, levels, SCALES, *pooling)
        place = strided if layout is strided else Tensor.contiguous
        rois_there, levels_there = place(rois.to(device)), place(levels.to(device))
        pooled = roi_align_forward(features, rois_there, levels_there, SCALES, *pooling)
        assert pooled.dtype == dtype
        assert pooled.is_contiguous()
        torch.testing.assert_close(pooled.double().cpu(), expected, **tolerance(dtype))

        # Pooling is linear: what a gradient g gives the features is the transpose of pooling.
        grad = torch.from_numpy(np.random.default_rng(1).standard_normal(expected.shape))
        grad = grad.to(device, dtype)
        pooled.backward(layout(grad))
        probes = random_features(seed=2)
        transposed = 0.0
        scale = 1.0
        for level, probe in zip(features, probes, strict=True):
            assert level.grad.dtype == dtype
            assert layout is strided or level.grad.stride() == level.stride()
            transposed += (level.grad.double().cpu() * probe).sum().item()
            scale += level.grad.double().abs().sum().item()
        direct = (grad.double().cpu() * reference(probes, rois, levels, SCALES, *pooling)).sum()
        assert abs(transposed - direct.item()) <= tolerance(dtype)["atol"] * scale


@on_each_device
@pytest.mark.parametrize("layout", LAYOUTS)
def test_gradients_of_both_orders(layout: object, device: str) -> None:
    features = [layout(f[:, :2].double().to(device)) for f in random_features()[1:]]
    features = [f.detach().requires_grad_() for f in features]
    rois, levels = random_rois(4)
    rois, levels = rois.double().to(device), (levels % 2).to(device)

    def pool(*features: Tensor) -> Tensor:
        return roi_align_forward(list(features), rois, levels, SCALES[1:], 2, 3, 0, True)

    assert torch.autograd.gradcheck(pool, features)
    assert torch.autograd.gradgradcheck(pool, features)


def test_gradient_of_some_levels_only() -> None:
    features, (rois, levels) = random_features(), random_rois(12)
    all_of_them = [f.clone().requires_grad_() for f in features]
    some = [features[0], features[1].clone().requires_grad_(), features[2]]
    for leaves in (all_of_them, some):
        roi_align_forward(leaves, rois, levels, SCALES, 2, 3, 2, True).square().sum().backward()
    assert some[1].grad.any()
    assert torch.equal(some[1].grad, all_of_them[1].grad)
    assert some[0].grad is None
    assert some[2].grad is None


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("sampling_ratio", [0, 2])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_torchvision_agrees(layout: object, sampling_ratio: int, aligned: bool) -> None:
    features, (rois, _) = layout(random_features(channels=37)[0]), random_rois(60)
    grad = torch.from_numpy(np.random.default_rng(1).standard_normal((60, 37, 7, 6))).float()
    results = []
    for pool in (
        lambda x: torchvision.ops.roi_align(x, rois, (7, 6), 0.5, sampling_ratio, aligned),
        lambda x: roi_align_forward([x], rois, None, [0.5], 7, 6, sampling_ratio, aligned),
    ):
        leaf = features.detach().requires_grad_()
        pooled = pool(leaf)
        pooled.backward(grad)
        results.append((pooled.detach(), leaf.grad))
    for theirs, ours in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@on_each_device
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_roi_coordinates_keep_float32(dtype: torch.dtype, device: str) -> None:
    """Rounded to either dtype, the centres move by a quarter of a pixel at least."""
    ramp = torch.arange(2000) % 16  # all values between are exact in either dtype
    features = [ramp.to(dtype).expand(1, 1, 1, -1).to(device)]
    rois = torch.tensor([[0, c - 0.5, 0, c + 0.5, 1] for c in (1026.75, 1339.25, 1998.25)])
    expected = torch.tensor([2.25, 10.75, 13.75]).to(dtype)
    pooled = roi_align_forward(features, rois.to(device), None, [1.0], 1, 1, 1, True).cpu()
    assert torch.equal(pooled.flatten(), expected)
    rounded = reference(features, rois.to(dtype), None, [1.0], 1, 1, 1, True)
    assert (rounded.flatten() != expected).all()


@on_each_device
@pytest.mark.parametrize("sampling_ratio", [0, 2])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("aligned", [True, False])
def test_rois_that_are_not_finite_give_zeros(
    aligned: bool, layout: object, sampling_ratio: int, device: str
) -> None:
    good = [0.0, 6.0, 5.0, 21.0, 15.0]
    rows = [
        [*good[:column], value, *good[column + 1 :]]
        for column in range(5)
        for value in (math.nan, math.inf, -math.inf)
    ]
    rows.append([0, -3e38, 0, 3e38, 9])  # finite corners, and a side that is not
    features = [layout(random_features()[0].to(device)).requires_grad_()]
    rois = torch.tensor([good, *rows], device=device)
    pooled = roi_align_forward(features, rois, None, [1.0], 2, 2, sampling_ratio, aligned)
    assert pooled[0].abs().sum() > 0
    assert (pooled[1:] == 0).all()
    pooled[1:].sum().backward()
    assert (features[0].grad == 0).all()


@on_each_device
@pytest.mark.parametrize("channels", [1, 16])
def test_finite_extremes(channels: int, device: str) -> None:
    """Huge RoIs come to an end; RoIs without extent have no adaptive samples; those with a negative
    side neither, but fixed ones, in the order from the first corner to the second."""
    features = [channels_last((f + 3).to(device)) for f in random_features(channels=channels)[:1]]
    features[0].requires_grad_()
    huge = torch.tensor([[0, -1e30, -1e30, 1e30, 1e30], [0, -2e3, -3e3, 2e3, 4e3]])
    pooled = roi_align_forward(features, huge.to(device), None, [1.0], 2, 2, 0, True)
    assert pooled[0].abs().max() < 1e-3
    # The bins' sums still are the integral over the map and the pixel around it.
    small = torch.tensor([[0, -2e1, -2e1, 2e1, 3e1]])
    expected = reference(features, small, None, [1.0], 2, 2, 0, True).sum((2, 3)) * 20 * 25
    integral = pooled[1:].sum((2, 3)).double().cpu() * 2e3 * 3.5e3
    torch.testing.assert_close(integral, expected, rtol=0.01, atol=0)
    pooled.sum().backward()
    assert torch.isfinite(features[0].grad).all()
    # There are at most 2**20 samples along a side, here 1,024 pixels apart and none on the map.
    long = torch.tensor([[0, -(2.0**29), 0, 2.0**29, 5]], device=device)
    assert not roi_align_forward(features, long, None, [1.0], 1, 1, 0, True).any()

    odd = torch.tensor([[0, 8, 7, 8, 7.0], [0, 9, 3, 4, 10], [0, 9, 10, 4, 3]])
    for sampling_ratio in (0, 3):
        pooled = roi_align_forward(
            features, odd.to(device), None, [1.0], 2, 3, sampling_ratio, True
        )
        expected = reference(features, odd, None, [1.0], 2, 3, sampling_ratio, True)
        torch.testing.assert_close(pooled.double().cpu(), expected, rtol=1e-4, atol=1e-4)
        assert (pooled == 0).all() == (sampling_ratio == 0)


def test_indices_out_of_range_are_errors_on_the_cpu() -> None:
    features, (good, good_levels) = random_features(), random_rois(3)
    for index, level, message in [
        (2, 0, r"rois\[1\] has the batch index 2, but the batch has 2"),
        (-1, 0, r"rois\[1\] has the batch index -1"),
        (1e20, 0, r"rois\[1\] has the batch index 1e\+20"),
        (0, 3, r"levels\[1\] is 3, but there are 3 level"),
        (0, -1, r"levels\[1\] is -1"),
    ]:
        rois, levels = good.clone(), good_levels.clone()
        rois[1, 0], levels[1] = index, level
        check_raises(message, roi_align_forward, features, rois, levels, SCALES, 2, 2, 0, True)
        grad = torch.zeros(3, CHANNELS, 2, 2)
        heights, widths = zip(*SIZES, strict=True)
        check_raises(message, roi_align_backward, grad, rois, levels, SCALES, 2, heights, widths,
                     0, True, False)  # fmt: skip


@pytest.mark.gpu
@pytest.mark.parametrize("layout", LAYOUTS)
def test_indices_out_of_range_give_zeros_on_cuda(layout: object) -> None:
    features = [layout(f.cuda()).requires_grad_() for f in random_features(channels=40)]
    rois, levels = (x.cuda() for x in random_rois(6))
    rois[0, 0], rois[1, 0], rois[2, 0], levels[3], levels[4] = 2, -1, 1e20, 3, -1
    pooled = roi_align_forward(features, rois, levels, SCALES, 2, 2, 0, True)
    assert (pooled[:5] == 0).all()
    pooled[:5].sum().backward()
    assert all((level.grad == 0).all() for level in features)


def test_errors_name_what_was_given() -> None:
    features, (rois, levels) = random_features(), random_rois(3)

    def check(message: str, *, features: list[Tensor] = features, rois: Tensor = rois,
              levels: Tensor | None = levels, scales: list[float] = SCALES,
              rows: int = 2, columns: int = 2) -> None:  # fmt: skip
        check_raises(message, roi_align_forward, features, rois, levels, scales, rows, columns, 0,
                     True)  # fmt: skip

    check(r"features\[0\] must have the shape \(N, C, H, W\), got \(3, 14, 18\)",
          features=[features[0][0], *features[1:]])  # fmt: skip
    check(r"features\[1\] must have the shape .* got \(1, 3, 7, 9\)",
          features=[features[0], features[1][:1], features[2]])  # fmt: skip
    check(r"features\[2\] and features\[0\] must have the same dtype, got float64 and float32",
          features=[*features[:2], features[2].double()])  # fmt: skip
    check(r"features\[0\] must be float32.*got int64", features=[features[0].long(), *features[1:]])
    check("1 to 8 levels, got 0", features=[])
    check("1 to 8 levels, got 9", features=[features[0]] * 9, scales=[1.0] * 9)
    check(r"rois must have the shape \(K, 5\), got \(3, 4\)", rois=rois[:, :4])
    check("rois must be float32.*got int64", rois=rois.long())
    check(r"levels must have the shape \(K,\) = \(3,\), got \(2,\)", levels=levels[:2])
    check("levels must be int64, got int32", levels=levels.int())
    check("levels may be None for one level only, got the features of 3", levels=None)
    check("each level needs a scale, got 2 for 3", scales=SCALES[:2])
    check("must be positive, got 0 and 2", rows=0)
    check("must be positive, got 2 and -3", columns=-3)
    check("height 0 and width 18", features=[features[0][:, :, :0], *features[1:]])
    for scale in (0.0, -1.0, math.nan, math.inf):
        check("spatial_scales must be", scales=[scale, *SCALES[1:]])
    grad = torch.zeros(2, 3, 2, 2)
    check_raises(r"grad must have the shape.*got \(2, 3, 2, 2\)", roi_align_backward, grad, rois,
                 None, [1.0], 2, [14], [18], 0, True, False)  # fmt: skip
    check_raises(r"1 height\(s\) and 2 width", roi_align_backward, torch.zeros(3, 3, 2, 2), rois,
                 None, [1.0], 2, [14], [18, 2], 0, True, False)  # fmt: skip


@on_each_device
@pytest.mark.parametrize("layout", [Tensor.contiguous, channels_last])
def test_tracing(layout: object, device: str) -> None:
    rois, levels = (x.to(device) for x in random_rois(4))
    heights, widths = (list(x) for x in zip(*SIZES, strict=True))
    for dtype in (torch.float32, torch.float64, torch.float16):
        features = [layout(f.to(device, dtype)).requires_grad_() for f in random_features()]
        check_traceable(roi_align_forward, (features, rois, levels, SCALES, 2, 3, 2, True))
    one = random_features()[0].to(device).requires_grad_()
    check_traceable(roi_align_forward, ([one], rois, None, [0.5], 2, 3, 0, False))
    grad = torch.ones(4, CHANNELS, 2, 3, device=device).requires_grad_()
    pyramid = (rois, levels, SCALES, 2, heights, widths, 2, True, layout is channels_last)
    check_traceable(roi_align_backward, (grad, *pyramid))

    def pool(a: Tensor, b: Tensor, rois: Tensor, levels: Tensor) -> Tensor:
        return roi_align_forward([a * 2, b], rois, levels, SCALES[:2], 2, 3, 2, True) + 1

    a, b, _ = (layout(f.to(device)) for f in random_features())
    larger = [
        layout(torch.nn.functional.pad(f, (0, 5, 0, 2)).to(device))
        for f in random_features(batch=3)[:2]
    ]
    more, more_levels = (x.to(device) for x in random_rois(7))
    check_compiled(pool, (a, b, rois, levels % 2), (*larger, more, more_levels % 2))


def test_compiled_backward_with_dynamic_shapes() -> None:
    def pool(a: Tensor, b: Tensor, rois: Tensor, levels: Tensor) -> Tensor:
        pooled = roi_align_forward([a * 2, b], rois, levels, SCALES[:2], 2, 3, 2, True)
        return pooled.square().sum()

    torch._dynamo.reset()
    compiled = torch.compile(pool, fullgraph=True, backend="aot_eager", dynamic=True)
    for number in range(3):
        features = [
            torch.nn.functional.pad(f, (0, number, number, 0)) for f in random_features()[:2]
        ]
        rois, levels = random_rois(4 + number)
        grads = []
        for function in (pool, compiled):
            leaves = [f.clone().requires_grad_() for f in features]
            with torch.compiler.set_stance("default" if number == 0 else "fail_on_recompile"):
                function(*leaves, rois, levels % 2).backward()
            grads.append([leaf.grad for leaf in leaves])
        torch.testing.assert_close(*grads)


@on_each_device
def test_under_autocast(device: str) -> None:
    """Autocast leaves the dtype of the features alone, and float32 RoIs beside them."""
    rois, levels = (x.to(device) for x in random_rois(4))
    for dtype in (torch.float32, torch.bfloat16):
        features = [f.to(device, dtype).requires_grad_() for f in random_features()]
        with torch.autocast(device, torch.bfloat16):
            pooled = roi_align_forward(features, rois, levels, SCALES, 2, 3, 2, True)
        assert pooled.dtype == dtype
        pooled.sum().backward()
        assert features[0].grad.dtype == dtype


def pool_and_spread(
    features: list[Tensor], grad: Tensor, rois: Tensor, levels: Tensor | None, *pooling: object
) -> list[Tensor]:
    """Pooled features, and the gradients of the features."""
    leaves = [f.detach().requires_grad_() for f in features]
    pooled = roi_align_forward(leaves, rois, levels, *pooling)
    pooled.backward(grad)
    return [pooled.detach(), *(leaf.grad for leaf in leaves)]


@pytest.mark.parametrize("layout", [Tensor.contiguous, channels_last])
def test_cpu_gives_the_same_bits_for_any_number_of_threads(layout: object) -> None:
    features = [layout(f) for f in random_features(channels=50)]
    rois, levels = random_rois(40)
    grad = torch.from_numpy(np.random.default_rng(1).standard_normal((40, 50, 3, 3))).float()
    results = []
    threads = torch.get_num_threads()
    try:
        for number in (1, 2, 3):
            torch.set_num_threads(number)
            pooling = (SCALES, 3, 3, 0, True)
            results.append(pool_and_spread(features, grad, rois, levels, *pooling))
    finally:
        torch.set_num_threads(threads)
    for result in results[1:]:
        assert all(map(torch.equal, result, results[0]))


@pytest.mark.gpu
@pytest.mark.parametrize("layout", [Tensor.contiguous, channels_last])
@pytest.mark.parametrize("dtype", DTYPES)
def test_cuda_gives_the_same_bits_twice(dtype: torch.dtype, layout: object) -> None:
    features = [layout(f.to("cuda", dtype)) for f in random_features(channels=50)]
    rois, levels = (x.cuda() for x in random_rois(3000))
    rng = np.random.default_rng(1)
    grad = torch.from_numpy(rng.standard_normal((3000, 50, 3, 3))).to("cuda", dtype)
    pooling = (SCALES, 3, 3, 0, True)
    first, second = (pool_and_spread(features, grad, rois, levels, *pooling) for _ in range(2))
    assert all(map(torch.equal, first, second))


# What the CUDA kernels choose by: few channels or many, a whole number of vectors and warps of them
# or not; bins that are written at once or in parts; more bins than bits of a mask; bins with more
# rows or columns than are kept; few samples or many; RoIs that meet a tile by the thousand.
CUDA_CASES = [
    # channels, scale, rows, columns, sampling ratio, largest side in pixels of the features, RoIs
    (1, 1.0, 7, 7, 2, 12, 60),
    (3, 1.0, 1, 1, 0, 60, 60),
    (33, 0.5, 14, 3, 3, 12, 60),
    (40, 1.0, 14, 14, 2, 30, 60),
    (64, 1.0, 2, 2, 0, 90, 60),
    (128, 0.25, 7, 7, 2, 26, 3),
    (130, 1.0, 7, 7, 0, 60, 60),
    (256, 1.0, 7, 7, 0, 30, 300),
    (264, 0.5, 5, 9, 1, 40, 60),
    (24, 1.0, 1, 70, 1, 70, 60),
    (24, 1.0, 40, 35, 0, 70, 20),
    (24, 1.0, 2, 3, 11, 50, 60),
    (24, 1.0, 7, 7, 2, 900, 60),
    (32, 1.0, 7, 7, 0, 3000, 60),
    (16, 1.0, 3, 3, 0, 40, 5000),
]


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("case", CUDA_CASES)
def test_every_path_on_cuda_gives_what_the_cpu_gives(
    case: tuple[int, float, int, int, int, int, int], layout: object, dtype: torch.dtype
) -> None:
    channels, scale, rows, columns, sampling_ratio, largest, count = case
    rng = np.random.default_rng(channels + rows)
    sizes, scales = [(37, 52), (20, 27)], [scale, scale / 2]
    features = [
        torch.from_numpy(rng.standard_normal((2, channels, *size))).to(dtype) for size in sizes
    ]
    low = rng.uniform(-9, 50, (count, 2)) / scale
    sides = np.exp(rng.uniform(-1, np.log(largest), (count, 2))) / scale
    rois = np.concatenate([rng.integers(0, 2, (count, 1)), low, low + sides], axis=1)
    rois, levels = torch.from_numpy(rois).float(), torch.from_numpy(rng.integers(0, 2, count))
    grad = rng.standard_normal((count, channels, rows, columns)) / max(count / 60, 1)
    grad = torch.from_numpy(grad).to(dtype)
    results = []
    for device in ("cpu", "cuda"):
        there = [layout(level.to(device)) for level in features]
        pooling = (scales, rows, columns, sampling_ratio, True)
        inputs = (layout(grad.to(device)), rois.to(device), levels.to(device))
        results.append(pool_and_spread(there, *inputs, *pooling))
    for on_cpu, on_cuda in zip(*results, strict=True):
        assert on_cuda.stride() == on_cpu.stride()
        torch.testing.assert_close(on_cuda.cpu(), on_cpu, **tolerance(dtype))


@pytest.mark.gpu
def test_views_that_cannot_be_read_16_bytes_at_a_time_on_cuda() -> None:
    rois, levels = random_rois(40)
    for dtype, channels in ((torch.float32, 8), (torch.float16, 24), (torch.float16, 21)):
        results = []
        for device in ("cpu", "cuda"):
            features = []
            for level in random_features(channels=channels):
                flat = torch.zeros(level.numel() + 1, dtype=dtype, device=device)[1:]
                view = flat.view(level.permute(0, 2, 3, 1).shape).permute(0, 3, 1, 2)
                features.append(view.copy_(level))
            grad = torch.ones(40, channels, 7, 7, dtype=dtype, device=device)
            inputs = (rois.to(device), levels.to(device), SCALES, 7, 7, 2, True)
            results.append(pool_and_spread(features, grad, *inputs))
        for on_cpu, on_cuda in zip(*results, strict=True):
            torch.testing.assert_close(on_cuda.cpu(), on_cpu, **tolerance(dtype))


@pytest.mark.gpu
@pytest.mark.slow
def test_features_beyond_2_31_elements_on_cuda() -> None:
    """The last image and the last channels are where 32 bits would not reach."""
    shape = (5, 256, 1300, 1300)
    features = torch.zeros(shape, dtype=torch.float16, device="cuda")
    features[4, 250:] = torch.randn(6, 1300, 1300, device="cuda")
    rois = torch.tensor([[4.0, 1200, 1190, 1260, 1290]], device="cuda")
    grad = torch.randn(1, 256, 7, 7, device="cuda", dtype=torch.float16)
    small = channels_last(features[4:])
    first = rois * torch.tensor([0.0, 1, 1, 1, 1], device="cuda")
    expected = pool_and_spread([small], grad, first, None, [1.0], 7, 7, 0, True)
    for layout in (Tensor.contiguous, channels_last):
        result = pool_and_spread([layout(features)], grad, rois, None, [1.0], 7, 7, 0, True)
        torch.testing.assert_close(result[0], expected[0], **tolerance(torch.float16))
        assert torch.equal(result[1][4:], expected[1])
        assert not result[1][:4].any()
