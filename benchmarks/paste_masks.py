"""Time paste_masks_in_image beside its definition by grid_sample.

    python benchmarks/paste_masks.py
    python benchmarks/paste_masks.py --device cuda
    python benchmarks/paste_masks.py --device cuda --masks 300 --height 1080 --width 1920

``grid_sample`` goes over the whole images of as many masks at a time as fit into 1 GiB of scratch
memory on CUDA, and over the window of one mask after another on the CPU. The two take turns; a
time is the median, and for CUDA that of its own events. In half precision grid_sample takes
coordinates in half precision, too. Prints a table, then one JSON line a case; ``differing`` is the
share of pixels that the two set differently, among them, for uint8 on CUDA, those beyond one pixel
from the box.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable

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


def milliseconds(function: Callable[[], Tensor], device: str) -> float:
    """Of one call."""
    if device == "cpu":
        start = time.perf_counter()
        function()
        return (time.perf_counter() - start) * 1000
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    function()
    end.record()
    end.synchronize()
    return start.elapsed_time(end)


def peak_mebibytes(function: Callable[[], Tensor]) -> float:
    """CUDA memory that a call allocates beyond what there is."""
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    function()
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--masks", type=int, default=100)
    parser.add_argument("--mask-size", type=int, default=28)
    parser.add_argument("--height", type=int, default=800)
    parser.add_argument("--width", type=int, default=1333)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=15)
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    generator = torch.Generator().manual_seed(0)
    image = torch.tensor([args.width, args.height])
    masks = torch.rand(args.masks, args.mask_size, args.mask_size, generator=generator)
    sides = torch.rand(args.masks, 2, generator=generator) * image * 0.5 + 16
    corners = torch.rand(args.masks, 2, generator=generator) * (image - sides)
    boxes = torch.cat([corners, corners + sides], dim=1).to(args.device)

    names = ("grid_sample", "paste_masks")
    header = ("dtype", "result", *(f"{name} ms" for name in names), "ratio", "differing")
    print("".join(f"{column:>16}" for column in header))
    lines = []
    dtypes = [torch.float32] if args.device == "cpu" else [torch.float32, torch.float16]
    for dtype in dtypes:
        for threshold in (0.5, -1.0):
            case_masks = masks.to(args.device, dtype)
            call = (case_masks, boxes, (args.height, args.width), threshold)
            functions = {
                name: lambda function=function, call=call: function(*call)
                for name, function in zip(
                    names, (paste_by_grid_sample, paste_masks_in_image), strict=True
                )
            }
            results = [function() for function in functions.values()]
            differing = (results[0] != results[1]).float().mean().item()
            del results
            times: dict[str, list[float]] = {name: [] for name in names}
            for turn in range(args.repeats + 3):
                for name, function in functions.items():
                    elapsed = milliseconds(function, args.device)
                    if turn >= 3:
                        times[name].append(elapsed)
            medians = {name: statistics.median(values) for name, values in times.items()}
            result = "bool" if threshold >= 0 else "uint8"
            ratio = medians["grid_sample"] / medians["paste_masks"]
            dtype_name = str(dtype).removeprefix("torch.")
            print(
                f"{dtype_name:>16}{result:>16}"
                + "".join(f"{value:16.3f}" for value in medians.values())
                + f"{ratio:16.1f}{differing:16.2e}"
            )
            for name, function in functions.items():
                line = vars(args) | {"case": name, "dtype": dtype_name, "result": result}
                line["milliseconds"] = medians[name]
                if args.device == "cuda":
                    line["peak_mebibytes"] = peak_mebibytes(function)
                lines.append(line)
    for line in lines:
        print(json.dumps(line))


if __name__ == "__main__":
    main()
