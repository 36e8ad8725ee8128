"""Time paste_masks_in_image beside its definition by grid_sample.

    python benchmarks/paste_masks.py
    python benchmarks/paste_masks.py --device cpu
    python benchmarks/paste_masks.py --masks 300 --height 1080 --width 1920

``grid_sample`` goes over the whole images of as many masks at a time as fit into 1 GiB of scratch
memory on CUDA, and over the window of one mask after another on the CPU. In half precision
grid_sample takes coordinates in half precision, too. Prints a table, then one JSON line a case;
``differing`` is the share of pixels that the two set differently, among them, for uint8 on CUDA,
those beyond one pixel from the box.
"""

import argparse

import timing
import torch
from torch import Tensor
from torch.nn import functional

from detectron2.layers import paste_masks_in_image

SCRATCH_BYTES = 1 << 30


def sample(masks: Tensor, boxes: Tensor, columns: Tensor, rows: Tensor) -> Tensor:
    """Values of (N, M, M) masks at the pixels of a window, (N, rows, columns)."""
    x0, y0, x1, y1 = (boxes[:, i : i + 1] for i in range(4))
    x = (columns + 0.5 - x0) / (x1 - x0) * 2 - 1
    y = (rows + 0.5 - y0) / (y1 - y0) * 2 - 1
    size = (len(masks), y.shape[1], x.shape[1])
    grid = torch.stack([x[:, None].expand(size), y[:, :, None].expand(size)], dim=3)
    grid = grid.to(masks.dtype)
    return functional.grid_sample(masks[:, None], grid, align_corners=False)[:, 0]


def paste_by_grid_sample(
    masks: Tensor, boxes: Tensor, image_shape: tuple[int, int], threshold: float
) -> Tensor:
    """What paste_masks_in_image computes."""
    height, width = image_shape
    dtype = torch.bool if threshold >= 0 else torch.uint8
    pasted = torch.zeros(len(masks), height, width, dtype=dtype, device=masks.device)

    def to_pixels(values: Tensor) -> Tensor:
        return values >= threshold if threshold >= 0 else (values * 255).to(torch.uint8)

    if masks.is_cuda:
        columns = torch.arange(width, device=masks.device)
        rows = torch.arange(height, device=masks.device)
        step = max(SCRATCH_BYTES // (height * width * 4), 1)
        for first in range(0, len(masks), step):
            part = slice(first, first + step)
            pasted[part] = to_pixels(sample(masks[part], boxes[part], columns, rows))
        return pasted
    for n in range(len(masks)):
        x0, y0 = (boxes[n, :2].floor() - 1).clamp(min=0).int().tolist()
        x1, y1 = (boxes[n, 2:].ceil() + 1).int().tolist()
        columns, rows = torch.arange(x0, min(x1, width)), torch.arange(y0, min(y1, height))
        window = sample(masks[n : n + 1], boxes[n : n + 1], columns, rows)[0]
        pasted[n, y0:y1, x0:x1] = to_pixels(window)
    return pasted


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    timing.add_arguments(parser)
    parser.add_argument("--masks", type=int, default=100)
    parser.add_argument("--mask-size", type=int, default=28)
    parser.add_argument("--height", type=int, default=800)
    parser.add_argument("--width", type=int, default=1333)
    args = timing.parse_arguments(parser)

    generator = torch.Generator().manual_seed(0)
    image = torch.tensor([args.width, args.height])
    masks = torch.rand(args.masks, args.mask_size, args.mask_size, generator=generator)
    sides = torch.rand(args.masks, 2, generator=generator) * image * 0.5 + 16
    corners = torch.rand(args.masks, 2, generator=generator) * (image - sides)
    boxes = torch.cat([corners, corners + sides], dim=1).to(args.device)

    report = timing.Report("paste_masks", args.device)
    dtypes = [torch.float32] if args.device == "cpu" else [torch.float32, torch.float16]
    for dtype in dtypes:
        for threshold in (0.5, -1.0):
            call = (masks.to(args.device, dtype), boxes, (args.height, args.width), threshold)
            functions = {
                "native": lambda call=call: paste_masks_in_image(*call),
                "grid_sample": lambda call=call: paste_by_grid_sample(*call),
            }
            own, other = (function() for function in functions.values())
            differing = (own != other).float().mean().item()
            del own, other
            timings = timing.compare(functions, args.device, warmup=3, repeats=args.repeats)
            case = f"{str(dtype).removeprefix('torch.')} to {'bool' if threshold >= 0 else 'uint8'}"
            report.add(case, timings, differing=differing, masks=args.masks)
    report.print()


if __name__ == "__main__":
    main()
