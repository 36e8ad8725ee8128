"""Mask pasting; the operator behind it has its own tests in tests/csrc."""

import io

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from detectron2.layers import mask_ops, paste_masks_in_image
from detectron2.layers.mask_ops import pad_masks, paste_mask_in_image_old, scale_boxes
from detectron2.structures import Boxes

on_each_device = pytest.mark.parametrize(
    "device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
)


def random_case(count: int, size: int = 14, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Smooth masks, and boxes of which some stick out of an image of (60, 72)."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 1, 4, 4, generator=generator)
    masks = functional.interpolate(coarse, (size, size), mode="bilinear")[:, 0]
    corners = torch.rand(count, 2, generator=generator) * 60 - 5
    sides = torch.rand(count, 2, generator=generator) * 50 + 1
    return masks, torch.cat([corners, corners + sides], dim=1)


def pasted_whole(masks: Tensor, boxes: Tensor, height: int, width: int) -> Tensor:
    """Every pixel of every image through grid_sample, as upstream does on CUDA."""
    x0, y0, x1, y1 = boxes.unbind(1)
    x = (torch.arange(width) + 0.5 - x0[:, None]) / (x1 - x0)[:, None] * 2 - 1
    y = (torch.arange(height) + 0.5 - y0[:, None]) / (y1 - y0)[:, None] * 2 - 1
    size = (len(masks), height, width)
    grid = torch.stack([x[:, None].expand(size), y[:, :, None].expand(size)], dim=3)
    return functional.grid_sample(masks[:, None], grid, align_corners=False)[:, 0]


@on_each_device
def test_agrees_with_grid_sample_over_whole_images(device: str) -> None:
    masks, boxes = random_case(30)
    values = pasted_whole(masks, boxes, 60, 72)
    pasted = paste_masks_in_image(masks.to(device), Boxes(boxes.to(device)), (60, 72))
    assert pasted.dtype == torch.bool
    assert pasted.device.type == device
    clear = (values - 0.5).abs() > 1e-5
    assert torch.equal(pasted.cpu()[clear], (values >= 0.5)[clear])


@on_each_device
@pytest.mark.parametrize("threshold", [0.5, 0.2, -1.0])
def test_formulation_in_pytorch_operators(threshold: float, device: str) -> None:
    masks, boxes = (x.to(device) for x in random_case(12))
    boxes[3, 2] = boxes[3, 0]
    boxes[4] = float("nan")
    boxes[5] += 1000
    expected = paste_masks_in_image(masks, boxes, (60, 72), threshold)
    actual = mask_ops._paste_by_grid_sample(masks, boxes, (60, 72), threshold)
    assert actual.dtype == expected.dtype
    assert (actual != expected).float().mean() < 1e-3
    assert (actual.int() - expected.int()).abs().max() <= 1


@pytest.mark.parametrize("threshold", [0.5, -1.0])
def test_scripted_and_saved(threshold: float) -> None:
    masks, boxes = random_case(8)
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(paste_masks_in_image), buffer)
    buffer.seek(0)
    scripted = torch.jit.load(buffer)
    assert "detectron2::" not in str(scripted.inlined_graph)
    for count in (0, 8):
        expected = mask_ops._paste_by_grid_sample(masks[:count], boxes[:count], (60, 72), threshold)
        assert torch.equal(scripted(masks[:count], boxes[:count], (60, 72), threshold), expected)


def test_traced_for_any_number_of_masks() -> None:
    masks, boxes = random_case(5)
    traced = torch.jit.trace(
        lambda masks, boxes: paste_masks_in_image(masks, Boxes(boxes), (60, 72)), (masks, boxes)
    )
    for count in (0, 1, 9):
        masks, boxes = random_case(count, seed=count)
        expected = paste_masks_in_image(masks, boxes, (60, 72)).bool()
        assert (traced(masks, boxes) != expected).sum() <= 1


def test_traced_for_any_image_size() -> None:
    masks, boxes = random_case(5)

    def paste(masks: Tensor, boxes: Tensor, image: Tensor) -> Tensor:
        return paste_masks_in_image(masks, boxes, (image.shape[0], image.shape[1]))

    traced = torch.jit.trace(paste, (masks, boxes, torch.zeros(60, 72)))
    assert traced(masks, boxes, torch.zeros(33, 41)).shape == (5, 33, 41)


def test_compiled_in_one_graph() -> None:
    torch._dynamo.reset()
    compiled = torch.compile(
        lambda masks, boxes: paste_masks_in_image(masks, Boxes(boxes), (60, 72)) & True,
        fullgraph=True, backend="aot_eager", dynamic=True,
    )  # fmt: skip
    for count in (6, 9, 13):
        masks, boxes = random_case(count, seed=count)
        assert torch.equal(
            compiled(masks, boxes), paste_masks_in_image(masks, boxes, (60, 72))
        )  # fmt: skip


def test_exported_for_any_number_of_masks() -> None:
    class Paste(torch.nn.Module):
        def forward(self, masks: Tensor, boxes: Tensor) -> Tensor:
            return paste_masks_in_image(masks, boxes, (60, 72))

    count = torch.export.Dim("count")
    exported = torch.export.export(
        Paste(), random_case(6), dynamic_shapes={"masks": {0: count}, "boxes": {0: count}}
    ).module()
    for masks, boxes in (random_case(2), random_case(11)):
        assert torch.equal(exported(masks, boxes), paste_masks_in_image(masks, boxes, (60, 72)))


