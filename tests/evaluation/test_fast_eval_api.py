"""COCOeval_opt against pycocotools' COCOeval, on seeded random data sets."""

import contextlib
import copy
import io

import numpy as np
import pycocotools.mask
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detectron2.evaluation.fast_eval_api import COCOeval_opt

HEIGHT, WIDTH = 120, 160
CATEGORY_IDS = [2, 3, 7]
NUM_KEYPOINTS = 17


@contextlib.contextmanager
def quiet():
    with contextlib.redirect_stdout(io.StringIO()):
        yield


def make_coco(dataset):
    with quiet():
        coco = COCO()
        coco.dataset = dataset
        coco.createIndex()
    return coco


def random_box(rng):
    corner = rng.uniform(0, [WIDTH - 70, HEIGHT - 70])
    return [float(v) for v in (*corner, *rng.uniform(2, 70, 2))]


def annotate(rng, annotation_id, box, iou_type, **fields):
    """An annotation whose mask or keypoints follow `box`."""
    x, y, w, h = box
    annotation = {"id": annotation_id, "bbox": box, "area": w * h, **fields}
    if iou_type == "segm":
        mask = np.zeros((HEIGHT, WIDTH), np.uint8, order="F")
        mask[int(y) : int(np.ceil(y + h)), int(x) : int(np.ceil(x + w))] = 1
        rle = pycocotools.mask.encode(mask)
        annotation["segmentation"] = rle
        annotation["area"] = float(pycocotools.mask.area(rle))
    elif iou_type == "keypoints":
        points = np.column_stack(
            [
                rng.uniform(x, x + w, NUM_KEYPOINTS),
                rng.uniform(y, y + h, NUM_KEYPOINTS),
                rng.integers(0, 3, NUM_KEYPOINTS) * (rng.uniform() < 0.8),
            ]
        )
        annotation["keypoints"] = points.ravel().tolist()
        annotation["num_keypoints"] = int((points[:, 2] > 0).sum())
    return annotation


def random_pair(seed, iou_type="bbox", num_images=8, first_id=1, crowds=True):
    """Ground truth and results with crowds, tied scores, duplicates, and images without either."""
    rng = np.random.default_rng(seed)
    images = [{"id": 5 + 3 * i, "height": HEIGHT, "width": WIDTH} for i in range(num_images)]
    categories = [{"id": c, "name": str(c)} for c in CATEGORY_IDS]
    truths, results = [], []
    for position, image in enumerate(images):
        for _ in range(0 if position == 1 else rng.integers(0, 9)):
            fields = {
                "image_id": image["id"],
                "category_id": int(rng.choice(CATEGORY_IDS)),
                "iscrowd": int(crowds and rng.uniform() < 0.2),
                "ignore": int(rng.uniform() < 0.2),
            }
            truths.append(
                annotate(rng, first_id + len(truths), random_box(rng), iou_type, **fields)
            )
        for _ in range(0 if position == 2 else rng.integers(0, 25)):
            here = [t for t in truths if t["image_id"] == image["id"]]
            fields = {
                "image_id": image["id"],
                "category_id": int(rng.choice(CATEGORY_IDS)),
                # Few values, so that equal scores are common.
                "score": float(rng.integers(1, 12)) / 12,
            }
            result = annotate(rng, 1 + len(results), random_box(rng), iou_type, **fields)
            if here and rng.uniform() < 0.8:
                truth = here[rng.integers(len(here))]
                shift = float(rng.choice([0, 1, 4, 15]))
                x, y, w, h = truth["bbox"]
                box = [x + shift / 2, y, w, h + shift / 4]
                fields["category_id"] = truth["category_id"]
                result = annotate(rng, 1 + len(results), box, iou_type, **fields)
                if iou_type == "keypoints":
                    noise = rng.normal(0, shift, len(truth["keypoints"]))
                    result["keypoints"] = (np.array(truth["keypoints"]) + noise).tolist()
            results.append(result)
    shared = {"images": images, "categories": categories}
    return (
        make_coco({**shared, "annotations": truths}),
        make_coco({**shared, "annotations": results}),
    )


