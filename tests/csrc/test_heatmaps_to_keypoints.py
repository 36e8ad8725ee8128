"""torch.ops.detectron2.heatmaps_to_keypoints against a search of the whole resized map in NumPy."""

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
    compute_dtype,
    on_each_device,
    strided,
)

heatmaps_to_keypoints = torch.ops.detectron2.heatmaps_to_keypoints


def resize_matrix(points: int, values: int) -> np.ndarray:
    """``(points, values)``: cubic convolution with a = -0.75, the border repeated."""
    matrix = np.zeros((points, values))
    for point in range(points):
        source = (point + 0.5) * values / points - 0.5
        for value in range(math.floor(source) - 1, math.floor(source) + 3):
            x, a = abs(source - value), -0.75
            near = (a + 2) * x**3 - (a + 3) * x**2 + 1
            far = a * (x**3 - 5 * x**2 + 8 * x - 4)
            matrix[point, min(max(value, 0), values - 1)] += near if x <= 1 else far
    return matrix


def resize(heatmap: np.ndarray, roi: list[float]) -> tuple[np.ndarray, float, float]:
    """The resized map, and the sizes of its points in the image."""
    width, height = max(roi[2] - roi[0], 1), max(roi[3] - roi[1], 1)
    columns, rows = math.ceil(width), math.ceil(height)
    down = resize_matrix(rows, heatmap.shape[0])
    across = resize_matrix(columns, heatmap.shape[1])
    return down @ heatmap @ across.T, width / columns, height / rows


def check(maps: Tensor, rois: Tensor, result: Tensor, precision: float) -> None:
    """A point of the resized map, one that is as high as the highest, and its logit and score."""
    assert result.shape == (*maps.shape[:2], 4)
    assert result.dtype == compute_dtype(maps.dtype)
    heatmaps, result = maps.double().cpu().numpy(), result.double().cpu().numpy()
    for r, roi in enumerate(rois.to(compute_dtype(maps.dtype)).double().tolist()):
        for heatmap, (x, y, logit, score) in zip(heatmaps[r], result[r], strict=True):
            resized, point_width, point_height = resize(heatmap, roi)
            scale = precision * max(1, np.abs(heatmap).max())
            column, row = (x - roi[0]) / point_width - 0.5, (y - roi[1]) / point_height - 0.5
            assert abs(column - round(column)) + abs(row - round(row)) < 1e-2
            assert abs(resized[round(row), round(column)] - resized.max()) <= scale
            assert abs(logit - resized.max()) <= scale
            expected = 1 / np.exp(heatmap - resized.max()).sum()
            # Elsewhere the exponentials leave the range of float32.
            if 1e-30 < expected < 1e30:
                assert abs(score - expected) <= 10 * scale * expected


def random_maps(kind: str, rois: int, keypoints: int, height: int, width: int) -> Tensor:
    rng = np.random.default_rng(height)
    maps = rng.standard_normal((rois, keypoints, height, width))
    if kind == "peaks":
        y, x = rng.uniform(0, height, maps.shape[:2]), rng.uniform(0, width, maps.shape[:2])
        rows, columns = np.ogrid[:height, :width]
        distances = (rows - y[..., None, None]) ** 2 + (columns - x[..., None, None]) ** 2
        maps = maps * 0.1 - distances / 4
    return torch.from_numpy(maps).float()


def random_rois(count: int, seed: int = 0) -> Tensor:
    """Larger and smaller than heatmaps, some without an extent or turned inside out."""
    rng = np.random.default_rng(seed)
    low = rng.uniform(-20, 80, (count, 2))
    rois = np.hstack([low, low + rng.uniform(-5, 70, (count, 2))])
    rois[1::4, 2:] = rois[1::4, :2]
    return torch.from_numpy(np.round(rois * 8) / 8).float()


PRECISION = {torch.float64: 1e-12}


@on_each_device
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", [Tensor.contiguous, strided])
@pytest.mark.parametrize("count", [0, 1, 6])
def test_against_the_whole_map(count: int, layout: object, dtype: torch.dtype, device: str) -> None:
    for kind in ("peaks", "noise"):
        maps = random_maps(kind, count, 3, 9, 13).to(device, dtype)
        rois = random_rois(count).to(device, dtype)
        result = heatmaps_to_keypoints(layout(maps), layout(rois))
        check(maps, rois, result, PRECISION.get(dtype, 1e-5))


