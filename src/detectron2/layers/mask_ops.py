"""Pasting of the masks that are predicted for boxes into the image."""

import numpy as np
import torch
from PIL import Image
from torch import nn

import detectron2._ops  # noqa: F401  (registers torch.ops.detectron2)

__all__ = ["paste_masks_in_image"]

BYTES_PER_FLOAT = 4
GPU_MEM_LIMIT = 1024**3
"""Bytes of scratch memory that pasting keeps to in upstream. Here it needs none."""


def _paste_by_grid_sample(
    masks: torch.Tensor, boxes: torch.Tensor, image_shape: tuple[int, int], threshold: float
) -> torch.Tensor:
    """The operator's result in PyTorch's own operators, slower: it goes from mask to mask.

    For what the operator does not serve: TorchScript and the formats that are traced, which may
    run where this library is not, and devices other than the CPU and CUDA.
    """
    height, width = image_shape
    dtype = torch.bool if threshold >= 0 else torch.uint8
    pasted = torch.zeros([masks.size(0), height, width], dtype=dtype, device=masks.device)
    for i in range(masks.size(0)):
        x0, y0, x1, y1 = boxes[i].unbind()
        sides = torch.stack([x1 - x0, y1 - y0])
        if bool((torch.isfinite(sides) & (sides > 0)).all()):
            # One pixel more than the box on each side, as far as it is in the image.
            left = int((x0.floor() - 1).clamp(0, width))
            top = int((y0.floor() - 1).clamp(0, height))
            right = int((x1.ceil() + 1).clamp(0, width))
            bottom = int((y1.ceil() + 1).clamp(0, height))
            if left < right and top < bottom:
                columns = torch.arange(left, right, device=masks.device).to(boxes.dtype) + 0.5
                rows = torch.arange(top, bottom, device=masks.device).to(boxes.dtype) + 0.5
                x = (columns - x0) / (x1 - x0) * 2 - 1
                y = (rows - y0) / (y1 - y0) * 2 - 1
                size = [bottom - top, right - left]
                grid = torch.stack([x[None, :].expand(size), y[:, None].expand(size)], dim=2)
                values = nn.functional.grid_sample(
                    masks[i][None, None], grid[None].to(masks.dtype), align_corners=False
                )[0, 0]
                if threshold >= 0:
                    window = values >= threshold
                else:
                    window = (values.nan_to_num(0.0) * 255).clamp(0, 255).to(torch.uint8)
                pasted[i, top:bottom, left:right] = window
    return pasted


@torch.jit.script_if_tracing
def _trace_paste(
    masks: torch.Tensor,
    boxes: torch.Tensor,
    height: torch.Tensor,
    width: torch.Tensor,
    threshold: float,
) -> torch.Tensor:
    """As a script, so that a trace holds the loop and not its steps; the size may be traced."""
    return _paste_by_grid_sample(masks, boxes, (int(height), int(width)), threshold)


