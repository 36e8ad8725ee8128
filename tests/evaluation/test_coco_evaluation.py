"""COCOEvaluator against pycocotools fed with the same predictions, on seeded random data sets."""

import contextlib
import io
import json
import logging
import math
import pickle
import socket

import numpy as np
import pycocotools.mask
import pytest
import torch
import torch.multiprocessing as mp
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import COCOEvaluator
from detectron2.evaluation.coco_evaluation import (
    COCOevalMaxDets,
    _evaluate_box_proposals,
    _evaluate_predictions_on_coco,
    instances_to_coco_json,
)
from detectron2.evaluation.fast_eval_api import COCOeval_opt, load_results
from detectron2.structures import BitMasks, Boxes, BoxMode, Instances

HEIGHT, WIDTH = 90, 120
CATEGORY_IDS = [2, 5, 9]
NUM_KEYPOINTS = 4
SIGMAS = [0.05, 0.1, 0.07, 0.02]
METRICS = {
    "bbox": ["AP", "AP50", "AP75", "APs", "APm", "APl"],
    "segm": ["AP", "AP50", "AP75", "APs", "APm", "APl"],
    "keypoints": ["AP", "AP50", "AP75", "APm", "APl"],
}


def box_mask(box):
    x0, y0, x1, y1 = box
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    cx, cy = (x0 + x1) / 2, (y0 + y1) / 2
    rx, ry = max((x1 - x0) / 2, 1), max((y1 - y0) / 2, 1)
    return ((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 <= 1


def random_xyxy(rng):
    corner = rng.uniform(0, [WIDTH - 65, HEIGHT - 65])
    return np.concatenate([corner, corner + rng.uniform(4, 64, 2)])


def ground_truth(seed, num_images=7, num_categories=3, first_id=0):
    """Image 2 is empty; ids begin with 0; crowds, polygons and run lengths."""
    rng = np.random.default_rng(seed)
    annotations = []
    for image in range(num_images):
        for _ in range(0 if image == 1 else rng.integers(1, 7)):
            box = random_xyxy(rng)
            x0, y0, x1, y1 = box.tolist()
            crowd = int(rng.uniform() < 0.15)
            if crowd or rng.uniform() < 0.5:
                rle = pycocotools.mask.encode(np.asfortranarray(box_mask(box), np.uint8))
                segmentation = {"size": [HEIGHT, WIDTH], "counts": rle["counts"].decode()}
            else:
                segmentation = [[x0, y0, x1, y0, x1, y1], [x0, y0, x1, y1, x0, y1]]
            keypoints = np.column_stack(
                [rng.uniform(box[:2], box[2:], (NUM_KEYPOINTS, 2)), rng.integers(0, 3, 4)]
            )
            annotations.append(
                {
                    "id": first_id + len(annotations),
                    "image_id": 10 + image,
                    "category_id": CATEGORY_IDS[rng.integers(num_categories)],
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "area": (x1 - x0) * (y1 - y0),
                    "iscrowd": crowd,
                    "segmentation": segmentation,
                    "keypoints": keypoints.ravel().tolist(),
                    "num_keypoints": int((keypoints[:, 2] > 0).sum()),
                }
            )
    return {
        "images": [
            {"id": 10 + i, "file_name": f"{i}.png", "height": HEIGHT, "width": WIDTH}
            for i in range(num_images)
        ],
        "categories": [{"id": c, "name": f"c{c}"} for c in CATEGORY_IDS[:num_categories]],
        "annotations": annotations,
    }


def predictions(seed, dataset, masks=False, keypoints=False):
    """The inputs and outputs of a model that finds most objects, with equal scores among them."""
    rng = np.random.default_rng(seed)
    ids = [c["id"] for c in dataset["categories"]]
    inputs, outputs = [], []
    for image in dataset["images"]:
        here = [a for a in dataset["annotations"] if a["image_id"] == image["id"]]
        boxes, classes, points = [], [], []
        for _ in range(0 if image["id"] == 12 else 8):
            if here and rng.uniform() < 0.8:
                truth = here[rng.integers(len(here))]
                x, y, w, h = truth["bbox"]
                shift = rng.normal(0, rng.choice([0, 1, 4]), 4)
                box = np.array([x, y, x + w, y + h]) + shift
                boxes.append(np.maximum(box, [*[-np.inf] * 2, *(box[:2] + 1)]))
                classes.append(ids.index(truth["category_id"]))
                noise = rng.normal(0, abs(shift[0]), (NUM_KEYPOINTS, 3))
                points.append(np.reshape(truth["keypoints"], (-1, 3)) + noise)
            else:
                boxes.append(random_xyxy(rng))
                classes.append(rng.integers(len(ids)))
                points.append(rng.uniform(0, 90, (NUM_KEYPOINTS, 3)))
        instances = Instances((HEIGHT, WIDTH))
        instances.pred_boxes = Boxes(torch.tensor(np.reshape(boxes, (-1, 4))).float())
        instances.pred_classes = torch.tensor(classes, dtype=torch.int64)
        instances.scores = torch.from_numpy(rng.integers(1, 9, len(boxes)) / 9).float()
        if masks:
            drawn = [box_mask(box) for box in boxes] or np.zeros((0, HEIGHT, WIDTH), bool)
            instances.pred_masks = torch.from_numpy(np.stack(drawn) if boxes else drawn)
        if keypoints:
            points = np.reshape(points, (-1, NUM_KEYPOINTS, 3))
            instances.pred_keypoints = torch.from_numpy(points).float()
        inputs.append({"image_id": image["id"]})
        outputs.append({"instances": instances})
    return inputs, outputs


def records_of(dataset, inputs, outputs, with_box=True):
    """COCO's results, put together one by one."""
    ids = [c["id"] for c in dataset["categories"]]
    records = []
    for input, output in zip(inputs, outputs, strict=True):
        instances = output["instances"]
        for n in range(len(instances)):
            x0, y0, x1, y1 = instances.pred_boxes.tensor[n]
            record = {
                "image_id": input["image_id"],
                "category_id": ids[instances.pred_classes[n]],
                "score": instances.scores[n].item(),
            }
            if with_box:
                record["bbox"] = [x0.item(), y0.item(), (x1 - x0).item(), (y1 - y0).item()]
            if instances.has("pred_masks"):
                mask = np.asfortranarray(instances.pred_masks[n].numpy(), np.uint8)
                record["segmentation"] = pycocotools.mask.encode(mask)
            if instances.has("pred_keypoints"):
                points = instances.pred_keypoints[n].clone()
                points[:, :2] -= 0.5
                record["keypoints"] = points.flatten().tolist()
            records.append(record)
    return records


def quiet():
    return contextlib.redirect_stdout(io.StringIO())


def coco_of(dataset):
    with quiet():
        coco = COCO()
        coco.dataset = dataset
        coco.createIndex()
    return coco


@pytest.fixture
def register(tmp_path, request):
    """Registers a data set with a JSON file; returns its name."""
    names = []

    def add(dataset, mapping=True):
        name = f"{request.node.name}_{len(names)}"
        path = tmp_path / f"truth_{len(names)}.json"
        path.write_text(json.dumps(dataset))
        metadata = MetadataCatalog.get(name)
        metadata.json_file = str(path)
        metadata.thing_classes = [c["name"] for c in dataset.get("categories", [])]
        if mapping:
            ids = [c["id"] for c in dataset["categories"]]
            metadata.thing_dataset_id_to_contiguous_id = {c: i for i, c in enumerate(ids)}
        names.append(name)
        return name

    yield add
    for name in names:
        MetadataCatalog.remove(name)


def run(evaluator, inputs, outputs, **kwargs):
    with quiet():
        evaluator.reset()
        for begin in range(0, len(inputs), 2):
            evaluator.process(inputs[begin : begin + 2], outputs[begin : begin + 2])
        return evaluator.evaluate(**kwargs)


def reference(dataset, records, iou_type, img_ids=None):
    """The metrics by pycocotools. Its ids begin with 1, as it takes a match with 0 for none."""
    annotations = [a | {"id": a["id"] + 1} for a in dataset["annotations"]]
    coco = coco_of(dataset | {"annotations": annotations})
    with quiet():
        evaluator = COCOeval(coco, coco.loadRes(records), iou_type)
        if iou_type == "keypoints":
            evaluator.params.kpt_oks_sigmas = np.array(SIGMAS)
        if img_ids is not None:
            evaluator.params.imgIds = img_ids
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    results = dict(zip(METRICS[iou_type], evaluator.stats, strict=False))
    for index, category in enumerate(dataset["categories"]):
        precision = evaluator.eval["precision"][:, :, index, 0, -1]
        valid = precision[precision > -1]
        if len(dataset["categories"]) > 1:
            results[f"AP-{category['name']}"] = valid.mean() if valid.size else -1
    return {key: value * 100 if value >= 0 else math.nan for key, value in results.items()}


def assert_metrics(got, wanted):
    assert list(got) == list(wanted)
    np.testing.assert_allclose(list(got.values()), list(wanted.values()), rtol=0, atol=1e-12)


@pytest.mark.parametrize("use_fast_impl", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_boxes_and_masks(register, seed, use_fast_impl):
    dataset = ground_truth(seed, first_id=0 if use_fast_impl else 1)
    inputs, outputs = predictions(seed, dataset, masks=True)
    evaluator = COCOEvaluator(register(dataset), use_fast_impl=use_fast_impl)
    results = run(evaluator, inputs, outputs)
    assert list(results) == ["bbox", "segm"]
    for task in results:
        records = records_of(dataset, inputs, outputs, with_box=task == "bbox")
        if task == "bbox":
            records = [{k: v for k, v in r.items() if k != "segmentation"} for r in records]
        assert_metrics(results[task], reference(dataset, records, task))
        assert results[task]["AP"] > 10


@pytest.mark.parametrize("seed", range(3))
def test_keypoints(register, seed):
    dataset = ground_truth(seed, num_categories=1)
    inputs, outputs = predictions(seed, dataset, keypoints=True)
    evaluator = COCOEvaluator(register(dataset), kpt_oks_sigmas=SIGMAS)
    results = run(evaluator, inputs, outputs)
    assert list(results) == ["bbox", "keypoints"]
    for task in results:
        assert_metrics(
            results[task], reference(dataset, records_of(dataset, inputs, outputs), task)
        )
        assert results[task]["AP"] > 10


def test_keypoint_sigmas_must_fit(register):
    dataset = ground_truth(0, num_categories=1)
    evaluator = COCOEvaluator(register(dataset))
    with pytest.raises(ValueError, match=r"17 keypoint sigmas, but \[4\] keypoints"):
        run(evaluator, *predictions(0, dataset, keypoints=True))


def test_config_in_place_of_tasks(register, log):
    """As code written for upstream's first releases calls it."""
    dataset = ground_truth(0, num_categories=1)
    name, model_output = register(dataset), predictions(0, dataset, keypoints=True)
    cfg = get_cfg()
    cfg.TEST.KEYPOINT_OKS_SIGMAS = SIGMAS
    results = run(COCOEvaluator(name, cfg, False), *model_output)
    assert "takes no config" in log.text
    wanted = run(COCOEvaluator(name, kpt_oks_sigmas=SIGMAS), *model_output)
    assert_metrics(results["keypoints"], wanted["keypoints"])


def test_some_images_only(register):
    dataset = ground_truth(4)
    inputs, outputs = predictions(4, dataset)
    results = run(COCOEvaluator(register(dataset)), inputs, outputs, img_ids=[10, 13, 14])
    wanted = reference(dataset, records_of(dataset, inputs, outputs), "bbox", [10, 13, 14])
    assert_metrics(results["bbox"], wanted)


def test_given_tasks(register):
    dataset = ground_truth(0)
    name, model_output = register(dataset), predictions(0, dataset, masks=True)
    assert list(run(COCOEvaluator(name, ["segm"]), *model_output)) == ["segm"]
    with pytest.raises(ValueError, match=r"tasks must be among .* got \['boxes'\]"):
        run(COCOEvaluator(name, ["boxes"]), *model_output)


@pytest.mark.parametrize("use_fast_impl", [True, False])
def test_max_dets_per_image(register, use_fast_impl):
    """200 detections of one class in an image, of which the best are false alarms."""
    dataset = ground_truth(0, num_images=1, num_categories=1, first_id=1)
    boxes = [a["bbox"] for a in dataset["annotations"]]
    found = BoxMode.convert(torch.tensor(boxes), BoxMode.XYWH_ABS, BoxMode.XYXY_ABS)
    alarms = torch.tensor([[0.0, 0.0, 2.0, 2.0]]).repeat(150, 1)
    instances = Instances((HEIGHT, WIDTH), pred_boxes=Boxes(torch.cat([alarms, found])))
    instances.scores = torch.linspace(1, 0.1, len(instances))
    instances.pred_classes = torch.zeros(len(instances), dtype=torch.int64)
    output = [{"image_id": 10}], [{"instances": instances}]
    name, ap = register(dataset), {}
    for limit in (None, 100, 200):
        evaluator = COCOEvaluator(name, use_fast_impl=use_fast_impl, max_dets_per_image=limit)
        ap[limit] = run(evaluator, *output)["bbox"]["AP"]
    assert ap[None] == ap[100] == 0
    assert 0 < ap[200] < 10


def test_summary_with_other_max_dets():
    dataset = ground_truth(2, first_id=1)
    coco = coco_of(dataset)
    records = records_of(dataset, *predictions(2, dataset))
    stats = {}
    for cls in (COCOeval, COCOevalMaxDets):
        with quiet() as printed:
            evaluator = cls(coco, coco.loadRes([dict(r) for r in records]), "bbox")
            evaluator.evaluate()
            evaluator.accumulate()
            evaluator.summarize()
        stats[cls] = evaluator.stats, printed.getvalue().split("\n Average")[1:]
    np.testing.assert_allclose(stats[COCOevalMaxDets][0], stats[COCOeval][0], rtol=0, atol=1e-12)
    # What it prints reads as the COCO API's summary does.
    assert stats[COCOevalMaxDets][1] == stats[COCOeval][1]
    assert str(evaluator).count("Average") == 12
    with pytest.raises(RuntimeError, match="accumulate"):
        COCOevalMaxDets(coco, coco, "bbox").summarize()


def test_files(register, tmp_path):
    dataset = ground_truth(1)
    inputs, outputs = predictions(1, dataset, masks=True, keypoints=True)
    evaluator = COCOEvaluator(register(dataset), ["bbox"], output_dir=str(tmp_path / "out"))
    run(evaluator, inputs, outputs)
    written = json.loads((tmp_path / "out" / "coco_instances_results.json").read_text())
    wanted = records_of(dataset, inputs, outputs)
    for record in wanted:
        record["segmentation"]["counts"] = record["segmentation"]["counts"].decode()
    assert written == wanted
    assert list(written[0]) == [
        "image_id",
        "category_id",
        "bbox",
        "score",
        "segmentation",
        "keypoints",
    ]
    saved = torch.load(tmp_path / "out" / "instances_predictions.pth", weights_only=True)
    assert [p["image_id"] for p in saved] == [i["image_id"] for i in inputs]
    ids = [c["id"] for c in dataset["categories"]]
    records = [r | {"category_id": ids[r["category_id"]]} for p in saved for r in p["instances"]]
    assert records == wanted


def test_instances_to_coco_json():
    dataset = ground_truth(1)
    inputs, outputs = predictions(1, dataset, masks=True, keypoints=True)
    instances = outputs[0]["instances"]
    records = instances_to_coco_json(instances, 10)
    for record, wanted in zip(records, records_of(dataset, inputs, outputs), strict=False):
        wanted["category_id"] = CATEGORY_IDS.index(wanted["category_id"])
        wanted["segmentation"]["counts"] = wanted["segmentation"]["counts"].decode()
        assert record == wanted
    instances.pred_masks = BitMasks(instances.pred_masks)
    assert instances_to_coco_json(instances, 10) == records
    assert instances_to_coco_json(instances[:0], 10) == []


def test_half_precision_predictions(register):
    dataset = ground_truth(1)
    name, (inputs, outputs) = register(dataset), predictions(1, dataset)
    for output in outputs:
        instances = output["instances"]
        instances.pred_boxes.tensor = instances.pred_boxes.tensor.half().float()
        instances.scores = instances.scores.half().float()
    wanted = run(COCOEvaluator(name), inputs, outputs)
    for output in outputs:
        output["instances"].scores = output["instances"].scores.half()
    assert_metrics(run(COCOEvaluator(name), inputs, outputs)["bbox"], wanted["bbox"])


def test_nothing_found(register):
    dataset = ground_truth(0)
    name, (inputs, outputs) = register(dataset), predictions(0, dataset)
    assert run(COCOEvaluator(name), [], []) == {}
    nothing = [{"instances": output["instances"][:0]} for output in outputs]
    results = run(COCOEvaluator(name), inputs, nothing)
    assert list(results) == ["bbox"]
    assert list(results["bbox"]) == METRICS["bbox"]
    assert all(map(math.isnan, results["bbox"].values()))


def test_set_without_annotations(register, tmp_path):
    dataset = ground_truth(0)
    model_output = predictions(0, dataset)
    del dataset["annotations"]
    evaluator = COCOEvaluator(register(dataset), output_dir=str(tmp_path))
    assert run(evaluator, *model_output) == {}
    assert json.loads((tmp_path / "coco_instances_results.json").read_text())


def test_set_without_a_file_is_converted(tmp_path):
    dataset = ground_truth(3)
    records = [
        {
            "file_name": image["file_name"],
            "image_id": image["id"],
            "height": HEIGHT,
            "width": WIDTH,
            "annotations": [
                {
                    "bbox": a["bbox"],
                    "bbox_mode": BoxMode.XYWH_ABS,
                    "category_id": CATEGORY_IDS.index(a["category_id"]),
                    "iscrowd": a["iscrowd"],
                }
                for a in dataset["annotations"]
                if a["image_id"] == image["id"]
            ],
        }
        for image in dataset["images"]
    ]
    DatasetCatalog.register("converted_to_coco", lambda: records)
    try:
        MetadataCatalog.get("converted_to_coco").thing_classes = ["c2", "c5", "c9"]
        with pytest.raises(ValueError, match="'converted_to_coco' has no 'json_file'"):
            COCOEvaluator("converted_to_coco")
        evaluator = COCOEvaluator("converted_to_coco", output_dir=str(tmp_path))
        inputs, outputs = predictions(3, dataset)
        results = run(evaluator, inputs, outputs)["bbox"]
        wanted = reference(dataset, records_of(dataset, inputs, outputs), "bbox")
        # The conversion rounds boxes and areas.
        np.testing.assert_allclose(list(results.values()), list(wanted.values()), atol=2)
        assert (tmp_path / "converted_to_coco_coco_format.json").exists()
    finally:
        DatasetCatalog.remove("converted_to_coco")
        MetadataCatalog.remove("converted_to_coco")


def test_subclass_that_collects_dicts(register):
    """As code written for upstream does."""

    class Collector(COCOEvaluator):
        def reset(self):
            self._predictions = []

        def process(self, inputs, outputs):
            for input, output in zip(inputs, outputs, strict=True):
                records = instances_to_coco_json(output["instances"], input["image_id"])
                self._predictions.append({"image_id": input["image_id"], "instances": records})

    dataset = ground_truth(5)
    name, model_output = register(dataset), predictions(5, dataset, masks=True)
    wanted = run(COCOEvaluator(name), *model_output)
    results = run(Collector(name), *model_output)
    assert list(results) == ["bbox", "segm"]
    for task, metrics in results.items():
        assert_metrics(metrics, wanted[task])

    class Appender(Collector):
        reset = COCOEvaluator.reset

    evaluator = Appender(name)
    assert_metrics(run(evaluator, *model_output)["segm"], wanted["segm"])
    first = evaluator._predictions[0]
    assert first["instances"] == instances_to_coco_json(model_output[1][0]["instances"], 10)


def test_subclass_that_adds_to_predictions(register, tmp_path):
    """Its predictions are a list of dicts, and what it adds gets into the files."""

    class Adder(COCOEvaluator):
        def process(self, inputs, outputs):
            super().process(inputs, outputs)
            for prediction in self._predictions[-len(inputs) :]:
                prediction["seconds"] = 0.5
                for record in prediction["instances"]:
                    record["track"] = 7

    dataset = ground_truth(5)
    name, model_output = register(dataset), predictions(5, dataset)
    results = run(Adder(name, output_dir=str(tmp_path / "with")), *model_output)
    wanted = run(COCOEvaluator(name, output_dir=str(tmp_path / "without")), *model_output)
    assert_metrics(results["bbox"], wanted["bbox"])
    files = [tmp_path / folder / "coco_instances_results.json" for folder in ("with", "without")]
    records, wanted_records = (json.loads(file.read_text()) for file in files)
    assert records == [record | {"track": 7} for record in wanted_records]
    saved = torch.load(tmp_path / "with" / "instances_predictions.pth")
    assert [prediction["seconds"] for prediction in saved] == [0.5] * len(model_output[0])


def test_subclass_with_a_kind_of_its_own(register):
    """Instances under another name are evaluated by a method that knows it."""

    class Boxes(COCOEvaluator):
        def process(self, inputs, outputs):
            for input, output in zip(inputs, outputs, strict=True):
                records = instances_to_coco_json(output["instances"], input["image_id"])
                self._predictions.append({"image_id": input["image_id"], "others": records})

        def evaluate(self):
            renamed = [{**p, "instances": p["others"]} for p in self._predictions]
            self._results = {}
            self._eval_predictions(renamed)
            return self._results

    dataset = ground_truth(5)
    name, model_output = register(dataset), predictions(5, dataset)
    wanted = run(COCOEvaluator(name), *model_output)
    assert_metrics(run(Boxes(name), *model_output)["bbox"], wanted["bbox"])


# ---- Mismatches ----------------------------------------------------------------------------


@pytest.fixture
def log(caplog):
    caplog.set_level(logging.INFO, "detectron2.evaluation")
    return caplog


def test_class_out_of_range(register):
    dataset = ground_truth(0)
    inputs, outputs = predictions(0, dataset)
    outputs[0]["instances"].pred_classes[2] = 77
    with pytest.raises(ValueError, match=r"has the class 77, .* has 3 classes"):
        run(COCOEvaluator(register(dataset)), inputs, outputs)


def test_unmapped_categories(register, log):
    dataset = ground_truth(0)
    name, (inputs, outputs) = register(dataset, mapping=False), predictions(0, dataset)
    run(COCOEvaluator(name), inputs, outputs)  # class 2 is a category id, too
    assert "category ids that are not in the data set: 0, 1;" in log.text
    for output in outputs:
        output["instances"].pred_classes[:] = 1
    with pytest.raises(ValueError, match="thing_dataset_id_to_contiguous_id"):
        run(COCOEvaluator(name), inputs, outputs)


def test_unknown_images(register):
    dataset = ground_truth(0)
    inputs, outputs = predictions(0, dataset)
    inputs[3]["image_id"] = "13"
    with pytest.raises(
        ValueError, match=r"1 of 7 images .* not in the data set: image ids \['13'\]"
    ):
        run(COCOEvaluator(register(dataset)), inputs, outputs)


@pytest.mark.parametrize("field", ["scores", "pred_boxes", "pred_keypoints"])
def test_numbers_that_are_not_finite(register, field):
    dataset = ground_truth(0, num_categories=1)
    inputs, outputs = predictions(0, dataset, keypoints=True)
    values = getattr(outputs[1]["instances"], field)
    getattr(values, "tensor", values)[3] = math.nan
    with pytest.raises(ValueError, match=r"of detection 12 of image 11 must be finite, got .*nan"):
        run(COCOEvaluator(register(dataset), kpt_oks_sigmas=SIGMAS), inputs, outputs)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda b: b / torch.tensor([WIDTH, HEIGHT] * 2), "All boxes lie within one pixel"),
        (lambda b: torch.cat([b[:, :2], b[:, 2:] - b[:, :2] - 70], 1), "negative width or height"),
        (lambda b: b * 3, "reach far beyond their images"),
    ],
)
def test_boxes_of_another_format(register, log, change, message):
    dataset = ground_truth(0)
    name, (inputs, outputs) = register(dataset), predictions(0, dataset)
    run(COCOEvaluator(name), inputs, outputs)
    assert not [r for r in log.records if r.levelno >= logging.WARNING]
    for output in outputs:
        boxes = output["instances"].pred_boxes
        boxes.tensor = change(boxes.tensor)
    run(COCOEvaluator(name), inputs, outputs)
    assert message in log.text


