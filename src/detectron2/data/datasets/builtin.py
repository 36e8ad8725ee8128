"""The data sets that have a name from the start.

They are looked for below the folder that the environment variable ``DETECTRON2_DATASETS`` names
when this module is imported, or ``./datasets``. Registration reads no file.
"""

import functools
import os

from detectron2.data.catalog import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets._registration import register
from detectron2.data.datasets.builtin_meta import ADE20K_SEM_SEG_CATEGORIES, _get_builtin_metadata
from detectron2.data.datasets.cityscapes import load_cityscapes_instances, load_cityscapes_semantic
from detectron2.data.datasets.cityscapes_panoptic import register_all_cityscapes_panoptic
from detectron2.data.datasets.coco import load_sem_seg, register_coco_instances
from detectron2.data.datasets.coco_panoptic import (
    register_coco_panoptic,
    register_coco_panoptic_separated,
)
from detectron2.data.datasets.lvis import get_lvis_instances_meta, register_lvis_instances
from detectron2.data.datasets.pascal_voc import register_pascal_voc

__all__ = [
    "ADE20K_SEM_SEG_CATEGORIES",
    "DatasetCatalog",
    "MetadataCatalog",
    "get_lvis_instances_meta",
    "load_cityscapes_instances",
    "load_cityscapes_semantic",
    "load_sem_seg",
    "register_all_ade20k",
    "register_all_cityscapes",
    "register_all_cityscapes_panoptic",
    "register_all_coco",
    "register_all_lvis",
    "register_all_pascal_voc",
    "register_coco_instances",
    "register_coco_panoptic",
    "register_coco_panoptic_separated",
    "register_lvis_instances",
    "register_pascal_voc",
]

# Split → folder of the images, name of the annotations.
_COCO_INSTANCES = {
    "2014_train": ("train2014", "instances_train2014"),
    "2014_val": ("val2014", "instances_val2014"),
    "2014_minival": ("val2014", "instances_minival2014"),
    "2014_valminusminival": ("val2014", "instances_valminusminival2014"),
    "2017_train": ("train2017", "instances_train2017"),
    "2017_val": ("val2017", "instances_val2017"),
    "2017_test": ("test2017", "image_info_test2017"),
    "2017_test-dev": ("test2017", "image_info_test-dev2017"),
    "2017_val_100": ("val2017", "instances_val2017_100"),
}

# Split → folder of the images, ending of the names of the masks and annotations.
_COCO_PANOPTIC = {
    "train": ("train2017", "train2017"),
    "val": ("val2017", "val2017"),
    "val_100": ("val2017", "val2017_100"),
}

# Data set → name of the annotations in the folder lvis.
_LVIS = {
    "lvis_v1_train": "lvis_v1_train",
    "lvis_v1_val": "lvis_v1_val",
    "lvis_v1_test_dev": "lvis_v1_image_info_test_dev",
    "lvis_v1_test_challenge": "lvis_v1_image_info_test_challenge",
    "lvis_v0.5_train": "lvis_v0.5_train",
    "lvis_v0.5_val": "lvis_v0.5_val",
    "lvis_v0.5_val_rand_100": "lvis_v0.5_val_rand_100",
    "lvis_v0.5_test": "lvis_v0.5_image_info_test",
    "lvis_v0.5_train_cocofied": "lvis_v0.5_train_cocofied",
    "lvis_v0.5_val_cocofied": "lvis_v0.5_val_cocofied",
}

_ADE20K_FOLDERS = {"train": "training", "val": "validation"}

_VOC_SPLITS = {2007: ("trainval", "train", "val", "test"), 2012: ("trainval", "train", "val")}


