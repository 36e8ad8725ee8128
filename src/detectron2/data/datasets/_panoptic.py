"""Segments of panoptic annotations."""

from typing import Any

from detectron2.data.datasets._coco_file import read_json


def read_panoptic_annotations(path: str) -> list[dict[str, Any]]:
    """The annotations of a file of COCO's panoptic format.

    Raises:
        ValueError: it is of another format.
    """
    content = read_json(path)
    annotations = content.get("annotations") if isinstance(content, dict) else None
    if not isinstance(annotations, list):
        raise ValueError(f"{path} is not a panoptic annotation file: it has no 'annotations'")
    for i, annotation in enumerate(annotations):
        lacking = {"image_id", "file_name", "segments_info"} - annotation.keys()
        if lacking:
            raise ValueError(f"{path}: annotations[{i}] has no {sorted(lacking)}: {annotation}")
    return annotations


def convert_segments(
    segments: list[dict[str, Any]], metadata: dict[str, Any], source: str
) -> list[dict[str, Any]]:
    """Segments with contiguous category ids and ``isthing``, as new dicts.

    Args:
        segments: with the data set's category ids.
        metadata: has ``thing_dataset_id_to_contiguous_id`` and
            ``stuff_dataset_id_to_contiguous_id``.
        source: what an error is to name.
    """
    things = metadata["thing_dataset_id_to_contiguous_id"]
    stuff = metadata["stuff_dataset_id_to_contiguous_id"]
    converted = []
    for segment in segments:
        category = segment["category_id"]
        isthing = category in things
        if not isthing and category not in stuff:
            raise ValueError(f"{source}: a segment has the unknown category {category}: {segment}")
        contiguous_id = (things if isthing else stuff)[category]
        converted.append(segment | {"category_id": contiguous_id, "isthing": isthing})
    return converted
