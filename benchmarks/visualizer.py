"""Time the drawing of instances and of a panoptic segmentation.

    python benchmarks/visualizer.py --threads 1

What is timed goes from the image and the predictions to the drawn image, with boxes, masks and
labels. Prints a table, then one JSON line a case.
"""

import argparse
import types

import numpy as np
import timing
import torch

from detectron2.structures import BitMasks, Boxes, Instances, PolygonMasks
from detectron2.utils.visualizer import ColorMode, GenericMask, Visualizer


def make_blobs(rng: np.random.Generator, count: int, height: int, width: int) -> np.ndarray:
    """Masks with wavy borders, every fourth with a hole; bool ``(count, height, width)``."""
    y, x = np.mgrid[:height, :width]
    masks = []
    for index in range(count):
        radius = rng.uniform(0.05, 0.22) * min(height, width)
        dx = x - rng.uniform(radius, width - radius)
        dy = y - rng.uniform(radius, height - radius)
        distance, angle = np.hypot(dx, dy), np.arctan2(dy, dx)
        border = radius * (0.8 + 0.15 * np.sin(3 * angle + index) + 0.05 * np.sin(9 * angle))
        mask = distance < border
        if index % 4 == 0:
            mask &= distance > radius / 4
        masks.append(mask)
    return np.stack(masks)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    timing.add_arguments(parser)
    parser.add_argument("--instances", type=int, default=20)
    parser.add_argument("--height", type=int, default=800)
    parser.add_argument("--width", type=int, default=1333)
    args = timing.parse_arguments(parser)

    rng = np.random.default_rng(0)
    size = (args.height, args.width)
    image = rng.integers(0, 256, (*size, 3), np.uint8)
    masks = make_blobs(rng, args.instances, *size)
    polygons = [GenericMask(mask, *size).polygons for mask in masks]
    bitmasks = BitMasks(torch.from_numpy(masks))
    instances = Instances(size)
    instances.pred_boxes = Boxes(bitmasks.get_bounding_boxes().tensor)
    instances.pred_classes = torch.arange(args.instances)
    instances.scores = torch.linspace(1, 0.5, args.instances)
    instances.pred_masks = bitmasks.tensor
    metadata = types.SimpleNamespace(
        thing_classes=[f"class {index}" for index in range(args.instances)],
        stuff_classes=["ground", "sky"],
    )
    boxes = instances.pred_boxes.tensor.numpy()
    labels = metadata.thing_classes

    segments = np.zeros(size, np.int32)
    segments[args.height // 2 :] = 1
    infos = [{"id": index, "isthing": False, "category_id": index} for index in range(2)]
    for index, mask in enumerate(masks, 2):
        segments[mask] = index
        infos.append({"id": index, "isthing": True, "category_id": index - 2})

    def draw(mode: ColorMode = ColorMode.IMAGE, scale: float = 1.0) -> np.ndarray:
        visualizer = Visualizer(image, metadata, scale, mode)
        return visualizer.draw_instance_predictions(instances).get_image()

    def draw_polygons() -> np.ndarray:
        visualizer = Visualizer(image, metadata)
        picture = visualizer.overlay_instances(
            boxes=boxes, labels=labels, masks=PolygonMasks(polygons)
        )
        return picture.get_image()

    cases = {
        "masks": draw,
        "masks over grey": lambda: draw(ColorMode.IMAGE_BW),
        "masks, scale 1.5": lambda: draw(scale=1.5),
        "polygons": draw_polygons,
        "panoptic": lambda: (
            Visualizer(image, metadata).draw_panoptic_seg(segments, infos).get_image()
        ),
        "contours": lambda: [GenericMask(mask, *size).polygons for mask in masks],
    }
    report = timing.Report("visualizer", "cpu")
    facts = {"instances": args.instances, "height": args.height, "width": args.width}
    for name, function in cases.items():
        timings = timing.compare({"detectron2": function}, "cpu", repeats=args.repeats)
        report.add(name, timings, **facts)
    report.print()


if __name__ == "__main__":
    main()