@on_each_device
@pytest.mark.parametrize("size", [(1, 1), (1, 5), (5, 1), (2, 2), (3, 40), (56, 56), (120, 7)])
def test_sizes(size: tuple[int, int], device: str) -> None:
    for kind in ("peaks", "noise"):
        maps, rois = random_maps(kind, 5, 2, *size).to(device), random_rois(5, seed=1).to(device)
        check(maps, rois, heatmaps_to_keypoints(maps, rois), 1e-5)


@on_each_device
@pytest.mark.parametrize("offset", [0.0, 1e4, -1e4])
@pytest.mark.parametrize("position", [(0, 0), (0, 6), (6, 0), (6, 6), (3, 0), (3, 3)])
def test_peaks_at_borders_and_corners(
    position: tuple[int, int], offset: float, device: str
) -> None:
    maps = torch.full((3, 1, 7, 7), offset)
    maps[:, :, position[0], position[1]] += 10
    rois = torch.tensor([[0, 0, 35, 35], [10, 20, 13.5, 90], [0, 0, 7, 7.0]])
    result = heatmaps_to_keypoints(maps.to(device), rois.to(device))
    check(maps, rois, result, 1e-5)
    expected = (torch.tensor([position[1], position[0]]) + 0.5) * 5
    assert (result[0, 0, :2].cpu() - expected).abs().max() <= 2.5
    assert (result[0, 0, :2] > 0).all()
    assert (result[0, 0, :2] < 35).all()


@on_each_device
@pytest.mark.parametrize("value", [0.0, 0.1, -7.3, 1e30])
def test_of_points_as_high_the_first_counts(value: float, device: str) -> None:
    """Where rounding in the interpolation would choose one of them at random."""
    maps = torch.full((1, 1, 7, 7), value, device=device)
    rois = torch.tensor([[2.0, 3.0, 40.0, 50.0]], device=device)
    assert heatmaps_to_keypoints(maps, rois)[0, 0, :3].tolist() == [2.5, 3.5, maps[0, 0, 0, 0]]
    # Two equal peaks at values that are points themselves.
    maps = torch.zeros(1, 1, 9, 9, device=device)
    maps[0, 0, 2, 6] = maps[0, 0, 6, 2] = 5
    rois = torch.tensor([[0.0, 0.0, 9.0, 9.0]], device=device)
    assert heatmaps_to_keypoints(maps, rois)[0, 0, :3].tolist() == [6.5, 2.5, 5]


@on_each_device
def test_the_bounds_hold_where_values_are_far_apart(device: str) -> None:
    """Cells are passed over by what they can reach, which is most next to a deep hole."""
    rng = np.random.default_rng(0)
    values = rng.choice([-1000.0, -1.0, 0.0, 0.9, 1.0], (40, 1, 8, 8), p=[0.2, 0.2, 0.2, 0.2, 0.2])
    maps = torch.from_numpy(values).float()
    maps[20:] /= 1000
    rois = torch.tensor([[0.0, 0.0, 61.0, 47.0]]).expand(40, 4)
    check(maps, rois, heatmaps_to_keypoints(maps.to(device), rois.to(device)), 1e-6)


@on_each_device
def test_what_is_not_finite_gives_nan(device: str) -> None:
    maps, rois = random_maps("peaks", 6, 2, 8, 8), random_rois(6)
    expected = heatmaps_to_keypoints(maps, rois)
    for r, value in enumerate([math.nan, math.inf, -math.inf]):
        maps[r, 1, 7, 7] = value
        expected[r, 1] = math.nan
        rois[3 + r, r] = value
        expected[3 + r] = math.nan
    result = heatmaps_to_keypoints(maps.to(device), rois.to(device)).cpu()
    torch.testing.assert_close(result, expected, equal_nan=True)


@on_each_device
@pytest.mark.parametrize("dtype", DTYPES)
def test_enormous_values(dtype: torch.dtype, device: str) -> None:
    """Defined, if not useful, where the interpolation overflows."""
    largest = torch.finfo(dtype).max
    maps = torch.full((2, 2, 5, 5), -largest, dtype=dtype, device=device)
    maps[0, 0, 2, 2] = largest
    maps[1] = largest
    rois = torch.tensor([[0.0, 0.0, 20.0, 30.0]], device=device).expand(2, 4)
    result = heatmaps_to_keypoints(maps, rois).cpu()
    assert (result[..., :2] >= 0).all()
    assert (result[..., :2] <= 30).all()


