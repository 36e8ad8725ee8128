"""Files that the evaluators of detections write."""

import json
import logging
import os
import pickle
from collections.abc import Mapping, Sequence
from typing import Any

from detectron2.evaluation._coco_collected import Collected, records_of
from detectron2.evaluation._coco_detections import Detections
from detectron2.evaluation._coco_predictions import PackedPredictions
from detectron2.evaluation._coco_results_file import write_predictions, write_results
from detectron2.structures.boxes import BoxMode
from detectron2.utils.file_io import PathManager


def save_predictions(predictions: Collected, output_dir: str) -> None:
    """Write ``instances_predictions.pth``: all predictions, for ``torch.load``."""
    PathManager.mkdirs(output_dir)
    with PathManager.open(os.path.join(output_dir, "instances_predictions.pth"), "wb") as file:
        write_predictions(predictions, file)


def save_results(
    predictions: Collected, detections: Detections, path: str, logger: logging.Logger
) -> None:
    """Write detections in the format of COCO's results.

    Args:
        predictions: what they come from. Keys of their own of a subclass's dicts are written, too.
        detections: with the category ids of the data set.
        path: of the file.
        logger: tells the path.
    """
    logger.info("Saving results to %s", path)
    if isinstance(predictions, PackedPredictions):
        with PathManager.open(path, "wb") as file:
            write_results(detections, file)
        return
    ids = detections.category_ids.tolist()
    with PathManager.open(path, "w") as file:
        records = zip(records_of(predictions), ids, strict=True)
        json.dump([record | {"category_id": category} for record, category in records], file)


def save_proposals(predictions: Sequence[Mapping[str, Any]], output_dir: str) -> None:
    """Write ``box_proposals.pkl``, which training can read: boxes (XYXY) and logits by image."""
    data = {
        "boxes": [p["proposals"].proposal_boxes.tensor.numpy() for p in predictions],
        "objectness_logits": [p["proposals"].objectness_logits.numpy() for p in predictions],
        "ids": [p["image_id"] for p in predictions],
        "bbox_mode": BoxMode.XYXY_ABS.value,
    }
    with PathManager.open(os.path.join(output_dir, "box_proposals.pkl"), "wb") as file:
        pickle.dump(data, file)
