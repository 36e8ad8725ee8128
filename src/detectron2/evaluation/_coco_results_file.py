"""COCO's results as JSON, written from flat arrays."""

import json
from typing import IO

import numpy as np

from detectron2.evaluation._coco_detections import Detections

# Detections that are strings at the same time.
_CHUNK = 1 << 14


def write_results(detections: Detections, file: IO[str]) -> None:
    """Write a JSON list with an object for each detection, whose numbers read back the same.

    Args:
        detections: finite numbers.
        file: open for writing.
    """
    ids = [json.dumps(image_id) for image_id in detections.image_ids]
    file.write("[")
    for begin in range(0, len(detections), _CHUNK):
        end = min(begin + _CHUNK, len(detections))
        file.write(", " if begin else "")
        file.write(", ".join(_objects(detections, ids, begin, end)))
    file.write("]")


def _objects(detections: Detections, image_ids: list[str], begin: int, end: int) -> list[str]:
    part = slice(begin, end)
    # A template and a tuple of values are several times as fast as json's encoder on a dict.
    template = '"category_id": %d'
    values = [detections.category_ids[part].tolist()]
    if detections.boxes is not None:
        template += ', "bbox": ' + _list_template(detections.boxes.shape[1])
        values += _columns(detections.boxes[part])
    template += ', "score": %r'
    values.append(detections.scores[part].tolist())
    if detections.masks is not None:
        template += ', "segmentation": {"size": [%d, %d], "counts": "%s"}'
        values += _columns(detections.masks.sizes[part])
        # Of the characters, JSON only escapes the backslash.
        values.append([detections.masks.counts(n).replace("\\", "\\\\") for n in range(begin, end)])
    if detections.keypoints is not None:
        template += ', "keypoints": ' + _list_template(detections.keypoints.shape[1])
        values += _columns(detections.keypoints[part])
    heads = [
        '{"image_id": ' + image_ids[image] + ", " for image in detections.images[part].tolist()
    ]
    template += "}"
    return [h + template % row for h, row in zip(heads, zip(*values, strict=True), strict=True)]


def _list_template(length: int) -> str:
    return "[" + ", ".join(["%r"] * length) + "]"


def _columns(rows: np.ndarray) -> list[list[float]]:
    return rows.T.tolist()
