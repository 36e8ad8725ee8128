"""torch.ops.detectron2.mask_bounding_boxes against a search pixel by pixel."""

import pytest
import torch
from torch import Tensor

from .harness import check_compiled, check_raises, check_traceable, on_each_device, strided

mask_bounding_boxes = torch.ops.detectron2.mask_bounding_boxes


def random_masks(count: int, height: int, width: int, seed: int = 0) -> Tensor:
    """From empty ones to full ones; sparse, so that borders are found by single pixels."""
    generator = torch.Generator().manual_seed(seed)
    density = torch.rand(count, 1, 1, generator=generator) ** 6
    density[0::5] = 0
    density[1::5] = 2 / max(height * width, 1)
    masks = torch.rand(count, height, width, generator=generator) < density
    masks[2::7] = True
    return masks


def expected_boxes(masks: Tensor) -> Tensor:
    boxes = torch.zeros(len(masks), 4)
    for n, mask in enumerate(masks):
        pixels = mask.nonzero()
        if len(pixels) > 0:
            (y0, x0), (y1, x1) = pixels.amin(0).tolist(), pixels.amax(0).tolist()
            boxes[n] = torch.tensor([x0, y0, x1 + 1, y1 + 1])
    return boxes


SIZES = [(1, 1), (1, 100), (100, 1), (7, 8), (5, 15), (16, 16), (40, 63), (33, 64), (21, 200)]


@on_each_device
@pytest.mark.parametrize("is_strided", [False, True])
@pytest.mark.parametrize(("height", "width"), [*SIZES, (300, 1333)])
def test_agrees_with_a_search(height: int, width: int, is_strided: bool, device: str) -> None:
    masks = random_masks(20, height, width, seed=height * width)
    expected = expected_boxes(masks)
    masks = masks.to(device)
    actual = mask_bounding_boxes(strided(masks) if is_strided else masks)
    assert actual.dtype == torch.float32
    assert actual.device.type == device
    assert torch.equal(actual.cpu(), expected)


@on_each_device
def test_each_single_pixel(device: str) -> None:
    """A border that is off by one, or a byte order that is turned around, shows."""
    masks = torch.eye(5 * 37, dtype=torch.bool).view(-1, 5, 37)
    assert torch.equal(mask_bounding_boxes(masks.to(device)).cpu(), expected_boxes(masks))


@on_each_device
@pytest.mark.parametrize("shape", [(0, 5, 6), (3, 0, 6), (3, 5, 0), (0, 0, 0)])
def test_without_pixels(shape: tuple[int, int, int], device: str) -> None:
    boxes = mask_bounding_boxes(torch.zeros(shape, dtype=torch.bool, device=device))
    assert torch.equal(boxes.cpu(), torch.zeros(shape[0], 4))


@on_each_device
def test_views_that_start_anywhere_in_memory(device: str) -> None:
    masks = random_masks(40, 9, 31, seed=5).to(device)
    for offset in range(1, 18):
        part = masks.view(-1)[offset : offset + 30 * 9 * 31].view(30, 9, 31)
        assert torch.equal(mask_bounding_boxes(part).cpu(), expected_boxes(part.cpu()))


def test_errors_name_what_was_given() -> None:
    check_raises(r"masks must have the shape \(N, height, width\), got \(3, 4\)",
                 mask_bounding_boxes, torch.zeros(3, 4, dtype=torch.bool))  # fmt: skip
    check_raises("masks must be bool, got float32", mask_bounding_boxes, torch.zeros(3, 4, 5))


@on_each_device
def test_tracing(device: str) -> None:
    masks = random_masks(6, 12, 30).to(device)
    check_traceable(mask_bounding_boxes, (masks,))
    check_compiled(
        lambda masks: mask_bounding_boxes(masks) + 1,
        (masks,),
        (random_masks(9, 20, 31).to(device),),
    )


@pytest.mark.gpu
def test_more_than_2_to_the_31_pixels() -> None:
    masks = torch.zeros(3, 30_000, 30_000, dtype=torch.bool, device="cuda")
    masks[2, 29_998, 29_997] = True
    masks[0, 1, 2] = True
    expected = [[2, 1, 3, 2], [0, 0, 0, 0], [29_997, 29_998, 29_998, 29_999]]
    assert mask_bounding_boxes(masks).tolist() == expected
