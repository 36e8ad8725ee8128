"""RotatedCOCOEvaluator against the COCO API fed with IoUs of clipped polygons."""

import contextlib
import io
import json

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detectron2.data import MetadataCatalog
from detectron2.evaluation import COCOEvaluator, RotatedCOCOEvaluator
from detectron2.evaluation.rotated_coco_evaluation import RotatedCOCOeval
from detectron2.structures import Boxes, Instances, RotatedBoxes

METRICS = ["AP", "AP50", "AP75", "APs", "APm", "APl"]


def outline(box):
    """Corners (4, 2) of an XYWH or XYWHA box, one after another."""
    if len(box) == 4:
        x, y, w, h = box
        box = [x + w / 2, y + h / 2, w, h, 0]
    cx, cy, w, h, angle = box
    corners = np.array([[-w, -h], [w, -h], [w, h], [-w, h]]) / 2
    # Counter-clockwise on screen, where y points down.
    cos, sin = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    return corners @ np.array([[cos, -sin], [sin, cos]]) + [cx, cy]


def shared_area(polygon, other):
    """Of convex polygons: the first, cut off along each edge of the second."""
    for start, end in zip(other, np.roll(other, -1, axis=0), strict=True):
        (dx, dy), kept = end - start, []
        sides = [dx * (y - start[1]) - dy * (x - start[0]) for x, y in polygon]
        for n in range(len(polygon)):
            if sides[n - 1] * sides[n] < 0:
                share = sides[n - 1] / (sides[n - 1] - sides[n])
                kept.append(polygon[n - 1] + share * (polygon[n] - polygon[n - 1]))
            if sides[n] >= 0:
                kept.append(polygon[n])
        polygon = kept
    x, y = np.reshape(polygon, (-1, 2)).T
    return abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) / 2


class ClippingCOCOeval(COCOeval):
    def computeIoU(self, imgId, catId):  # noqa: N802, N803
        gt, dt = self._gts[imgId, catId], self._dts[imgId, catId]
        if not gt or not dt:
            return []
        order = np.argsort([-d["score"] for d in dt], kind="stable")
        ious = np.zeros((len(dt), len(gt)))
        for row, d in enumerate(order):
            for column, truth in enumerate(gt):
                shared = shared_area(outline(dt[d]["bbox"]), outline(truth["bbox"]))
                dt_area, gt_area = (np.prod(x["bbox"][2:4]) for x in (dt[d], truth))
                union = dt_area if truth["iscrowd"] else dt_area + gt_area - shared
                ious[row, column] = shared / union
        return ious


def random_rotated(rng, count):
    centre = rng.uniform(30, 170, (count, 2))
    return np.hstack([centre, rng.uniform(10, 60, (count, 2)), rng.uniform(-180, 180, (count, 1))])


def xywh(box):
    cx, cy, w, h, _ = box
    return [cx - w / 2, cy - h / 2, w, h]


def data(seed, gt_rotated=True, dt_rotated=True, crowds=False, mixed=False):
    rng = np.random.default_rng(seed)
    dataset = {
        "images": [{"id": i, "height": 200, "width": 200} for i in range(6)],
        "categories": [{"id": c, "name": str(c)} for c in (1, 2)],
        "annotations": [],
    }
    inputs, outputs = [], []
    for image in range(6):
        boxes = random_rotated(rng, 0 if image == 2 else 6)
        if not (gt_rotated and dt_rotated):
            boxes[:, 4] = 0
        for n, box in enumerate(boxes.tolist()):
            upright = not gt_rotated or (mixed and n % 2)
            if upright:
                boxes[n, 4] = 0
            dataset["annotations"].append(
                {
                    "id": len(dataset["annotations"]) + 1,
                    "image_id": image,
                    "category_id": 1 + n % 2,
                    "iscrowd": int(crowds and n < 2),
                    "area": box[2] * box[3],
                    "bbox": xywh(box) if upright else box,
                }
            )
        found = np.vstack([boxes, np.add(boxes[:2], [5, 0, 0, 0, 0]), random_rotated(rng, 3)])
        found[:, 2:4] = np.maximum(found[:, 2:4] + rng.normal(0, 3, (len(found), 2)), 4)
        instances = Instances((200, 200))
        if dt_rotated:
            instances.pred_boxes = RotatedBoxes(torch.from_numpy(found).float())
        else:
            corners = np.hstack(
                [found[:, :2] - found[:, 2:4] / 2, found[:, :2] + found[:, 2:4] / 2]
            )
            instances.pred_boxes = Boxes(torch.from_numpy(corners).float())
        instances.scores = torch.from_numpy(rng.uniform(size=len(found))).float()
        instances.pred_classes = torch.arange(len(found)) % 2
        inputs.append({"image_id": image})
        outputs.append({"instances": instances})
    return dataset, inputs, outputs


