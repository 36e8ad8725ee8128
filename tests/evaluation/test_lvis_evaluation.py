"""LVISEvaluator against the lvis package, on seeded random data sets."""

import contextlib
import copy
import io
import json
import logging

import numpy as np
import pycocotools.mask
import pytest
import torch
from pycocotools.coco import COCO

from detectron2.data import MetadataCatalog
from detectron2.evaluation import LVISEvaluator
from detectron2.evaluation._coco_detections import Detections
from detectron2.evaluation._lvis_protocol import evaluate_lvis
from detectron2.evaluation.lvis_evaluation import instances_to_coco_json
from detectron2.structures import Boxes, Instances

HEIGHT, WIDTH = 140, 160
NUM_CATEGORIES = 6
METRICS = ["AP", "AP50", "AP75", "APs", "APm", "APl", "APr", "APc", "APf"]


def mask_of(box):
    x, y, w, h = box
    mask = np.zeros((HEIGHT, WIDTH), np.uint8, order="F")
    mask[max(0, int(y)) : int(y + h) + 1, max(0, int(x)) : int(x + w) + 1] = 1
    return mask


def rle_of(box):
    rle = pycocotools.mask.encode(mask_of(box))
    return {"size": rle["size"], "counts": rle["counts"].decode()}


def random_box(rng):
    size = rng.uniform(2, 120, 2)
    return [*rng.uniform(0, [WIDTH - 2, HEIGHT - 2] - size / 2).tolist(), *size.tolist()]


def ground_truth(seed, num_images=12):
    """Some annotations without area, some to be ignored; images list absent and not exhaustive
    categories; the last image is empty."""
    rng = np.random.default_rng(seed)
    images, annotations = [], []
    for image in range(num_images):
        present = set()
        for _ in range(0 if image == num_images - 1 else rng.integers(0, 9)):
            box = random_box(rng)
            annotation = {
                "id": len(annotations) + 1,
                "image_id": 100 - 3 * image,
                "category_id": int(rng.integers(1, NUM_CATEGORIES + 1)),
                "bbox": box,
                "area": 0.0 if rng.uniform() < 0.1 else box[2] * box[3],
                "segmentation": rle_of(box),
            }
            if rng.uniform() < 0.15:
                annotation["ignore"] = 1
            present.add(annotation["category_id"])
            annotations.append(annotation)
        absent = sorted(set(range(1, NUM_CATEGORIES + 1)) - present)
        images.append(
            {
                "id": 100 - 3 * image,
                "height": HEIGHT,
                "width": WIDTH,
                "neg_category_ids": absent[: rng.integers(0, 3)],
                "not_exhaustive_category_ids": sorted(present)[: rng.integers(0, 2)],
            }
        )
    return {
        "images": images,
        "annotations": annotations,
        "categories": [
            {"id": c, "name": f"c{c}", "frequency": "rcf"[c % 3]}
            for c in range(1, NUM_CATEGORIES + 1)
        ],
    }


def results_of(seed, dataset, per_image=25, masks=False):
    """Results with equal scores, and some without area."""
    rng = np.random.default_rng(seed)
    results = []
    for image in dataset["images"]:
        here = [a for a in dataset["annotations"] if a["image_id"] == image["id"]]
        for _ in range(rng.integers(0, per_image)):
            box, category = random_box(rng), int(rng.integers(1, NUM_CATEGORIES + 1))
            if here and rng.uniform() < 0.7:
                truth = here[rng.integers(len(here))]
                box = (np.array(truth["bbox"]) + rng.normal(0, rng.choice([0, 1, 6]), 4)).tolist()
                category = truth["category_id"]
            box[2:] = [max(0.0 if rng.uniform() < 0.05 else 1.0, side) for side in box[2:]]
            result = {
                "image_id": image["id"],
                "category_id": category,
                "score": float(rng.integers(1, 10)) / 10,
            }
            result |= {"segmentation": rle_of(box)} if masks else {"bbox": box}
            results.append(result)
    return results


def coco_of(dataset):
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = copy.deepcopy(dataset)
        coco.createIndex()
    return coco


def run_package(dataset, results, iou_type, tmp_path, monkeypatch, max_dets=300):
    lvis = pytest.importorskip("lvis")
    monkeypatch.setattr(np, "float", float, raising=False)  # which the package still uses
    path = tmp_path / "truth.json"
    path.write_text(json.dumps(dataset))
    monkeypatch.setattr(logging.Logger, "warn", logging.Logger.debug, raising=False)
    truth = lvis.LVIS(str(path))
    found = lvis.LVISResults(truth, copy.deepcopy(results), max_dets=max_dets)
    evaluation = lvis.LVISEval(truth, found, iou_type)
    evaluation.params.max_dets = max_dets
    evaluation.run()
    return evaluation


