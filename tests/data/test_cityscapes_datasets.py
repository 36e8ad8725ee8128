import json

import numpy as np
import pycocotools.mask as mask_util
import pytest
from PIL import Image, ImageDraw

from detectron2.data.datasets import cityscapes
from detectron2.data.datasets.cityscapes import (
    load_cityscapes_instances,
    load_cityscapes_semantic,
)
from detectron2.structures import BoxMode

HEIGHT, WIDTH = 60, 80
SQUARE = [[10, 10], [29, 10], [29, 29], [10, 29]]
STRIPE = [[0, 18], [79, 18], [79, 21], [0, 21]]
OBJECTS = [
    {"label": "road", "polygon": [[0, 30], [79, 30], [79, 59], [0, 59]]},
    {"label": "car", "polygon": SQUARE},
    {"label": "persongroup", "polygon": [[40, 5], [60, 5], [50, 40]]},
    {"label": "pole", "polygon": STRIPE},
    {"label": "bicycle", "polygon": [[70, 50], [79, 50], [79, 59]], "deleted": 1},
    {"label": "license plate", "polygon": [[12, 12], [14, 12], [14, 14]]},
]


def instance_ids(objects):
    """Drawn in order, as the ground truth is made."""
    ids = {"road": 7, "car": 26000, "persongroup": 24, "pole": 17}
    image = Image.new("I", (WIDTH, HEIGHT), 0)
    for item in objects:
        if item["label"] in ids and "deleted" not in item:
            corners = [tuple(corner) for corner in item["polygon"]]
            ImageDraw.Draw(image).polygon(corners, fill=ids[item["label"]])
    return np.asarray(image).astype(np.uint16)


@pytest.fixture
def folders(tmp_path):
    images, truth = tmp_path / "images", tmp_path / "truth"
    for folder in (images, truth):
        (folder / "bonn").mkdir(parents=True)
    for name in ("bonn_000001_000019", "bonn_000000_000019"):
        (images / "bonn" / f"{name}_leftImg8bit.png").touch()
        prefix = truth / "bonn" / f"{name}_gtFine"
        content = {"imgHeight": HEIGHT, "imgWidth": WIDTH, "objects": OBJECTS}
        prefix.with_name(prefix.name + "_polygons.json").write_text(json.dumps(content))
        Image.fromarray(instance_ids(OBJECTS)).save(str(prefix) + "_instanceIds.png")
    return str(images), str(truth)


def decode(annotation):
    segmentation = annotation["segmentation"]
    if isinstance(segmentation, list):
        segmentation = mask_util.merge(mask_util.frPyObjects(segmentation, HEIGHT, WIDTH))
    return mask_util.decode(segmentation) == 1


def by_category(records):
    assert len(records) == 2
    return {annotation["category_id"]: annotation for annotation in records[0]["annotations"]}


def overlap(one, other):
    return (one & other).sum() / (one | other).sum()


@pytest.mark.parametrize("to_polygons", [True, False])
def test_polygons_and_masks_agree(folders, to_polygons):
    pytest.importorskip("shapely")
    drawn = instance_ids(OBJECTS)
    from_polygons = by_category(load_cityscapes_instances(*folders))
    from_masks = by_category(
        load_cityscapes_instances(*folders, from_json=False, to_polygons=to_polygons)
    )
    # Classes are those of the metadata: 0 is person, 2 is car.
    assert from_polygons.keys() == from_masks.keys() == {0, 2}
    for category, instance_id in ((0, 24), (2, 26000)):
        expected = drawn == instance_id
        # Outlines through the centres of pixels, as those of masks are, lose half a pixel.
        at_least = {True: 0.8, False: 1.0}[to_polygons]
        assert overlap(decode(from_masks[category]), expected) >= at_least
        assert overlap(decode(from_polygons[category]), expected) > 0.95
        assert (
            from_masks[category]["iscrowd"] == from_polygons[category]["iscrowd"] == (not category)
        )
        rows, columns = np.nonzero(expected)
        box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert from_masks[category]["bbox"] == box
        assert from_polygons[category]["bbox"] == pytest.approx(box, abs=0.6)
        assert from_masks[category]["bbox_mode"] == BoxMode.XYXY_ABS


def test_records(folders):
    pytest.importorskip("shapely")
    images, _ = folders
    first = load_cityscapes_instances(*folders)[0]
    assert {k: v for k, v in first.items() if k != "annotations"} == {
        "file_name": f"{images}/bonn/bonn_000000_000019_leftImg8bit.png",
        "image_id": "bonn_000000_000019_leftImg8bit.png",
        "height": HEIGHT,
        "width": WIDTH,
    }
    car = by_category([first, first])[2]
    # Split by the pole in front; half a pixel outside of the corners' centres.
    assert len(car["segmentation"]) == 2
    assert car["bbox"] == pytest.approx([10, 10, 30, 30])


def test_processes_give_the_same(folders, monkeypatch):
    expected = load_cityscapes_instances(*folders, from_json=False)
    monkeypatch.setattr(cityscapes, "_FILES_A_PROCESS", 1)
    monkeypatch.setattr(cityscapes.os, "cpu_count", lambda: 2)
    assert load_cityscapes_instances(*folders, from_json=False) == expected


def test_semantic(folders, tmp_path):
    with pytest.raises(ValueError, match=r"labelTrainIds\.png, to be made by cityscapesscripts"):
        load_cityscapes_semantic(*folders)
    name = "truth/bonn/bonn_000000_000019_gtFine_labelTrainIds.png"
    (tmp_path / name).touch()
    records = load_cityscapes_semantic(*folders)
    assert records[0] == {
        "file_name": f"{folders[0]}/bonn/bonn_000000_000019_leftImg8bit.png",
        "sem_seg_file_name": str(tmp_path / name),
        "height": HEIGHT,
        "width": WIDTH,
    }


def test_errors(folders, tmp_path):
    pytest.importorskip("shapely")
    content = {"imgHeight": 1, "imgWidth": 1, "objects": [{"label": "cow", "polygon": SQUARE}]}
    path = tmp_path / "truth" / "bonn" / "bonn_000001_000019_gtFine_polygons.json"
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=rf"{path.name}: there is no label 'cow'"):
        load_cityscapes_instances(*folders)
    with pytest.raises(ValueError, match="to_polygons must be True"):
        load_cityscapes_instances(*folders, to_polygons=False)
    with pytest.raises(ValueError, match="the annotations of the first image, is no file"):
        load_cityscapes_instances(folders[0], "nowhere")
    (tmp_path / "images" / "bonn" / "x.jpg").touch()
    with pytest.raises(ValueError, match=r"x\.jpg is not named \*leftImg8bit\.png"):
        load_cityscapes_instances(*folders)
