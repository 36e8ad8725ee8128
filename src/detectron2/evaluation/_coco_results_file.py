"""COCO's results as JSON, and all predictions for ``torch.load``, written from flat arrays."""

import itertools
import json
import pickle
import sys
import zipfile
from collections.abc import Iterable, Iterator
from typing import IO, Any

import numpy as np
import torch

from detectron2.evaluation import _coco_ops  # noqa: F401  (registers the ops)
from detectron2.evaluation._coco_collected import Collected
from detectron2.evaluation._coco_detections import Detections
from detectron2.evaluation._coco_predictions import PackedPredictions

# Detections that are text at the same time.
_CHUNK = 1 << 16
_SEPARATOR = b", "


def write_results(detections: Detections, file: IO[bytes]) -> None:
    """Write a JSON list with an object for each detection, whose numbers read back the same.

    Args:
        detections: finite numbers.
        file: open for writing bytes.
    """
    ids = [json.dumps(image_id).encode("ascii") for image_id in detections.image_ids]
    offsets = np.array([0, *itertools.accumulate(map(len, ids))], np.int64)
    image_ids = [
        torch.tensor(bytearray(b"".join(ids)), dtype=torch.uint8),
        torch.from_numpy(offsets),
    ]
    file.write(b"[")
    for begin in range(0, len(detections), _CHUNK):
        part = slice(begin, min(begin + _CHUNK, len(detections)))
        text = torch.ops.detectron2.coco_results_json(*image_ids, *_columns(detections, part))
        is_last = part.stop == len(detections)
        file.write(text.numpy()[: -len(_SEPARATOR) if is_last else None].data)
    file.write(b"]")


def write_predictions(predictions: Collected, file: IO[bytes]) -> None:
    """Write what ``torch.save(list(predictions), file)`` would.

    ``torch.save`` calls Python for every object, to see whether it is a tensor's memory, and
    instances in the format of COCO's results are millions of them: without tensors, the file is
    put together here.
    """
    if not isinstance(predictions, PackedPredictions) or predictions.has_proposals:
        torch.save(list(predictions), file)
        return
    with zipfile.ZipFile(file, "w") as archive:
        with archive.open("archive/data.pkl", "w", force_zip64=True) as data:
            data.writelines(_pickled_list(predictions))
        archive.writestr("archive/byteorder", sys.byteorder)
        archive.writestr("archive/version", "3\n")


def _pickled_list(items: Iterable[Any]) -> Iterator[bytes]:
    """The pickle of ``list(items)``, of which one item is there at a time."""
    protocol = 2  # which torch.load with weights_only reads
    header = pickle.PROTO + bytes([protocol])
    yield header + pickle.EMPTY_LIST
    for item in items:
        # Between the header and the end are the instructions that make the item.
        yield pickle.dumps(item, protocol)[len(header) : -len(pickle.STOP)] + pickle.APPEND
    yield pickle.STOP


def _columns(detections: Detections, part: slice) -> Iterable[torch.Tensor]:
    """The arguments of the op after the image ids; what there is not has no elements."""
    count = part.stop - part.start
    masks = detections.masks
    none = np.zeros((count, 0))
    arrays = [
        detections.images[part],
        detections.category_ids[part],
        (none if detections.boxes is None else detections.boxes[part]).astype(np.float64),
        detections.scores[part].astype(np.float64),
        np.zeros(0, np.uint8) if masks is None else masks.codes,
        np.zeros(0, np.int64) if masks is None else masks.begin[part],
        np.zeros(0, np.int64) if masks is None else masks.end[part],
        np.zeros((0, 2), np.int64) if masks is None else masks.sizes[part],
        (none if detections.keypoints is None else detections.keypoints[part]).astype(np.float64),
    ]
    return map(torch.from_numpy, arrays)
