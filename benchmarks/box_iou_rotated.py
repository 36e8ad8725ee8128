"""Time the IoU of rotated boxes.

    python benchmarks/box_iou_rotated.py [--device cpu]

No other library computes it on both devices; torchvision's IoU of as many axis-aligned boxes stands
beside it.
"""

import argparse

import timing
import torch
from torchvision.ops import box_iou

from detectron2.layers.rotated_boxes import pairwise_iou_rotated


def make_boxes(count: int, seed: int, device: str) -> torch.Tensor:
    """Rotated boxes of 10 to 210 pixels with centres in a square of 1,000."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.rand(count, 2, generator=generator) * 1000
    sides = torch.rand(count, 2, generator=generator) * 200 + 10
    angles = torch.rand(count, 1, generator=generator) * 360 - 180
    return torch.cat([centres, sides, angles], dim=1).to(device)


def aligned(boxes: torch.Tensor) -> torch.Tensor:
    """The boxes turned to angle 0, as (x0, y0, x1, y1)."""
    centres, sides = boxes[:, :2], boxes[:, 2:4]
    return torch.cat([centres - sides / 2, centres + sides / 2], dim=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    timing.add_arguments(parser)
    args = timing.parse_arguments(parser)

    report = timing.Report("box_iou_rotated", args.device)
    for count in (500, 1000, 2000, 4000):
        a, b = make_boxes(count, 1, args.device), make_boxes(count, 2, args.device)
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
