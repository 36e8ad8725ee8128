"""Files that the evaluators of detections write."""

import logging
import os
import pickle
from collections.abc import Mapping, Sequence
from typing import Any

from detectron2.evaluation._coco_detections import Detections
from detectron2.evaluation._coco_predictions import PackedPredictions
from detectron2.evaluation._coco_results_file import write_predictions, write_results
from detectron2.structures.boxes import BoxMode
from detectron2.utils.file_io import PathManager


def save_predictions(
    predictions: PackedPredictions | list[dict[str, Any]], output_dir: str
) -> None:
    """Write ``instances_predictions.pth``: all predictions, for ``torch.load``."""
    PathManager.mkdirs(output_dir)
    with PathManager.open(os.path.join(output_dir, "instances_predictions.pth"), "wb") as file:
        write_predictions(predictions, file)


def save_results(detections: Detections, path: str, logger: logging.Logger) -> None:
    """Write detections in the format of COCO's results."""
    logger.info("Saving results to %s", path)
    with PathManager.open(path, "wb") as file:
        write_results(detections, file)


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
