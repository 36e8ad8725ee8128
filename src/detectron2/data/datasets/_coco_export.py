"""Data sets of any kind, written in COCO's format."""

import datetime
import json
import logging
import os
from typing import Any

import numpy as np
import pycocotools.mask as mask_util
from iopath.common.file_io import file_lock

from detectron2.data.catalog import DatasetCatalog, MetadataCatalog
from detectron2.structures.boxes import BoxMode
from detectron2.utils.file_io import PathManager

logger = logging.getLogger(__name__)

# Of records that lack something or hold something else; BoxMode.convert asserts.
_CONVERSION_ERRORS = (AssertionError, KeyError, NotImplementedError, TypeError, ValueError)


def convert_to_coco_dict(dataset_name: str) -> dict[str, Any]:
    """Bring a registered data set into COCO's format, for COCO's evaluation among others.

    Category ids are mapped back to the data set's where its metadata have
    ``thing_dataset_id_to_contiguous_id``. Boxes become XYWH and are rounded to 3 decimals; boxes
    with an angle stay as they are, with five numbers. Areas are those of the masks, or of the boxes
    where there are none. Keypoints are decreased by 0.5, the inverse of
    :func:`~detectron2.data.datasets.load_coco_json`.

    Args:
        dataset_name: whose metadata have ``thing_classes``.

    Returns:
        ``info``, ``images``, ``categories``, ``licenses``, and ``annotations`` if there are any,
        with ids from 1.

    Raises:
        ValueError: a record cannot be converted; the message names it.
    """
    records = DatasetCatalog.get(dataset_name)
    metadata = MetadataCatalog.get(dataset_name)
    contiguous_ids = metadata.get("thing_dataset_id_to_contiguous_id")
    names = metadata.thing_classes
    dataset_ids = list(range(len(names)))
    if contiguous_ids is not None:
        inverse = {contiguous: dataset_id for dataset_id, contiguous in contiguous_ids.items()}
        dataset_ids = [inverse.get(i, i) for i in dataset_ids]

    images, annotations = [], []
    for index, record in enumerate(records):
        image = {
            "id": record.get("image_id", index),
            "width": int(record["width"]),
            "height": int(record["height"]),
            "file_name": str(record["file_name"]),
        }
        images.append(image)
        for annotation in record.get("annotations", ()):
            try:
                converted = _convert_annotation(annotation, dataset_ids)
            except _CONVERSION_ERRORS as error:
                raise ValueError(
                    f"an annotation of {dataset_name!r} cannot be written in COCO's format: "
                    f"{error!r}; image {image['id']} ({image['file_name']}): "
                    f"{str(annotation)[:500]}"
                ) from error
            number = {"id": len(annotations) + 1, "image_id": image["id"]}
            annotations.append(number | converted)
    logger.info(
        f"{dataset_name!r} in COCO's format: {len(images)} images, {len(annotations)} annotations"
    )
    content = {
        "info": {
            "date_created": str(datetime.datetime.now()),
            "description": "Automatically generated COCO json file for Detectron2.",
        },
        "images": images,
        "categories": [
            {"id": dataset_id, "name": name}
            for dataset_id, name in zip(dataset_ids, names, strict=True)
        ],
        "licenses": None,
    }
    if annotations:
        content["annotations"] = annotations
    return content


def _convert_annotation(annotation: dict[str, Any], dataset_ids: list[int]) -> dict[str, Any]:
    category = int(annotation["category_id"])
    if not 0 <= category < len(dataset_ids):
        raise ValueError(f"category_id must be in [0, {len(dataset_ids)}), got {category}")
    box = _convert_box(annotation["bbox"], annotation["bbox_mode"])
    converted = {
        "bbox": [round(value, 3) for value in box],
        "area": box[2] * box[3],
        "iscrowd": int(annotation.get("iscrowd", 0)),
        "category_id": int(dataset_ids[category]),
    }
    if annotation.get("keypoints") is not None:
        # Back to indices of pixels.
        keypoints = [float(value) for value in annotation["keypoints"]]
        keypoints[0::3] = [x - 0.5 for x in keypoints[0::3]]
        keypoints[1::3] = [y - 0.5 for y in keypoints[1::3]]
        visible = keypoints[2::3]
        converted["keypoints"] = keypoints
        converted["num_keypoints"] = sum(v > 0 for v in visible)
    if annotation.get("segmentation") is not None:
        segmentation, area = _convert_segmentation(annotation["segmentation"])
        converted["segmentation"] = segmentation
        converted["area"] = area
    return converted


def _convert_box(box: Any, mode: int) -> list[float]:
    values = [float(value) for value in box]
    if len(values) == 5 and mode == BoxMode.XYWHA_ABS:
        return values
    if len(values) != 4:
        raise ValueError(f"bbox must have 4 numbers, or 5 with an angle, got {box} of mode {mode}")
    if mode == BoxMode.XYXY_ABS:
        x0, y0, x1, y1 = values
        return [x0, y0, x1 - x0, y1 - y0]
    return BoxMode.convert(values, BoxMode(mode), BoxMode.XYWH_ABS)


def _convert_segmentation(segmentation: Any) -> tuple[Any, float]:
    """A mask of polygons or run lengths as what JSON can hold, and its area."""
    if isinstance(segmentation, list):
        polygons = [np.asarray(polygon, dtype=np.float64).reshape(-1) for polygon in segmentation]
        return [polygon.tolist() for polygon in polygons], sum(map(_polygon_area, polygons))
    if isinstance(segmentation, dict):
        counts = segmentation["counts"]
        if isinstance(counts, list):
            segmentation = mask_util.frPyObjects(segmentation, *segmentation["size"])
            counts = segmentation["counts"]
        area = float(mask_util.area(segmentation))
        if isinstance(counts, bytes):
            counts = counts.decode("ascii")
        size = [int(side) for side in segmentation["size"]]
        return {"size": size, "counts": counts}, area
    raise TypeError(
        f"segmentation must be a list of polygons or a dict of run lengths, got {segmentation!r}"
    )


def _polygon_area(polygon: np.ndarray) -> float:
    """Half the sum of cross products of neighbours (the shoelace formula)."""
    x, y = polygon[0::2], polygon[1::2]
    return float(abs(x @ np.roll(y, 1) - y @ np.roll(x, 1)) / 2)


def convert_to_coco_json(dataset_name: str, output_file: str, allow_cached: bool = True) -> None:
    """Write a registered data set to a file in COCO's format.

    Processes that write the same file wait for each other, and the file is there as a whole or not
    at all.

    Args:
        dataset_name: as in :func:`convert_to_coco_dict`.
        output_file: a local path; its folder is made.
        allow_cached: keep a file that is there, whatever is in it.
    """
    output_file = os.path.abspath(os.fspath(output_file))
    PathManager.mkdirs(os.path.dirname(output_file))
    with file_lock(output_file):
        if os.path.exists(output_file) and allow_cached:
            logger.warning(
                f"{output_file} is there and is used for {dataset_name!r}; remove it if the data "
                "set has changed"
            )
            return
        content = convert_to_coco_dict(dataset_name)
        temporary = output_file + ".tmp"
        with open(temporary, "w") as file:
            json.dump(content, file)
        os.replace(temporary, output_file)
