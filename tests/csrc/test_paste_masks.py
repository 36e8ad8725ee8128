"""torch.ops.detectron2.paste_masks against grid_sample's definition in float64."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from .harness import (
    DTYPES,
    check_compiled,
    check_raises,
    check_traceable,
    on_each_device,
    strided,
)

paste_masks = torch.ops.detectron2.paste_masks


def random_case(
    count: int, size: int = 14, seed: int = 0, height: int = 60, width: int = 72
) -> tuple[Tensor, Tensor]:
    """Masks in [0, 1) and boxes of which some stick out of the image or lie outside."""
    generator = torch.Generator().manual_seed(seed)
    masks = torch.rand(count, size, size, generator=generator)
    corners = torch.rand(count, 2, generator=generator) * 1.4 - 0.2
    sides = torch.rand(count, 2, generator=generator) + 0.01
    image = torch.tensor([width, height])
    # Multiples of 1/4, exact in half precision, too.
    corners, sides = (corners * image * 4).round() / 4, (sides * image * 4).round() / 4 + 0.25
    return masks, torch.cat([corners, corners + sides], dim=1)


def pasted_values(masks: Tensor, boxes: Tensor, height: int, width: int) -> Tensor:
    """One pixel at a time: the value of the mask, surrounded by zeros, at the pixel's centre."""
    mask_height, mask_width = masks.shape[1:]
    padded = functional.pad(masks.double(), [1, 1, 1, 1])
    values = torch.zeros(len(masks), height, width, dtype=torch.float64)
    for n, (x0, y0, x1, y1) in enumerate(boxes.double().tolist()):
        for row in range(max(math.floor(y0) - 1, 0), min(math.ceil(y1) + 1, height)):
            v = (row + 0.5 - y0) / (y1 - y0) * mask_height + 0.5
            for column in range(max(math.floor(x0) - 1, 0), min(math.ceil(x1) + 1, width)):
                u = (column + 0.5 - x0) / (x1 - x0) * mask_width + 0.5
                if 0 <= u < mask_width + 1 and 0 <= v < mask_height + 1:
                    i, j = int(v), int(u)
                    cell = padded[n, i : i + 2, j : j + 2]
                    weights = torch.outer(
                        torch.tensor([i + 1 - v, v - i]).double(),
                        torch.tensor([j + 1 - u, u - j]).double(),
                    )
                    values[n, row, column] = (cell * weights).sum()
    return values


def pasted_by_grid_sample(masks: Tensor, boxes: Tensor, height: int, width: int) -> Tensor:
    """By PyTorch's operator, in the masks' dtype."""
    values = masks.new_zeros(len(masks), height, width)
    for n in range(len(masks)):
        x0, y0, x1, y1 = boxes[n]
        left, right = max(int(x0.floor()) - 1, 0), min(int(x1.ceil()) + 1, width)
        top, bottom = max(int(y0.floor()) - 1, 0), min(int(y1.ceil()) + 1, height)
        if left < right and top < bottom:
            x = (torch.arange(left, right, dtype=x0.dtype) + 0.5 - x0) / (x1 - x0) * 2 - 1
            y = (torch.arange(top, bottom, dtype=x0.dtype) + 0.5 - y0) / (y1 - y0) * 2 - 1
            size = (len(y), len(x))
            grid = torch.stack([x.expand(size), y[:, None].expand(size)], dim=2)[None]
            window = functional.grid_sample(masks[n][None, None], grid, align_corners=False)
            values[n, top:bottom, left:right] = window[0, 0]
    return values


@on_each_device
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("is_strided", [False, True])
@pytest.mark.parametrize("count", [0, 1, 7])
def test_dtypes_layouts_sizes(
    dtype: torch.dtype, is_strided: bool, count: int, device: str
) -> None:
    masks, boxes = random_case(count)
    masks, boxes = masks.to(device, dtype), boxes.to(device, dtype)
    values = pasted_values(masks.cpu(), boxes.cpu(), 60, 72)
    if is_strided:
        masks, boxes = strided(masks), strided(boxes)
    is_set = paste_masks(masks, boxes, 60, 72, 0.5).cpu()
    scaled = paste_masks(masks, boxes, 60, 72, -1.0).cpu()
    assert is_set.dtype == torch.bool
    assert scaled.dtype == torch.uint8
    assert is_set.shape == scaled.shape == (count, 60, 72)
    # Rounding may move a value across the threshold, or across a multiple of 1/255.
    assert (is_set != (values >= 0.5))[(values - 0.5).abs() > 1e-5].sum() == 0
    assert ((values * 255 - scaled.double()) > -1e-3).all()
    assert ((values * 255 - scaled.double()) < 1 + 1e-3).all()


