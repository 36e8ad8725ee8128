"""Time NMS of rotated boxes.

    python benchmarks/nms_rotated.py [--device cpu] [--sides 5 105]

No other library has it on both devices; torchvision's NMS of as many axis-aligned boxes stands
beside it. ``scattered`` boxes lie anywhere in the image; ``clustered`` ones are a detector's:
twenty shaken copies of each of a few.
"""

import argparse

import timing
import torch
from box_iou_rotated import add_arguments, aligned, make_boxes
from torchvision.ops import nms

from detectron2.layers import nms_rotated

COPIES = 20


def make_clusters(count: int, sides: tuple[float, float], device: str) -> torch.Tensor:
    """``count`` rotated boxes, ``COPIES`` around each of as many as that takes."""
    generator = torch.Generator().manual_seed(3)
    boxes = make_boxes(-(-count // COPIES), 1, sides, "cpu").repeat_interleave(COPIES, 0)[:count]
    boxes += torch.randn(count, 5, generator=generator) * 3
    boxes[:, 2:4].clamp_(min=1)
    return boxes.to(device)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_arguments(parser)
    parser.add_argument("--threshold", type=float, default=0.5)
    args = timing.parse_arguments(parser)

    report = timing.Report("nms_rotated", args.device)
    counts = (1000, 4000, 16_000, 100_000) if args.device != "cpu" else (1000, 5000)
    for count in counts:
        scores = torch.rand(count, generator=torch.Generator().manual_seed(2)).to(args.device)
        for kind, boxes in (
            ("scattered", make_boxes(count, 1, args.sides, args.device)),
            ("clustered", make_clusters(count, args.sides, args.device)),
        ):
            upright = aligned(boxes)
            functions = {
                "native": lambda b=boxes, s=scores: nms_rotated(b, s, args.threshold),
                "torchvision, aligned": lambda b=upright, s=scores: nms(b, s, args.threshold),
            }
            timings = timing.compare(functions, args.device, repeats=args.repeats)
            kept = len(nms_rotated(boxes, scores, args.threshold))
            report.add(f"{count} {kind}", timings, boxes=count, kept=kept)
    report.print()


if __name__ == "__main__":
    main()
