"""Cityscapes: street scenes with instances and semantic masks."""

import argparse
import functools
import json
import logging
import multiprocessing
import os
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from detectron2.data.datasets._cityscapes_instances import (
    INSTANCE_CLASS_IDS,
    instances_from_mask,
    instances_from_polygons,
)
from detectron2.structures.boxes import BoxMode
from detectron2.utils.comm import get_world_size
from detectron2.utils.file_io import PathManager
from detectron2.utils.logger import setup_logger

__all__ = [
    "BoxMode",
    "get_world_size",
    "load_cityscapes_instances",
    "load_cityscapes_semantic",
    "setup_logger",
]

logger = logging.getLogger(__name__)

_IMAGE_SUFFIX = "leftImg8bit.png"

# Fewer are read sooner than processes start.
_FILES_A_PROCESS = 50


class _Files(NamedTuple):
    image: str
    instance_ids: str
    label_ids: str
    train_ids: str
    polygons: str


def _list_files(image_dir: str, gt_dir: str) -> list[_Files]:
    """The files of each image, by name, from folders with a folder for each city."""
    found = []
    for city in visible_names(image_dir):
        city_dir = os.path.join(image_dir, city)
        for name in visible_names(city_dir):
            if not name.endswith(_IMAGE_SUFFIX):
                raise ValueError(f"{os.path.join(city_dir, name)} is not named *{_IMAGE_SUFFIX}")
            truth = os.path.join(gt_dir, city, name.removesuffix(_IMAGE_SUFFIX) + "gtFine_")
            found.append(
                _Files(
                    os.path.join(city_dir, name),
                    truth + "instanceIds.png",
                    truth + "labelIds.png",
                    truth + "labelTrainIds.png",
                    truth + "polygons.json",
                )
            )
    if not found:
        raise ValueError(f"there are no images in the folders of {image_dir}")
    _check_exists(found[0].polygons, "the annotations of the first image")
    return found


def visible_names(folder: str) -> list[str]:
    """What is in a folder, sorted, without what a file manager has left there."""
    return sorted(name for name in PathManager.ls(folder) if not name.startswith("."))


def _check_exists(path: str, description: str) -> None:
    if not PathManager.isfile(path):
        raise ValueError(f"{path}, {description}, is no file")


def load_cityscapes_instances(
    image_dir: str, gt_dir: str, from_json: bool = True, to_polygons: bool = True
) -> list[dict[str, Any]]:
    """Load the instances of a split, reading files in several processes.

    Args:
        image_dir: the split's images, such as ``cityscapes/leftImg8bit/train``.
        gt_dir: the split's ground truth, such as ``cityscapes/gtFine/train``.
        from_json: take the annotated polygons (needs the package shapely), less what is hidden
            behind objects in front; otherwise the masks of instances, which hold the same.
        to_polygons: of masks, take the outlines; otherwise run lengths.

    Returns:
        Records in the standard format. ``image_id`` is the file's name. Boxes are XYXY_ABS; groups
        that were not told apart are crowds. The 8 categories are those of
        ``thing_classes`` in the metadata.

    Raises:
        ValueError: files are missing, or hold something unknown. It names the file.
    """
    if from_json and not to_polygons:
        raise ValueError("from_json gives polygons: to_polygons must be True, got False")
    files = _list_files(image_dir, gt_dir)
    load = functools.partial(_load_instances, from_json=from_json, to_polygons=to_polygons)
    available = (os.cpu_count() or 1) // get_world_size()
    processes = min(available, len(files) // _FILES_A_PROCESS)
    if processes > 1:
        with multiprocessing.get_context("fork").Pool(processes) as pool:
            records = pool.map(load, files)
    else:
        records = [load(f) for f in files]
    logger.info(f"{len(records)} images with instances from {image_dir}")
    contiguous_ids = {label_id: i for i, label_id in enumerate(INSTANCE_CLASS_IDS)}
    for record in records:
        for annotation in record["annotations"]:
            annotation["category_id"] = contiguous_ids[annotation["category_id"]]
    return records


def _load_instances(files: _Files, from_json: bool, to_polygons: bool) -> dict[str, Any]:
    path = files.polygons if from_json else files.instance_ids
    try:
        if from_json:
            with PathManager.open(path, "rb") as file:
                content = json.load(file)
            height, width = content["imgHeight"], content["imgWidth"]
            annotations = instances_from_polygons(content["objects"])
        else:
            with PathManager.open(path, "rb") as file:
                mask = np.asarray(Image.open(file))
            height, width = mask.shape
            annotations = instances_from_mask(mask, to_polygons)
    except (KeyError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error
    return {
        "file_name": files.image,
        "image_id": os.path.basename(files.image),
        "height": height,
        "width": width,
        "annotations": annotations,
    }


def load_cityscapes_semantic(image_dir: str, gt_dir: str) -> list[dict[str, Any]]:
    """Load a split's semantic masks.

    Args:
        image_dir: see :func:`load_cityscapes_instances`.
        gt_dir: likewise; with masks of train ids, which cityscapesscripts makes.

    Returns:
        ``file_name``, ``sem_seg_file_name``, ``height`` and ``width`` of each image.

    Raises:
        ValueError: files are missing.
    """
    records = []
    files = _list_files(image_dir, gt_dir)
    _check_exists(
        files[0].train_ids,
        "to be made by cityscapesscripts/preparation/createTrainIdLabelImgs.py",
    )
    for each in files:
        with PathManager.open(each.polygons, "rb") as file:
            content = json.load(file)
        records.append(
            {
                "file_name": each.image,
                "sem_seg_file_name": each.train_ids,
                "height": content["imgHeight"],
                "width": content["imgWidth"],
            }
        )
    logger.info(f"{len(records)} images with semantic masks from {image_dir}")
    return records


def main() -> None:
    """Draw the annotations of a split into ``./cityscapes-data-vis``."""
    from detectron2.data.catalog import Metadata
    from detectron2.data.datasets._drawing import draw_records
    from detectron2.data.datasets.builtin_meta import _get_builtin_metadata

    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("image_dir")
    parser.add_argument("gt_dir")
    parser.add_argument("--type", choices=["instance", "semantic"], default="instance")
    arguments = parser.parse_args()
    setup_logger(name=__name__)
    is_semantic = arguments.type == "semantic"
    load = load_cityscapes_semantic if is_semantic else load_cityscapes_instances
    records = load(arguments.image_dir, arguments.gt_dir)
    metadata = Metadata().set(**_get_builtin_metadata("cityscapes"))
    draw_records(records, metadata, "cityscapes-data-vis")


if __name__ == "__main__":
    main()
