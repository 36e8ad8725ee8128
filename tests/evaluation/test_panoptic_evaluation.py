"""Panoptic quality, against masks compared one by one."""

import io
import json
import logging

import numpy as np
import pytest
import torch
from PIL import Image

from detectron2.data import MetadataCatalog
from detectron2.evaluation import COCOPanopticEvaluator
from detectron2.evaluation._joint_areas import joint_areas
from detectron2.evaluation._panoptic_quality import ids_to_rgb, match_segments, rgb_to_ids

THINGS, STUFF = (10, 11, 12), (20, 21)
HEIGHT, WIDTH = 48, 64


def slow_counts(actual, segments, predicted, predicted_segments):
    """(category, IoU or None, what) of each segment, by the definition."""
    unmatched = list(predicted_segments)
    for segment in segments:
        if segment.get("iscrowd"):
            continue
        mask = actual == segment["id"]
        match = None
        for other in unmatched:
            other_mask = (predicted == other["id"]) & (actual != 0)
            iou = np.sum(mask & other_mask) / np.sum(mask | other_mask)
            if other["category_id"] == segment["category_id"] and iou > 0.5:
                match = other
                yield segment["category_id"], iou, "tp"
        if match is None:
            yield segment["category_id"], None, "fn"
        else:
            unmatched.remove(match)
    for other in unmatched:
        mask = predicted == other["id"]
        crowds = [
            s["id"]
            for s in segments
            if s.get("iscrowd") and s["category_id"] == other["category_id"]
        ]
        excused = np.isin(actual, [0, *crowds[-1:]])
        if np.sum(mask & excused) <= 0.5 * np.sum(mask):
            yield other["category_id"], None, "fp"


def slow_quality(counts, categories):
    """PQ, SQ and RQ in percent."""
    qualities = []
    for category in categories:
        ious = [iou for c, iou, _ in counts if c == category and iou is not None]
        wrong = sum(c == category and iou is None for c, iou, _ in counts)
        if ious or wrong:
            recognition = len(ious) / (len(ious) + wrong / 2)
            segmentation = np.mean(ious) if ious else 0.0
            qualities.append((segmentation * recognition, segmentation, recognition))
    return 100 * np.mean(qualities, axis=0)