@on_each_device
def test_huge_rois(device: str) -> None:
    """The number of points ends at 512 to a value of the heatmap, a side."""
    maps = random_maps("peaks", 3, 1, 6, 6).to(device)
    rois = torch.tensor([[0, 0, 1e9, 1e9], [-1e30, 0, 1e30, 4], [0, 0, 3, 3072.0]], device=device)
    result = heatmaps_to_keypoints(maps, rois).double().cpu()
    for r, roi in enumerate(rois.double().tolist()):
        columns, rows = (min(math.ceil(roi[i + 2] - roi[i]), 512 * 6) for i in (0, 1))
        resized = (
            resize_matrix(rows, 6) @ maps[r, 0].double().cpu().numpy() @ resize_matrix(columns, 6).T
        )
        row, column = np.unravel_index(resized.argmax(), resized.shape)
        shares = [(result[r, 0, i].item() - roi[i]) / (roi[i + 2] - roi[i]) for i in (0, 1)]
        # Around a peak several points are equal in float32.
        assert abs(shares[0] * columns - 0.5 - column) <= 16
        assert abs(shares[1] * rows - 0.5 - row) <= 16
        assert abs(result[r, 0, 2].item() - resized.max()) <= 1e-5


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ["peaks", "noise"])
def test_the_cpu_and_cuda_find_the_same_points(kind: str, dtype: torch.dtype) -> None:
    maps, rois = random_maps(kind, 30, 3, 24, 32).to(dtype), random_rois(30, seed=2) * 3
    cpu, cuda = heatmaps_to_keypoints(maps, rois), heatmaps_to_keypoints(maps.cuda(), rois.cuda())
    assert torch.equal(cpu[..., :3], cuda[..., :3].cpu())
    torch.testing.assert_close(cpu[..., 3], cuda[..., 3].cpu())
    assert torch.equal(cuda, heatmaps_to_keypoints(maps.cuda(), rois.cuda()))


@pytest.mark.gpu
def test_nothing_waits_for_the_device() -> None:
    maps, rois = random_maps("peaks", 3, 2, 8, 8).cuda(), random_rois(3).cuda()
    torch.cuda.set_sync_debug_mode("error")
    try:
        heatmaps_to_keypoints(maps, rois)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@on_each_device
def test_rois_are_not_rounded_to_the_dtype_of_the_maps(device: str) -> None:
    maps = random_maps("peaks", 1, 1, 8, 8).half().to(device)
    rois = torch.tensor([[4001.0, 2003.0, 4100.5, 2103.0]], device=device)
    check(maps.float(), rois, heatmaps_to_keypoints(maps, rois), 1e-5)


@on_each_device
def test_no_gradient(device: str) -> None:
    maps = random_maps("peaks", 2, 1, 8, 8).to(device).requires_grad_()
    assert not heatmaps_to_keypoints(maps, random_rois(2).to(device)).requires_grad


@on_each_device
@pytest.mark.parametrize("dtype", DTYPES)
def test_traceable(dtype: torch.dtype, device: str) -> None:
    for count in (0, 2):
        maps = random_maps("peaks", count, 2, 6, 6).to(device, dtype)
        check_traceable(heatmaps_to_keypoints, (maps, random_rois(count).to(device)))


@on_each_device
def test_compiled(device: str) -> None:
    check_compiled(
        lambda maps, rois: heatmaps_to_keypoints(maps, rois) * 2,
        *[
            (
                random_maps("peaks", count, 3, size, size + 2).to(device),
                random_rois(count).to(device),
            )
            for count, size in ((5, 6), (7, 9))
        ],
    )


@on_each_device
def test_errors(device: str) -> None:
    maps, rois = torch.zeros(2, 3, 4, 4, device=device), torch.zeros(2, 4, device=device)
    op = heatmaps_to_keypoints
    check_raises(
        r"maps must have the shape \(R, K, H, W\), got \(2, 3, 4\)", op, maps[..., 0], rois
    )
    check_raises(r"rois must have the shape \(R, 4\), got \(2, 3\)", op, maps, rois[:, :3])
    check_raises("maps and rois must have the same length, got 2 and 1", op, maps, rois[:1])
    check_raises("maps must be float32.*, got int64", op, maps.long(), rois)
    check_raises("rois must be float32.*, got int32", op, maps, rois.int())
    check_raises(r"at least one pixel, got the shape \(2, 3, 0, 4\)", op, maps[:, :, :0], rois)
    wide = maps[:, :, :1, :1].expand(2, 3, 1, 2**21 + 1)
    check_raises(r"sides up to 2\*\*21 .* 2097153\)", op, wide, rois)


@pytest.mark.gpu
def test_different_devices() -> None:
    maps, rois = torch.zeros(1, 1, 4, 4), torch.zeros(1, 4)
    check_raises("same device, got cuda:0 and cpu", heatmaps_to_keypoints, maps.cuda(), rois)
