"""Time the IoU of rotated boxes.

    python benchmarks/box_iou_rotated.py [--device cpu] [--sides 5 105]

No other library computes it on both devices; torchvision's IoU of as many axis-aligned boxes stands
beside it.
"""

import argparse

import timing
import torch
from torchvision.ops import box_iou

from detectron2.layers.rotated_boxes import pairwise_iou_rotated


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Those of `timing`, and ``--sides``: what the boxes' sides lie between, in pixels."""
    timing.add_arguments(parser)
    parser.add_argument("--sides", type=float, nargs=2, default=(5, 105), metavar=("LO", "HI"))


def make_boxes(count: int, seed: int, sides: tuple[float, float], device: str) -> torch.Tensor:
    """Rotated boxes with centres in a square of 1,000 pixels."""
    least, most = sides
    generator = torch.Generator().manual_seed(seed)
    centres = torch.rand(count, 2, generator=generator) * 1000
    lengths = torch.rand(count, 2, generator=generator) * (most - least) + least
    angles = torch.rand(count, 1, generator=generator) * 360 - 180
    return torch.cat([centres, lengths, angles], dim=1).to(device)


def aligned(boxes: torch.Tensor) -> torch.Tensor:
    """The boxes turned to angle 0, as (x0, y0, x1, y1)."""
    centres, sides = boxes[:, :2], boxes[:, 2:4]
    return torch.cat([centres - sides / 2, centres + sides / 2], dim=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_arguments(parser)
    args = timing.parse_arguments(parser)

    report = timing.Report("box_iou_rotated", args.device)
    for count in (500, 1000, 2000, 4000):
        a, b = (make_boxes(count, seed, args.sides, args.device) for seed in (1, 2))
        upright = aligned(a), aligned(b)
        functions = {
            "native": lambda a=a, b=b: pairwise_iou_rotated(a, b),
            "torchvision, aligned": lambda upright=upright: box_iou(*upright),
        }
        timings = timing.compare(functions, args.device, repeats=args.repeats)
        report.add(f"{count} x {count}", timings, boxes=count)
    report.print()


if __name__ == "__main__":
    main()
