"""PASCAL VOC, against the rules of its development kits followed one detection at a time."""

import logging

import numpy as np
import pytest
import torch

from detectron2.data import MetadataCatalog
from detectron2.evaluation import PascalVOCDetectionEvaluator
from detectron2.evaluation.pascal_voc_evaluation import parse_rec, voc_ap, voc_eval
from detectron2.structures import Boxes, Instances

CLASSES = ["cat", "dog", "cow", "yeti"]


def slow_iou(a, b):
    width = min(a[2], b[2]) - max(a[0], b[0]) + 1
    height = min(a[3], b[3]) - max(a[1], b[1]) + 1
    inner = max(width, 0) * max(height, 0)
    areas = [(c[2] - c[0] + 1) * (c[3] - c[1] + 1) for c in (a, b)]
    return inner / (sum(areas) - inner)


def slow_average_precision(recall, precision, use_07_metric):
    points = list(zip(recall, precision, strict=True))
    if use_07_metric:
        levels = np.arange(0.0, 1.1, 0.1)
        return sum(max([p for r, p in points if r >= level], default=0) for level in levels) / 11
    area, last = 0.0, 0.0
    for index, (r, _) in enumerate(points):
        area += (r - last) * max(p for _, p in points[index:])
        last = r
    return area


def slow_evaluation(truth, detections, name, threshold, use_07_metric):
    """truth: image → [(class, box, difficult)]; detections: [(image, class, score, box)]."""
    objects = {i: [o for o in objs if o[0] == name] for i, objs in truth.items()}
    total = sum(not difficult for objs in objects.values() for _, _, difficult in objs)
    found, right, wrong, recall, precision = set(), 0, 0, [], []
    for image, _, _, box in sorted((d for d in detections if d[1] == name), key=lambda d: -d[2]):
        ious = [slow_iou(box, o[1]) for o in objects[image]]
        best = int(np.argmax(ious)) if ious else None
        if best is not None and ious[best] > threshold:
            if not objects[image][best][2]:
                right += (image, best) not in found
                wrong += (image, best) in found
                found.add((image, best))
        else:
            wrong += 1
        recall.append(right / total if total else float("nan"))
        precision.append(right / max(right + wrong, 1e-9))
    return recall, precision, slow_average_precision(recall, precision, use_07_metric)


def random_boxes(generator, count):
    corner = generator.integers(1, 60, (count, 2))
    return np.concatenate([corner, corner + generator.integers(8, 40, (count, 2))], axis=1)


def write_voc(folder, generator, images=6, classes=3):
    """A data set on disk, and what is in it: image → [(class, box, difficult)]."""
    for name in ("Annotations", "ImageSets/Main"):
        (folder / name).mkdir(parents=True)
    truth = {}
    for i in range(images):
        objects = [
            (CLASSES[generator.integers(classes)], box.tolist(), bool(generator.random() < 0.25))
            for box in random_boxes(generator, 5)
        ]
        truth[f"im{i}"] = objects
        xml = ""
        for name, box, difficult in objects:
            corners = zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
            box_xml = "".join(f"<{key}>{value}</{key}>" for key, value in corners)
            xml += (
                f"<object><name>{name}</name><difficult>{int(difficult)}</difficult>"
                f"<bndbox>{box_xml}</bndbox></object>"
            )
        path = folder / "Annotations" / f"im{i}.xml"
        path.write_text(f"<annotation>{xml}</annotation>")
    (folder / "ImageSets/Main/val.txt").write_text("\n".join(truth) + "\n")
    return truth


def detect(truth, generator):
    """Shaken objects and false alarms: [(image, class, score, box)], pixels counted from 1."""
    detections = []
    for image, objects in truth.items():
        shaken = [(name, np.array(box) + generator.normal(0, 3, 4)) for name, box, _ in objects * 2]
        alarms = [(CLASSES[generator.integers(3)], box) for box in random_boxes(generator, 4)]
        detections += [
            (image, name, round(generator.random(), 1), np.round(box, 1))
            for name, box in shaken + alarms
        ]
    return detections


def as_outputs(truth, detections):
    """Inputs and outputs of a model, in which pixels are counted from 0."""
    inputs, outputs = [], []
    for image in truth:
        own = [d for d in detections if d[0] == image]
        boxes = np.array([d[3] for d in own]).reshape(-1, 4) - [1, 1, 0, 0]
        instances = Instances(
            (100, 100),
            pred_boxes=Boxes(torch.from_numpy(boxes)),
            scores=torch.tensor([d[2] for d in own]),
            pred_classes=torch.tensor([CLASSES.index(d[1]) for d in own], dtype=torch.int64),
        )
        inputs.append({"image_id": image})
        outputs.append({"instances": instances})
    return inputs, outputs


