import json

import pytest

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_panoptic, register_coco_panoptic_separated
from detectron2.data.datasets.cityscapes_panoptic import load_cityscapes_panoptic
from detectron2.data.datasets.coco_panoptic import load_coco_panoptic_json, merge_to_panoptic

META = {
    "thing_dataset_id_to_contiguous_id": {24: 11},
    "stuff_dataset_id_to_contiguous_id": {7: 0},
}
SEGMENTS = [{"id": 5, "category_id": 24, "iscrowd": 0}, {"id": 6, "category_id": 7}]
CONVERTED = [
    {"id": 5, "category_id": 11, "iscrowd": 0, "isthing": True},
    {"id": 6, "category_id": 0, "isthing": False},
]


def touch(path, text=""):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return str(path)


@pytest.fixture
def coco(tmp_path):
    touch(tmp_path / "images" / "007.jpg")
    touch(tmp_path / "masks" / "007.png")
    annotation = {"image_id": "7", "file_name": "007.png", "segments_info": SEGMENTS}
    touch(tmp_path / "panoptic.json", json.dumps({"annotations": [annotation]}))
    return tmp_path


def test_coco_panoptic(coco):
    folders = [str(coco / name) for name in ("panoptic.json", "images", "masks")]
    assert load_coco_panoptic_json(*folders, META) == [
        {
            "file_name": f"{coco}/images/007.jpg",
            "image_id": 7,
            "pan_seg_file_name": f"{coco}/masks/007.png",
            "segments_info": CONVERTED,
        }
    ]


def test_coco_panoptic_errors(coco):
    path, images, masks = (str(coco / name) for name in ("panoptic.json", "images", "masks"))
    with pytest.raises(ValueError, match=r"nowhere/007\.png, the 'pan_seg_file_name' of the first"):
        load_coco_panoptic_json(path, images, "nowhere", META)
    with pytest.raises(ValueError, match=r"007\.png: a segment has the unknown category 7"):
        load_coco_panoptic_json(path, images, masks, {k: {24: 0} for k in META})
    other = touch(coco / "other.json", json.dumps({"annotations": [{"image_id": 1}]}))
    with pytest.raises(ValueError, match=r"annotations\[0\] has no \['file_name', 'segments_info'"):
        load_coco_panoptic_json(other, images, masks, META)
    for content in ({}, {"annotations": []}):
        with pytest.raises(ValueError, match="annotations"):
            load_coco_panoptic_json(touch(coco / "e.json", json.dumps(content)), "", "", META)


def test_registration(coco):
    names = ["test_panoptic", "test_panoptic_separated", "test_panoptic_stuffonly"]
    instances = {
        "images": [{"id": 7, "file_name": "007.jpg", "height": 4, "width": 5}],
        "categories": [{"id": 24, "name": "person"}],
    }
    instances_json = touch(coco / "instances.json", json.dumps(instances))
    touch(coco / "stuff" / "007.png")
    parts = [f"{coco}/{name}" for name in ("images", "masks", "panoptic.json")]
    try:
        register_coco_panoptic(names[0], META, *parts, instances_json)
        own = {"stuff_classes": ["things", "road"]}
        register_coco_panoptic_separated(names[0], own, *parts, f"{coco}/stuff", instances_json)
        panoptic, separated, stuff = (DatasetCatalog.get(name)[0] for name in names)
        assert panoptic["segments_info"] == CONVERTED
        assert separated == {
            "file_name": f"{coco}/images/007.jpg",
            "height": 4,
            "width": 5,
            "image_id": 7,
            "annotations": [],
            "sem_seg_file_name": f"{coco}/stuff/007.png",
        }
        assert stuff.keys() == {"file_name", "sem_seg_file_name"}
        metadata = [MetadataCatalog.get(name) for name in names]
        assert [m.evaluator_type for m in metadata] == [
            "coco_panoptic_seg",
            "coco_panoptic_seg",
            "sem_seg",
        ]
        assert metadata[0].label_divisor == 1000
        assert metadata[1].stuff_classes == ["things", "road"]
    finally:
        for name in names:
            DatasetCatalog.pop(name, None)
            MetadataCatalog.pop(name, None)


def test_merging():
    detections = [{"file_name": "a", "image_id": 1}, {"file_name": "b", "image_id": 2}]
    masks = [{"file_name": name, "sem_seg_file_name": name.upper()} for name in "cba"]
    merged = merge_to_panoptic(detections, masks)
    assert [r["sem_seg_file_name"] for r in merged] == ["A", "B"]
    assert "sem_seg_file_name" not in detections[0]
    with pytest.raises(ValueError, match="1 of 2 images have no semantic mask, first a"):
        merge_to_panoptic(detections, masks[:2])


def test_cityscapes_panoptic(tmp_path):
    """The folder has a dot in its name, which upstream takes for that of the file's ending."""
    root = tmp_path / "v1.0"
    image_id = "bonn_000001_000019"
    image = touch(root / "leftImg8bit" / "val" / "bonn" / f"{image_id}_leftImg8bit.png")
    train_ids = root / "gtFine" / "val" / "bonn" / f"{image_id}_gtFine_labelTrainIds.png"
    masks = root / "gtFine" / "cityscapes_panoptic_val"
    file_name = f"{image_id}_gtFine_panoptic.png"
    mask = touch(masks / file_name)
    annotation = {"image_id": image_id, "file_name": file_name, "segments_info": SEGMENTS}
    arguments = (f"{root}/leftImg8bit/val", str(masks), f"{masks}.json", META)
    with pytest.raises(ValueError, match=r"val\.json is no file; it is made by"):
        load_cityscapes_panoptic(*arguments)
    panoptic_json = root / "gtFine" / "cityscapes_panoptic_val.json"
    touch(panoptic_json, json.dumps({"annotations": [annotation]}))
    with pytest.raises(ValueError, match="the 'sem_seg_file_name' of the first record"):
        load_cityscapes_panoptic(*arguments)
    touch(train_ids)
    touch(root / "leftImg8bit" / "val" / ".DS_Store")
    assert load_cityscapes_panoptic(*arguments) == [
        {
            "file_name": image,
            "image_id": image_id,
            "sem_seg_file_name": str(train_ids),
            "pan_seg_file_name": mask,
            "segments_info": CONVERTED,
        }
    ]
    touch(panoptic_json, json.dumps({"annotations": [annotation | {"image_id": "ulm_0"}]}))
    with pytest.raises(ValueError, match="there is no image ulm_0_leftImg8bit"):
        load_cityscapes_panoptic(*arguments)