@on_each_device
@pytest.mark.parametrize("shape", [(1, 1), (3, 8), (30, 2), (56, 56)])
@pytest.mark.parametrize("width", [1, 15, 16, 17, 31, 130, 511, 530, 1043])
def test_sizes_of_mask_and_image(shape: tuple[int, int], width: int, device: str) -> None:
    masks, boxes = random_case(9, seed=width, height=23, width=width)
    masks = functional.interpolate(masks[None], shape)[0]
    values = pasted_by_grid_sample(masks, boxes, 23, width)
    is_set = paste_masks(masks.to(device), boxes.to(device), 23, width, 0.5).cpu()
    scaled = paste_masks(masks.to(device), boxes.to(device), 23, width, -1.0).cpu()
    assert (is_set != (values >= 0.5))[(values - 0.5).abs() > 1e-5].sum() == 0
    assert ((values * 255).floor() - scaled).abs().max() <= 1
    assert ((values * 255).floor() == scaled).float().mean() > 0.999


@pytest.mark.parametrize("threshold", [0.0, 0.25, 0.5, 0.75, 1.0, 2.0])
def test_ties_with_the_threshold(threshold: float) -> None:
    """Half-covered pixels of binary masks lie exactly on it, in float64's arithmetic here, and
    grid_sample's own rounding decides for the operator, too."""
    masks, boxes = random_case(60, size=8, seed=3)
    masks, boxes = (masks > 0.5).float(), boxes.round()
    boxes[:, 2:] = boxes[:, 2:].maximum(boxes[:, :2] + 1)
    values = pasted_by_grid_sample(masks.double(), boxes.double(), 60, 72)
    is_set = paste_masks(masks.double(), boxes.double(), 60, 72, threshold)
    # Beyond one pixel from the box nothing is set, whatever the threshold.
    in_reach = paste_masks(masks, boxes, 60, 72, 0.0)
    assert (values == threshold).any() or threshold > 1
    clear = (values - threshold).abs() > 1e-12
    assert torch.equal(is_set[clear], ((values >= threshold) & in_reach)[clear])
    if threshold == 1:
        assert is_set.any()


