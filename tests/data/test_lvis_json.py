import json

import pytest

from detectron2.data import MetadataCatalog
from detectron2.data.datasets import get_lvis_instances_meta, load_lvis_json
from detectron2.data.datasets.lvis_v1_categories import LVIS_CATEGORIES
from detectron2.structures import BoxMode

TRIANGLE = [1.0, 2.0, 11.0, 2.0, 11.0, 22.0]
OWN = [{"id": 1, "name": "x", "image_count": 4}, {"id": 2, "name": "y", "image_count": 9}]


def make_content(categories=OWN, category_id=2):
    image = {
        "id": 9,
        "coco_url": "http://images.cocodataset.org/train2017/000000000009.jpg",
        "height": 40,
        "width": 30,
        "neg_category_ids": [1],
        "not_exhaustive_category_ids": [2],
    }
    annotation = {
        "id": 1,
        "image_id": 9,
        "category_id": category_id,
        "bbox": [1.0, 2.0, 10.0, 20.0],
        "area": 100.0,
        "segmentation": [TRIANGLE],
    }
    return {"images": [image], "annotations": [annotation], "categories": categories}


@pytest.fixture
def load(tmp_path):
    names = []

    def write_and_load(content, dataset_name=None):
        names.append(dataset_name)
        path = tmp_path / "file.json"
        path.write_text(json.dumps(content))
        return load_lvis_json(str(path), "coco/", dataset_name)

    yield write_and_load
    for name in names:
        MetadataCatalog.pop(name, None)


def test_records(load):
    assert load(make_content()) == [
        {
            "file_name": "coco/train2017/000000000009.jpg",
            "height": 40,
            "width": 30,
            "image_id": 9,
            "neg_category_ids": [1],
            "not_exhaustive_category_ids": [2],
            "annotations": [
                {
                    "bbox": [1.0, 2.0, 10.0, 20.0],
                    "bbox_mode": BoxMode.XYWH_ABS,
                    "category_id": 1,
                    "segmentation": [TRIANGLE],
                }
            ],
        }
    ]


def test_known_names(load):
    load(make_content(categories=LVIS_CATEGORIES), "test_lvis_v1")
    metadata = MetadataCatalog.get("test_lvis_v1")
    assert metadata.thing_classes[2] == "airplane"
    assert metadata.class_image_count[2] == {"id": 3, "image_count": 1911}
    assert "thing_dataset_id_to_contiguous_id" not in metadata.as_dict()


@pytest.mark.parametrize("name", ["test_own", "test_own_v1"])
def test_other_categories_are_read_from_the_file(load, name):
    load(make_content(), name)
    metadata = MetadataCatalog.get(name)
    assert metadata.thing_classes == ["x", "y"]
    assert metadata.class_image_count == [
        {"id": 1, "image_count": 4},
        {"id": 2, "image_count": 9},
    ]


def test_ids_with_gaps(load):
    categories = [{"id": 30, "name": "y"}, {"id": 4, "synonyms": ["x", "z"]}]
    (record,) = load(make_content(categories, category_id=30), "test_own")
    assert record["annotations"][0]["category_id"] == 1
    metadata = MetadataCatalog.get("test_own")
    assert metadata.thing_classes == ["x", "y"]
    assert metadata.thing_dataset_id_to_contiguous_id == {4: 0, 30: 1}


def test_cocofied(load):
    categories = [{"id": 90, "name": "toothbrush"}]
    (record,) = load(make_content(categories, category_id=90), "test_cocofied")
    assert record["annotations"][0]["category_id"] == 79


def test_a_file_of_another_version(load):
    MetadataCatalog.get("test_lvis_v1").set(**get_lvis_instances_meta("lvis_v1"))
    categories = [{"id": 1, "name": "acorn"}]
    with pytest.raises(ValueError, match=r"file\.json: category 1, 'acorn'"):
        load(make_content(categories, category_id=1), "test_lvis_v1")


def test_an_undeclared_category(load):
    with pytest.raises(ValueError, match=r"annotation 1 of image 9: there is no category 3"):
        load(make_content(category_id=3), "test_own")


def test_built_in_metadata():
    assert len(get_lvis_instances_meta("lvis_v0.5_val")["thing_classes"]) == 1230
    assert len(get_lvis_instances_meta("lvis_v1_val")["class_image_count"]) == 1203
    cocofied = get_lvis_instances_meta("lvis_v0.5_val_cocofied")
    assert cocofied["thing_dataset_id_to_contiguous_id"][90] == 79
    with pytest.raises(ValueError, match="'lvis': its name has none of"):
        get_lvis_instances_meta("lvis")