def test_incomplete_evaluations_are_named(register, log):
    dataset = ground_truth(0)
    dataset["annotations"] = [a for a in dataset["annotations"] if a["category_id"] != 5]
    inputs, outputs = predictions(0, dataset)
    results = run(
        COCOEvaluator(register(dataset)), inputs[1:] + inputs[2:3], outputs[1:] + outputs[2:3]
    )
    assert math.isnan(results["bbox"]["AP-c5"])
    assert "1 of 3 classes have no ground truth in these images" in log.text
    assert "'c5'" in log.text
    assert "1 of 7 images have not been predicted on" in log.text
    assert "more than once, and all their predictions count: image ids 12" in log.text


def test_fields_must_agree(register):
    dataset = ground_truth(0)
    inputs, outputs = predictions(0, dataset, masks=True)
    outputs[1]["instances"].remove("pred_masks")
    with pytest.raises(ValueError, match="instances of image 11 have"):
        run(COCOEvaluator(register(dataset)), inputs, outputs)


# ---- Proposals -----------------------------------------------------------------------------


def proposals_of(outputs, seed=0):
    rng = np.random.default_rng(seed)
    found = []
    for output in outputs:
        boxes = output["instances"].pred_boxes.tensor
        more = np.stack([random_xyxy(rng) for _ in range(120)])
        boxes = torch.cat([boxes, torch.from_numpy(more).float()])
        logits = torch.from_numpy(rng.normal(0, 3, len(boxes))).float()
        found.append(
            Instances((HEIGHT, WIDTH), proposal_boxes=Boxes(boxes), objectness_logits=logits)
        )
    return found