@pytest.fixture
def register(tmp_path, request):
    def add(dataset):
        path = tmp_path / "truth.json"
        path.write_text(json.dumps(dataset))
        MetadataCatalog.get(request.node.name).set(
            json_file=str(path),
            thing_classes=["1", "2"],
            thing_dataset_id_to_contiguous_id={1: 0, 2: 1},
        )
        return request.node.name

    yield add
    MetadataCatalog.remove(request.node.name)


def quiet():
    return contextlib.redirect_stdout(io.StringIO())


def run(evaluator, inputs, outputs):
    with quiet():
        evaluator.reset()
        evaluator.process(inputs, outputs)
        return evaluator.evaluate()


def reference(dataset, records):
    with quiet():
        coco = COCO()
        coco.dataset = dataset
        coco.createIndex()
        evaluator = ClippingCOCOeval(coco, coco.loadRes(records), "bbox")
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    return evaluator.stats[:6]


CASES = [
    {},
    {"gt_rotated": False},
    {"dt_rotated": False},
    {"gt_rotated": False, "dt_rotated": False},
    {"mixed": True},
    {"crowds": True},
    {"crowds": True, "mixed": True},
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(case) or "rotated")
@pytest.mark.parametrize("seed", range(2))
def test_equals_reference(register, tmp_path, seed, case):
    dataset, inputs, outputs = data(seed, **case)
    evaluator = RotatedCOCOEvaluator(register(dataset), output_dir=str(tmp_path))
    results = run(evaluator, inputs, outputs)
    assert list(results) == ["bbox"]
    records = json.loads((tmp_path / "coco_instances_results.json").read_text())
    assert {len(r["bbox"]) for r in records} == {5 if case.get("dt_rotated", True) else 4}
    wanted = reference(dataset, records)
    got = np.nan_to_num([results["bbox"][m] for m in METRICS], nan=-100)
    np.testing.assert_allclose(got, wanted * 100, rtol=0, atol=1e-9)
    assert results["bbox"]["AP"] > 10


def test_axis_aligned_boxes_give_the_numbers_of_coco(register):
    dataset, inputs, outputs = data(3, gt_rotated=False, dt_rotated=False, crowds=True)
    name = register(dataset)
    wanted = run(COCOEvaluator(name), inputs, outputs)
    np.testing.assert_equal(run(RotatedCOCOEvaluator(name), inputs, outputs), wanted)


def test_subclass_with_its_own_records(register, tmp_path):
    """What its instances_to_json gives is evaluated, and written."""

    class Longer(RotatedCOCOEvaluator):
        def instances_to_json(self, instances, img_id):
            records = super().instances_to_json(instances, img_id)
            for record in records:
                record["bbox"][2] *= 1.2
                record["text"] = "word"
            return records

    dataset, inputs, outputs = data(0)
    evaluator = Longer(register(dataset), output_dir=str(tmp_path))
    results = run(evaluator, inputs, outputs)["bbox"]
    records = json.loads((tmp_path / "coco_instances_results.json").read_text())
    assert all(record["text"] == "word" for record in records)
    for output in outputs:
        output["instances"].pred_boxes.tensor[:, 2] *= 1.2
    wanted = run(RotatedCOCOEvaluator(register(dataset)), inputs, outputs)["bbox"]
    assert results == pytest.approx(wanted, abs=0.1, nan_ok=True)