def run(cls, pair, iou_type="bbox", summarize=True, **params):
    evaluator = cls(*copy.deepcopy(pair), iou_type)
    for name, value in params.items():
        setattr(evaluator.params, name, copy.deepcopy(value))
    with quiet(), np.errstate(all="ignore"):
        evaluator.evaluate()
        evaluator.accumulate()
        if summarize:
            evaluator.summarize()
    return evaluator


def assert_same(evaluator, reference):
    assert set(evaluator.eval) == set(reference.eval)
    assert evaluator.eval["counts"] == reference.eval["counts"]
    assert evaluator.eval["params"].catIds == reference.eval["params"].catIds
    assert evaluator.params.imgIds == reference.params.imgIds
    for key in ("precision", "recall", "scores"):
        assert evaluator.eval[key].dtype == reference.eval[key].dtype
        np.testing.assert_allclose(
            evaluator.eval[key], reference.eval[key], rtol=0, atol=1e-12, err_msg=key
        )
    np.testing.assert_allclose(evaluator.stats, reference.stats, rtol=0, atol=1e-12)


def check(pair, iou_type="bbox", **params):
    evaluator = run(COCOeval_opt, pair, iou_type, **params)
    assert_same(evaluator, run(COCOeval, pair, iou_type, **params))
    return evaluator


@pytest.mark.parametrize("iou_type", ["bbox", "segm", "keypoints"])
@pytest.mark.parametrize("seed", range(8))
def test_equals_pycocotools(seed, iou_type):
    evaluator = check(random_pair(seed, iou_type), iou_type)
    assert evaluator.stats[0] > 0.05  # the comparison is not one of zeros


@pytest.mark.parametrize("iou_type", ["bbox", "segm"])
@pytest.mark.parametrize("seed", range(4))
def test_equals_pycocotools_without_categories(seed, iou_type):
    check(random_pair(seed, iou_type), iou_type, useCats=0)


@pytest.mark.parametrize(
    "params",
    [
        {"maxDets": [3, 1, 2]},
        {"maxDets": [1, 10, 1000]},
        {"iouThrs": np.array([0.5])},
        {"iouThrs": np.array([0.0, 0.123, 0.75, 1.0])},
        {"iouThrs": np.array([0.95, 0.5, 0.7])},
        {"recThrs": np.array([0.0, 0.3, 1.0])},
        {"areaRng": [[0, 1e10], [100, 900], [900, 901]], "areaRngLbl": ["all", "small", "large"]},
        {"imgIds": [26, 5, 14, 5]},
        {"catIds": [7, 2]},
        {"catIds": [99, 3], "useCats": 1},
        {"catIds": [7, 2], "useCats": 0},
    ],
    ids=lambda params: "-".join(f"{key}={value}" for key, value in params.items()),
)
@pytest.mark.parametrize("seed", [20, 21])
def test_equals_pycocotools_with_other_parameters(seed, params):
    pair = random_pair(seed)
    evaluator = run(COCOeval_opt, pair, summarize=False, **params)
    reference = run(COCOeval, pair, summarize=False, **params)
    evaluator.stats = reference.stats = np.zeros(0)
    assert_same(evaluator, reference)
    assert evaluator.eval["precision"].max() > 0


