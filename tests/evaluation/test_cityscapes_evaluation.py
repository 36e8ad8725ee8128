"""Cityscapes, against its benchmark's rules followed mask by mask."""

import logging

import numpy as np
import pytest
import torch
from PIL import Image

from detectron2.data import MetadataCatalog
from detectron2.evaluation import CityscapesInstanceEvaluator, CityscapesSemSegEvaluator
from detectron2.evaluation._cityscapes_metrics import (
    InstanceMatches,
    instance_average_precision,
    match_instances,
)
from detectron2.structures import Instances

THINGS = {
    "person": 24,
    "rider": 25,
    "car": 26,
    "truck": 27,
    "bus": 28,
    "train": 31,
    "motorcycle": 32,
    "bicycle": 33,
}
SCORED = [7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, *THINGS.values()]
KINDS = [range(7, 11), range(11, 17), range(17, 21), (21, 22), (23,), (24, 25), range(26, 34)]
SHAPE = (64, 96)


def random_scene(generator):
    """Instance ids and label ids of an image."""
    ids = np.kron(generator.integers(0, 34, (4, 4)), np.ones((16, 24), int))
    for i in range(12):
        label = generator.choice([24, 26, 28, 29, 33])
        height, width = generator.integers(4, 30, 2)
        y, x = generator.integers(0, SHAPE[0] - height), generator.integers(0, SHAPE[1] - width)
        is_group = generator.random() < 0.2
        ids[y : y + height, x : x + width] = label if is_group else label * 1000 + i
    return ids, np.where(ids >= 1000, ids // 1000, ids)


def random_instances(generator, ids):
    masks, classes, scores = [np.zeros(SHAPE, bool)], [0], [0.5]
    for segment in np.unique(ids):
        label = segment // 1000 if segment >= 1000 else segment
        for _ in range(generator.integers(0, 3)):
            mask = np.roll(ids == segment, generator.integers(-1, 2, 2), (0, 1))
            is_right = label in THINGS.values() and generator.random() < 0.9
            masks.append(mask & (generator.random(SHAPE) < 0.9))
            classes.append(
                list(THINGS.values()).index(label) if is_right else generator.integers(0, 8)
            )
            scores.append(round(generator.random(), 1))
    instances = Instances(SHAPE)
    instances.pred_masks = torch.from_numpy(np.array(masks))
    instances.pred_classes = torch.tensor(np.array(classes))
    instances.scores = torch.tensor(scores)
    return instances


def slow_average_precision(scenes, all_instances, class_index, label, threshold):
    """One precision and recall for each score, as the benchmark averages them."""
    right, wrong, total, seen = [], [], 0, 0
    for (ids, _), instances in zip(scenes, all_instances, strict=True):
        segments = [s for s in np.unique(ids) if s == label or s // 1000 == label]
        small = {s for s in segments if np.sum(ids == s) < 100}
        counted = [s for s in segments if s >= 1000 and s not in small]
        total += len(counted)
        found = {s: [] for s in counted}
        is_ignored = np.isin(ids, [i for i in range(34) if i not in SCORED])
        for mask, number, score in zip(
            instances.pred_masks.numpy(),
            instances.pred_classes.tolist(),
            instances.scores.tolist(),
            strict=True,
        ):
            if number != class_index or not mask.any():
                continue
            seen += 1
            overlapped = [
                s
                for s in segments
                if np.sum(mask & (ids == s)) / np.sum(mask | (ids == s)) > threshold
            ]
            if overlapped:
                if overlapped[0] in found:
                    found[overlapped[0]].append(score)
                continue
            ignored = np.sum(mask & is_ignored)
            for s in segments:
                ignored += np.sum(mask & (ids == s)) * (int(s < 1000) + int(s in small))
            if ignored / np.sum(mask) <= threshold:
                wrong.append(score)
        for scores in found.values():
            right += sorted(scores)[-1:]
            wrong += sorted(scores)[:-1]
    if not total:
        return np.nan
    points = []
    for level in sorted({*right, *wrong}):
        hits = sum(score >= level for score in right)
        points.append((hits / total, hits / (hits + sum(score >= level for score in wrong))))
    points.append((0.0, 1.0))
    recalls = [points[0][0], *(recall for recall, _ in points), 0.0]
    return sum(p * (recalls[i] - recalls[i + 2]) / 2 for i, (_, p) in enumerate(points))


@pytest.fixture
def dataset(tmp_path):
    """A registered data set of three images: its name, scenes, inputs."""
    generator = np.random.default_rng(0)
    (tmp_path / "gt" / "bonn").mkdir(parents=True)
    (tmp_path / "gt" / "notes.txt").touch()
    scenes, inputs = [], []
    for i in range(3):
        ids, label_ids = random_scene(generator)
        prefix = str(tmp_path / "gt" / "bonn" / f"bonn_00000{i}_000019_gtFine_")
        Image.fromarray(ids.astype(np.uint16)).save(f"{prefix}instanceIds.png")
        Image.fromarray(label_ids.astype(np.uint8)).save(f"{prefix}labelIds.png")
        scenes.append((ids, label_ids))
        inputs.append({"file_name": f"images/bonn/bonn_00000{i}_000019_leftImg8bit.png"})
    name = f"cityscapes_of_tests_{tmp_path}"
    MetadataCatalog.get(name).set(gt_dir=str(tmp_path / "gt"), thing_classes=list(THINGS))
    yield name, scenes, inputs
    MetadataCatalog.remove(name)


def test_instances(dataset):
    name, scenes, inputs = dataset
    generator = np.random.default_rng(1)
    instances = [random_instances(generator, ids) for ids, _ in scenes]
    evaluator = CityscapesInstanceEvaluator(name)
    for image, output in zip(inputs, instances, strict=True):
        evaluator.process([image], [{"instances": output}])
    results = evaluator.evaluate()["segm"]
    expected = np.array(
        [
            [
                100 * slow_average_precision(scenes, instances, index, label, threshold)
                for index, label in enumerate(THINGS.values())
            ]
            for threshold in np.arange(0.5, 1, 0.05)
        ]
    )
    assert results["AP"] == pytest.approx(np.nanmean(expected))
    assert results["AP50"] == pytest.approx(np.nanmean(expected[0]))
    assert 5 < results["AP"] < results["AP50"] < 95

    # Without masks, and without instances.
    evaluator.reset()
    empty = [{"instances": i[:0]} for i in instances]
    del empty[0]["instances"]._fields["pred_masks"]
    evaluator.process(inputs, empty)
    assert evaluator.evaluate()["segm"] == {"AP": 0, "AP50": 0}


def test_ignored_predictions():
    ids = np.full((20, 40), 7)
    ids[:, :10], ids[:, 10:20], ids[:9, 20:29] = 26000, 26, 26001
    masks = np.zeros((5, 20, 40), bool)
    masks[0, :, :10] = masks[1, :, 10:20] = masks[2, :9, 20:29] = masks[3, :, 30:] = True
    masks[4, :, 15:25] = True
    matches = match_instances(ids, masks, np.arange(5), np.array([26, 26, 26, 26, 24]))
    cars = matches[26]
    assert cars.count == 1  # neither the group nor what has 81 pixels
    assert cars.ground_truth.tolist() == [0, -1, -1, -1]
    assert cars.iou.tolist() == [1, 1, 1, 0]
    # What is right has the lowest score; only the last car is wrong. Precisions of 1/2 at recall
    # 1, and of 0 at recall 0: half of the former counts.
    assert instance_average_precision([cars], 0.5) == pytest.approx(0.25)
    assert matches[24].ignored_share.tolist() == [0]
    assert np.isnan(instance_average_precision([matches[24]], 0.5))


def test_of_several_predictions_the_best_is_right():
    matches = InstanceMatches(
        scores=np.array([0.2, 0.9, 0.5]),
        iou=np.array([0.9, 0.6, 0.55]),
        ground_truth=np.array([0, 0, 0]),
        ignored_share=np.ones(3),
        count=1,
    )
    # Precisions of 1/3, 1/2, 1 at recall 1, then 1 at recall 0: half of both last ones counts.
    assert instance_average_precision([matches], 0.5) == pytest.approx(1)
    matches.scores = np.array([0.2, 0.2, 0.2])
    assert instance_average_precision([matches], 0.5) == pytest.approx((1 / 3 + 1) / 2)
    assert instance_average_precision([matches], 0.95) == 0


def slow_semantic_scores(scenes, predictions):
    labels = np.concatenate([labels for _, labels in scenes])
    predicted = np.concatenate(predictions)
    is_scored = np.isin(labels, SCORED)
    sizes = {
        24: 3462.4756337644,
        25: 3930.4788056518,
        26: 12794.0202738185,
        27: 27855.1264367816,
        28: 35732.1511111111,
        31: 67583.7075812274,
        32: 6298.7200839748,
        33: 4672.3249222261,
    }

    def iou(group, rows):
        actual, guessed = np.isin(labels, rows), np.isin(predicted, rows)
        actual_of_group = np.isin(labels, group)
        union = np.sum(actual | (guessed & is_scored & ~actual_of_group))
        return np.sum(actual & guessed) / union if union else np.nan

    def instance_iou(group, counts_as_right):
        right = total = 0.0
        for instances, prediction in zip((s[0] for s in scenes), predictions, strict=True):
            for i in np.unique(instances[instances > 1000]):
                label = i // 1000
                if label in group and label in sizes:
                    mask = instances == i
                    right += np.mean(np.isin(prediction[mask], counts_as_right)) * sizes[label]
                    total += sizes[label]
        false = np.isin(predicted, counts_as_right) & is_scored & ~np.isin(labels, group)
        whole = total + np.sum(false)
        return right / whole if whole else np.nan

    return {
        "IoU": 100 * np.nanmean([iou([i], [i]) for i in SCORED]),
        "iIoU": 100 * np.nanmean([instance_iou([i], [i]) for i in sizes]),
        "IoU_sup": 100 * np.nanmean([iou(g, [i for i in g if i in SCORED]) for g in KINDS]),
        "iIoU_sup": 100 * np.nanmean([instance_iou(g, list(g)) for g in KINDS[-2:]]),
    }


def test_semantic_segmentation(dataset):
    name, scenes, inputs = dataset
    generator = np.random.default_rng(2)
    evaluator = CityscapesSemSegEvaluator(name)
    predictions = []
    for image, (_, labels) in zip(inputs, scenes, strict=True):
        logits = generator.standard_normal((19, *SHAPE))
        logits += 2 * (labels == np.array(SCORED)[:, None, None])
        evaluator.process([image], [{"sem_seg": torch.from_numpy(logits)}])
        predictions.append(np.array(SCORED)[logits.argmax(0)])
    results = evaluator.evaluate()["sem_seg"]
    assert results == pytest.approx(slow_semantic_scores(scenes, predictions))
    assert len(set(results.values())) == 4


def test_what_does_not_fit_is_named(dataset, tmp_path):
    name, scenes, inputs = dataset
    instances = random_instances(np.random.default_rng(3), scenes[0][0])
    evaluator = CityscapesInstanceEvaluator(name)
    evaluator.process(inputs[:1], [{"instances": instances}])
    with pytest.raises(ValueError, match=r"2 of the 3 images .*'bonn_000001_000019'"):
        evaluator.evaluate()
    other = [{"file_name": "a/ulm_000001_000019_leftImg8bit.png"}]
    with pytest.raises(ValueError, match="no ground truth of a/ulm_000001"):
        evaluator.process(other, [{"instances": instances}])
    instances.pred_masks = instances.pred_masks[:, 1:]
    with pytest.raises(ValueError, match=r"\(63, 96\), .*instanceIds\.png is \(64, 96\)"):
        evaluator.process(inputs, [{"instances": instances}] * 3)
    instances.pred_classes[2] = 8
    with pytest.raises(ValueError, match=r"bonn_000000.*: classes 0 to 8 .* has 8"):
        evaluator.process(inputs, [{"instances": instances}] * 3)

    evaluator = CityscapesSemSegEvaluator(name)
    logits = torch.zeros(20, *SHAPE)
    logits[19] = 1
    with pytest.raises(ValueError, match="class 19 is predicted, but Cityscapes has 19"):
        evaluator.process(inputs[:1], [{"sem_seg": logits}])
    path = tmp_path / "gt/bonn/bonn_000000_000019_gtFine_labelIds.png"
    Image.fromarray(np.full(SHAPE, 34, np.uint8)).save(path)
    with pytest.raises(ValueError, match=r"labelIds\.png: 34 is no label"):
        evaluator.process(inputs[:1], [{"sem_seg": logits[:19]}])

    MetadataCatalog.get(name).overwrite(gt_dir=str(tmp_path / "gt" / "bonn"))
    with pytest.raises(ValueError, match=r"no files .*instanceIds\.png"):
        CityscapesSemSegEvaluator(name).process(inputs[:1], [{"sem_seg": logits[:19]}])
    MetadataCatalog.get(name).overwrite(thing_classes=["car", "yeti"])
    with pytest.raises(ValueError, match="no instances of: 'yeti'"):
        CityscapesInstanceEvaluator(name).process(inputs, [{"instances": instances}] * 3)


def test_classes_without_ground_truth_do_not_count(dataset, caplog):
    name, scenes, inputs = dataset
    generator = np.random.default_rng(4)
    evaluator = CityscapesInstanceEvaluator(name)
    outputs = [{"instances": random_instances(generator, ids)} for ids, _ in scenes]
    evaluator.process(inputs, outputs)
    with caplog.at_level(logging.WARNING, "detectron2.evaluation"):
        evaluator.evaluate()
    assert "without ground truth have no AP" in caplog.text
    assert "'rider'" in caplog.text
