import json
import logging

import numpy as np
import pycocotools.mask as mask_util
import pytest
from PIL import Image
from pycocotools.coco import COCO

from detectron2.data import MetadataCatalog
from detectron2.data.datasets import coco, load_coco_json
from detectron2.structures import BoxMode

from .json_places import places

BOX = [1.0, 2.0, 10.0, 20.0]
TRIANGLE = [1.0, 2.0, 11.0, 2.0, 11.0, 22.0]


def warnings_of(caplog):
    return [record for record in caplog.records if record.levelno >= logging.WARNING]


def make_annotation(number, image_id=3, **fields):
    annotation = {"id": number, "image_id": image_id, "category_id": 2, "bbox": BOX, "iscrowd": 0}
    return annotation | {"area": 100.0, "segmentation": [TRIANGLE]} | fields


def make_content(*annotations, **parts):
    images = [
        {"id": number, "file_name": f"{number}.jpg", "height": 40, "width": 30}
        for number in (8, 3, 5)
    ]
    categories = [{"id": 7, "name": "seven"}, {"id": 2, "name": "two"}]
    content = {"images": images, "annotations": list(annotations), "categories": categories}
    return content | parts


@pytest.fixture
def load(tmp_path):
    """Loads what a file of the given content would hold."""
    names = []

    def write_and_load(content, dataset_name=None, file_name="file.json", **options):
        if dataset_name is not None:
            names.append(dataset_name)
        path = tmp_path / file_name
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return load_coco_json(str(path), "root", dataset_name, **options)

    yield write_and_load
    for name in names:
        MetadataCatalog.pop(name, None)


def test_records(load):
    content = make_content(make_annotation(12, 5), make_annotation(11, 3, category_id=7, own=1))
    records = load(content, "test_coco", extra_annotation_keys=["own", "area", "nothing"])
    assert [r["image_id"] for r in records] == [3, 5, 8]
    assert records[0] == {
        "file_name": "root/3.jpg",
        "height": 40,
        "width": 30,
        "image_id": 3,
        "annotations": [
            {
                "bbox": BOX,
                "bbox_mode": BoxMode.XYWH_ABS,
                "iscrowd": 0,
                "category_id": 1,
                "segmentation": [TRIANGLE],
                "own": 1,
                "area": 100.0,
            }
        ],
    }
    assert records[2]["annotations"] == []
    metadata = MetadataCatalog.get("test_coco")
    assert metadata.thing_classes == ["two", "seven"]
    assert metadata.thing_dataset_id_to_contiguous_id == {2: 0, 7: 1}


def test_without_a_name_ids_stay(load):
    assert load(make_content(make_annotation(1)))[0]["annotations"][0]["category_id"] == 2


def test_agrees_with_pycocotools(load, tmp_path):
    rng = np.random.default_rng(0)
    annotations = [
        make_annotation(i, int(rng.choice([3, 5, 8]))) for i in rng.permutation(50).tolist()
    ]
    records = load(make_content(*annotations), extra_annotation_keys=["id"])
    reference = COCO(str(tmp_path / "file.json"))
    for record in records:
        expected = [a["id"] for a in reference.imgToAnns[record["image_id"]]]
        assert [a["id"] for a in record["annotations"]] == expected


def test_files_without_annotations(load):
    content = make_content()
    del content["annotations"]
    assert [r["annotations"] for r in load(content, "test_coco")] == [[], [], []]


def test_ids_that_are_not_contiguous_are_told(load, caplog):
    load(make_content(), "test_own")
    assert "are not 1 to 2" in caplog.text
    caplog.clear()
    load(make_content(), "test_coco")
    assert warnings_of(caplog) == []


