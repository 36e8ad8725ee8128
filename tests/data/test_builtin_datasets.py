import os
import subprocess
import sys

import pytest

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import builtin_meta, lvis_v0_5_categories, lvis_v1_categories
from detectron2.data.datasets.builtin_meta import COCO_CATEGORIES, _get_builtin_metadata
from detectron2.data.datasets.lvis_v1_category_image_count import LVIS_CATEGORY_IMAGE_COUNT

NUMBER_BY_PREFIX = {
    "ade20k_sem_seg": 2,
    "cityscapes_fine": 8,
    "coco_2014": 4,
    "coco_2017": 14,
    "keypoints_coco": 7,
    "lvis_v0.5": 6,
    "lvis_v1": 4,
    "voc_2007": 4,
    "voc_2012": 3,
}


@pytest.mark.parametrize("prefix", NUMBER_BY_PREFIX)
def test_registered(prefix):
    names = [name for name in DatasetCatalog.list() if name.startswith(prefix)]
    assert len(names) == NUMBER_BY_PREFIX[prefix]
    for name in names:
        assert MetadataCatalog.get(name).evaluator_type


def test_root_is_that_of_the_environment():
    code = (
        "from detectron2.data import MetadataCatalog as m;"
        "print(m.get('coco_2017_val').json_file, m.get('lvis_v1_val').image_root,"
        "m.get('cityscapes_fine_panoptic_val').gt_dir)"
    )
    environment = os.environ | {"DETECTRON2_DATASETS": "~/d", "HOME": "/h"}
    result = subprocess.run(
        [sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True
    )
    assert result.stdout.split() == [
        "/h/d/coco/annotations/instances_val2017.json",
        "/h/d/coco/",
        "/h/d/cityscapes/gtFine/val",
    ]


def test_coco_categories():
    assert [sum(c["isthing"] == flag for c in COCO_CATEGORIES) for flag in (1, 0)] == [80, 53]
    ids = [c["id"] for c in COCO_CATEGORIES]
    assert ids == sorted(set(ids))
    by_id = {c["id"]: c for c in COCO_CATEGORIES}
    assert by_id[90] == {
        "id": 90,
        "name": "toothbrush",
        "isthing": 1,
        "color": [191, 162, 208],
    }
    # What annotations call 12 and 26, for example, was never annotated.
    assert not set(by_id) & {12, 26, 29, 30, 45, 66, 68, 69, 71, 83, 91}


def test_separated_panoptic_metadata():
    metadata = _get_builtin_metadata("coco_panoptic_separated")
    assert metadata["stuff_classes"][:2] == ["things", "banner"]
    assert not [n for n in metadata["stuff_classes"] if n.endswith(("-merged", "-other"))]
    assert len(metadata["stuff_classes"]) == len(metadata["stuff_colors"]) == 54
    assert metadata["stuff_dataset_id_to_contiguous_id"] | {} == {
        0: 0,
        **{c["id"]: i + 1 for i, c in enumerate(COCO_CATEGORIES[80:])},
    }
    assert metadata["thing_dataset_id_to_contiguous_id"][90] == 79


def test_standard_panoptic_metadata():
    metadata = _get_builtin_metadata("coco_panoptic_standard")
    things = metadata["thing_dataset_id_to_contiguous_id"]
    stuff = metadata["stuff_dataset_id_to_contiguous_id"]
    assert sorted([*things.values(), *stuff.values()]) == list(range(133))
    assert metadata["thing_classes"] == metadata["stuff_classes"]
    assert metadata["stuff_classes"][stuff[92]] == "banner"


def test_cityscapes_metadata():
    things = ["person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle"]
    metadata = MetadataCatalog.get("cityscapes_fine_panoptic_train")
    assert [metadata.stuff_classes[i] for i in range(11, 19)] == things
    assert metadata.thing_dataset_id_to_contiguous_id == dict(
        zip([24, 25, 26, 27, 28, 31, 32, 33], range(11, 19), strict=True)
    )
    assert MetadataCatalog.get("cityscapes_fine_instance_seg_train").thing_classes == things


def test_keypoint_metadata():
    names = builtin_meta.COCO_PERSON_KEYPOINT_NAMES
    assert len(names) == 17
    paired = {name for pair in builtin_meta.COCO_PERSON_KEYPOINT_FLIP_MAP for name in pair}
    assert paired == set(names) - {"nose"}
    ends = {end for rule in builtin_meta.KEYPOINT_CONNECTION_RULES for end in rule[:2]}
    assert ends == set(names)


def test_unknown_metadata():
    with pytest.raises(KeyError, match="'cocoa'; there are \\['coco',"):
        _get_builtin_metadata("cocoa")


@pytest.mark.parametrize(
    ("module", "number"), [(lvis_v1_categories, 1203), (lvis_v0_5_categories, 1230)]
)
def test_lvis_categories(module, number):
    categories = module.LVIS_CATEGORIES
    assert [c["id"] for c in categories] == list(range(1, number + 1))
    for key in ("synset", "name"):
        assert len({c[key] for c in categories}) == number
    assert {c["frequency"] for c in categories} == {"r", "c", "f"}
    airplane = next(c for c in categories if c["name"] == "airplane")
    assert airplane["synonyms"] == ["airplane", "aeroplane"]
    assert airplane["synset"] == "airplane.n.01"
    assert categories[-1]["name"] == "zucchini"


def test_lvis_frequencies_are_those_of_the_image_counts():
    """The definition of the frequencies, for two tables that were written apart."""
    for category, count in zip(
        lvis_v1_categories.LVIS_CATEGORIES, LVIS_CATEGORY_IMAGE_COUNT, strict=True
    ):
        assert category["id"] == count["id"]
        number = count["image_count"]
        assert category["frequency"] == ("r" if number <= 10 else "c" if number <= 100 else "f")


def test_tables_are_small():
    folder = os.path.dirname(builtin_meta.__file__)
    tables = ("_lvis_table.py", "lvis_v1_category_image_count.py", "builtin_meta.py")
    assert sum(os.path.getsize(os.path.join(folder, table)) for table in tables) < 50_000
