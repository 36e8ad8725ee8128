"""torch.ops.detectron2.resize_bilinear against Pillow, and the same arithmetic in NumPy."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from .harness import check_compiled, check_raises, check_traceable, strided

resize_bilinear = torch.ops.detectron2.resize_bilinear

PRECISION = 1 << 22


def filtered(image: np.ndarray, size: int) -> np.ndarray:
    """The first dimension resized: sums under a triangle, with weights rounded to 2^-22."""
    count = image.shape[0]
    scale = count / size
    stretch = max(scale, 1.0)
    rows = []
    for i in range(size):
        center = (i + 0.5) * scale
        first = max(int(center - stretch + 0.5), 0)
        end = min(int(center + stretch + 0.5), count)
        weights = np.maximum(1 - np.abs((np.arange(first, end) - center + 0.5) / stretch), 0)
        whole = (weights / weights.sum() * PRECISION + 0.5).astype(np.int64)
        total = np.tensordot(whole, image[first:end].astype(np.int64), axes=1)
        rows.append((total + PRECISION // 2) // PRECISION)
    return np.clip(np.stack(rows), 0, 255).astype(np.uint8)


def reference(image: Tensor, height: int, width: int) -> Tensor:
    planes = image.numpy()
    if width != planes.shape[2]:
        planes = filtered(planes.transpose(2, 1, 0), width).transpose(2, 1, 0)
    if height != planes.shape[1]:
        planes = filtered(planes.transpose(1, 0, 2), height).transpose(1, 0, 2)
    return torch.from_numpy(np.ascontiguousarray(planes))


def random_image(channels: int, height: int, width: int) -> Tensor:
    return torch.randint(0, 256, (channels, height, width), dtype=torch.uint8)


@pytest.mark.parametrize("channels", [0, 1, 3, 5])
@pytest.mark.parametrize("size", [(1, 1), (7, 90), (40, 3), (25, 36), (50, 72), (61, 131), (9, 36)])
def test_reference(size: tuple[int, int], channels: int) -> None:
    image = random_image(channels, 25, 36)
    expected = reference(image, *size)
    for layout in (image, strided(image), image.permute(1, 2, 0).contiguous().permute(2, 0, 1)):
        assert torch.equal(resize_bilinear(layout, *size), expected)


@pytest.mark.parametrize("scale", [0.3, 0.5, 0.8, 1.25, 1.6667, 3])
@pytest.mark.parametrize("side", [(48, 64), (64, 48), (97, 61)])
def test_pillow(side: tuple[int, int], scale: float) -> None:
    """Whole images, as augmentations resize them."""
    image = random_image(3, *side)
    height, width = (int(length * scale + 0.5) for length in side)
    picture = Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())
    expected = np.asarray(picture.resize((width, height), Image.BILINEAR))
    result = resize_bilinear(image, height, width).permute(1, 2, 0)
    np.testing.assert_array_equal(result.numpy(), expected)


def test_same_bits_for_any_number_of_threads() -> None:
    image = random_image(3, 300, 500)
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append(resize_bilinear(image, 800, 1333))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


def test_errors_name_what_was_given() -> None:
    image = random_image(3, 4, 5)
    check_raises("must be uint8, got float32", resize_bilinear, image.float(), 3, 3)
    check_raises(r"\(C, H, W\)", resize_bilinear, image[0], 3, 3)
    check_raises("image of 4 x 5 to be resized to 0 x 3", resize_bilinear, image, 0, 3)
    check_raises("image of 4 x 5 to be resized to 3 x -1", resize_bilinear, image, 3, -1)
    check_raises("image of 0 x 5", resize_bilinear, image[:, :0], 3, 3)


def test_tracing() -> None:
    check_traceable(resize_bilinear, (random_image(3, 4, 5), 6, 7))
    check_compiled(
        lambda image: resize_bilinear(image, image.shape[1] * 2, 9),
        (random_image(3, 4, 5),),
        (random_image(3, 6, 8),),
    )
