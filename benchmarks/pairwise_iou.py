"""Time the IoU of axis-aligned boxes beside its formulation in PyTorch and torchvision's.

    python benchmarks/pairwise_iou.py [--device cpu]

``native`` and ``formulation`` start from tensors, ``pairwise_iou`` from ``Boxes``.
"""

import argparse

import timing
import torch
from torchvision.ops import box_iou

from detectron2._ops.pairwise_iou import iou
from detectron2.structures import Boxes, pairwise_iou


def make_boxes(count: int, seed: int, device: str) -> torch.Tensor:
    """Boxes of 8 to 300 pixels in an image of 800 x 1333."""
    generator = torch.Generator().manual_seed(seed)
    sides = torch.rand(count, 2, generator=generator) * 292 + 8
    corners = torch.rand(count, 2, generator=generator) * (torch.tensor([1333, 800]) - sides)
    return torch.cat([corners, corners + sides], dim=1).to(device)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    timing.add_arguments(parser)
    args = timing.parse_arguments(parser)

    report = timing.Report("pairwise_iou", args.device)
    for count1, count2 in ((100, 200_000), (5000, 500), (200_000, 20)):
        a, b = make_boxes(count1, 1, args.device), make_boxes(count2, 2, args.device)
        assert torch.equal(torch.ops.detectron2.pairwise_iou(a, b), iou(a, b))
        functions = {
            "pairwise_iou": lambda a=a, b=b: pairwise_iou(Boxes(a), Boxes(b)),
            "native": lambda a=a, b=b: torch.ops.detectron2.pairwise_iou(a, b),
            "torchvision": lambda a=a, b=b: box_iou(a, b),
            "formulation": lambda a=a, b=b: iou(a, b),
        }
        timings = timing.compare(functions, args.device, repeats=args.repeats)
        report.add(f"{count1} x {count2}", timings, boxes1=count1, boxes2=count2)
    report.print()


if __name__ == "__main__":
    main()