def reference_recall(dataset, inputs, proposals, smallest, largest, limit):
    """Average recall, pair by pair in float64."""
    overlaps = []
    for input, instances in zip(inputs, proposals, strict=True):
        order = np.argsort(-instances.objectness_logits.numpy())[:limit]
        boxes = instances.proposal_boxes.tensor.numpy().astype(np.float64)[order]
        truths = [
            a["bbox"]
            for a in dataset["annotations"]
            if a["image_id"] == input["image_id"]
            and not a["iscrowd"]
            and smallest <= a["area"] <= largest
        ]
        pairs = []
        for p, (x0, y0, x1, y1) in enumerate(boxes):
            for g, (x, y, w, h) in enumerate(truths):
                shared = max(0, min(x1, x + w) - max(x0, x)) * max(0, min(y1, y + h) - max(y0, y))
                pairs.append((shared / ((x1 - x0) * (y1 - y0) + w * h - shared), p, g))
        used_p, used_g = set(), set()
        for iou, p, g in sorted(pairs, reverse=True):
            if p not in used_p and g not in used_g:
                used_p.add(p)
                used_g.add(g)
                overlaps.append(iou)
        overlaps += [0] * (len(truths) - len(used_g))
    thresholds = np.arange(0.5, 0.96, 0.05)
    if not overlaps:
        return math.nan
    return 100 * np.mean([np.mean(np.array(overlaps) >= t) for t in thresholds])