def test_iou_with_a_rotated_crowd():
    evaluator = RotatedCOCOeval(iouType="bbox")
    dt = [[50.0, 50.0, 20.0, 10.0, 30.0]]
    gt = [[50.0, 50.0, 80.0, 80.0, 10.0], [50.0, 50.0, 20.0, 10.0, 30.0]]
    ious = evaluator.compute_iou_dt_gt(dt, gt, [1, 0])
    np.testing.assert_allclose(ious, [[1, 1]], atol=1e-12)
    ious = evaluator.compute_iou_dt_gt(dt, gt, [0, 0])
    np.testing.assert_allclose(ious, [[200 / 6400, 1]], atol=1e-12)


def test_tables():
    dataset, _, outputs = data(1)
    with quiet():
        coco = COCO()
        coco.dataset = dataset
        coco.createIndex()
    evaluator = RotatedCOCOEvaluator.__new__(RotatedCOCOEvaluator)
    records = evaluator.instances_to_json(outputs[0]["instances"], 0)
    records = [r | {"category_id": r["category_id"] + 1} for r in records]
    with quiet():
        results = RotatedCOCOeval(coco, coco.loadRes(records), "bbox")
        with pytest.raises(RuntimeError, match="evaluate"):
            results.computeIoU(0, 1)
        results.evaluate()
        wanted = ClippingCOCOeval(coco, coco.loadRes(records), "bbox")
        wanted.evaluate()
    np.testing.assert_allclose(results.computeIoU(0, 1), wanted.ious[0, 1], atol=1e-9)
    results.params.iouType = "segm"
    with pytest.raises(ValueError, match="'bbox' for rotated boxes, got 'segm'"):
        results.evaluate()


def test_box_lists():
    assert RotatedCOCOeval.is_rotated([[0] * 5, [1] * 5])
    assert RotatedCOCOeval.is_rotated(np.zeros((2, 5)))
    assert not RotatedCOCOeval.is_rotated([[0] * 5, [0] * 4])
    assert not RotatedCOCOeval.is_rotated(np.zeros((2, 4)))
    assert not RotatedCOCOeval.is_rotated([])
    as_tensor = RotatedCOCOeval.boxlist_to_tensor
    assert as_tensor([], 5).shape == (0, 5)
    assert as_tensor([[1, 2, 3, 4]], 4).tolist() == [[1, 2, 3, 4]]
    assert as_tensor([[1, 2, 4, 6], [1, 2, 3, 4, 5]], 5).tolist() == [
        [3, 5, 4, 6, 0],
        [1, 2, 3, 4, 5],
    ]
    with pytest.raises(ValueError, match=r"boxes of \[5\] numbers cannot become boxes of 4"):
        as_tensor([[1, 2, 3, 4, 5]], 4)
    with pytest.raises(ValueError, match="4 or 5, got 3"):
        as_tensor([[1, 2, 3]], 3)


def test_bad_input_is_named(register):
    dataset, inputs, outputs = data(0)
    dataset["annotations"][3]["bbox"] = [1.0, 2.0, 3.0]
    name = register(dataset)
    with pytest.raises(ValueError, match=r"four or five finite numbers, got \[1.0, 2.0, 3.0\]"):
        run(RotatedCOCOEvaluator(name), inputs, outputs)
    with pytest.raises(ValueError, match=r"task 'bbox' only, got \['segm'\]"):
        run(RotatedCOCOEvaluator(name, ["segm"]), inputs, outputs)
    boxes = torch.zeros(2, 4)
    outputs[1]["instances"] = Instances(
        (200, 200), pred_boxes=Boxes(boxes), scores=boxes[:, 0], pred_classes=boxes[:, 0].long()
    )
    with pytest.raises(ValueError, match=r"boxes of image 1 must have \(5,\) values each"):
        run(RotatedCOCOEvaluator(name), inputs, outputs)