def test_run_lengths(load):
    mask = np.zeros((40, 30), np.uint8)
    mask[4:9, 3:20] = 1
    flat = mask.ravel(order="F")
    changes = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff([0, *changes, flat.size]).tolist()
    compressed = mask_util.encode(np.asfortranarray(mask))
    text = {"size": [40, 30], "counts": compressed["counts"].decode()}
    content = make_content(
        make_annotation(1, segmentation={"size": [40, 30], "counts": runs}),
        make_annotation(2, segmentation=text),
    )
    first, second = load(content)[0]["annotations"]
    assert (mask_util.decode(first["segmentation"]) == mask).all()
    assert second["segmentation"] == text


def test_polygons_that_are_none(load, caplog):
    content = make_content(
        make_annotation(1, segmentation=[[1, 2, 3, 4], TRIANGLE, [*TRIANGLE, 5]]),
        make_annotation(2, segmentation=[[1, 2, 3, 4]]),
        make_annotation(3, segmentation=[]),
    )
    annotations = load(content)[0]["annotations"]
    assert len(annotations) == 2
    assert annotations[0]["segmentation"] == [TRIANGLE]
    assert "segmentation" not in annotations[1]
    assert "no three points (2), such as [1, 2, 3, 4] of annotation 1 of image 3" in caplog.text
    assert "none of their polygons is one (1)" in caplog.text


def test_keypoints_move_to_the_centres_of_pixels(load):
    categories = [{"id": 2, "name": "two", "keypoints": ["a", "b"]}]
    keypoints = [1, 2, 2, 0, 0, 0]
    content = make_content(make_annotation(1, keypoints=keypoints), categories=categories)
    assert load(content)[0]["annotations"][0]["keypoints"] == [1.5, 2.5, 2, 0.5, 0.5, 0]


def test_boxes_with_an_angle(load):
    content = make_content(make_annotation(1, bbox=[10, 10, 4, 2, 30.0]), make_annotation(2))
    modes = [a["bbox_mode"] for a in load(content)[0]["annotations"]]
    assert modes == [BoxMode.XYWHA_ABS, BoxMode.XYWH_ABS]


def test_what_is_odd_is_counted(load, caplog):
    run_lengths = {"size": [30, 40], "counts": [1200]}
    load(
        make_content(
            make_annotation(1, 99),
            make_annotation(2, 99),
            make_annotation(3, bbox=[1, 1, 0, 5]),
            make_annotation(4, segmentation=run_lengths),
        )
    )
    assert "not list their images (2), such as annotation 1 of image 99" in caplog.text
    assert "boxes without area (1), such as [1, 1, 0, 5] of annotation 3" in caplog.text
    assert "masks of another size than the image's (1), such as [30, 40] for 40 x 30" in caplog.text
    assert len(warnings_of(caplog)) == 3


WRONG_ANNOTATIONS = {
    "empty box": ({"bbox": []}, r"'bbox' must be 4 finite numbers.*got \[\]"),
    "text in a box": ({"bbox": [1, 2, "3", 4]}, "'bbox' must be 4 finite numbers"),
    "null box": ({"bbox": None}, "got None"),
    "huge box": ({"bbox": [1, 2, 3, 10**400]}, "not finite|finite numbers"),
    "ignore": ({"ignore": 1}, "'ignore' must be 0"),
    "category": ({"category_id": 3}, r"no category 3; there are \[2, 7\]"),
    "flat polygon": ({"segmentation": TRIANGLE}, "must be a list of polygons"),
    "run lengths without a size": ({"segmentation": {"counts": [1200]}}, "'size'"),
    "short run lengths": (
        {"segmentation": {"size": [40, 30], "counts": [1199]}},
        "must sum up to 1200, not 1199",
    ),
    "keypoints": ({"keypoints": [1, 2]}, r"3 numbers a keypoint, got 2: \[1, 2\]"),
}


@pytest.mark.parametrize("case", WRONG_ANNOTATIONS)
def test_errors_name_file_and_annotation(load, case):
    fields, message = WRONG_ANNOTATIONS[case]
    content = json.dumps(make_content(make_annotation(1), make_annotation(41, 5, **fields)))
    content = content.replace(str(10**400), "1e400")
    with pytest.raises(ValueError, match=f"file.json: annotation 41 of image 5: .*({message})"):
        load(content, "test_coco")