def test_box_proposals(register, tmp_path):
    dataset = ground_truth(6, num_images=5)
    inputs, outputs = predictions(6, dataset)
    proposals = proposals_of(outputs)
    proposals[3] = proposals[3][:0]  # its objects are missed
    evaluator = COCOEvaluator(register(dataset), output_dir=str(tmp_path))
    results = run(evaluator, inputs, [{"proposals": p} for p in proposals])
    assert list(results) == ["box_proposals"]
    ranges = {"": (0, 1e10), "s": (0, 32**2), "m": (32**2, 96**2), "l": (96**2, 1e10)}
    wanted = {
        f"AR{suffix}@{limit}": reference_recall(dataset, inputs, proposals, *area, limit)
        for limit in (100, 1000)
        for suffix, area in ranges.items()
    }
    assert set(results["box_proposals"]) == set(wanted)
    for key, value in wanted.items():
        assert results["box_proposals"][key] == pytest.approx(value, abs=1e-4, nan_ok=True)
    assert results["box_proposals"]["AR@100"] > 5

    written = pickle.loads((tmp_path / "box_proposals.pkl").read_bytes())
    assert written["ids"] == [i["image_id"] for i in inputs]
    assert written["bbox_mode"] == 0
    np.testing.assert_array_equal(written["boxes"][1], proposals[1].proposal_boxes.tensor)
    saved = torch.load(tmp_path / "instances_predictions.pth", weights_only=False)
    assert torch.equal(
        saved[1]["proposals"].proposal_boxes.tensor, proposals[1].proposal_boxes.tensor
    )
    np.testing.assert_array_equal(written["objectness_logits"][1], proposals[1].objectness_logits)


