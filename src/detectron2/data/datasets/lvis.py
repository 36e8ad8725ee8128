"""LVIS: instances of many categories, each annotated exhaustively in some images only."""

import logging
import os
import time
from collections.abc import Sequence
from typing import Any

from detectron2.data.catalog import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets._coco_annotations import AnnotationConverter
from detectron2.data.datasets._coco_file import CocoFile, paused_gc, read_coco_file
from detectron2.data.datasets._registration import register_annotation_file
from detectron2.data.datasets.builtin_meta import _get_coco_instances_meta
from detectron2.data.datasets.lvis_v0_5_categories import LVIS_CATEGORIES as LVIS_V0_5_CATEGORIES
from detectron2.data.datasets.lvis_v1_categories import LVIS_CATEGORIES as LVIS_V1_CATEGORIES
from detectron2.data.datasets.lvis_v1_category_image_count import (
    LVIS_CATEGORY_IMAGE_COUNT as LVIS_V1_CATEGORY_IMAGE_COUNT,
)
from detectron2.structures.boxes import BoxMode

__all__ = [
    "LVIS_V0_5_CATEGORIES",
    "LVIS_V1_CATEGORIES",
    "LVIS_V1_CATEGORY_IMAGE_COUNT",
    "BoxMode",
    "DatasetCatalog",
    "MetadataCatalog",
    "get_lvis_instances_meta",
    "load_lvis_json",
    "register_lvis_instances",
]

_ANNOTATION_KEYS = ("bbox", "category_id")

logger = logging.getLogger(__name__)


def register_lvis_instances(
    name: str,
    metadata: dict[str, Any],
    json_file: str,
    image_root: str,
    *,
    overwrite: bool = False,
) -> None:
    """Register a data set in LVIS's format.

    Args:
        name: of the data set.
        metadata: further metadata; may be empty.
        json_file: the annotations.
        image_root: see :func:`load_lvis_json`.
        overwrite: replace the data set and metadata that have the name.

    Raises:
        AssertionError: the name is taken.
    """
    register_annotation_file(
        name, load_lvis_json, json_file, image_root, "lvis", metadata, overwrite=overwrite
    )


def load_lvis_json(
    json_file: str,
    image_root: str,
    dataset_name: str | None = None,
    extra_annotation_keys: Sequence[str] | None = None,
) -> list[dict[str, Any]]:
    """Load a file of LVIS's annotations.

    Args:
        json_file: the annotations.
        image_root: what the last two parts of an image's ``coco_url``, such as
            ``train2017/000000391895.jpg``, are appended to; a folder must end with a slash.
        dataset_name: the data set whose metadata are used, and set where they are not there: those
            of :func:`get_lvis_instances_meta` if that knows the name, the file's categories
            otherwise. None takes category ids to be those of LVIS.
        extra_annotation_keys: further fields of annotations to keep.

    Returns:
        Records in the standard format, by image id, with ``neg_category_ids`` and
        ``not_exhaustive_category_ids`` (ids of the file). Boxes are XYWH_ABS. Categories count
        from 0: the file's ids less 1, or as the metadata's ``thing_dataset_id_to_contiguous_id``
        maps them.

    Raises:
        ValueError: as for :func:`~detectron2.data.datasets.load_coco_json`; or the file's
            categories are not the metadata's.
    """
    start = time.perf_counter()
    json_file, image_root = os.fspath(json_file), os.fspath(image_root)
    with paused_gc():
        file = read_coco_file(json_file, name_key="coco_url")
        if dataset_name is None:
            contiguous_ids = {number: number - 1 for number in _used_categories(file)}
        else:
            contiguous_ids = _set_metadata(dataset_name, file)
        keys = (*_ANNOTATION_KEYS, *(extra_annotation_keys or ()))
        converter = AnnotationConverter(file, contiguous_ids, keys)
        records = []
        for image in file.images:
            *_, folder, name = ["", *image["coco_url"].split("/")]
            records.append(
                {
                    "file_name": os.path.join(image_root + folder, name),
                    "height": image["height"],
                    "width": image["width"],
                    "not_exhaustive_category_ids": image.get("not_exhaustive_category_ids", []),
                    "neg_category_ids": image.get("neg_category_ids", []),
                    "image_id": image["id"],
                    "annotations": converter.take_annotations(image),
                }
            )
    file.findings.log(logger, json_file)
    seconds = time.perf_counter() - start
    logger.info(f"{len(records)} images in LVIS's format from {json_file}, {seconds:.2f} s")
    return records


