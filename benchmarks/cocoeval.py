"""Time COCO and LVIS evaluation beside pycocotools and the lvis package, on synthetic data sets.

    python benchmarks/cocoeval.py
    python benchmarks/cocoeval.py bbox --images 5000 --detections 100 --categories 80
    python benchmarks/cocoeval.py segm --images 200
    python benchmarks/cocoeval.py keypoints --categories 1 --detections 20
    python benchmarks/cocoeval.py lvis --images 100 --detections 300 --categories 1203

Each detection is a shaken copy of a ground truth of its image, or a false alarm. ``load`` makes
detections of a list of results (``COCO.loadRes``, ``load_results``); ``total`` goes from that list
to the summary. ``peak`` is the memory that a run takes beyond data set and results.
Prints a table, then one JSON line for each evaluator.
"""

import argparse
import contextlib
import copy
import functools
import io
import json
import logging
import multiprocessing
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pycocotools.mask
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detectron2.evaluation._coco_detections import Detections
from detectron2.evaluation._lvis_protocol import evaluate_lvis
from detectron2.evaluation.fast_eval_api import COCOeval_opt, load_results

WIDTH, HEIGHT = 640, 480
NUM_KEYPOINTS = 17
STAGES = ("load", "evaluate", "accumulate", "summarize")
Run = tuple[dict[str, float], np.ndarray]


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


def add_masks(dataset: dict[str, Any], results: list[dict[str, Any]]) -> None:
    """Ellipses in the boxes: polygons as ground truth, but run lengths for crowds and results."""
    turn = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    circle = np.column_stack([np.cos(turn), np.sin(turn)])

    def ellipse(box: list[float]) -> list[list[float]]:
        size = np.array(box[2:]) / 2
        return [(box[:2] + size + size * circle).ravel().tolist()]

    def run_lengths(box: list[float]) -> dict[str, Any]:
        rle = pycocotools.mask.frPyObjects(ellipse(box), HEIGHT, WIDTH)[0]
        return rle | {"counts": rle["counts"].decode()}

    for annotation in dataset["annotations"]:
        draw = run_lengths if annotation["iscrowd"] else ellipse
        annotation["segmentation"] = draw(annotation["bbox"])
    for result in results:
        result["segmentation"] = run_lengths(result.pop("bbox"))


def add_keypoints(
    rng: np.random.Generator, dataset: dict[str, Any], results: list[dict[str, Any]]
) -> None:
    """Keypoints at fixed places of the boxes, of which two thirds are labelled."""
    places = rng.uniform(0, 1, (NUM_KEYPOINTS, 2))

    def points(box: list[float], third: np.ndarray) -> list[float]:
        return np.column_stack([box[:2] + places * box[2:], third]).ravel().tolist()

    for annotation in dataset["annotations"]:
        visibility = rng.integers(0, 3, NUM_KEYPOINTS)
        annotation["keypoints"] = points(annotation["bbox"], visibility)
        annotation["num_keypoints"] = int(np.count_nonzero(visibility))
    for result in results:
        result["keypoints"] = points(result["bbox"], np.ones(NUM_KEYPOINTS))


def add_lvis_fields(rng: np.random.Generator, dataset: dict[str, Any]) -> None:
    """Per image some categories that are absent, and one that is not exhaustive."""
    num_categories = len(dataset["categories"])
    for category in dataset["categories"]:
        category["frequency"] = "rcf"[category["id"] % 3]
    present: dict[int, set[int]] = {image["id"]: set() for image in dataset["images"]}
    for annotation in dataset["annotations"]:
        del annotation["iscrowd"]
        present[annotation["image_id"]].add(annotation["category_id"])
    for image in dataset["images"]:
        listed = set(rng.integers(1, num_categories + 1, 10).tolist()) - present[image["id"]]
        image["neg_category_ids"] = sorted(listed)
        image["not_exhaustive_category_ids"] = sorted(present[image["id"]])[:1]


def make_coco(dataset: dict[str, Any]) -> COCO:
    coco = COCO()
    coco.dataset = dataset
    coco.createIndex()
    return coco


def run_coco(
    evaluator_class: type[COCOeval], iou_type: str, dataset: dict[str, Any], results: list[Any]
) -> Run:
    """Seconds of each stage, and the summary numbers."""
    # pycocotools writes into both.
    ground_truth, results = make_coco(copy.deepcopy(dataset)), copy.deepcopy(results)
    is_native = evaluator_class is COCOeval_opt
    with PeakMemory() as memory:
        times = [time.perf_counter()]
        detections = (
            load_results(ground_truth, results) if is_native else ground_truth.loadRes(results)
        )
        times.append(time.perf_counter())
        evaluator = evaluator_class(ground_truth, detections, iou_type)
        for stage in STAGES[1:]:
            getattr(evaluator, stage)()
            times.append(time.perf_counter())
    seconds = dict(zip(STAGES, np.diff(times).tolist(), strict=True))
    return seconds | {"total": times[-1] - times[0], "peak": memory.mib}, evaluator.stats