def test_keypoints_must_be_those_of_the_category(load):
    categories = [{"id": 2, "name": "two", "keypoints": ["a", "b"]}]
    content = make_content(make_annotation(1, keypoints=[1, 2, 2]), categories=categories)
    with pytest.raises(ValueError, match="must have 6 numbers, got 3"):
        load(content)


def without(key, record):
    return {k: v for k, v in record.items() if k != key}


IMAGE = {"id": 3, "file_name": "3.jpg", "height": 40, "width": 30}
WRONG_FILES = {
    "no JSON": ("{", "file.json is not a JSON file"),
    "list": ([], "not an annotation file of COCO's format"),
    "no images": ({"annotations": []}, "it has no 'images'"),
    "images of text": (make_content(images=["a"]), "'images' must be a list of objects"),
    "no height": (
        make_content(images=[without("height", IMAGE)]),
        "1 of 1 images have no 'height'",
    ),
    "no image_id": (
        make_content(make_annotation(1), without("image_id", make_annotation(2))),
        r"1 of 2 annotations have no 'image_id', first annotations\[1\]",
    ),
    "image twice": (
        make_content(images=[IMAGE, IMAGE]),
        "ids of images must be unique.*repeated: 3",
    ),
    "annotation twice": (
        make_content(make_annotation(1), make_annotation(4), make_annotation(4)),
        "ids of annotations must be unique, but 3 have 2 ids; first repeated: 4",
    ),
    "ids of two types": (
        make_content(images=[IMAGE, IMAGE | {"id": "3"}]),
        "ids of images must all be integers",
    ),
    "NaN": (
        make_content(make_annotation(1), make_annotation(4, bbox=[1, float("nan"), 2, 3])),
        r"1 numbers that are not finite, first: annotations\[1\]\(id 4\)\.bbox\[1\] = nan",
    ),
}


@pytest.mark.parametrize("case", WRONG_FILES)
def test_errors_of_files(load, case):
    content, message = WRONG_FILES[case]
    with pytest.raises(ValueError, match=message):
        load(content)


def test_whatever_is_in_a_file_errors_name_it(load):
    run_lengths = {"size": [40, 30], "counts": [1200]}
    content = make_content(
        make_annotation(1, segmentation=run_lengths), make_annotation(2, keypoints=[1, 2, 2])
    )
    failures = 0
    for container, key in list(places(content)):
        kept = container[key]
        for value in (None, "x", [], {}, [[]], -1, True, 1e999):
            container[key] = value
            try:
                load(content, "test_coco")
            except ValueError as error:
                failures += 1
                assert "file.json" in str(error)  # noqa: PT017
            MetadataCatalog.pop("test_coco", None)
        container[key] = kept
    assert failures > 200
    assert len(load(content)) == 3


def test_repeated_ids_are_taken_in_minival(load):
    content = make_content(make_annotation(1), make_annotation(1))
    assert len(load(content, file_name="minival.json")[0]["annotations"]) == 2


def test_other_classes_than_the_metadata_have(load):
    MetadataCatalog.get("test_coco").thing_classes = ["one"]
    with pytest.raises(AssertionError, match="'test_coco' has another 'thing_classes'") as info:
        load(make_content(), "test_coco")
    assert "file.json" in info.value.__notes__[0]


def test_main_draws_what_is_loaded(load, tmp_path, monkeypatch):
    image = {"id": 3, "file_name": "3.png", "height": 40, "width": 30}
    Image.new("RGB", (30, 40)).save(tmp_path / "3.png")
    load(make_content(make_annotation(1), images=[image]), "test_coco")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["coco", "file.json", ".", "test_coco"])
    coco.main()
    drawn = np.asarray(Image.open("coco-data-vis/3.png").convert("RGB"))
    assert drawn.any()