@pytest.mark.parametrize("iou_type", ["bbox", "segm", "keypoints"])
def test_tables_equal_those_of_pycocotools(iou_type):
    pair = random_pair(3, iou_type)
    evaluator, reference = (run(cls, pair, iou_type) for cls in (COCOeval_opt, COCOeval))

    assert set(evaluator.ious) == set(reference.ious)
    for key, wanted in reference.ious.items():
        got = evaluator.ious[key]
        assert np.shape(got) == np.shape(wanted)
        np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-12)

    assert len(evaluator.evalImgs) == len(reference.evalImgs)
    for got, wanted in zip(evaluator.evalImgs, reference.evalImgs, strict=True):
        assert (got is None) == (wanted is None)
        if wanted is None:
            continue
        assert set(got) == set(wanted)
        for key, value in wanted.items():
            np.testing.assert_array_equal(got[key], value, err_msg=key)


def perfect_pair(gt_ids, dt_ids):
    """One image with one object a ground-truth id, each found exactly."""
    boxes = [[40.0 * i, 10.0, 30.0, 50.0] for i in range(len(gt_ids))]
    fields = {"image_id": 5, "category_id": 2, "iscrowd": 0, "area": 1500.0}
    truths = [{"id": i, "bbox": b, **fields} for i, b in zip(gt_ids, boxes, strict=True)]
    results = [
        {"id": i, "bbox": b, "score": 0.9, **fields} for i, b in zip(dt_ids, boxes, strict=True)
    ]
    shared = {
        "images": [{"id": 5, "height": HEIGHT, "width": WIDTH}],
        "categories": [{"id": 2, "name": "2"}],
    }
    return (
        make_coco({**shared, "annotations": truths}),
        make_coco({**shared, "annotations": results}),
    )


def test_ground_truth_of_id_zero_counts():
    evaluator = run(COCOeval_opt, perfect_pair([0, 1], [1, 2]))
    assert evaluator.stats[0] == pytest.approx(1, abs=1e-12)
    # With ids from 1 on, the same data are no different.
    for seed in range(3):
        from_zero = run(COCOeval_opt, random_pair(seed, first_id=0))
        from_one = run(COCOeval_opt, random_pair(seed, first_id=1))
        np.testing.assert_array_equal(from_zero.eval["precision"], from_one.eval["precision"])


def test_detection_of_id_zero_takes_its_match():
    # Were it not to, the second detection could match the same ground truth.
    gt, dt = perfect_pair([1], [0])
    again = dt.dataset["annotations"][0] | {"id": 1, "score": 0.5}
    dt = make_coco({**dt.dataset, "annotations": [*dt.dataset["annotations"], again]})
    evaluator = run(COCOeval_opt, (gt, dt))
    first = evaluator.evalImgs[0]
    np.testing.assert_array_equal(first["dtMatches"], [[1, 0]] * 10)


def test_annotations_that_share_an_id_all_count():
    evaluator = run(COCOeval_opt, perfect_pair([7, 7], [1, 2]))
    assert evaluator.stats[0] == pytest.approx(1, abs=1e-12)


def test_keypoints_without_categories_match():
    pair = random_pair(4, "keypoints")
    for coco in pair:
        for annotation in coco.dataset["annotations"]:
            annotation["category_id"] = 2
    pair = tuple(make_coco(coco.dataset) for coco in pair)
    merged = run(COCOeval_opt, pair, "keypoints", useCats=0)
    single = run(COCOeval_opt, pair, "keypoints", catIds=[2])
    assert single.stats[0] > 0.05
    np.testing.assert_array_equal(merged.eval["precision"], single.eval["precision"])


@pytest.mark.parametrize("iou_type", ["bbox", "segm", "keypoints"])
@pytest.mark.parametrize("missing", ["ground truth", "detections", "both"])
def test_nothing_to_evaluate(missing, iou_type):
    gt, dt = random_pair(1, iou_type)
    empty = {"images": gt.dataset["images"], "categories": gt.dataset["categories"]}
    if missing != "detections":
        gt = make_coco({**empty, "annotations": []})
    if missing != "ground truth":
        dt = make_coco({**empty, "annotations": []})
    evaluator = check((gt, dt), iou_type)
    assert evaluator.stats[0] == (0 if missing == "detections" else -1)