def run_ours(dataset, results, iou_type, max_dets=300):
    coco = coco_of(dataset)
    return evaluate_lvis(coco, Detections.from_records(results, coco.imgs), iou_type, max_dets)


@pytest.mark.parametrize("iou_type", ["bbox", "segm"])
@pytest.mark.parametrize("max_dets", [300, 5, -1])
@pytest.mark.parametrize("seed", range(4))
def test_equals_the_package(seed, max_dets, iou_type, tmp_path, monkeypatch):
    dataset = ground_truth(seed)
    results = results_of(seed, dataset, masks=iou_type == "segm")
    wanted = run_package(dataset, results, iou_type, tmp_path, monkeypatch, max_dets)
    got = run_ours(dataset, results, iou_type, max_dets)
    for key in ("precision", "recall"):
        np.testing.assert_allclose(getattr(got, key), wanted.eval[key], rtol=0, atol=1e-12)
    summary = got.results()
    assert list(summary) == list(wanted.results)
    for key, value in wanted.results.items():
        assert summary[key] == pytest.approx(value, abs=1e-12)
    assert summary["AP"] > 0.02


def one_image(**fields):
    """An image with an object of category 1 that is found, and a detection of category 2."""
    box = [10.0, 10.0, 50.0, 50.0]
    image = {"id": 1, "height": HEIGHT, "width": WIDTH}
    dataset = {
        "images": [image | {"neg_category_ids": [], "not_exhaustive_category_ids": []} | fields],
        "categories": [{"id": c, "name": str(c), "frequency": "f"} for c in (1, 2)],
        "annotations": [
            {"id": 0, "image_id": 1, "category_id": 1, "bbox": box, "area": 2500.0},
        ],
    }
    results = [
        {"image_id": 1, "category_id": 1, "bbox": [60.0, 60.0, 9.0, 9.0], "score": 0.9},
        {"image_id": 1, "category_id": 1, "bbox": box, "score": 0.8},
        {"image_id": 1, "category_id": 2, "bbox": box, "score": 0.7},
    ]
    return dataset, results


def test_federated_rules():
    # The annotation's id is 0, and nevertheless it is matched. The false alarm halves precision.
    dataset, results = one_image()
    assert run_ours(dataset, results, "bbox").results()["AP"] == pytest.approx(0.5)
    # Not exhaustive: the false alarm may be an object that was not annotated.
    dataset, results = one_image(not_exhaustive_category_ids=[1])
    assert run_ours(dataset, results, "bbox").results()["AP"] == pytest.approx(1)
    # Category 2 has no ground truth, whether it is verified or not.
    dataset, results = one_image(neg_category_ids=[2])
    assert run_ours(dataset, results, "bbox").results()["AP"] == pytest.approx(0.5)
    assert run_ours(dataset, results, "bbox").results()["APr"] == -1


def test_only_verified_categories_count():
    """A false alarm of category 1 in another image counts if it is listed there as absent."""
    for negative, wanted in (([], 1), ([1], 0.5)):
        dataset, results = one_image()
        other = dataset["images"][0] | {"id": 2, "neg_category_ids": negative}
        dataset["images"].append(other)
        alarm = results.pop(0) | {"image_id": 2}
        ap = run_ours(dataset, [*results, alarm], "bbox").results()["AP"]
        assert ap == pytest.approx(wanted)


def test_bad_data_sets_are_named():
    dataset, results = one_image()
    del dataset["images"][0]["neg_category_ids"]
    with pytest.raises(ValueError, match="image 1 has no 'neg_category_ids'"):
        run_ours(dataset, results, "bbox")
    dataset, results = one_image()
    dataset["categories"][1]["frequency"] = "x"
    with pytest.raises(ValueError, match=r"'frequency' of category 2 .* got 'x'"):
        run_ours(dataset, results, "bbox")
    with pytest.raises(ValueError, match="'bbox' or 'segm', got 'keypoints'"):
        run_ours(dataset, results, "keypoints")


@pytest.fixture
def register(tmp_path, request):
    names = []

    def add(dataset, **metadata):
        path = tmp_path / "registered.json"
        path.write_text(json.dumps(dataset))
        names.append(request.node.name)
        MetadataCatalog.get(names[-1]).set(json_file=str(path), **metadata)
        return names[-1]

    yield add
    for name in names:
        MetadataCatalog.remove(name)


def model_output(seed, dataset, masks):
    rng = np.random.default_rng(seed)
    results = results_of(seed, dataset)
    inputs = [{"image_id": image["id"]} for image in dataset["images"]]
    outputs = []
    for image in dataset["images"]:
        here = [r for r in results if r["image_id"] == image["id"]]
        boxes = torch.tensor([r["bbox"] for r in here]).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        instances = Instances((HEIGHT, WIDTH), pred_boxes=Boxes(boxes))
        instances.scores = torch.from_numpy(rng.uniform(size=len(here))).float()
        instances.pred_classes = torch.tensor([r["category_id"] - 1 for r in here]).long()
        if masks:
            drawn = np.zeros((len(here), HEIGHT, WIDTH), bool)
            for n, result in enumerate(here):
                drawn[n] = mask_of(result["bbox"])
            instances.pred_masks = torch.from_numpy(drawn)
        outputs.append({"instances": instances})
    return inputs, outputs