@pytest.fixture
def dataset(tmp_path):
    """Makes a registered data set, and returns its name and contents."""
    names = []

    def make(year=2012, classes=3, seed=0):
        generator = np.random.default_rng(seed)
        name = f"voc_of_tests_{tmp_path}_{len(names)}"
        names.append(name)
        truth = write_voc(tmp_path / name.rsplit("_", 1)[1], generator, classes=classes)
        MetadataCatalog.get(name).set(
            dirname=str(tmp_path / name.rsplit("_", 1)[1]),
            split="val",
            year=year,
            thing_classes=CLASSES[:classes],
        )
        return name, truth, detect(truth, generator)

    yield make
    for name in names:
        MetadataCatalog.remove(name)


@pytest.mark.parametrize("year", [2007, 2012])
def test_average_precision(dataset, year):
    name, truth, detections = dataset(year)
    evaluator = PascalVOCDetectionEvaluator(name)
    for batch in zip(*as_outputs(truth, detections), strict=True):
        evaluator.process([batch[0]], [batch[1]])
    results = evaluator.evaluate()["bbox"]

    expected = np.array(
        [
            [
                100 * slow_evaluation(truth, detections, c, percent / 100, year == 2007)[2]
                for c in CLASSES[:3]
            ]
            for percent in range(50, 100, 5)
        ]
    ).mean(axis=1)
    assert results["AP50"] == pytest.approx(expected[0])
    assert results["AP75"] == pytest.approx(expected[5])
    assert results["AP"] == pytest.approx(expected.mean())
    assert 10 < results["AP"] < results["AP50"] < 90
    evaluator.reset()
    evaluator.process(*as_outputs(truth, []))
    assert evaluator.evaluate()["bbox"] == {"AP": 0, "AP50": 0, "AP75": 0}


def test_subclasses_with_their_own_process(dataset):
    """As code written for upstream has them: one fills lines by class, one changes the outputs."""

    class Lines(PascalVOCDetectionEvaluator):
        def process(self, inputs, outputs):
            for image, output in zip(inputs, outputs, strict=True):
                found = output["instances"]
                rows = zip(found.pred_boxes, found.scores, found.pred_classes, strict=True)
                for box, score, category in rows:
                    x0, y0, x1, y1 = (box + torch.tensor([1, 1, 0, 0])).tolist()
                    self._predictions[int(category)].append(
                        f"{image['image_id']} {score:.3f} {x0:.1f} {y0:.1f} {x1:.1f} {y1:.1f}"
                    )

    class Renaming(PascalVOCDetectionEvaluator):
        def process(self, inputs, outputs):
            super().process(inputs, [{"instances": output["found"]} for output in outputs])

    name, truth, detections = dataset()
    inputs, outputs = as_outputs(truth, detections)
    results = []
    for cls in (PascalVOCDetectionEvaluator, Lines, Renaming):
        evaluator = cls(name)
        given = [{"found": o["instances"]} for o in outputs] if cls is Renaming else outputs
        evaluator.process(inputs, given)
        results.append(evaluator.evaluate()["bbox"])
    assert results[1] == results[2] == results[0]
    assert results[0]["AP"] > 10


@pytest.mark.parametrize("use_07_metric", [False, True])
def test_evaluation_of_files(dataset, tmp_path, use_07_metric):
    name, truth, detections = dataset()
    folder = MetadataCatalog.get(name).dirname
    lines = [f"{d[0]} {d[2]} {' '.join(map(str, d[3]))}\n" for d in detections if d[1] == "dog"]
    (tmp_path / "found_dog.txt").write_text("".join(lines))
    files = (
        str(tmp_path / "found_{}.txt"),
        f"{folder}/Annotations/{{}}.xml",
        f"{folder}/ImageSets/Main/val.txt",
    )
    recall, precision, average = voc_eval(*files, "dog", 0.6, use_07_metric)
    expected = slow_evaluation(truth, detections, "dog", 0.6, use_07_metric)
    np.testing.assert_allclose(recall, expected[0])
    np.testing.assert_allclose(precision, expected[1])
    assert average == pytest.approx(expected[2])
    assert average == voc_ap(recall, precision, use_07_metric)

    (tmp_path / "found_yeti.txt").write_text("im0 0.5 1 1 9 9\n\n")
    recall, precision, average = voc_eval(*files, "yeti")
    assert np.isnan(recall).tolist() == [True]
    assert precision.tolist() == [0]
    assert np.isnan(average)
    for line in ("im77 0.5 1 1 9 9", "im0 0.5 1 1 9"):
        (tmp_path / "found_yeti.txt").write_text(line)
        with pytest.raises(ValueError, match=f"got '{line}'"):
            voc_eval(*files, "yeti")


