"""Semantic segmentation, against counting one pixel at a time."""

import json
import logging

import numpy as np
import pycocotools.mask as mask_util
import pytest
import torch
from PIL import Image

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import SemSegEvaluator
from detectron2.evaluation._label_map_rle import encode_labels
from detectron2.evaluation._sem_seg_metrics import boundary_differences, most_likely_labels
from detectron2.evaluation.sem_seg_evaluation import load_image_into_numpy_array

NAMES = ["road", "sky", "tree", "yeti"]
IGNORE = 255


def slow_boundary(labels, radius):
    height, width = labels.shape
    padded = np.zeros((height + 2 * radius, width + 2 * radius), labels.dtype)
    padded[radius:-radius, radius:-radius] = labels
    result = labels.copy()
    for y in range(height):
        for x in range(width):
            result[y, x] -= padded[y : y + 2 * radius + 1, x : x + 2 * radius + 1].min()
    return result


def slow_iou(predicted, actual, label, is_valid):
    predicted, actual = (predicted == label) & is_valid, (actual == label) & is_valid
    return 100 * np.sum(predicted & actual) / np.sum(predicted | actual)


def blocks(generator, high, height=24, width=40):
    return np.kron(
        generator.integers(0, high, (height // 8, width // 8)), np.ones((8, 8), np.uint8)
    )


@pytest.fixture
def dataset(tmp_path):
    """A registered data set of three images: its name, ground truths and predictions."""
    generator = np.random.default_rng(0)
    records, truths, outputs = [], [], []
    for i in range(3):
        truth = blocks(generator, 3).astype(np.uint8)
        truth[:3] = IGNORE
        path = str(tmp_path / f"{i}.png")
        Image.fromarray(truth).save(path)
        logits = generator.standard_normal((len(NAMES), *truth.shape)).astype(np.float32)
        logits += 2 * (truth == np.arange(len(NAMES))[:, None, None])
        records.append({"file_name": f"{i}.jpg", "sem_seg_file_name": path})
        truths.append(truth)
        outputs.append({"sem_seg": torch.from_numpy(logits)})
    name = f"sem_seg_of_tests_{tmp_path}"
    DatasetCatalog.register(name, lambda: records)
    MetadataCatalog.get(name).set(stuff_classes=NAMES, ignore_label=IGNORE)
    yield name, truths, outputs
    DatasetCatalog.remove(name)
    MetadataCatalog.remove(name)


INPUTS = [{"file_name": f"{i}.jpg"} for i in range(3)]


def test_scores(dataset):
    name, truths, outputs = dataset
    evaluator = SemSegEvaluator(name)
    for image, output in zip(INPUTS, outputs, strict=True):
        evaluator.process([image], [output])
    results = evaluator.evaluate()["sem_seg"]

    predicted = np.concatenate([output["sem_seg"].numpy().argmax(0) for output in outputs])
    actual = np.concatenate(truths)
    valid = actual != IGNORE
    iou = [slow_iou(predicted, actual, label, valid) for label in range(3)]
    hits = (predicted == actual) & valid
    sizes = np.array([np.sum(actual == label) for label in range(3)])
    accuracy = [100 * np.sum(hits & (actual == label)) / sizes[label] for label in range(3)]
    expected = {
        "mIoU": np.mean(iou),
        "fwIoU": np.sum(iou * sizes) / sizes.sum(),
        "mACC": np.mean(accuracy),
        "pACC": 100 * hits.sum() / sizes.sum(),
        "IoU-yeti": np.nan,
        "ACC-yeti": np.nan,
        "min(IoU, B-Iou)-yeti": np.nan,
    }
    # What is ignored takes part as a label of its own, the highest one.
    radius = 1
    labels = [np.where(truth == IGNORE, len(NAMES), truth) for truth in truths]
    actual = np.concatenate([slow_boundary(truth, radius) for truth in labels])
    predicted = np.concatenate(
        [slow_boundary(output["sem_seg"].numpy().argmax(0), radius) for output in outputs]
    )
    for label, label_name in enumerate(NAMES):
        boundary = slow_iou(predicted, actual, label, actual != len(NAMES))
        expected[f"BoundaryIoU-{label_name}"] = boundary
        if label < 3:
            expected[f"IoU-{label_name}"] = iou[label]
            expected[f"ACC-{label_name}"] = accuracy[label]
            expected[f"min(IoU, B-Iou)-{label_name}"] = min(iou[label], boundary)
    assert results == pytest.approx(expected, nan_ok=True)
    assert list(results)[:3] == ["mIoU", "fwIoU", "IoU-road"]


def test_subclass_that_counts_itself(dataset, caplog, monkeypatch):
    """As code written for upstream does: nothing is said to be missing."""

    class Counter(SemSegEvaluator):
        def reset(self):
            self._conf_matrix = np.zeros((self._num_classes + 1,) * 2, dtype=np.int64)
            self._b_conf_matrix = np.zeros_like(self._conf_matrix)
            self._predictions = []

        def process(self, inputs, outputs):
            for image, output in zip(inputs, outputs, strict=True):
                predicted = output["sem_seg"].argmax(dim=0).numpy()
                actual = np.asarray(Image.open(self.input_file_to_gt_file[image["file_name"]]))
                actual = np.where(actual == self._ignore_label, self._num_classes, actual)
                pairs = (self._num_classes + 1) * predicted + actual
                counts = np.bincount(pairs.reshape(-1), minlength=self._conf_matrix.size)
                self._conf_matrix += counts.reshape(self._conf_matrix.shape)

    monkeypatch.setattr(logging.getLogger("detectron2"), "propagate", True)
    name, _, outputs = dataset
    results = []
    for cls in (Counter, SemSegEvaluator):
        evaluator = cls(name)
        evaluator.process(INPUTS, outputs)
        results.append(evaluator.evaluate()["sem_seg"])
    for key in ("mIoU", "fwIoU", "mACC", "pACC"):
        assert results[0][key] == results[1][key]
    assert "not processed" not in caplog.text


def test_no_boundaries_beyond_8_bits(dataset, tmp_path):
    name, truths, outputs = dataset
    expected = SemSegEvaluator(name)
    expected.process(INPUTS, outputs)
    MetadataCatalog.get(name).overwrite(
        stuff_classes=NAMES + [str(i) for i in range(296)], ignore_label=4000
    )
    for i, truth in enumerate(truths):
        wide = np.where(truth == IGNORE, 4000, truth.astype(np.uint16)).astype(np.uint16)
        Image.fromarray(wide).save(tmp_path / f"{i}.png")
    evaluator = SemSegEvaluator(name)
    evaluator.process(INPUTS, [{"sem_seg": torch.cat([o["sem_seg"]] * 75)} for o in outputs])
    results = evaluator.evaluate()["sem_seg"]
    assert not any("Boundary" in key for key in results)
    assert results["IoU-tree"] == expected.evaluate()["sem_seg"]["IoU-tree"]


def test_boundaries():
    generator = np.random.default_rng(1)
    # Radii of 1, 1, 4, 5 and 8; in the fourth no window fits.
    for shape in ((9, 7), (1, 30), (150, 130), (10, 250), (60, 400)):
        labels = generator.integers(0, 255, shape).astype(np.uint8)
        labels[: shape[0] // 2] = 7
        radius = max(1, round(0.02 * np.hypot(*shape)))
        np.testing.assert_array_equal(boundary_differences(labels), slow_boundary(labels, radius))
    mask = np.zeros((40, 60), np.uint8)
    mask[10:30, 20:50] = 1
    assert boundary_differences(mask).sum() == 20 * 30 - 18 * 28


def test_boundaries_are_those_of_opencv():
    cv2 = pytest.importorskip("cv2")
    labels = np.random.default_rng(2).integers(0, 30, (130, 170)).astype(np.uint8)
    labels[40:120, 20:160] //= 10
    padded = cv2.copyMakeBorder(labels, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    eroded = cv2.erode(padded, np.ones((3, 3), np.uint8), iterations=4)[1:-1, 1:-1]
    np.testing.assert_array_equal(boundary_differences(labels), labels - eroded)


@pytest.mark.parametrize("dtype", [np.uint8, np.int64])
def test_run_lengths_of_all_labels(dtype):
    generator = np.random.default_rng(3)
    for labels in (generator.integers(0, 5, (13, 17)), blocks(generator, 200), np.zeros((3, 4))):
        labels = labels.astype(dtype)
        encoded = encode_labels(labels)
        assert list(encoded) == np.unique(labels).tolist()
        for label, rle in encoded.items():
            expected = mask_util.encode(np.asfortranarray(labels == label, dtype=np.uint8))
            assert rle == {"size": expected["size"], "counts": expected["counts"].decode()}
    assert encode_labels(np.zeros((0, 4), dtype)) == {}


def test_the_first_of_equal_logits():
    logits = torch.zeros(3, 2, 2)
    logits[1:, 0] = 1
    assert most_likely_labels(logits).tolist() == [[1, 1], [0, 0]]
    assert most_likely_labels(torch.eye(300)[:, :, None])[299] == 299


def test_files(dataset, tmp_path):
    name, _, outputs = dataset
    MetadataCatalog.get(name).stuff_dataset_id_to_contiguous_id = {10 + i: i for i in range(4)}
    folder = tmp_path / "new" / "out"
    evaluator = SemSegEvaluator(name, output_dir=str(folder))
    evaluator.process(INPUTS, outputs)
    results = evaluator.evaluate()
    predictions = json.loads((folder / "sem_seg_predictions.json").read_text())
    assert [p["file_name"] for p in predictions] == sorted(
        f"{i}.jpg" for i in range(3) for _ in NAMES
    )
    assert [p["category_id"] for p in predictions] == [10, 11, 12, 13] * 3
    decoded = sum(i * mask_util.decode(p["segmentation"]) for i, p in enumerate(predictions[:4]))
    np.testing.assert_array_equal(decoded, outputs[0]["sem_seg"].argmax(0))
    saved = torch.load(folder / "sem_seg_evaluation.pth")
    assert saved == pytest.approx(results["sem_seg"], nan_ok=True)
    with pytest.raises(ValueError, match="no id for the label 9"):
        evaluator.encode_json_sem_seg(np.full((2, 2), 9), "a.jpg")


def test_a_loading_function(dataset):
    name, _, outputs = dataset
    calls = []

    def load(path, dtype):
        calls.append((path, dtype))
        return load_image_into_numpy_array(path, dtype)

    evaluator = SemSegEvaluator(name, sem_seg_loading_fn=load)
    evaluator.process(INPUTS, outputs)
    expected = SemSegEvaluator(name)
    expected.process(INPUTS, outputs)
    assert evaluator.evaluate()["sem_seg"] == pytest.approx(
        expected.evaluate()["sem_seg"], nan_ok=True
    )
    assert [dtype for _, dtype in calls] == [int] * 3


def test_what_does_not_fit_is_named(dataset, tmp_path, caplog):
    """Upstream a label out of range counts as a pixel of other labels."""
    name, truths, outputs = dataset
    evaluator = SemSegEvaluator(name)
    evaluator.process(INPUTS[:1], outputs[:1])
    with pytest.raises(KeyError, match="has no file 'other'"):
        evaluator.process([{"file_name": "other"}], outputs[:1])
    with pytest.raises(ValueError, match=r"1\.jpg: .*\(23, 40\).*1\.png is \(24, 40\)"):
        evaluator.process(INPUTS[1:2], [{"sem_seg": outputs[0]["sem_seg"][:, 1:]}])
    with pytest.raises(ValueError, match=r"1\.jpg: .* has 4 classes, but class 5 of 6"):
        evaluator.process(
            INPUTS[1:2], [{"sem_seg": torch.eye(6)[5][:, None, None].repeat(1, 24, 40)}]
        )
    for label in (4, 7):
        truths[1][5, 5] = label
        Image.fromarray(truths[1]).save(tmp_path / "1.png")
        with pytest.raises(ValueError, match=rf"1\.png: the label {label} is none of the 4"):
            evaluator.process(INPUTS[1:2], outputs[1:2])
    Image.fromarray(np.zeros((24, 40, 3), np.uint8)).save(tmp_path / "1.png")
    with pytest.raises(ValueError, match=r"1\.png: a ground truth is .*\(24, 40, 3\)"):
        evaluator.process(INPUTS[1:2], outputs[1:2])

    evaluator.process(INPUTS[:1], outputs[:1])
    with caplog.at_level(logging.WARNING, "detectron2.evaluation"):
        evaluator.evaluate()
    assert "2 of the 3 images" in caplog.text
    assert "'1.jpg', '2.jpg'" in caplog.text
    assert "processed more than once, and count as often: '0.jpg'" in caplog.text
    assert "without ground truth have no scores (NaN), and do not count in the means: 'yeti'" in (
        caplog.text
    )
    evaluator.reset()
    scores = evaluator.evaluate()["sem_seg"]
    assert all(np.isnan(value) for value in scores.values())


def test_arguments(dataset, caplog):
    name, _, outputs = dataset
    with pytest.raises(ValueError, match="has 4 classes, but num_classes=5"):
        SemSegEvaluator(name, num_classes=5)
    with caplog.at_level(logging.WARNING, "detectron2.evaluation"):
        evaluator = SemSegEvaluator(name, num_classes=4, ignore_label=2)
    assert "ignore_label is deprecated" in caplog.text
    with pytest.raises(ValueError, match="the label 255 is none of the 4"):
        evaluator.process(INPUTS, outputs)
    other = f"{name}_without_truth"
    DatasetCatalog.register(other, lambda: [{"file_name": "a.jpg"}])
    try:
        with pytest.raises(ValueError, match=r"no sem_seg_file_name for 'a\.jpg'"):
            SemSegEvaluator(other)
    finally:
        DatasetCatalog.remove(other)
