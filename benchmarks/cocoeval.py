"""Time COCOeval_opt beside pycocotools' COCOeval on a seeded synthetic data set.

    python benchmarks/cocoeval.py
    python benchmarks/cocoeval.py --images 5000 --detections 100 --categories 80

Each detection is a shaken copy of a ground truth of its image, or a false alarm. ``load`` is
``COCO.loadRes``, the same code for both; ``total`` goes from the list of results to the summary.
Prints a table, then one JSON line for each evaluator.
"""

import argparse
import contextlib
import copy
import io
import json
import time
from typing import Any

import numpy as np
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detectron2.evaluation.fast_eval_api import COCOeval_opt

WIDTH, HEIGHT = 640, 480
STAGES = ("load", "evaluate", "accumulate", "summarize")


def make_dataset(
    rng: np.random.Generator, num_images: int, num_categories: int, objects_per_image: float
) -> dict[str, Any]:
    """A COCO ground truth: boxes from 8 to 300 pixels wide, 2 % of them crowds."""
    counts = rng.poisson(objects_per_image, num_images)
    image_ids = np.repeat(np.arange(1, num_images + 1), counts)
    size = np.exp(rng.uniform(np.log(8), np.log(300), (len(image_ids), 2)))
    boxes = np.hstack([rng.uniform(0, [WIDTH, HEIGHT], size.shape) - size / 2, size])
    categories = rng.integers(1, num_categories + 1, len(image_ids))
    crowds = rng.uniform(size=len(image_ids)) < 0.02
    annotations = [
        {
            "id": index + 1,
            "image_id": int(image_ids[index]),
            "category_id": int(categories[index]),
            "bbox": boxes[index].tolist(),
            "area": float(boxes[index, 2] * boxes[index, 3]),
            "iscrowd": int(crowds[index]),
        }
        for index in range(len(image_ids))
    ]
    return {
        "images": [{"id": i + 1, "width": WIDTH, "height": HEIGHT} for i in range(num_images)],
        "categories": [{"id": i + 1, "name": str(i + 1)} for i in range(num_categories)],
        "annotations": annotations,
    }


def make_results(
    rng: np.random.Generator, dataset: dict[str, Any], detections_per_image: int
) -> list[dict[str, Any]]:
    """As many detections in each image, three quarters of them near a ground truth."""
    num_categories = len(dataset["categories"])
    by_image: dict[int, list[dict[str, Any]]] = {}
    for annotation in dataset["annotations"]:
        by_image.setdefault(annotation["image_id"], []).append(annotation)
    results = []
    for image in dataset["images"]:
        truths = by_image.get(image["id"], [])
        for score in rng.uniform(0.01, 1, detections_per_image).tolist():
            if truths and rng.uniform() < 0.75:
                truth = truths[rng.integers(len(truths))]
                x, y, w, h = truth["bbox"]
                dx, dy, dw, dh = (rng.normal(0, 0.15, 4)).tolist()
                box = [x + dx * w, y + dy * h, w * 2**dw, h * 2**dh]
                category = truth["category_id"]
            else:
                box = [*rng.uniform(0, 300, 2).tolist(), *rng.uniform(8, 150, 2).tolist()]
                category = int(rng.integers(1, num_categories + 1))
            results.append(
                {
                    "image_id": image["id"],
                    "category_id": category,
                    "bbox": box,
                    "score": round(score, 4),
                }
            )
    return results


def measure(
    evaluator_class: type[COCOeval], ground_truth: COCO, results: list[dict[str, Any]]
) -> tuple[dict[str, float], np.ndarray]:
    """Seconds of each stage, and the twelve summary numbers."""
    results = copy.deepcopy(results)
    times = [time.perf_counter()]
    with contextlib.redirect_stdout(io.StringIO()):
        detections = ground_truth.loadRes(results)
        times.append(time.perf_counter())
        evaluator = evaluator_class(ground_truth, detections, "bbox")
        for stage in STAGES[1:]:
            getattr(evaluator, stage)()
            times.append(time.perf_counter())
    seconds = dict(zip(STAGES, np.diff(times).tolist(), strict=True))
    return seconds | {"total": times[-1] - times[0]}, evaluator.stats


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--detections", type=int, default=100, help="in each image")
    parser.add_argument("--objects", type=float, default=7.3, help="mean number in each image")
    parser.add_argument("--categories", type=int, default=80)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3, help="of which the quickest counts")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    rng = np.random.default_rng(args.seed)
    dataset = make_dataset(rng, args.images, args.categories, args.objects)
    results = make_results(rng, dataset, args.detections)
    ground_truth = COCO()
    ground_truth.dataset = dataset
    with contextlib.redirect_stdout(io.StringIO()):
        ground_truth.createIndex()

    seconds, stats = {}, {}
    for cls in (COCOeval, COCOeval_opt):
        runs = [measure(cls, ground_truth, results) for _ in range(args.repeats)]
        seconds[cls], stats[cls] = min(runs, key=lambda run: run[0]["total"])
    difference = float(np.abs(stats[COCOeval] - stats[COCOeval_opt]).max())

    print(f"{'seconds':<14}" + "".join(f"{stage:>12}" for stage in (*STAGES, "total")))
    for cls, times in seconds.items():
        print(f"{cls.__name__:<14}" + "".join(f"{value:12.3f}" for value in times.values()))
    ratios = [seconds[COCOeval][stage] / seconds[COCOeval_opt][stage] for stage in seconds[cls]]
    print(f"{'ratio':<14}" + "".join(f"{ratio:12.1f}" for ratio in ratios))
    print(f"AP {stats[COCOeval_opt][0]:.4f}, largest difference of a summary number {difference:g}")
    for cls, times in seconds.items():
        case = vars(args) | {"case": cls.__name__, "ap": float(stats[cls][0])}
        print(json.dumps(case | {"seconds": times}))


if __name__ == "__main__":
    main()