def test_proposals_beside_instances(register):
    dataset = ground_truth(6)
    name, (inputs, outputs) = register(dataset), predictions(6, dataset)
    both = [o | {"proposals": p} for o, p in zip(outputs, proposals_of(outputs), strict=True)]
    results = run(COCOEvaluator(name), inputs, both)
    assert set(results) == {"bbox", "box_proposals"}
    assert_metrics(results["bbox"], run(COCOEvaluator(name), inputs, outputs)["bbox"])


def test_box_proposals_directly():
    dataset = ground_truth(6)
    inputs, outputs = predictions(6, dataset)
    found = [
        {"image_id": i["image_id"], "proposals": p}
        for i, p in zip(inputs, proposals_of(outputs), strict=True)
    ]
    thresholds = torch.tensor([0.3, 0.6])
    result = _evaluate_box_proposals(found, coco_of(dataset), thresholds, "medium", limit=10)
    areas = [a["area"] for a in dataset["annotations"] if not a["iscrowd"]]
    assert result["num_pos"] == sum(32**2 <= area <= 96**2 for area in areas)
    assert len(result["gt_overlaps"]) == result["num_pos"]
    wanted = [(result["gt_overlaps"] >= t).float().mean().item() for t in thresholds]
    assert result["recalls"].tolist() == pytest.approx(wanted)
    assert result["ar"].item() == pytest.approx(np.mean(wanted))
    with pytest.raises(ValueError, match=r"area must be one of .* got 'huge'"):
        _evaluate_box_proposals(found, coco_of(dataset), area="huge")


