"""Data sets in COCO's panoptic format."""

import functools
import logging
import os
from typing import Any

from detectron2.data.catalog import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets._panoptic import convert_segments, read_panoptic_annotations
from detectron2.data.datasets._registration import register
from detectron2.data.datasets.coco import load_coco_json, load_sem_seg
from detectron2.utils.file_io import PathManager

__all__ = [
    "DatasetCatalog",
    "MetadataCatalog",
    "load_coco_json",
    "load_coco_panoptic_json",
    "load_sem_seg",
    "merge_to_panoptic",
    "register_coco_panoptic",
    "register_coco_panoptic_separated",
]

logger = logging.getLogger(__name__)


def load_coco_panoptic_json(
    json_file: str, image_dir: str, gt_dir: str, meta: dict[str, Any]
) -> list[dict[str, Any]]:
    """Load a file of COCO's panoptic annotations.

    Args:
        json_file: the annotations.
        image_dir: the folder of the images, JPEG files named as the ground truth's.
        gt_dir: the folder of the ground truth, PNG files whose colours are ids of segments.
        meta: ``thing_dataset_id_to_contiguous_id`` and ``stuff_dataset_id_to_contiguous_id``.

    Returns:
        ``file_name``, ``image_id``, ``pan_seg_file_name`` and ``segments_info`` of each image, the
        segments with contiguous ids and ``isthing``.

    Raises:
        ValueError: there are no annotations, one has an unknown category, or the first image or
            its ground truth is not there.
    """
    records = []
    for annotation in read_panoptic_annotations(json_file):
        truth = annotation["file_name"]
        records.append(
            {
                "file_name": os.path.join(image_dir, os.path.splitext(truth)[0] + ".jpg"),
                "image_id": int(annotation["image_id"]),
                "pan_seg_file_name": os.path.join(gt_dir, truth),
                "segments_info": convert_segments(
                    annotation["segments_info"], meta, f"{json_file}, {truth}"
                ),
            }
        )
    check_first_files(records, json_file)
    logger.info(f"{len(records)} images with panoptic masks from {json_file}")
    return records


def check_first_files(
    records: list[dict[str, Any]],
    source: str,
    keys: tuple[str, ...] = ("file_name", "pan_seg_file_name"),
    hint: str = "",
) -> None:
    """Tell at once that a folder is wrong: there are records, and the first one's files exist."""
    if not records:
        raise ValueError(f"there are no annotations in {source}")
    for key in keys:
        path = records[0][key]
        if not PathManager.isfile(path):
            raise ValueError(
                f"{path}, the {key!r} of the first record of {source}, is no file{hint}"
            )


def register_coco_panoptic(
    name: str,
    metadata: dict[str, Any],
    image_root: str,
    panoptic_root: str,
    panoptic_json: str,
    instances_json: str | None = None,
    *,
    overwrite: bool = False,
) -> None:
    """Register a data set in COCO's panoptic format, for models that take it as it is.

    Args:
        name: of the data set.
        metadata: further metadata, with the maps of ids that :func:`load_coco_panoptic_json` needs.
        image_root: the folder of the images.
        panoptic_root: the folder of the panoptic masks.
        panoptic_json: the panoptic annotations.
        instances_json: annotations of the things as instances, for their evaluation.
        overwrite: replace the data set and metadata that have the name.
    """
    register(
        name,
        functools.partial(
            load_coco_panoptic_json, panoptic_json, image_root, panoptic_root, metadata
        ),
        {
            "panoptic_root": panoptic_root,
            "image_root": image_root,
            "panoptic_json": panoptic_json,
            "json_file": instances_json,
            "evaluator_type": "coco_panoptic_seg",
            "ignore_label": 255,
            "label_divisor": 1000,
            **metadata,
        },
        overwrite=overwrite,
    )


def register_coco_panoptic_separated(
    name: str,
    metadata: dict[str, Any],
    image_root: str,
    panoptic_root: str,
    panoptic_json: str,
    sem_seg_root: str,
    instances_json: str,
    *,
    overwrite: bool = False,
) -> None:
    """Register panoptic data as instances plus semantic masks, which PanopticFPN learns from.

    ``<name>_separated`` has both; ``<name>_stuffonly`` has the semantic masks only, in which all
    things are class 0.

    Args:
        name: of the data set, without the endings.
        metadata: further metadata of both.
        image_root: the folder of the images.
        panoptic_root: the folder of the panoptic masks; for evaluation.
        panoptic_json: the panoptic annotations; for evaluation.
        sem_seg_root: the folder of the semantic masks.
        instances_json: the annotations of instances.
        overwrite: replace the data sets and metadata that have the names.
    """
    separated = name + "_separated"
    semantic = {"sem_seg_root": sem_seg_root, "image_root": image_root, "ignore_label": 255}
    register(
        separated,
        functools.partial(
            _load_separated, instances_json, image_root, separated, sem_seg_root=sem_seg_root
        ),
        {
            "panoptic_root": panoptic_root,
            "panoptic_json": panoptic_json,
            "json_file": instances_json,
            "evaluator_type": "coco_panoptic_seg",
            **semantic,
            **metadata,
        },
        overwrite=overwrite,
    )
    register(
        name + "_stuffonly",
        functools.partial(load_sem_seg, sem_seg_root, image_root),
        {"evaluator_type": "sem_seg", **semantic, **metadata},
        overwrite=overwrite,
    )


def _load_separated(
    instances_json: str, image_root: str, name: str, *, sem_seg_root: str
) -> list[dict[str, Any]]:
    return merge_to_panoptic(
        load_coco_json(instances_json, image_root, name), load_sem_seg(sem_seg_root, image_root)
    )


def merge_to_panoptic(
    detection_dicts: list[dict[str, Any]], sem_seg_dicts: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Join records of instances and of semantic masks by ``file_name``.

    Args:
        detection_dicts: of which each must have a partner.
        sem_seg_dicts: may be more.

    Returns:
        A record for each of ``detection_dicts``, with the fields of both.

    Raises:
        ValueError: an image has no semantic mask.
    """
    semantic = {record["file_name"]: record for record in sem_seg_dicts}
    alone = [r["file_name"] for r in detection_dicts if r["file_name"] not in semantic]
    if alone:
        raise ValueError(
            f"{len(alone)} of {len(detection_dicts)} images have no semantic mask, first {alone[0]}"
        )
    if not detection_dicts:
        raise ValueError("there are no records of instances to be merged")
    return [record | semantic[record["file_name"]] for record in detection_dicts]