@on_each_device
def test_no_masks(device: str) -> None:
    masks = torch.zeros(0, 28, 28, device=device)
    for threshold in (0.5, -1.0):
        pasted = paste_masks_in_image(
            masks, torch.zeros(0, 4, device=device), (30, 40), threshold=threshold
        )
        assert pasted.shape == (0, 30, 40)
        assert pasted.dtype == torch.uint8
        assert pasted.device.type == device


def test_shape_on_the_meta_device() -> None:
    masks, boxes = (x.to("meta") for x in random_case(3))
    for threshold, dtype in ((0.5, torch.bool), (-1.0, torch.uint8)):
        pasted = paste_masks_in_image(masks, boxes, (60, 72), threshold)
        assert (pasted.shape, pasted.dtype) == ((3, 60, 72), dtype)


def test_box_wholly_outside() -> None:
    """Upstream raises on the CPU."""
    masks, _ = random_case(2)
    boxes = torch.tensor([[-30.0, -30.0, -10.0, -10.0], [90.0, 10.0, 99.0, 20.0]])
    assert not paste_masks_in_image(masks, boxes, (60, 72)).any()


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64])
def test_masks_that_are_not_floating_point(dtype: torch.dtype) -> None:
    masks, boxes = random_case(4)
    masks = (masks > 0.5).to(dtype)
    expected = paste_masks_in_image(masks.float(), boxes, (60, 72))
    assert torch.equal(paste_masks_in_image(masks, boxes, (60, 72)), expected)


def test_boxes_of_integers() -> None:
    masks, boxes = random_case(4)
    boxes = boxes.long()
    expected = paste_masks_in_image(masks, boxes.float(), (60, 72))
    assert torch.equal(paste_masks_in_image(masks, boxes, (60, 72)), expected)


def test_half_precision_masks_keep_the_boxes_precision() -> None:
    """Upstream computes coordinates in the masks' dtype."""
    masks, boxes = random_case(20, size=28)
    masks, boxes = masks.half(), boxes + 1000
    expected = paste_masks_in_image(masks.float(), boxes, (1100, 1100))
    assert torch.equal(paste_masks_in_image(masks, boxes, (1100, 1100)), expected)


def test_errors_name_what_was_given() -> None:
    boxes = torch.zeros(3, 4)
    with pytest.raises(ValueError, match=r"\(N, M, M\), got \[3, 6, 7\]"):
        paste_masks_in_image(torch.zeros(3, 6, 7), boxes, (9, 9))
    with pytest.raises(ValueError, match=r"shape \(2, 4\), got \[3, 4\]"):
        paste_masks_in_image(torch.zeros(2, 7, 7), boxes, (9, 9))


@pytest.mark.parametrize(
    "box", [[3.7, 4.2, 30.9, 25.1], [-6.0, -2.5, 9.5, 8.0], [50.0, 40.0, 90.0, 80.0]]
)
def test_old_pasting_within_a_pixel_of_the_new(box: list[float]) -> None:
    """They round boxes differently, and so disagree along the outline at most."""
    masks, _ = random_case(1, size=28, seed=7)
    box = torch.tensor(box)
    old = paste_mask_in_image_old(masks[0], box, 60, 72, 0.5)
    assert old.dtype == torch.uint8
    assert old.shape == (60, 72)
    # Its boxes have the corners of whole pixels, both of which belong to them.
    whole = torch.cat([box[:2].trunc(), box[2:].trunc() + 1])
    new = paste_masks_in_image(masks, whole[None], (60, 72))[0]
    assert (old.bool() != new).float().mean() < 0.01


def test_old_pasting_of_values() -> None:
    image = paste_mask_in_image_old(torch.full((5, 5), 0.5), torch.tensor([2, 3, 4, 4]), 6, 7, -1)
    expected = torch.zeros(6, 7, dtype=torch.uint8)
    expected[3:5, 2:5] = 127
    assert torch.equal(image, expected)
    # Strictly above the threshold.
    image = paste_mask_in_image_old(torch.full((5, 5), 0.5), torch.tensor([2, 3, 4, 4]), 6, 7, 0.5)
    assert not image.any()


def test_old_pasting_outside_the_image() -> None:
    image = paste_mask_in_image_old(torch.ones(5, 5), torch.tensor([-9, -9, -3, -3]), 6, 7, 0.5)
    assert not image.any()


def test_pad_masks() -> None:
    masks = torch.rand(3, 4, 4)
    padded, scale = pad_masks(masks, 2)
    assert scale == 2
    assert padded.shape == (3, 8, 8)
    assert torch.equal(padded[:, 2:6, 2:6], masks)
    assert padded.count_nonzero() == masks.count_nonzero()


def test_scale_boxes() -> None:
    boxes = torch.tensor([[0.0, 0.0, 4.0, 8.0], [10.0, 10.0, 20.0, 30.0]])
    expected = torch.tensor([[-1.0, -2.0, 5.0, 10.0], [7.5, 5.0, 22.5, 35.0]])
    assert torch.equal(scale_boxes(boxes, 1.5), expected)


def test_padding_masks_and_scaling_boxes_cancel() -> None:
    masks, boxes = random_case(9)
    padded, scale = pad_masks(masks, 1)
    expected = paste_masks_in_image(masks, boxes, (60, 72))
    actual = paste_masks_in_image(padded, scale_boxes(boxes, scale), (60, 72))
    assert (actual != expected).float().mean() < 1e-3