@pytest.mark.skipif(
    "AVX2" not in torch.backends.cpu.get_cpu_capability()
    and "AVX512" not in torch.backends.cpu.get_cpu_capability(),
    reason="grid_sample rounds otherwise without fused multiply-adds",
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_bits_of_grid_sample(dtype: torch.dtype) -> None:
    for size in (1, 2, 14, 28):
        masks, boxes = (x.to(dtype) for x in random_case(40, size=size, seed=size))
        boxes = boxes + torch.rand(40, 4, dtype=dtype) * 0.1
        values = pasted_by_grid_sample(masks, boxes, 60, 72)
        assert torch.equal(paste_masks(masks, boxes, 60, 72, 0.5), values >= 0.5)
        assert torch.equal(paste_masks(masks, boxes, 60, 72, -1.0), (values * 255).byte())


@on_each_device
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_boxes_that_paste_nothing(dtype: torch.dtype, device: str) -> None:
    good = [3.0, 4.0, 15.0, 16.0]
    boxes = [
        [*good[:column], value, *good[column + 1 :]]
        for column in range(4)
        for value in (math.nan, math.inf, -math.inf)
    ]
    boxes += [
        [3.0, 4.0, 3.0, 16.0],  # no width
        [3.0, 4.0, 15.0, 4.0],
        [3.0, 4.0, 2.0, 16.0],  # inverted
        [15.0, 16.0, 3.0, 4.0],
        [-50.0, 4.0, -40.0, 16.0],  # outside the image
        [3.0, 90.0, 15.0, 99.0],
        [1e30, 0.0, 2e30, 16.0],
    ]
    masks = torch.ones(len(boxes), 7, 7, dtype=dtype, device=device)
    boxes = torch.tensor(boxes, dtype=dtype, device=device)
    assert not paste_masks(masks, boxes, 20, 20, 0.5).any()
    assert not paste_masks(masks, boxes, 20, 20, 0.0).any()
    assert not paste_masks(masks, boxes, 20, 20, -1.0).any()


@on_each_device
def test_extreme_boxes(device: str) -> None:
    masks = torch.ones(4, 6, 6, device=device)
    boxes = torch.tensor(
        [[-1e30, -1e30, 1e30, 1e30], [4, 4, 5, 5], [0, 0, 20, 20], [5.499, 5.499, 5.501, 5.501]],
        device=device,
    )
    areas = paste_masks(masks, boxes, 20, 20, 0.5).sum((1, 2)).tolist()
    assert areas == [400, 1, 396, 1]  # the corners of the third lie towards the zeros around it


@on_each_device
def test_values_outside_0_to_1(device: str) -> None:
    values = [-math.inf, -3.0, -0.001, 0.0, 0.999, 1.0, 1.5, 1e30, math.inf, math.nan]
    masks = torch.tensor(values, device=device)[:, None, None]
    boxes = torch.tensor([[0.0, 0.0, 1.0, 1.0]], device=device).expand(len(values), 4)
    scaled = paste_masks(masks, boxes, 1, 1, -1.0).flatten()
    assert scaled.tolist() == [0, 0, 0, 0, 254, 255, 255, 255, 255, 0]
    is_set = paste_masks(masks, boxes, 1, 1, 0.0).flatten()
    assert is_set.tolist() == [False] * 3 + [True] * 6 + [False]


@on_each_device
def test_masks_without_pixels_and_images_without(device: str) -> None:
    boxes = torch.tensor([[0.0, 0.0, 4.0, 4.0]], device=device)
    assert not paste_masks(torch.ones(1, 0, 0, device=device), boxes, 5, 5, 0.5).any()
    masks = torch.ones(1, 3, 3, device=device)
    assert paste_masks(masks, boxes, 0, 5, 0.5).shape == (1, 0, 5)
    assert paste_masks(masks, boxes, 5, 0, -1.0).shape == (1, 5, 0)


def test_errors_name_what_was_given() -> None:
    masks, boxes = torch.zeros(3, 7, 7), torch.zeros(3, 4)
    check_raises(r"masks must have the shape .*, got \(3, 7\)",
                 paste_masks, masks[0:3, 0], boxes, 9, 9, 0.5)  # fmt: skip
    check_raises(r"boxes must have the shape .*, got \(2, 4\)",
                 paste_masks, masks, boxes[:2], 9, 9, 0.5)  # fmt: skip
    check_raises("masks must be float32.*got int64",
                 paste_masks, masks.long(), boxes, 9, 9, 0.5)  # fmt: skip
    check_raises("boxes must be float32.*got int64",
                 paste_masks, masks, boxes.long(), 9, 9, 0.5)  # fmt: skip
    check_raises("must not be negative, got -1 and 9", paste_masks, masks, boxes, -1, 9, 0.5)
    check_raises("threshold must not be NaN", paste_masks, masks, boxes, 9, 9, math.nan)


@pytest.mark.gpu
def test_error_on_different_devices() -> None:
    masks, boxes = torch.zeros(3, 7, 7), torch.zeros(3, 4)
    check_raises("same device, got cuda:0 and cpu", paste_masks, masks.cuda(), boxes, 9, 9, 0.5)


@on_each_device
def test_tracing(device: str) -> None:
    masks, boxes = (x.to(device) for x in random_case(6))
    for threshold in (0.5, -1.0):
        check_traceable(paste_masks, (masks, boxes, 30, 41, threshold))
    check_traceable(paste_masks, (masks.half().requires_grad_(), boxes, 30, 41, 0.5))
    more_masks, more_boxes = (x.to(device) for x in random_case(9))
    check_compiled(
        lambda masks, boxes: paste_masks(masks, boxes, masks.shape[0] + 30, 41, 0.5) & True,
        (masks, boxes),
        (more_masks, more_boxes),
    )


def test_not_differentiable() -> None:
    masks, boxes = random_case(3)
    assert not paste_masks(masks.requires_grad_(), boxes, 9, 9, -1.0).requires_grad


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("height", "width"), [(60, 72), (33, 1043), (800, 1333)])
def test_cuda_gives_the_bits_of_the_cpu(dtype: torch.dtype, height: int, width: int) -> None:
    masks, boxes = random_case(20, size=28, height=height, width=width)
    masks, boxes = masks.to(dtype), boxes + 0.123
    for threshold in (0.5, 0.0, -1.0):
        expected = paste_masks(masks, boxes, height, width, threshold)
        actual = paste_masks(masks.cuda(), boxes.cuda(), height, width, threshold)
        assert torch.equal(actual.cpu(), expected)
        again = paste_masks(masks.cuda(), boxes.cuda(), height, width, threshold)
        assert torch.equal(actual, again)


@pytest.mark.gpu
def test_more_than_2_to_the_31_pixels() -> None:
    masks, boxes = (x.cuda() for x in random_case(70_000, size=5, height=150, width=210))
    pasted = paste_masks(masks, boxes, 150, 210, 0.5)
    for part in (slice(0, 50), slice(65_500, 65_600), slice(69_950, 70_000)):
        assert torch.equal(pasted[part], paste_masks(masks[part], boxes[part], 150, 210, 0.5))


@pytest.mark.gpu
def test_an_output_that_is_all_it_allocates() -> None:
    masks, boxes = (x.cuda() for x in random_case(100, size=28, height=800, width=1333))
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    pasted = paste_masks(masks, boxes, 800, 1333, 0.5)
    assert torch.cuda.max_memory_allocated() - before <= pasted.numel() + 2**21