def _used_categories(file: CocoFile) -> set[int]:
    used = set()
    for annotations in file.annotations.values():
        for annotation in annotations:
            category = annotation["category_id"]
            if type(category) is not int:
                where = f"annotation {annotation['id']} of image {annotation['image_id']}"
                raise file.error(where, f"category_id must be an integer, got {category!r}")
            used.add(category)
    return used


def _set_metadata(dataset_name: str, file: CocoFile) -> dict[int, int]:
    """Complete the metadata; returns the file's category ids → contiguous ids."""
    metadata = MetadataCatalog.get(dataset_name)
    if metadata.get("thing_classes") is None:
        # Names such as "own_v1" are not always those of LVIS.
        known = get_lvis_instances_meta(dataset_name) if _builtin_version(dataset_name) else None
        is_known = known is not None and _mismatch(file.categories, known) is None
        metadata.set(**(known if is_known else _file_metadata(file.categories)))
    mismatch = _mismatch(file.categories, metadata.as_dict())
    if mismatch is not None:
        raise file.error(mismatch, f"the metadata of {dataset_name!r} have other categories")
    contiguous_ids = metadata.get("thing_dataset_id_to_contiguous_id")
    if contiguous_ids is None:
        contiguous_ids = {i + 1: i for i in range(len(metadata.thing_classes))}
    return contiguous_ids


def _mismatch(categories: list[dict[str, Any]], metadata: dict[str, Any]) -> str | None:
    """The first of a file's categories that the metadata do not have."""
    classes = metadata["thing_classes"]
    contiguous_ids = metadata.get("thing_dataset_id_to_contiguous_id")
    for category in categories:
        number = category["id"]
        if contiguous_ids is not None:
            known = number in contiguous_ids
        else:
            names = (_class_name(category), category.get("name"))
            known = 1 <= number <= len(classes) and classes[number - 1] in names
        if not known:
            return f"category {number}, {_class_name(category)!r}"
    return None


def _class_name(category: dict[str, Any]) -> str:
    synonyms = category.get("synonyms")
    return synonyms[0] if synonyms else category.get("name", f"category {category['id']}")


def _file_metadata(categories: list[dict[str, Any]]) -> dict[str, Any]:
    metadata: dict[str, Any] = {"thing_classes": [_class_name(c) for c in categories]}
    ids = [category["id"] for category in categories]
    if ids != list(range(1, len(ids) + 1)):
        metadata["thing_dataset_id_to_contiguous_id"] = {n: i for i, n in enumerate(ids)}
    if all("image_count" in category for category in categories):
        metadata["class_image_count"] = [
            {"id": c["id"], "image_count": c["image_count"]} for c in categories
        ]
    return metadata


def _builtin_version(dataset_name: str) -> str | None:
    return next((v for v in ("cocofied", "v0.5", "v1") if v in dataset_name), None)


def get_lvis_instances_meta(dataset_name: str) -> dict[str, Any]:
    """The metadata of a version of LVIS, which no file is needed for.

    Args:
        dataset_name: a name with ``"v1"``, ``"v0.5"`` or ``"cocofied"`` (the categories of COCO)
            in it.

    Returns:
        ``thing_classes``; for v1 ``class_image_count``, too, which says how many training images
        have each category; for COCO's categories their map of ids and colours.

    Raises:
        ValueError: the name has none of these.
    """
    version = _builtin_version(dataset_name)
    if version == "cocofied":
        return _get_coco_instances_meta()
    if version == "v0.5":
        return {"thing_classes": [_class_name(c) for c in LVIS_V0_5_CATEGORIES]}
    if version == "v1":
        return {
            "thing_classes": [_class_name(c) for c in LVIS_V1_CATEGORIES],
            "class_image_count": LVIS_V1_CATEGORY_IMAGE_COUNT,
        }
    raise ValueError(
        f"there are no built-in metadata of LVIS for {dataset_name!r}: its name has none of "
        "'cocofied', 'v0.5' and 'v1'"
    )


def main() -> None:
    """Draw the annotations of a file into ``./lvis-data-vis``."""
    from detectron2.data.datasets._drawing import draw_annotation_file

    draw_annotation_file(load_lvis_json, "lvis-data-vis", description=main.__doc__)


if __name__ == "__main__":
    main()
