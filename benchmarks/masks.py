"""Time BitMasks and PolygonMasks beside pycocotools and PyTorch's own operators.

    python benchmarks/masks.py
    python benchmarks/masks.py --device cpu
    python benchmarks/masks.py --height 480 --width 640

Polygons are rasterised on the CPU; ``--device`` is where the boxes of bitmaps are computed.
``equal`` tells whether both sides gave the same. Prints a table, then one JSON line a case.
"""

import argparse
from collections.abc import Callable

import numpy as np
import timing
import torch
from pycocotools import mask as coco_mask

from detectron2.structures import BitMasks, PolygonMasks, polygons_to_bitmask

CROP = 28

Masks = torch.Tensor | list[np.ndarray]


def make_polygon(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A star of 40 vertices inside the image."""
    radius = rng.uniform(0.04, 0.25) * min(height, width)
    centre = rng.uniform(radius, [width - radius, height - radius])
    angles = np.sort(rng.uniform(0, 2 * np.pi, 40))
    arms = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return (centre + arms * radius * rng.uniform(0.6, 1, (40, 1))).reshape(-1)


def coco_bitmask(polygons: list[np.ndarray], height: int, width: int) -> np.ndarray:
    """As pycocotools documents it."""
    runs = coco_mask.merge(coco_mask.frPyObjects(polygons, height, width))
    return coco_mask.decode(runs).astype(bool)


def coco_bitmasks(instances: list[list[np.ndarray]], height: int, width: int) -> torch.Tensor:
    masks = [torch.from_numpy(coco_bitmask(polygons, height, width)) for polygons in instances]
    return torch.stack(masks)


def coco_crops(instances: list[list[np.ndarray]], boxes: np.ndarray) -> torch.Tensor:
    crops = []
    for polygons, (x0, y0, x1, y1) in zip(instances, boxes, strict=True):
        moved = []
        for polygon in polygons:
            points = polygon.reshape(-1, 2) - [x0, y0]
            points *= [CROP / max(x1 - x0, 0.1), CROP / max(y1 - y0, 0.1)]
            moved.append(points.reshape(-1))
        crops.append(torch.from_numpy(coco_bitmask(moved, CROP, CROP)))
    return torch.stack(crops)


def boxes_by_reduction(masks: torch.Tensor) -> torch.Tensor:
    """Boxes of bitmaps, mask by mask, from the columns and rows that have a pixel."""
    boxes = torch.zeros(len(masks), 4)
    columns, rows = masks.any(dim=1).cpu(), masks.any(dim=2).cpu()
    for n in range(len(masks)):
        x, y = columns[n].nonzero()[:, 0], rows[n].nonzero()[:, 0]
        if len(x) > 0:
            boxes[n] = torch.stack([x[0], y[0], x[-1] + 1, y[-1] + 1])
    return boxes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    timing.add_arguments(parser)
    parser.add_argument("--instances", type=int, default=100)
    parser.add_argument("--height", type=int, default=800)
    parser.add_argument("--width", type=int, default=1333)
    args = timing.parse_arguments(parser)

    rng = np.random.default_rng(0)
    size = (args.height, args.width)
    instances = [[make_polygon(rng, *size)] for _ in range(args.instances)]
    polygons, bitmasks = PolygonMasks(instances), BitMasks.from_polygon_masks(instances, *size)
    bitmasks = bitmasks.to(args.device)
    boxes = polygons.get_bounding_boxes().tensor + torch.tensor([-3.0, -2.0, 4.0, 5.0])

    cases: dict[str, dict[str, Callable[[], Masks]]] = {
        "polygons_to_bitmask": {
            "native": lambda: [polygons_to_bitmask(polygons, *size) for polygons in instances],
            "plain": lambda: [coco_bitmask(polygons, *size) for polygons in instances],
        },
        "from_polygon_masks": {
            "native": lambda: BitMasks.from_polygon_masks(instances, *size).tensor,
            "plain": lambda: coco_bitmasks(instances, *size),
        },
        "crop_and_resize": {
            "native": lambda: polygons.crop_and_resize(boxes, CROP),
            "plain": lambda: coco_crops(instances, boxes.double().numpy()),
        },
        "get_bounding_boxes": {
            "native": lambda: bitmasks.get_bounding_boxes().tensor,
            "plain": lambda: boxes_by_reduction(bitmasks.tensor),
        },
    }
    report = timing.Report("masks", args.device)
    for name, functions in cases.items():
        results = zip(functions["native"](), functions["plain"](), strict=True)
        is_equal = all(np.array_equal(own, other) for own, other in results)
        # Polygons are rasterised on the CPU.
        device = args.device if name == "get_bounding_boxes" else "cpu"
        timings = timing.compare(functions, device, warmup=3, repeats=args.repeats)
        report.add(name, timings, equal=is_equal, instances=args.instances, height=size[0])
    report.print()


if __name__ == "__main__":
    main()
