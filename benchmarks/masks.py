"""Time BitMasks and PolygonMasks beside pycocotools and PyTorch's own operators.

    python benchmarks/masks.py
    python benchmarks/masks.py --device cuda
    python benchmarks/masks.py --height 480 --width 640

Polygons are rasterised on the CPU; ``--device`` is where the boxes of bitmaps are computed. The two
sides take turns; a time is the median. Prints a table, then one JSON line a case.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable

import numpy as np
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
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--instances", type=int, default=100)
    parser.add_argument("--height", type=int, default=800)
    parser.add_argument("--width", type=int, default=1333)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=11)
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    rng = np.random.default_rng(0)
    size = (args.height, args.width)
    instances = [[make_polygon(rng, *size)] for _ in range(args.instances)]
    polygons, bitmasks = PolygonMasks(instances), BitMasks.from_polygon_masks(instances, *size)
    bitmasks = bitmasks.to(args.device)
    boxes = polygons.get_bounding_boxes().tensor + torch.tensor([-3.0, -2.0, 4.0, 5.0])

    cases: dict[str, tuple[Callable[[], Masks], Callable[[], Masks]]] = {
        "polygons_to_bitmask": (
            lambda: [coco_bitmask(polygons, *size) for polygons in instances],
            lambda: [polygons_to_bitmask(polygons, *size) for polygons in instances],
        ),
        "from_polygon_masks": (
            lambda: coco_bitmasks(instances, *size),
            lambda: BitMasks.from_polygon_masks(instances, *size).tensor,
        ),
        "crop_and_resize": (
            lambda: coco_crops(instances, boxes.double().numpy()),
            lambda: polygons.crop_and_resize(boxes, CROP),
        ),
        "get_bounding_boxes": (
            lambda: boxes_by_reduction(bitmasks.tensor),
            lambda: bitmasks.get_bounding_boxes().tensor,
        ),
    }
    print(f"{'milliseconds':<22}{'elsewhere':>12}{'detectron2':>12}{'ratio':>8}{'equal':>8}")
    lines = []
    for name, functions in cases.items():
        results = zip(functions[0](), functions[1](), strict=True)
        is_equal = all(np.array_equal(other, own) for other, own in results)
        times: list[list[float]] = [[], []]
        for turn in range(args.repeats + 3):
            for function, elapsed in zip(functions, times, strict=True):
                start = time.perf_counter()
                function()
                if turn >= 3:
                    elapsed.append((time.perf_counter() - start) * 1000)
        other, own = (statistics.median(elapsed) for elapsed in times)
        print(f"{name:<22}{other:12.3f}{own:12.3f}{other / own:8.1f}{is_equal!s:>8}")
        lines.append(vars(args) | {"case": name, "elsewhere_ms": other, "detectron2_ms": own})
    for line in lines:
        print(json.dumps(line))


if __name__ == "__main__":
    main()
