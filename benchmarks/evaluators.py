"""Time evaluators and a tracker beside plain code: one label, segment, detection or pair at a time.

    python benchmarks/evaluators.py --device cpu --threads 1

All on seeded synthetic data: a segmentation is what a 1024 x 2048 image of 19 classes costs
(with masks written to a file), panoptic quality an image of 480 x 640 with 40 segments, average
precision a set of 500 images of VOC, and tracking a frame of 100 instances. Both ways must give the
same numbers. Prints a table, then one JSON line for each case.
"""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pycocotools.mask as mask_util
import timing
import torch
from PIL import Image

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import SemSegEvaluator
from detectron2.evaluation._panoptic_quality import match_segments
from detectron2.evaluation._voc_metrics import VocObjects, match, precision_recall
from detectron2.structures import Boxes, Instances, pairwise_iou
from detectron2.tracking import BBoxIOUTracker

Case = tuple[str, Callable[[], Any], Callable[[], Any]]


def semantic_segmentation(rng: np.random.Generator, folder: Path) -> Case:
    """Without boundaries in the plain way, as these need OpenCV."""
    height, width, classes = 1024, 2048, 19
    truth = np.kron(rng.integers(0, classes, (16, 32)), np.ones((64, 64), int)).astype(np.uint8)
    Image.fromarray(truth).save(folder / "truth.png")
    noise = rng.standard_normal((classes, height // 8, width // 8)).astype(np.float32)
    logits = noise.repeat(8, 1).repeat(8, 2) + 2 * (truth == np.arange(classes)[:, None, None])
    logits = torch.from_numpy(logits.astype(np.float32))
    record = {"file_name": "image", "sem_seg_file_name": str(folder / "truth.png")}
    DatasetCatalog.register("benchmark", lambda: [record])
    MetadataCatalog.get("benchmark").set(
        stuff_classes=[str(i) for i in range(classes)], ignore_label=255
    )
    evaluator = SemSegEvaluator("benchmark", output_dir=str(folder))

    def ours() -> Any:
        evaluator.reset()
        evaluator.process([record], [{"sem_seg": logits}])
        return evaluator._conf_matrix, [p["segmentation"] for p in evaluator._predictions]

    def plain() -> Any:
        predicted = np.array(logits.argmax(dim=0).numpy(), dtype=int)
        actual = np.array(Image.open(record["sem_seg_file_name"]), dtype=int)
        size = classes + 1
        actual[actual == 255] = classes
        counts = np.bincount((size * predicted + actual).ravel(), minlength=size**2)
        masks = []
        for label in np.unique(predicted):
            rle = mask_util.encode(np.asfortranarray(predicted == label, dtype=np.uint8))
            masks.append({"size": rle["size"], "counts": rle["counts"].decode()})
        return counts.reshape(size, size), masks

    return "SemSegEvaluator.process", ours, plain


def panoptic_quality(rng: np.random.Generator, folder: Path) -> Case:
    actual = np.kron(rng.integers(0, 41, (12, 16)), np.ones((40, 40), int))
    predicted = np.roll(actual, (3, 5), (0, 1))
    segments = [{"id": i, "category_id": i % 7} for i in np.unique(actual).tolist() if i]

    def ours() -> Any:
        counts = match_segments(actual, segments, predicted, segments)
        return {category: count.as_row() for category, count in sorted(counts.items())}

    def plain() -> Any:
        counts = {s["category_id"]: [0.0, 0, 0, 0] for s in segments}
        matched = set()
        for segment in segments:
            mask = actual == segment["id"]
            row = counts[segment["category_id"]]
            for other in segments:
                if other["category_id"] != segment["category_id"]:
                    continue
                other_mask = predicted == other["id"]
                overlap = np.count_nonzero(mask & other_mask)
                void = np.count_nonzero(other_mask & (actual == 0))
                union = np.count_nonzero(mask) + np.count_nonzero(other_mask) - overlap - void
                if overlap > 0.5 * union:
                    row[0] += overlap / union
                    row[1] += 1
                    matched |= {("actual", segment["id"]), ("predicted", other["id"])}
        for segment in segments:
            row = counts[segment["category_id"]]
            row[3] += ("actual", segment["id"]) not in matched
            mask = predicted == segment["id"]
            is_excused = 2 * np.count_nonzero(mask & (actual == 0)) > np.count_nonzero(mask)
            row[2] += ("predicted", segment["id"]) not in matched and not is_excused
        return {category: tuple(row) for category, row in sorted(counts.items())}

    return "panoptic quality", ours, plain


def average_precision(rng: np.random.Generator, folder: Path) -> Case:
    images, per_image = 500, 40
    gt_image = np.repeat(np.arange(images), 5)
    corners = rng.integers(1, 300, (len(gt_image), 2))
    gt_boxes = np.hstack([corners, corners + rng.integers(20, 200, corners.shape)]).astype(float)
    objects = VocObjects(gt_image, gt_boxes, rng.random(len(gt_image)) < 0.1)
    image_index = np.repeat(np.arange(images), per_image)
    boxes = gt_boxes[image_index * 5 + rng.integers(0, 5, len(image_index))]
    boxes = boxes + rng.normal(0, 15, boxes.shape)
    scores = rng.permutation(len(image_index)) / len(image_index)
    thresholds = [percent / 100 for percent in range(50, 100, 5)]

    def ours() -> Any:
        matches = match(image_index, scores, boxes, objects)
        return [precision_recall(matches, objects, t)[1][-1] for t in thresholds]

    def plain() -> Any:
        recalls = []
        for threshold in thresholds:
            found = np.zeros(len(gt_boxes), dtype=bool)
            for index in np.argsort(-scores):
                first = 5 * image_index[index]
                truths, box = gt_boxes[first : first + 5], boxes[index]
                low = np.maximum(truths[:, :2], box[:2])
                sides = np.maximum(np.minimum(truths[:, 2:], box[2:]) - low + 1, 0)
                overlap = sides[:, 0] * sides[:, 1]
                areas = (truths[:, 2] - truths[:, 0] + 1) * (truths[:, 3] - truths[:, 1] + 1)
                area = (box[2] - box[0] + 1) * (box[3] - box[1] + 1)
                iou = overlap / (areas + area - overlap)
                best = iou.argmax()
                found[first + best] |= iou[best] > threshold
            recalls.append(np.sum(found & ~objects.difficult) / objects.count)
        return recalls

    return "VOC matching, 10 thresholds", ours, plain


def tracking(rng: np.random.Generator, folder: Path) -> Case:
    corners = torch.from_numpy(rng.uniform(0, 1000, (100, 2))).float()
    first = Boxes(torch.cat([corners, corners + 80], dim=1))
    second = Boxes(first.tensor[torch.from_numpy(rng.permutation(100))] + 5)

    def ours() -> Any:
        tracker = BBoxIOUTracker(video_height=1080, video_width=1920)
        tracker.update(Instances((1080, 1920), pred_boxes=first))
        return tracker.update(Instances((1080, 1920), pred_boxes=second)).ID

    def plain() -> Any:
        iou = pairwise_iou(second, first)
        ids, used = [None] * 100, set()
        for i in range(100):
            for j in range(100):
                if iou[i, j] >= 0.5 and ids[i] is None and j not in used:
                    ids[i] = j
                    used.add(j)
        lost = (i for i in range(100) if ids[i] is None)
        for new, i in enumerate(lost, 100):
            ids[i] = new
        return ids

    return "BBoxIOUTracker, 2 frames", ours, plain


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    timing.add_arguments(parser)
    args = timing.parse_arguments(parser)
    report = timing.Report("evaluators", args.device)
    for make in (semantic_segmentation, panoptic_quality, average_precision, tracking):
        with tempfile.TemporaryDirectory() as folder:
            name, ours, plain = make(np.random.default_rng(0), Path(folder))
            np.testing.assert_equal(ours(), plain())
            functions = {"here": ours, "plain": plain}
            report.add(name, timing.compare(functions, "cpu", warmup=1, repeats=args.repeats))
    report.print()


if __name__ == "__main__":
    main()