def register_all_coco(root: str) -> None:
    """Register COCO: instances, keypoints and panoptic, below ``<root>/coco``."""
    coco = os.path.join(root, "coco")
    for split, (images, annotations) in _COCO_INSTANCES.items():
        register_coco_instances(
            f"coco_{split}",
            _get_builtin_metadata("coco"),
            f"{coco}/annotations/{annotations}.json",
            f"{coco}/{images}",
        )
    for split, (images, annotations) in _COCO_INSTANCES.items():
        if not annotations.startswith("instances_"):
            continue  # no annotations of keypoints are published
        person_keypoints = annotations.replace("instances_", "person_keypoints_")
        register_coco_instances(
            f"keypoints_coco_{split}",
            _get_builtin_metadata("coco_person"),
            f"{coco}/annotations/{person_keypoints}.json",
            f"{coco}/{images}",
        )
    for split, (images, ending) in _COCO_PANOPTIC.items():
        name = f"coco_2017_{split}_panoptic"
        image_root, panoptic_root = f"{coco}/{images}", f"{coco}/panoptic_{ending}"
        panoptic_json = f"{coco}/annotations/panoptic_{ending}.json"
        instances_json = f"{coco}/annotations/instances_{ending}.json"
        register_coco_panoptic_separated(
            name,
            _get_builtin_metadata("coco_panoptic_separated"),
            image_root,
            panoptic_root,
            panoptic_json,
            f"{coco}/panoptic_stuff_{ending}",
            instances_json,
        )
        register_coco_panoptic(
            name,
            _get_builtin_metadata("coco_panoptic_standard"),
            image_root,
            panoptic_root,
            panoptic_json,
            instances_json,
        )


def register_all_lvis(root: str) -> None:
    """Register LVIS, below ``<root>/lvis``, with the images of ``<root>/coco``."""
    for name, annotations in _LVIS.items():
        register_lvis_instances(
            name,
            get_lvis_instances_meta(name),
            os.path.join(root, "lvis", f"{annotations}.json"),
            os.path.join(root, "coco", ""),
        )


def register_all_cityscapes(root: str) -> None:
    """Register instances and semantic masks of Cityscapes, below ``<root>/cityscapes``."""
    for split in ("train", "val", "test"):
        image_dir = os.path.join(root, "cityscapes/leftImg8bit", split, "")
        gt_dir = os.path.join(root, "cityscapes/gtFine", split, "")
        folders = {"image_dir": image_dir, "gt_dir": gt_dir}
        metadata = _get_builtin_metadata("cityscapes")
        register(
            f"cityscapes_fine_instance_seg_{split}",
            functools.partial(load_cityscapes_instances, image_dir, gt_dir),
            {"evaluator_type": "cityscapes_instance", **folders, **metadata},
        )
        register(
            f"cityscapes_fine_sem_seg_{split}",
            functools.partial(load_cityscapes_semantic, image_dir, gt_dir),
            {
                "evaluator_type": "cityscapes_sem_seg",
                "ignore_label": 255,
                **folders,
                **metadata,
            },
        )


def register_all_pascal_voc(root: str) -> None:
    """Register Pascal VOC, below ``<root>/VOC2007`` and ``<root>/VOC2012``."""
    for year, splits in _VOC_SPLITS.items():
        for split in splits:
            name = f"voc_{year}_{split}"
            register_pascal_voc(name, os.path.join(root, f"VOC{year}"), split, year)
            MetadataCatalog.get(name).evaluator_type = "pascal_voc"


def register_all_ade20k(root: str) -> None:
    """Register the scene parsing of ADE20K, below ``<root>/ADEChallengeData2016``.

    Labels are read from ``annotations_detectron2``, where 0 is the first class and 255 is ignored.
    """
    for split, folder in _ADE20K_FOLDERS.items():
        images, labels = (
            os.path.join(root, "ADEChallengeData2016", kind, folder)
            for kind in ("images", "annotations_detectron2")
        )
        metadata = {
            "stuff_classes": list(ADE20K_SEM_SEG_CATEGORIES),
            "ignore_label": 255,
            "evaluator_type": "sem_seg",
            "image_root": images,
            "sem_seg_root": labels,
        }
        loader = functools.partial(load_sem_seg, labels, images)
        register(f"ade20k_sem_seg_{split}", loader, metadata)


def _register_all(root: str) -> None:
    for register_family in (
        register_all_ade20k,
        register_all_cityscapes,
        register_all_cityscapes_panoptic,
        register_all_coco,
        register_all_lvis,
        register_all_pascal_voc,
    ):
        register_family(root)


# Not where the file is run or copied as something else.
if __name__.endswith(".builtin"):
    _root = os.path.expanduser(os.environ.get("DETECTRON2_DATASETS", "datasets"))
    _register_all(_root)