def random_scene(generator, crowds=True):
    """A ground truth and a prediction of it: id maps, and their segments."""

    def blocks():
        return np.kron(generator.integers(0, 9, (4, 4)), np.ones((HEIGHT // 4, WIDTH // 4), int))

    truth = blocks()
    categories = {i: int(generator.choice(THINGS + STUFF)) for i in range(1, 9)}
    segments = [
        {
            "id": 70_001 * i,
            "category_id": categories[i],
            "area": int(np.sum(truth == i)),
            "iscrowd": int(crowds and generator.random() < 0.3),
        }
        for i in np.unique(truth).tolist()
        if i
    ]
    predicted = np.roll(truth, generator.integers(-4, 5, 2), (0, 1))
    other = np.kron(generator.random((8, 8)) < 0.3, np.ones((HEIGHT // 8, WIDTH // 8))) > 0
    predicted = np.where(other, blocks(), predicted)
    predicted_segments = []
    for i in np.unique(predicted).tolist():
        is_right = generator.random() < 0.8
        category = categories[i] if i and is_right else int(generator.choice(THINGS + STUFF))
        if i:
            predicted_segments.append({"id": i, "category_id": category})
    return 70_001 * truth, segments, predicted, predicted_segments


def contiguous(segments):
    """As a model has them."""
    return [
        {
            "id": s["id"],
            "category_id": (THINGS if s["category_id"] in THINGS else STUFF).index(
                s["category_id"]
            ),
            "isthing": s["category_id"] in THINGS,
        }
        for s in segments
    ]


@pytest.fixture
def dataset(tmp_path):
    """A registered data set of eight images: its name, scenes, inputs and outputs."""
    generator = np.random.default_rng(0)
    scenes = [random_scene(generator) for _ in range(8)]
    annotations, inputs, outputs = [], [], []
    for i, (truth, segments, predicted, predicted_segments) in enumerate(scenes):
        Image.fromarray(ids_to_rgb(truth)).save(tmp_path / f"{i}.png")
        annotations.append({"image_id": i, "file_name": f"{i}.png", "segments_info": segments})
        inputs.append({"image_id": i, "file_name": f"folder/{i}.jpg"})
        ids = torch.from_numpy(predicted).to(torch.int32)
        outputs.append({"panoptic_seg": (ids, contiguous(predicted_segments))})
    categories = [{"id": i, "name": f"t{i}", "isthing": 1} for i in THINGS]
    categories += [{"id": i, "name": f"s{i}", "isthing": 0} for i in STUFF]
    categories.append({"id": 77, "name": "absent", "isthing": 1})
    (tmp_path / "truth.json").write_text(
        json.dumps({"images": [], "annotations": annotations, "categories": categories})
    )
    name = f"panoptic_of_tests_{tmp_path}"
    MetadataCatalog.get(name).set(
        panoptic_json=str(tmp_path / "truth.json"),
        panoptic_root=str(tmp_path),
        thing_dataset_id_to_contiguous_id={c: i for i, c in enumerate(THINGS)},
        stuff_dataset_id_to_contiguous_id={c: i for i, c in enumerate(STUFF)},
        label_divisor=1000,
    )
    yield name, scenes, inputs, outputs
    MetadataCatalog.remove(name)


def test_panoptic_quality(dataset):
    name, scenes, inputs, outputs = dataset
    evaluator = COCOPanopticEvaluator(name)
    for image, output in zip(inputs, outputs, strict=True):
        evaluator.process([image], [output])
    results = evaluator.evaluate()["panoptic_seg"]
    counts = [count for scene in scenes for count in slow_counts(*scene)]
    assert {what for _, _, what in counts} == {"tp", "fn", "fp"}
    for suffix, categories in (("", THINGS + STUFF), ("_th", THINGS), ("_st", STUFF)):
        got = [results[key + suffix] for key in ("PQ", "SQ", "RQ")]
        assert got == pytest.approx(slow_quality(counts, categories))
    assert len(results) == 9
    assert evaluator.evaluate()["panoptic_seg"] == results


@pytest.mark.parametrize("with_files", [False, True])
def test_subclass_that_collects_png_files(dataset, tmp_path, with_files):
    """As code written for upstream does."""

    class Collector(COCOPanopticEvaluator):
        def process(self, inputs, outputs):
            for image, output in zip(inputs, outputs, strict=True):
                ids, segments = output["panoptic_seg"]
                file = io.BytesIO()
                Image.fromarray(ids_to_rgb(ids.numpy())).save(file, format="PNG")
                self._predictions.append(
                    {
                        "image_id": image["image_id"],
                        "file_name": f"{image['image_id']}.png",
                        "png_string": file.getvalue(),
                        "segments_info": [self._convert_category_id(s) for s in segments],
                    }
                )

    name, _, inputs, outputs = dataset
    results, folders = [], []
    for cls in (Collector, COCOPanopticEvaluator):
        folders.append(tmp_path / cls.__name__)
        evaluator = cls(name, str(folders[-1]) if with_files else None)
        evaluator.process(inputs, outputs)
        results.append(evaluator.evaluate())
    assert results[0] == results[1]
    if with_files:
        written = [json.loads((folder / "predictions.json").read_text()) for folder in folders]
        assert written[0] == written[1]
        pixels = [Image.open(folder / "predictions" / "3.png") for folder in folders]
        assert np.array_equal(*map(np.asarray, pixels))


def test_crowds_and_void():
    """Masks of 10 columns in one row of pixels."""
    actual = np.repeat([0, 1, 2, 3], 10)[None]
    segments = [
        {"id": 1, "category_id": 5, "area": 10, "iscrowd": 0},
        {"id": 2, "category_id": 5, "area": 10, "iscrowd": 1},
        {"id": 3, "category_id": 5, "area": 10, "iscrowd": 1},
    ]

    def counts(start, stop, category=5):
        predicted = np.zeros((1, 40), int)
        predicted[0, start:stop] = 9
        info = [{"id": 9, "category_id": category}]
        matched = match_segments(actual, segments, predicted, info)
        return {c: count.as_row() for c, count in matched.items()}

    assert counts(10, 20) == {5: (1, 1, 0, 0)}
    # Void pixels do not belong to the union.
    assert counts(2, 18) == {5: (0.8, 1, 0, 0)}
    # An IoU of exactly one half is no match.
    assert counts(10, 15) == {5: (0, 0, 1, 1)}
    # In void, half and more than half.
    assert counts(5, 15) == {5: (0, 0, 1, 1)}
    assert counts(4, 13) == {5: (0, 0, 0, 1)}
    # Of several crowds, the last one excuses; and only its own category.
    assert counts(30, 40) == {5: (0, 0, 0, 1)}
    assert counts(20, 30) == {5: (0, 0, 1, 1)}
    assert counts(30, 40, category=6) == {5: (0, 0, 0, 1), 6: (0, 0, 1, 0)}


def test_segments_by_label_divisor(dataset):
    name, scenes, inputs, outputs = dataset
    ids, info = outputs[0]["panoptic_seg"]
    categories = {s["id"]: s["category_id"] + (0 if s["isthing"] else 3) for s in info}
    metadata = MetadataCatalog.get(name)
    # Contiguous ids of things and stuff must differ, as ids do not tell which it is.
    metadata.overwrite(stuff_dataset_id_to_contiguous_id={c: i + 3 for i, c in enumerate(STUFF)})
    by_divisor = torch.full_like(ids, -1)
    for number, category in categories.items():
        by_divisor[ids == number] = category * metadata.label_divisor + number
    evaluator = COCOPanopticEvaluator(name)
    evaluator.process(inputs[:1], [{"panoptic_seg": (by_divisor, None)}])
    counts = {category: counts for category, *counts in evaluator._predictions[0]["counts"]}
    expected = match_segments(*scenes[0])
    assert counts == {category: list(count.as_row()) for category, count in expected.items()}


def test_files(dataset, tmp_path):
    name, scenes, inputs, outputs = dataset
    folder = tmp_path / "new" / "out"
    evaluator = COCOPanopticEvaluator(name, str(folder))
    evaluator.process(inputs, outputs)
    evaluator.evaluate()
    predictions = json.loads((folder / "predictions.json").read_text())
    assert sorted(predictions) == ["annotations", "categories", "images"]
    for i, (annotation, scene) in enumerate(zip(predictions["annotations"], scenes, strict=True)):
        assert annotation == {"image_id": i, "file_name": f"{i}.png", "segments_info": scene[3]}
        ids = rgb_to_ids(np.array(Image.open(folder / "predictions" / f"{i}.png")))
        np.testing.assert_array_equal(ids, scene[2])


def test_categories_that_are_the_data_sets_own(dataset):
    name, _, _, _ = dataset
    evaluator = COCOPanopticEvaluator(name)
    segment = {"id": 3, "category_id": 21}
    assert evaluator._convert_category_id(segment) == segment
    segment = {"id": 3, "category_id": 1, "isthing": False, "score": 0.5}
    assert evaluator._convert_category_id(segment) == {"id": 3, "category_id": 21, "score": 0.5}
    assert "isthing" in segment


def test_joint_areas():
    generator = np.random.default_rng(1)
    first = generator.choice([0, 5, 2**24 - 1], (20, 30)).astype(np.int32)
    second = generator.choice([0, 2**24 - 1, 77], (20, 30))
    areas = joint_areas(first, second)
    assert sum(areas.values()) == 600
    for (a, b), area in areas.items():
        assert area == np.sum((first == a) & (second == b))
    assert joint_areas(first[:0], second[:0]) == {}
    np.testing.assert_array_equal(rgb_to_ids(ids_to_rgb(first)), first)


def test_what_does_not_fit_is_named(dataset, caplog):
    name, _, inputs, outputs = dataset
    evaluator = COCOPanopticEvaluator(name)
    ids, info = outputs[0]["panoptic_seg"]

    def process(ids, info, image=inputs[0]):
        evaluator.process([image], [{"panoptic_seg": (ids, info)}])

    with pytest.raises(ValueError, match=r"truth\.json has no annotation of image 'x'"):
        process(ids, info, {"image_id": "x", "file_name": "x.jpg"})
    with pytest.raises(ValueError, match=r"0\.jpg: .*\(47, 64\).*\(48, 64\)"):
        process(ids[1:], info)
    with pytest.raises(ValueError, match=r"0\.jpg: ids .* got -1 to"):
        process(torch.where(ids == 0, -1, ids), info)
    with pytest.raises(ValueError, match=f"no segment of id {info[0]['id']}, which is predicted"):
        process(ids, info[1:])
    with pytest.raises(ValueError, match="segment of id 500, but no pixel"):
        process(ids, [*info, {"id": 500, "category_id": 10}])
    with pytest.raises(ValueError, match="no thing of category 33"):
        process(ids, [{**info[0], "category_id": 33, "isthing": True}, *info[1:]])
    with pytest.raises(ValueError, match="has no category 33"):
        process(ids, [{"id": info[0]["id"], "category_id": 33}, *info[1:]])

    evaluator.process(inputs[:5] + inputs[:1], outputs[:5] + outputs[:1])
    with (
        caplog.at_level(logging.WARNING, "detectron2.evaluation"),
        pytest.raises(ValueError, match=r"3 of the 8 images .* no prediction: 5, 6, 7"),
    ):
        evaluator.evaluate()
    assert "1 of 6 predictions are of images that were processed before" in caplog.text


def test_a_ground_truth_that_lacks_something(dataset, tmp_path):
    name, _, inputs, outputs = dataset
    path = tmp_path / "truth.json"
    contents = json.loads(path.read_text())
    for key in ("annotations", "categories"):
        path.write_text(json.dumps({k: v for k, v in contents.items() if k != key}))
        with pytest.raises(ValueError, match=rf"truth\.json has no '{key}'"):
            COCOPanopticEvaluator(name).process(inputs, outputs)
    del contents["categories"][0]["isthing"]
    path.write_text(json.dumps(contents))
    with pytest.raises(ValueError, match=r"'t10'.* has no 'isthing'"):
        COCOPanopticEvaluator(name).process(inputs, outputs)


def test_nothing_to_score(dataset, tmp_path, caplog):
    name, _, _, _ = dataset
    path = tmp_path / "truth.json"
    contents = json.loads(path.read_text())
    path.write_text(json.dumps({**contents, "annotations": []}))
    with caplog.at_level(logging.WARNING, "detectron2.evaluation"):
        results = COCOPanopticEvaluator(name).evaluate()["panoptic_seg"]
    assert all(np.isnan(value) for value in results.values())
    assert "no category (Stuff) is there, so it is NaN" in caplog.text