# ---- Results without an evaluator ----------------------------------------------------------


@pytest.mark.parametrize("iou_type", ["bbox", "segm", "keypoints"])
def test_load_results_equals_the_api(iou_type, tmp_path):
    dataset = ground_truth(8, first_id=1)
    records = records_of(
        dataset,
        *predictions(8, dataset, masks=iou_type == "segm", keypoints=iou_type == "keypoints"),
        with_box=iou_type == "bbox",
    )
    coco = coco_of(dataset)
    for record in records:
        if iou_type == "segm":
            record["segmentation"]["counts"] = record["segmentation"]["counts"].decode()
    path = tmp_path / "results.json"
    path.write_text(json.dumps(records))
    with quiet():
        wanted = coco.loadRes([dict(record) for record in records])
    for results in (records, str(path)):
        loaded = load_results(coco, results)
        assert loaded.getImgIds() == wanted.getImgIds()
        assert loaded.getAnnIds(imgIds=[10]) == wanted.getAnnIds(imgIds=[10])
        for annotation in wanted.dataset["annotations"]:
            got = loaded.anns[annotation["id"]]
            for key in ("area", "score", "category_id"):
                assert got[key] == pytest.approx(annotation[key])
            key = iou_type.replace("segm", "segmentation")
            assert got[key] == annotation[key]
    if iou_type == "bbox":
        rows = [[r["image_id"], *r["bbox"], r["score"], r["category_id"]] for r in records]
        loaded = load_results(coco, np.array(rows))
        assert loaded.anns[3]["bbox"] == records[2]["bbox"]
        with pytest.raises(ValueError, match=r"\(N, 7\), got \(2, 6\)"):
            load_results(coco, np.zeros((2, 6)))
    stats = []
    for results, cls in ((loaded, COCOeval_opt), (wanted, COCOeval)):
        with quiet():
            evaluator = cls(coco, results, iou_type)
            evaluator.params.kpt_oks_sigmas = np.array(SIGMAS)
            evaluator.evaluate()
            evaluator.accumulate()
            evaluator.summarize()
        stats.append(evaluator.stats)
    np.testing.assert_allclose(*stats, rtol=0, atol=1e-12)