def run_lvis_package(dataset: dict[str, Any], results: list[Any]) -> Run:
    import lvis

    np.float = float  # the package uses NumPy's old name
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(dataset, file)
        file.flush()
        ground_truth = lvis.LVIS(file.name)
    results = copy.deepcopy(results)
    with PeakMemory() as memory:
        times = [time.perf_counter()]
        detections = lvis.LVISResults(ground_truth, results)
        times.append(time.perf_counter())
        evaluation = lvis.LVISEval(ground_truth, detections, "bbox")
        for stage in STAGES[1:]:
            getattr(evaluation, stage)()
            times.append(time.perf_counter())
    seconds = dict(zip(STAGES, np.diff(times).tolist(), strict=True))
    seconds |= {"total": times[-1] - times[0], "peak": memory.mib}
    return seconds, np.array(list(evaluation.results.values()))


def run_lvis_native(dataset: dict[str, Any], results: list[Any]) -> Run:
    ground_truth = make_coco(dataset)
    with PeakMemory() as memory:
        times = [time.perf_counter()]
        detections = Detections.from_records(results, ground_truth.imgs)
        times.append(time.perf_counter())
        evaluation = evaluate_lvis(ground_truth, detections, "bbox")
        times.append(time.perf_counter())
        stats = np.array(list(evaluation.results().values()))
        times.append(time.perf_counter())
    load, evaluate, summarize = np.diff(times).tolist()
    # One call does both; it is all counted as evaluation.
    seconds = {"load": load, "evaluate": evaluate, "accumulate": 0.0, "summarize": summarize}
    return seconds | {"total": times[-1] - times[0], "peak": memory.mib}, stats


def run_in_child(function: Callable[[], Run], repeats: int) -> Run:
    """The quickest of some runs in a process of their own, with the largest of their peaks: what
    others leave behind in this one would hide it."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)

    def work() -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            runs = [function() for _ in range(repeats)]
        seconds, stats = min(runs, key=lambda run: run[0]["total"])
        sender.send((seconds | {"peak": max(run[0]["peak"] for run in runs)}, stats))

    process = context.Process(target=work)
    process.start()
    sender.close()
    result = receiver.recv()
    process.join()
    return result


class PeakMemory:
    """The most resident memory within a ``with``, beyond what there was before, in MiB."""

    mib = float("nan")

    def __enter__(self) -> "PeakMemory":
        with contextlib.suppress(OSError), open("/proc/self/clear_refs", "w") as file:
            file.write("5")  # forget the peak
        self._before = self._read("VmRSS")
        return self

    def __exit__(self, *_: object) -> None:
        self.mib = self._read("VmHWM") - self._before

    @staticmethod
    def _read(name: str) -> float:
        with open("/proc/self/status") as file:
            return next(int(line.split()[1]) for line in file if line.startswith(name)) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    cases = ("bbox", "segm", "keypoints", "lvis")
    parser.add_argument("case", nargs="?", choices=cases, default="bbox")
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--detections", type=int, default=100, help="in each image")
    parser.add_argument("--objects", type=float, default=7.3, help="mean number in each image")
    parser.add_argument("--categories", type=int, default=80)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3, help="of which the quickest counts")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    logging.disable()
    torch.set_num_threads(args.threads)
    rng = np.random.default_rng(args.seed)
    dataset = make_dataset(rng, args.images, args.categories, args.objects)
    results = make_results(rng, dataset, args.detections)
    functions: dict[str, Callable[[dict[str, Any], list[Any]], Run]]
    if args.case == "lvis":
        add_lvis_fields(rng, dataset)
        functions = {"lvis": run_lvis_package, "evaluate_lvis": run_lvis_native}
    else:
        if args.case == "segm":
            add_masks(dataset, results)
        if args.case == "keypoints":
            add_keypoints(rng, dataset, results)
        functions = {
            cls.__name__: lambda *data, cls=cls: run_coco(cls, args.case, *data)
            for cls in (COCOeval, COCOeval_opt)
        }

    seconds, stats = {}, {}
    for name, function in functions.items():
        seconds[name], stats[name] = run_in_child(
            functools.partial(function, dataset, results), args.repeats
        )
    theirs, ours = functions
    difference = float(np.abs(stats[theirs] - stats[ours]).max())

    columns = (*STAGES, "total", "peak")
    print(f"{'seconds, MiB':<14}" + "".join(f"{column:>12}" for column in columns))
    for name, values in seconds.items():
        print(f"{name:<14}" + "".join(f"{values[column]:12.3f}" for column in columns))
    ratio = seconds[theirs]["total"] / seconds[ours]["total"]
    print(f"total {ratio:.1f} times as fast; AP {stats[ours][0]:.4f}, ", end="")
    print(f"largest difference of a summary number {difference:g}")
    for name, values in seconds.items():
        line = vars(args) | {"function": name, "ap": float(stats[name][0])}
        print(json.dumps(line | {"seconds": values}))


if __name__ == "__main__":
    main()
