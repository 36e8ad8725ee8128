"""Data sets in COCO's format: detection, instance segmentation, keypoints and semantic masks."""

import logging
import os
import time
from collections.abc import Sequence
from typing import Any

from detectron2.data.catalog import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets._coco_annotations import AnnotationConverter
from detectron2.data.datasets._coco_export import convert_to_coco_dict, convert_to_coco_json
from detectron2.data.datasets._coco_file import paused_gc, read_coco_file
from detectron2.data.datasets._registration import register_annotation_file
from detectron2.data.datasets._sem_seg import load_sem_seg
from detectron2.structures.boxes import Boxes, BoxMode
from detectron2.structures.masks import PolygonMasks
from detectron2.structures.rotated_boxes import RotatedBoxes

__all__ = [
    "BoxMode",
    "Boxes",
    "DatasetCatalog",
    "MetadataCatalog",
    "PolygonMasks",
    "RotatedBoxes",
    "convert_to_coco_dict",
    "convert_to_coco_json",
    "load_coco_json",
    "load_sem_seg",
    "register_coco_instances",
]

_ANNOTATION_KEYS = ("iscrowd", "bbox", "keypoints", "category_id")

logger = logging.getLogger(__name__)


def load_coco_json(
    json_file: str,
    image_root: str,
    dataset_name: str | None = None,
    extra_annotation_keys: Sequence[str] | None = None,
) -> list[dict[str, Any]]:
    """Load a file of COCO's instance, keypoint or image annotations.

    Boxes are XYWH_ABS, or XYWHA_ABS where they have five numbers. Polygons without three points are
    left out, and annotations without another polygon with them. The coordinates of keypoints are
    increased by 0.5, from indices of pixels to their centres. What was left out and what is odd is
    logged, by kind, with counts and an example.

    Args:
        json_file: the annotations. Without a list of them every image has none.
        image_root: the folder that the images' ``file_name`` are relative to.
        dataset_name: the data set whose metadata get ``thing_classes`` and
            ``thing_dataset_id_to_contiguous_id``; the records' category ids are then mapped to
            0, 1, … in the order of the file's. None leaves them as they are.
        extra_annotation_keys: further fields of annotations to keep, such as ``"area"``.

    Returns:
        Records in the standard format, by image id.

    Raises:
        ValueError: a record cannot be right: ids that are not unique (of annotations they need not
            be if the path has ``"minival"`` in it), an undeclared category, boxes or keypoints of
            a wrong length, numbers that are not finite. The message names file and record.
    """
    start = time.perf_counter()
    json_file = os.fspath(json_file)
    with paused_gc():
        # The published "minival" annotations have ids that are there twice.
        file = read_coco_file(json_file, unique_annotation_ids="minival" not in json_file)
        contiguous_ids = None
        if dataset_name is not None:
            contiguous_ids = _set_metadata(dataset_name, file.categories, json_file)
        keys = (*_ANNOTATION_KEYS, *(extra_annotation_keys or ()))
        converter = AnnotationConverter(file, contiguous_ids, keys)
        records = []
        for image in file.images:
            records.append(
                {
                    "file_name": os.path.join(image_root, image["file_name"]),
                    "height": image["height"],
                    "width": image["width"],
                    "image_id": image["id"],
                    "annotations": converter.take_annotations(image),
                }
            )
    file.findings.log(logger, json_file)
    seconds = time.perf_counter() - start
    logger.info(f"{len(records)} images in COCO's format from {json_file}, {seconds:.2f} s")
    return records


def _set_metadata(
    dataset_name: str, categories: list[dict[str, Any]], json_file: str
) -> dict[int, int]:
    """Set the classes of a data set; returns their dataset ids → contiguous ids."""
    ids = [category["id"] for category in categories]
    names = [category.get("name") for category in categories]
    if not all(isinstance(name, str) for name in names):
        raise ValueError(f"{json_file}: categories must have names, got {names}")
    contiguous_ids = {dataset_id: i for i, dataset_id in enumerate(ids)}
    if ids != list(range(1, len(ids) + 1)) and "coco" not in dataset_name:
        logger.warning(
            f"the category ids of {json_file} are not 1 to {len(ids)}; they become 0 to "
            f"{len(ids) - 1} in the records, by thing_dataset_id_to_contiguous_id"
        )
    try:
        MetadataCatalog.get(dataset_name).set(
            thing_classes=names,
            thing_dataset_id_to_contiguous_id=contiguous_ids,
        )
    except AssertionError as error:
        error.add_note(f"The new value is from {json_file}.")
        raise
    return contiguous_ids


def register_coco_instances(
    name: str,
    metadata: dict[str, Any],
    json_file: str,
    image_root: str,
    *,
    overwrite: bool = False,
) -> None:
    """Register a data set in COCO's format, for detection, instance masks or keypoints.

    Registering the same files again is no error.

    Args:
        name: of the data set.
        metadata: further metadata; may be empty.
        json_file: the annotations.
        image_root: the folder of the images.
        overwrite: replace the data set and metadata that have the name.

    Raises:
        AssertionError: the name is taken.
    """
    register_annotation_file(
        name, load_coco_json, json_file, image_root, "coco", metadata, overwrite=overwrite
    )


def main() -> None:
    """Draw the annotations of a file into ``./coco-data-vis``."""
    from detectron2.data.datasets._drawing import draw_annotation_file

    draw_annotation_file(load_coco_json, "coco-data-vis", description=main.__doc__)


if __name__ == "__main__":
    main()