def test_evaluate_records():
    dataset = ground_truth(9, first_id=1)
    records = records_of(dataset, *predictions(9, dataset, masks=True))
    before = json.dumps(records, default=repr)
    for task in ("bbox", "segm"):
        with quiet():
            evaluators = [
                _evaluate_predictions_on_coco(coco_of(dataset), records, task, cocoeval_fn=cls)
                for cls in (COCOeval, COCOeval_opt)
            ]
        np.testing.assert_allclose(*(e.stats for e in evaluators), rtol=0, atol=1e-12)
    with quiet():
        slow = _evaluate_predictions_on_coco(coco_of(dataset), records, task, use_fast_impl=False)
    assert type(slow) is COCOeval
    assert json.dumps(records, default=repr) == before
    with pytest.raises(ValueError, match="no results"):
        _evaluate_predictions_on_coco(coco_of(dataset), [], "bbox")


def test_bad_records_are_named():
    coco = coco_of(ground_truth(9))
    good = {"image_id": 10, "category_id": 2, "score": 0.5}
    mask = pycocotools.mask.encode(np.ones((9, 8), np.uint8, order="F"))
    with pytest.raises(ValueError, match=r"not in the data set: image ids \[99\]"):
        load_results(coco, [good | {"image_id": 99, "segmentation": mask}])
    with pytest.raises(ValueError, match="number 0 must be polygons or run lengths, got 'mask'"):
        load_results(coco, [good | {"segmentation": "mask"}])
    with pytest.raises(ValueError, match="number 0 is of polygons, and its image has no 'height'"):
        load_results(coco, [good | {"image_id": 99, "segmentation": [[0, 0, 5, 0, 5, 5]]}])
    boxes = load_results(coco, [good | {"bbox": [0, 0, 1, 1]}])
    for iou_type, key in (("segm", "segmentation"), ("keypoints", "keypoints")):
        with pytest.raises(ValueError, match=f"the detections have no '{key}'"):
            COCOeval_opt(coco, boxes, iou_type).evaluate()
    with pytest.raises(ValueError, match="neither boxes nor masks nor keypoints"):
        load_results(coco, [good]).detections.column("area")


