"""What evaluators of detections collect: flat arrays, or dicts where a subclass makes its own."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from detectron2.evaluation._coco_detections import Detections
from detectron2.evaluation._coco_gather import gather_predictions
from detectron2.evaluation._coco_predictions import PackedPredictions
from detectron2.structures import Instances
from detectron2.utils import comm

# Dicts have ``image_id``, and ``instances`` (records in the format of COCO's results, of which
# ``category_id`` is the model's class), ``proposals`` or both. Others' keys are kept.
Collected = PackedPredictions | Sequence[Mapping[str, Any]]


def nothing_collected(evaluator: Any, cls: type) -> Collected:
    """What ``evaluator`` begins with: what a ``process`` of a subclass of ``cls`` appends may be
    more than fits into arrays."""
    return PackedPredictions() if type(evaluator).process is cls.process else []


def collect(
    collected: Collected,
    inputs: Sequence[Mapping[str, Any]],
    outputs: Sequence[Mapping[str, Any]],
    device: torch.device,
    to_records: Callable[[Instances, Any], list[dict[str, Any]]],
) -> None:
    """Add a batch to what was collected.

    Args:
        collected: of :func:`nothing_collected`.
        inputs: as for :meth:`COCOEvaluator.process`.
        outputs: likewise.
        device: the CPU.
        to_records: where dicts are collected, makes those of COCO's results of an image's instances
            and its id.
    """
    if isinstance(collected, PackedPredictions):
        collected.add_batch(inputs, outputs, device)
        return
    for input, output in zip(inputs, outputs, strict=True):
        kinds = [kind for kind in ("instances", "proposals") if kind in output]
        found = {kind: output[kind].to(device) for kind in kinds}
        image_id = input["image_id"]
        if "instances" in found:
            found["instances"] = to_records(found["instances"], image_id)
        if found:
            collected.append({"image_id": image_id, **found})


def gather_collected(predictions: Collected) -> Collected | None:
    """The predictions of all processes in rank 0; None in the others."""
    if isinstance(predictions, PackedPredictions):
        return gather_predictions(predictions)
    gathered = list(itertools.chain(*comm.gather(predictions, dst=0)))
    return gathered if comm.is_main_process() else None


def has_kind(predictions: Collected, kind: str) -> bool:
    """Whether any output had "instances", or "proposals", be it none of them."""
    if isinstance(predictions, PackedPredictions):
        return predictions.has_instances if kind == "instances" else predictions.has_proposals
    return any(kind in prediction for prediction in predictions)


def records_of(predictions: Collected) -> list[dict[str, Any]]:
    """All instances, in the format of COCO's results."""
    return list(itertools.chain(*(p.get("instances", ()) for p in predictions)))


def detections_of(predictions: Collected, images: Mapping[Any, Any]) -> Detections:
    """All instances; their category ids are the model's classes.

    Args:
        predictions: those of all processes.
        images: the COCO API's image records by id.
    """
    if isinstance(predictions, PackedPredictions):
        return predictions.detections()
    detections = Detections.from_records(records_of(predictions), images)
    # Images in which nothing was found were seen, too.
    image_ids = list(dict.fromkeys(p["image_id"] for p in predictions))
    return replace(
        detections, image_ids=image_ids, images=detections.positions("image_id", image_ids)
    )
