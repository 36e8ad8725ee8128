import json

import numpy as np
import pycocotools.mask as mask_util
import pytest
from pycocotools.coco import COCO

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import convert_to_coco_json, load_coco_json
from detectron2.data.datasets.coco import convert_to_coco_dict
from detectron2.structures import BoxMode, PolygonMasks

XYXY = {"bbox": [1.0, 2.0, 4.12345, 6.0], "bbox_mode": BoxMode.XYXY_ABS, "category_id": 1}


@pytest.fixture
def register():
    """Registers records under a name, which is returned."""
    name = "test_of_export"

    def register_records(*annotations, **metadata):
        record = {"file_name": "a.jpg", "image_id": 7, "height": 30, "width": 40}
        records = [record | {"annotations": list(annotations)}]
        DatasetCatalog.register(name, lambda: records)
        MetadataCatalog.get(name).set(thing_classes=["a", "b"], **metadata)
        return name

    yield register_records
    DatasetCatalog.pop(name, None)
    MetadataCatalog.pop(name, None)


def test_boxes(register):
    xywh = {"bbox": np.array([1, 2, 3, 4]), "bbox_mode": BoxMode.XYWH_ABS, "category_id": 0}
    rotated = {"bbox": [5, 5, 4, 2, 30], "bbox_mode": BoxMode.XYWHA_ABS, "category_id": 0}
    content = convert_to_coco_dict(register(XYXY | {"iscrowd": True}, xywh, rotated))
    first, second, third = content["annotations"]
    assert first == {
        "id": 1,
        "image_id": 7,
        "bbox": [1.0, 2.0, 3.123, 4.0],
        "area": pytest.approx(12.4938),
        "iscrowd": 1,
        "category_id": 1,
    }
    assert (second["bbox"], second["area"], second["id"]) == ([1, 2, 3, 4], 12, 2)
    assert (third["bbox"], third["area"]) == ([5, 5, 4, 2, 30], 8)
    assert content["images"] == [{"id": 7, "width": 40, "height": 30, "file_name": "a.jpg"}]
    assert content["categories"] == [{"id": 0, "name": "a"}, {"id": 1, "name": "b"}]
    assert content["licenses"] is None


def test_categories_are_those_of_the_file_again(register):
    name = register(XYXY, thing_dataset_id_to_contiguous_id={5: 1, 9: 0})
    content = convert_to_coco_dict(name)
    assert content["annotations"][0]["category_id"] == 5
    assert content["categories"] == [{"id": 9, "name": "a"}, {"id": 5, "name": "b"}]


def test_masks(register):
    rng = np.random.default_rng(0)
    polygons = [rng.uniform(0, 30, 12), rng.uniform(0, 30, 8)]
    mask = np.asfortranarray(rng.integers(0, 2, (30, 40), dtype=np.uint8))
    run_lengths = mask_util.encode(mask)
    name = register(
        XYXY | {"segmentation": [p.tolist() for p in polygons]},
        XYXY | {"segmentation": run_lengths},
    )
    first, second = convert_to_coco_dict(name)["annotations"]
    assert first["area"] == pytest.approx(float(PolygonMasks([polygons]).area()[0]))
    assert second["area"] == mask.sum()
    back = json.loads(json.dumps(second["segmentation"]))
    assert (mask_util.decode(back) == mask).all()
    assert isinstance(run_lengths["counts"], bytes)


def test_keypoints_are_not_changed_in_place(register):
    keypoints = [1.5, 2.5, 2, 0.5, 0.5, 0]
    name = register(XYXY | {"keypoints": keypoints})
    for _ in range(2):
        converted = convert_to_coco_dict(name)["annotations"][0]
        assert converted["keypoints"] == [1, 2, 2, 0, 0, 0]
        assert converted["num_keypoints"] == 1
    assert keypoints == [1.5, 2.5, 2, 0.5, 0.5, 0]


def test_no_annotations(register):
    assert "annotations" not in convert_to_coco_dict(register())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"category_id": 2}, r"category_id must be in \[0, 2\), got 2"),
        ({"bbox": [1, 2, 3]}, "bbox must have 4 numbers"),
        ({"bbox_mode": BoxMode.XYXY_REL}, "relative|no conversion"),
        ({"segmentation": "x"}, "must be a list of polygons"),
    ],
)
def test_errors_name_the_record(register, fields, message):
    with pytest.raises((ValueError, AssertionError), match=message) as info:
        convert_to_coco_dict(register(XYXY | fields))
    assert "image 7 (a.jpg)" in str(info.value)


def test_round_trip(register, tmp_path):
    annotation = XYXY | {"segmentation": [[1.0, 2, 4, 2, 4, 6]], "keypoints": [2.5, 3.5, 2]}
    path = str(tmp_path / "new" / "file.json")
    convert_to_coco_json(register(annotation | {"iscrowd": 0}), path)
    assert COCO(path).getAnnIds() == [1]
    (record,) = load_coco_json(path, "")
    assert record["annotations"] == [
        annotation | {"iscrowd": 0, "bbox": [1.0, 2.0, 3.123, 4.0], "bbox_mode": BoxMode.XYWH_ABS}
    ]


def test_files_that_are_there(register, tmp_path, caplog):
    path = tmp_path / "file.json"
    path.write_text("{}")
    name = register(XYXY)
    convert_to_coco_json(name, str(path))
    assert path.read_text() == "{}"
    assert "remove it if the data set has changed" in caplog.text
    convert_to_coco_json(name, str(path), allow_cached=False)
    assert len(json.loads(path.read_text())["annotations"]) == 1
    assert not (tmp_path / "file.json.tmp").exists()


def test_a_failure_leaves_the_file(register, tmp_path):
    path = tmp_path / "file.json"
    path.write_text("{}")
    with pytest.raises(ValueError, match="category_id"):
        convert_to_coco_json(register(XYXY | {"category_id": 9}), str(path), allow_cached=False)
    assert path.read_text() == "{}"