def test_masks_of_another_size_are_named():
    dataset = ground_truth(9, first_id=1)
    records = records_of(dataset, *predictions(9, dataset, masks=True))
    for record in records:
        record["segmentation"] = pycocotools.mask.encode(np.ones((9, 8), np.uint8, order="F"))
    with pytest.raises(ValueError, match=r"size \[9, 8\], but ground truth .* \[90, 120\]"):
        _evaluate_predictions_on_coco(coco_of(dataset), records, "segm")


# ---- Processes -----------------------------------------------------------------------------


def evaluate_in_process(rank, world_size, port, json_file, seed, path):
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=world_size
    )
    with open(json_file) as file:
        dataset = json.load(file)
    MetadataCatalog.get("of_processes").set(
        json_file=json_file,
        thing_classes=["c2"],
        thing_dataset_id_to_contiguous_id={2: 0},
    )
    inputs, outputs = predictions(seed, dataset, masks=True, keypoints=True)
    for output, proposals in zip(outputs, proposals_of(outputs), strict=True):
        output["proposals"] = proposals
    # Rank 2 has an image without detections only, as if its share were small.
    share = [[0, 1], [3, 4], [2], [5, 6]][rank]
    evaluator = COCOEvaluator("of_processes", kpt_oks_sigmas=SIGMAS)
    results = run(evaluator, [inputs[i] for i in share], [outputs[i] for i in share])
    torch.save(results, f"{path}/{rank}.pth")
    torch.distributed.destroy_process_group()


def test_processes_give_the_same_numbers(register, tmp_path):
    dataset = ground_truth(11, num_categories=1)
    name = register(dataset)
    inputs, outputs = predictions(11, dataset, masks=True, keypoints=True)
    for output, proposals in zip(outputs, proposals_of(outputs), strict=True):
        output["proposals"] = proposals
    wanted = run(COCOEvaluator(name, kpt_oks_sigmas=SIGMAS), inputs, outputs)
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    json_file = MetadataCatalog.get(name).json_file
    mp.start_processes(
        evaluate_in_process,
        (4, port, json_file, 11, str(tmp_path)),
        nprocs=4,
        start_method="fork",
    )
    results = [torch.load(tmp_path / f"{rank}.pth", weights_only=False) for rank in range(4)]
    assert results[1:] == [{}, {}, {}]
    assert set(wanted) == {"bbox", "segm", "keypoints", "box_proposals"}
    for task, metrics in wanted.items():
        assert_metrics(results[0][task], metrics)