def run(evaluator, inputs, outputs):
    evaluator.reset()
    evaluator.process(inputs, outputs)
    return evaluator.evaluate()


@pytest.mark.parametrize("max_dets", [None, 4])
@pytest.mark.parametrize("masks", [False, True])
def test_evaluator_equals_the_package(masks, max_dets, register, tmp_path, monkeypatch):
    dataset = ground_truth(5)
    name, (inputs, outputs) = register(dataset), model_output(5, dataset, masks)
    evaluator = LVISEvaluator(name, output_dir=str(tmp_path), max_dets_per_image=max_dets)
    results = run(evaluator, inputs, outputs)
    assert list(results) == (["bbox", "segm"] if masks else ["bbox"])
    written = json.loads((tmp_path / "lvis_instances_results.json").read_text())
    assert min(r["category_id"] for r in written) == 1
    for task, metrics in results.items():
        drop = "bbox" if task == "segm" else "segmentation"
        records = [{k: v for k, v in r.items() if k != drop} for r in written]
        wanted = run_package(dataset, records, task, tmp_path, monkeypatch, max_dets or 300)
        assert list(metrics) == METRICS
        for key, value in metrics.items():
            assert value == pytest.approx(100 * wanted.results[key], abs=1e-10)


def test_subclass_that_collects_dicts(register, tmp_path):
    """As code written for upstream does, with keys of its own."""

    class Collector(LVISEvaluator):
        def process(self, inputs, outputs):
            for input, output in zip(inputs, outputs, strict=True):
                records = instances_to_coco_json(output["instances"], input["image_id"])
                for record in records:
                    record["seen"] = True
                self._predictions.append({"image_id": input["image_id"], "instances": records})

    dataset = ground_truth(5)
    name, model_outputs = register(dataset), model_output(5, dataset, masks=True)
    wanted = run(LVISEvaluator(name), *model_outputs)
    assert run(Collector(name, output_dir=str(tmp_path)), *model_outputs) == wanted
    written = json.loads((tmp_path / "lvis_instances_results.json").read_text())
    assert all(record["seen"] for record in written)
    assert min(record["category_id"] for record in written) == 1


def test_categories_of_another_numbering(register, tmp_path):
    dataset = ground_truth(6)
    inputs, outputs = model_output(6, dataset, masks=False)
    mapping = {c: NUM_CATEGORIES - c for c in range(1, NUM_CATEGORIES + 1)}
    name = register(dataset, thing_dataset_id_to_contiguous_id=mapping)
    for output in outputs:
        classes = output["instances"].pred_classes
        output["instances"].pred_classes = NUM_CATEGORIES - 1 - classes
    results = run(LVISEvaluator(name), inputs, outputs)
    MetadataCatalog.get(name).overwrite(thing_dataset_id_to_contiguous_id={})
    del MetadataCatalog.get(name).thing_dataset_id_to_contiguous_id
    for output in outputs:
        classes = output["instances"].pred_classes
        output["instances"].pred_classes = NUM_CATEGORIES - 1 - classes
    np.testing.assert_equal(run(LVISEvaluator(name), inputs, outputs), results)


def test_nothing_found(register):
    dataset = ground_truth(7)
    name, (inputs, outputs) = register(dataset), model_output(7, dataset, masks=False)
    assert run(LVISEvaluator(name), [], []) == {}
    nothing = [{"instances": output["instances"][:0]} for output in outputs]
    results = run(LVISEvaluator(name), inputs, nothing)
    assert list(results["bbox"]) == METRICS
    assert np.isnan(list(results["bbox"].values())).all()


def test_proposals(register):
    dataset = ground_truth(8)
    name, (inputs, outputs) = register(dataset), model_output(8, dataset, masks=False)
    proposals = [
        {
            "proposals": Instances(
                (HEIGHT, WIDTH),
                proposal_boxes=output["instances"].pred_boxes,
                objectness_logits=output["instances"].scores,
            )
        }
        for output in outputs
    ]
    results = run(LVISEvaluator(name), inputs, proposals)["box_proposals"]
    assert set(results) == {f"AR{s}@{n}" for s in ("", "s", "m", "l") for n in (100, 1000)}
    assert 5 < results["AR@100"] < 100


def test_unknown_image(register):
    dataset = ground_truth(9)
    name, (inputs, outputs) = register(dataset), model_output(9, dataset, masks=False)
    inputs[0]["image_id"] = -5
    with pytest.raises(ValueError, match=r"not in the data set: image ids \[-5\]"):
        run(LVISEvaluator(name), inputs, outputs)