def test_changed_annotations_are_read_again(dataset, tmp_path):
    name, _, _ = dataset()
    folder = MetadataCatalog.get(name).dirname
    path = f"{folder}/Annotations/im0.xml"
    (tmp_path / "found_cat.txt").write_text("im0 0.5 1 1 9 9\n")
    (tmp_path / "set.txt").write_text("im0\n")
    for box, expected in (((1, 1, 9, 9), 1), ((40, 40, 50, 50), 0)):
        corners = zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
        xml = "".join(f"<{key}>{value}</{key}>" for key, value in corners)
        with open(path, "w") as file:
            file.write(f"<a><object><name>cat</name><bndbox>{xml}</bndbox></object></a>")
        files = tmp_path / "found_{}.txt", f"{folder}/Annotations/{{}}.xml", tmp_path / "set.txt"
        assert voc_eval(*map(str, files), "cat")[2] == expected


def test_average_precision_of_known_curves():
    assert voc_ap([0.5, 1.0], [1.0, 0.5]) == pytest.approx(0.75)
    assert voc_ap([0.5, 1.0], [1.0, 0.5], use_07_metric=True) == pytest.approx((6 + 5 * 0.5) / 11)
    assert voc_ap([0.5, 0.5, 0.5], [0.5, 0.3, 0.6]) == pytest.approx(0.3)
    assert voc_ap([], []) == voc_ap([], [], use_07_metric=True) == 0


def test_annotation_file(tmp_path):
    path = tmp_path / "a.xml"
    box = "<bndbox><xmin>1</xmin><ymin>2.7</ymin><xmax>30</xmax><ymax>40</ymax></bndbox>"
    path.write_text(
        f"<a><object><name>cat</name><pose>Left</pose><truncated>1</truncated>"
        f"<difficult>1</difficult>{box}</object><object><name>dog</name>{box}</object></a>"
    )
    first, second = parse_rec(str(path))
    assert first == {
        "name": "cat", "pose": "Left", "truncated": 1, "difficult": 1, "bbox": [1, 2, 30, 40],
    }  # fmt: skip
    assert (second["name"], second["truncated"], second["difficult"]) == ("dog", 0, 0)
    path.write_text("<a><object><name>cat</name></object></a>")
    with pytest.raises(ValueError, match=r"a\.xml: object 0 has no name or box"):
        parse_rec(str(path))


def test_a_class_without_ground_truth_does_not_count(dataset, caplog):
    """Upstream it lowers the mean in 2007, and makes it NaN in 2012."""
    for year in (2007, 2012):
        name, truth, detections = dataset(year)
        evaluator = PascalVOCDetectionEvaluator(name)
        evaluator.process(*as_outputs(truth, detections))
        expected = evaluator.evaluate()
        MetadataCatalog.get(name).overwrite(thing_classes=CLASSES)
        detections.append(("im0", "yeti", 0.9, np.array([1, 1, 20, 20])))
        evaluator = PascalVOCDetectionEvaluator(name)
        evaluator.process(*as_outputs(truth, detections))
        with caplog.at_level(logging.WARNING, "detectron2.evaluation"):
            assert evaluator.evaluate() == expected
        assert "without ground truth" in caplog.text
        assert "'yeti'" in caplog.text


def test_what_does_not_fit_is_named(dataset, caplog):
    name, truth, detections = dataset()
    inputs, outputs = as_outputs(truth, detections)
    evaluator = PascalVOCDetectionEvaluator(name)
    evaluator.process(inputs[:4], outputs[:4])
    with caplog.at_level(logging.WARNING, "detectron2.evaluation"):
        evaluator.evaluate()
    assert "2 of the 6 images" in caplog.text
    assert "'im4', 'im5'" in caplog.text

    evaluator.process([{"image_id": "other"}], outputs[:1])
    with pytest.raises(ValueError, match=r"not listed in .*val\.txt: 'other'"):
        evaluator.evaluate()
    evaluator.reset()
    evaluator.process(inputs[:2] + inputs[:1], outputs[:2] + outputs[:1])
    with pytest.raises(ValueError, match="more than once: 'im0'"):
        evaluator.evaluate()
    outputs[0]["instances"].pred_classes[0] = 3
    with pytest.raises(ValueError, match=r"image 'im0': .* 3 classes, so none of index 3"):
        evaluator.process(inputs, outputs)
    MetadataCatalog.get(name).overwrite(year=2010)
    with pytest.raises(ValueError, match="2007 or 2012: 2010"):
        PascalVOCDetectionEvaluator(name)
