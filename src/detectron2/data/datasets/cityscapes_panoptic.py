"""Cityscapes' panoptic annotations."""

import functools
import logging
import os
from typing import Any

from detectron2.data.catalog import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets._panoptic import convert_segments, read_panoptic_annotations
from detectron2.data.datasets._registration import register
from detectron2.data.datasets.builtin_meta import (
    CITYSCAPES_CATEGORIES,
    _get_cityscapes_panoptic_meta,
)
from detectron2.data.datasets.cityscapes import visible_names
from detectron2.data.datasets.coco_panoptic import check_first_files
from detectron2.utils.file_io import PathManager

__all__ = [
    "CITYSCAPES_CATEGORIES",
    "DatasetCatalog",
    "MetadataCatalog",
    "get_cityscapes_panoptic_files",
    "load_cityscapes_panoptic",
    "register_all_cityscapes_panoptic",
]

logger = logging.getLogger(__name__)

_IMAGE_ENDING = "_leftImg8bit.png"


def get_cityscapes_panoptic_files(
    image_dir: str, gt_dir: str, json_info: dict[str, Any]
) -> list[tuple[str, str, list[dict[str, Any]]]]:
    """Find the files of panoptic annotations.

    Args:
        image_dir: a split's images, in a folder for each city.
        gt_dir: the folder of the panoptic masks.
        json_info: the content of the annotation file.

    Returns:
        Path of the image, path of the mask, and segments of each annotation.

    Raises:
        ValueError: an image is missing.
    """
    images = {}
    for city in visible_names(image_dir):
        for name in visible_names(os.path.join(image_dir, city)):
            if not name.endswith(_IMAGE_ENDING):
                path = os.path.join(image_dir, city, name)
                raise ValueError(f"{path} is not named *{_IMAGE_ENDING}")
            images[name.removesuffix(_IMAGE_ENDING)] = os.path.join(image_dir, city, name)
    found = []
    for annotation in json_info["annotations"]:
        image = images.get(annotation["image_id"])
        if image is None:
            raise ValueError(
                f"there is no image {annotation['image_id']}{_IMAGE_ENDING} in the "
                f"folders of {image_dir}, which have {len(images)} images"
            )
        mask = os.path.join(gt_dir, annotation["file_name"])
        found.append((image, mask, annotation["segments_info"]))
    return found


def load_cityscapes_panoptic(
    image_dir: str, gt_dir: str, gt_json: str, meta: dict[str, Any]
) -> list[dict[str, Any]]:
    """Load a split's panoptic annotations.

    Args:
        image_dir: such as ``cityscapes/leftImg8bit/train``.
        gt_dir: such as ``cityscapes/gtFine/cityscapes_panoptic_train``, made by cityscapesscripts.
        gt_json: such as ``cityscapes/gtFine/cityscapes_panoptic_train.json``, likewise.
        meta: ``thing_dataset_id_to_contiguous_id`` and ``stuff_dataset_id_to_contiguous_id``.

    Returns:
        ``file_name``, ``image_id`` (``city_sequence_frame``), ``sem_seg_file_name`` (of train ids),
        ``pan_seg_file_name`` and ``segments_info`` of each image, the segments with contiguous ids
        and ``isthing``.

    Raises:
        ValueError: files are missing, or a segment has an unknown category.
    """
    if not PathManager.isfile(gt_json):
        raise ValueError(
            f"{gt_json} is no file; "
            "it is made by cityscapesscripts/preparation/createPanopticImgs.py"
        )
    annotations = read_panoptic_annotations(gt_json)
    files = get_cityscapes_panoptic_files(image_dir, gt_dir, {"annotations": annotations})
    truth_dir = _truth_folder(image_dir)
    records = []
    for image, mask, segments in files:
        image_id = os.path.basename(image).removesuffix(_IMAGE_ENDING)
        city = os.path.basename(os.path.dirname(image))
        train_ids = os.path.join(truth_dir, city, image_id + "_gtFine_labelTrainIds.png")
        records.append(
            {
                "file_name": image,
                "image_id": image_id,
                "sem_seg_file_name": train_ids,
                "pan_seg_file_name": mask,
                "segments_info": convert_segments(segments, meta, f"{gt_json}, {image_id}"),
            }
        )
    check_first_files(records, gt_json, ("file_name",))
    check_first_files(
        records,
        gt_json,
        ("pan_seg_file_name", "sem_seg_file_name"),
        "; it is made by cityscapesscripts/preparation/createPanopticImgs.py and "
        "createTrainIdLabelImgs.py",
    )
    logger.info(f"{len(records)} images with panoptic masks from {gt_json}")
    return records


def _truth_folder(image_dir: str) -> str:
    """The split's folder in gtFine, beside leftImg8bit."""
    images, split = os.path.split(os.path.normpath(image_dir))
    return os.path.join(os.path.dirname(images), "gtFine", split)


_SPLITS = ("train", "val")


def register_all_cityscapes_panoptic(root: str) -> None:
    """Register the panoptic splits ``cityscapes_fine_panoptic_train`` and ``..._val``.

    Args:
        root: the folder that has ``cityscapes``.
    """
    metadata = _get_cityscapes_panoptic_meta()
    truth = os.path.join(root, "cityscapes/gtFine")
    for split in _SPLITS:
        image_dir = os.path.join(root, "cityscapes/leftImg8bit", split)
        panoptic_dir = os.path.join(truth, f"cityscapes_panoptic_{split}")
        panoptic_json = panoptic_dir + ".json"
        register(
            f"cityscapes_fine_panoptic_{split}",
            functools.partial(
                load_cityscapes_panoptic, image_dir, panoptic_dir, panoptic_json, metadata
            ),
            {
                "panoptic_root": panoptic_dir,
                "image_root": image_dir,
                "panoptic_json": panoptic_json,
                "gt_dir": os.path.join(truth, split),
                "evaluator_type": "cityscapes_panoptic_seg",
                "ignore_label": 255,
                "label_divisor": 1000,
                **metadata,
            },
        )
