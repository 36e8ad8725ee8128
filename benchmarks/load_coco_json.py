"""Time the loading and the check of an annotation file in COCO's format.

    python benchmarks/load_coco_json.py --threads 1

The file is made up, with about as many annotations an image and corners a polygon as COCO's
training set, which has 118,287 images. Compared are reading the JSON and no more; pycocotools'
index with records made from it; `load_coco_json`; and `check_dataset` without images. Prints a
table, then one JSON line a case.
"""

import argparse
import contextlib
import io
import json
import pathlib
import random
import tempfile
from typing import Any

import timing
from pycocotools.coco import COCO

from detectron2.data.check import check_dataset
from detectron2.data.datasets import load_coco_json
from detectron2.data.datasets.builtin_meta import COCO_CATEGORIES


def make_file(path: pathlib.Path, num_images: int) -> int:
    """Write a file; returns the number of annotations."""
    rng = random.Random(0)
    categories = [c for c in COCO_CATEGORIES if c["isthing"]]
    images, annotations = [], []
    for image_id in range(1, num_images + 1):
        name = f"{image_id:012d}.jpg"
        size = {"height": 480, "width": 640}
        images.append({"id": image_id, "file_name": name, "license": 1, **size})
        for _ in range(rng.randint(2, 12)):
            x, y = rng.uniform(0, 400), rng.uniform(0, 300)
            w, h = rng.uniform(5, 200), rng.uniform(5, 150)
            polygon = []
            for _ in range(rng.randint(5, 35)):
                polygon += [round(rng.uniform(x, x + w), 2), round(rng.uniform(y, y + h), 2)]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": rng.choice(categories)["id"],
                    "iscrowd": 0,
                    "area": round(w * h / 2, 2),
                    "bbox": [round(value, 2) for value in (x, y, w, h)],
                    "segmentation": [polygon],
                }
            )
    content = {"images": images, "annotations": annotations, "categories": categories}
    path.write_text(json.dumps(content))
    return len(annotations)


def load_through_pycocotools(path: str) -> list[dict[str, Any]]:
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(path)
    ids = {category: i for i, category in enumerate(sorted(coco.cats))}
    records = []
    for image_id in sorted(coco.imgs):
        annotations = []
        for annotation in coco.imgToAnns[image_id]:
            polygons = [p for p in annotation["segmentation"] if len(p) >= 6 and len(p) % 2 == 0]
            converted = {key: annotation[key] for key in ("iscrowd", "bbox")}
            converted["segmentation"] = polygons
            converted["category_id"] = ids[annotation["category_id"]]
            annotations.append(converted)
        records.append(coco.imgs[image_id] | {"annotations": annotations})
    return records


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    timing.add_arguments(parser)
    parser.add_argument("--images", type=int, default=10_000)
    args = timing.parse_arguments(parser)

    report = timing.Report("load_coco_json", args.device)
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "instances.json")
        num_annotations = make_file(path, args.images)
        name = str(path)
        functions = {
            "json": lambda: json.loads(path.read_text()),
            "pycocotools": lambda: load_through_pycocotools(name),
            "load_coco_json": lambda: load_coco_json(name, "", "coco_benchmark"),
            "check_dataset": lambda: check_dataset(name),
        }
        timings = timing.compare(functions, args.device, warmup=1, repeats=args.repeats)
    report.add(f"{args.images} images", timings, annotations=num_annotations)
    report.print()


if __name__ == "__main__":
    main()