def test_no_images():
    evaluator = run(COCOeval_opt, random_pair(1), imgIds=[])
    assert (evaluator.eval["precision"] == -1).all()


def test_ids_may_be_strings():
    pair = random_pair(5)
    wanted = run(COCOeval, pair)
    for image in pair[0].dataset["images"]:  # the list of both
        image["id"] = f"image {image['id']:03}"
    for coco in pair:
        for annotation in coco.dataset["annotations"]:
            annotation["image_id"] = f"image {annotation['image_id']:03}"
    evaluator = run(COCOeval_opt, tuple(make_coco(coco.dataset) for coco in pair))
    np.testing.assert_array_equal(evaluator.eval["precision"], wanted.eval["precision"])


def test_annotations_are_not_changed():
    gt, dt = random_pair(6, "segm")
    before = copy.deepcopy((gt.dataset, dt.dataset))
    evaluator = COCOeval_opt(gt, dt, "segm")
    evaluator.evaluate()
    evaluator.accumulate()
    assert (gt.dataset, dt.dataset) == before


def test_evaluate_again_without_categories():
    evaluator = run(COCOeval_opt, random_pair(7), useCats=0)
    first = evaluator.stats
    with quiet():
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    np.testing.assert_array_equal(evaluator.stats, first)
    assert first[0] > 0


def test_load_res():
    gt, dt = random_pair(8)
    entries = [
        {key: entry[key] for key in ("image_id", "category_id", "bbox", "score")}
        for entry in dt.dataset["annotations"]
    ]
    with quiet():
        loaded = gt.loadRes(entries)
    check((gt, loaded))


@pytest.mark.parametrize(
    ("iou_type", "side", "key", "value", "message"),
    [
        ("bbox", 1, "score", float("nan"), "'score' of detection 3 .* finite number, got nan"),
        ("bbox", 1, "score", "high", "'score' of detection 3 .* got 'high'"),
        ("bbox", 1, "score", None, "detection 3 of image .* has no 'score'"),
        ("bbox", 1, "area", None, "detection 3 of image .* has no 'area'"),
        ("bbox", 1, "bbox", [1.0, 2.0, 3.0], r"4 finite numbers, got \[1.0, 2.0, 3.0\]"),
        ("bbox", 1, "bbox", [1.0, 2.0, float("inf"), 4.0], "4 finite numbers, got .*inf"),
        ("bbox", 1, "image_id", None, "detection 3 of image None has no 'image_id'"),
        ("bbox", 0, "bbox", [1.0] * 5, "'bbox' of ground truth 3 .* 4 finite numbers"),
        ("bbox", 0, "area", float("nan"), "'area' of ground truth 3 .* got nan"),
        ("keypoints", 1, "keypoints", [1.0] * 48, "'keypoints' of detection 3 .* 51 finite"),
        ("keypoints", 0, "num_keypoints", None, "ground truth 3 .* has no 'num_keypoints'"),
    ],
)
def test_bad_annotations_are_named(iou_type, side, key, value, message):
    pair = random_pair(9, iou_type)
    annotation = next(a for a in pair[side].dataset["annotations"] if a["id"] == 3)
    if value is None:
        del annotation[key]
    else:
        annotation[key] = value
    with pytest.raises(ValueError, match=message):
        COCOeval_opt(*pair, iou_type).evaluate()


def test_accumulate_needs_evaluate():
    evaluator = COCOeval_opt(*random_pair(10), "bbox")
    with pytest.raises(RuntimeError, match="evaluate"):
        evaluator.accumulate()
    with quiet():
        evaluator.evaluate()
    evaluator.params.recThrs = np.array([0.5])
    evaluator.accumulate()
    assert evaluator.eval["precision"].shape[1] == 1
    evaluator.params.maxDets = [1, 2, 3]
    with pytest.raises(RuntimeError, match=r"params.maxDets changed"):
        evaluator.accumulate()