def paste_masks_in_image(
    masks: torch.Tensor,
    boxes: torch.Tensor,
    image_shape: tuple[int, int],
    threshold: float = 0.5,
) -> torch.Tensor:
    """Stretch each mask over its box, in an image of its own.

    A pixel has the mask's value at its centre, by bilinear interpolation in which the mask is
    surrounded by zeros; up to one pixel outside the box counts as covered, all beyond it is 0. A
    box without positive, finite sides, or outside the image, leaves its image empty. Not
    differentiable.

    Scripting, tracing and devices other than the CPU and CUDA take the same steps through
    ``grid_sample``; everywhere else it is one kernel without scratch memory.

    Args:
        masks: ``(N, M, M)``, of any dtype; values are meant to be in [0, 1].
        boxes: :class:`Boxes` or a tensor ``(N, 4)``, rows ``(x0, y0, x1, y1)`` in the pixels of
            the image.
        image_shape: (height, width).
        threshold: the value from which on a pixel counts as set. A negative one asks for the
            values themselves.

    Returns:
        ``(N, height, width)``, bool, or, for a negative threshold, uint8: the values in 255ths,
        rounded towards 0. Without masks it is uint8 in either case, except in compiled graphs.
    """
    if not isinstance(boxes, torch.Tensor):
        boxes = boxes.tensor
    if masks.dim() != 3 or masks.size(1) != masks.size(2):
        raise ValueError(f"masks must have the shape (N, M, M), got {list(masks.shape)}")
    if boxes.dim() != 2 or boxes.size(0) != masks.size(0) or boxes.size(1) != 4:
        raise ValueError(
            f"{masks.size(0)} masks need boxes of the shape ({masks.size(0)}, 4), "
            f"got {list(boxes.shape)}"
        )
    if not masks.is_floating_point():
        masks = masks.float()
    if not boxes.is_floating_point():
        boxes = boxes.float()
    if torch.jit.is_scripting():
        return _paste_by_grid_sample(masks, boxes, image_shape, threshold)
    if torch.jit.is_tracing():
        height, width = (
            side if isinstance(side, torch.Tensor) else torch.tensor(side) for side in image_shape
        )
        return _trace_paste(masks, boxes, height, width, threshold)
    if masks.device.type not in ("cpu", "cuda", "meta"):
        return _paste_by_grid_sample(masks, boxes, image_shape, threshold)
    # In a compiled graph the number of masks may be unknown, and so must not choose the dtype.
    if not torch.compiler.is_compiling() and masks.size(0) == 0:
        return masks.new_empty((0, *image_shape), dtype=torch.uint8)
    return torch.ops.detectron2.paste_masks(masks, boxes, *image_shape, threshold)


def paste_mask_in_image_old(
    mask: torch.Tensor, box: torch.Tensor, img_h: int, img_w: int, threshold: float
) -> torch.Tensor:
    """Paste one mask as Detectron did: box corners truncated to whole pixels, both inclusive.

    Args:
        mask: ``(M, M)``, values in [0, 1].
        box: ``(4,)``, ``(x0, y0, x1, y1)``.
        img_h: rows of the image.
        img_w: columns of the image.
        threshold: what a value must exceed. A negative one asks for the values themselves.

    Returns:
        uint8 ``(img_h, img_w)`` on the CPU: 1 where the mask is, or the values in 255ths.
    """
    x0, y0, x1, y1 = box.to(device="cpu", dtype=torch.int32).tolist()
    size = (max(x1 - x0 + 1, 1), max(y1 - y0 + 1, 1))
    resized = Image.fromarray(mask.detach().cpu().float().numpy()).resize(size, Image.BILINEAR)
    values = torch.from_numpy(np.array(resized, copy=True))
    pixels = values > threshold if threshold >= 0 else values * 255
    image = torch.zeros(img_h, img_w, dtype=torch.uint8)
    left, top = max(x0, 0), max(y0, 0)
    right, bottom = min(x0 + size[0], img_w), min(y0 + size[1], img_h)
    if left < right and top < bottom:
        image[top:bottom, left:right] = pixels[top - y0 : bottom - y0, left - x0 : right - x0]
    return image


def pad_masks(masks: torch.Tensor, padding: int) -> tuple[torch.Tensor, float]:
    """Surround masks with zeros.

    Args:
        masks: ``(N, M, M)``.
        padding: pixels on each side.

    Returns:
        ``(N, M + 2 * padding, M + 2 * padding)``, and how many times larger that is along a side.
    """
    size = masks.shape[-1]
    return nn.functional.pad(masks, [padding] * 4), (size + 2 * padding) / size


def scale_boxes(boxes: torch.Tensor, scale: float) -> torch.Tensor:
    """Scale boxes about their centres.

    Args:
        boxes: ``(N, 4)``, rows ``(x0, y0, x1, y1)``.
        scale: what the sides are multiplied by.

    Returns:
        Boxes like ``boxes``.
    """
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    halves = (boxes[:, 2:] - boxes[:, :2]) / 2 * scale
    return torch.cat([centres - halves, centres + halves], dim=1)
