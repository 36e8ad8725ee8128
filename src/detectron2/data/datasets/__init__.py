"""Formats of data sets, and the data sets that have a name from the start."""

from detectron2.data.datasets import (
    builtin,
    builtin_meta,
    cityscapes,
    cityscapes_panoptic,
    coco,
    coco_panoptic,
    lvis,
    lvis_v0_5_categories,
    lvis_v1_categories,
    lvis_v1_category_image_count,
    pascal_voc,
    register_coco,
)
from detectron2.data.datasets.coco import (
    convert_to_coco_json,
    load_coco_json,
    load_sem_seg,
    register_coco_instances,
)
from detectron2.data.datasets.coco_panoptic import (
    register_coco_panoptic,
    register_coco_panoptic_separated,
)
from detectron2.data.datasets.lvis import (
    get_lvis_instances_meta,
    load_lvis_json,
    register_lvis_instances,
)
from detectron2.data.datasets.pascal_voc import load_voc_instances, register_pascal_voc

__all__ = [
    "builtin",
    "builtin_meta",
    "cityscapes",
    "cityscapes_panoptic",
    "coco",
    "coco_panoptic",
    "convert_to_coco_json",
    "get_lvis_instances_meta",
    "load_coco_json",
    "load_lvis_json",
    "load_sem_seg",
    "load_voc_instances",
    "lvis",
    "lvis_v0_5_categories",
    "lvis_v1_categories",
    "lvis_v1_category_image_count",
    "pascal_voc",
    "register_coco",
    "register_coco_instances",
    "register_coco_panoptic",
    "register_coco_panoptic_separated",
    "register_lvis_instances",
    "register_pascal_voc",
]
