"""Class-agnostic average recall of box proposals."""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from pycocotools.coco import COCO

from detectron2.structures import Boxes, BoxMode, Instances, pairwise_iou
from detectron2.utils.logger import create_small_table

_AREA_RANGES = {
    "all": (0**2, 1e5**2),
    "small": (0**2, 32**2),
    "medium": (32**2, 96**2),
    "large": (96**2, 1e5**2),
    "96-128": (96**2, 128**2),
    "128-256": (128**2, 256**2),
    "256-512": (256**2, 512**2),
    "512-inf": (512**2, 1e5**2),
}
_LIMITS = (100, 1000)
_AREAS_BY_SUFFIX = {"": "all", "s": "small", "m": "medium", "l": "large"}


@dataclass(frozen=True)
class _ImageOverlaps:
    ious: np.ndarray  # (P, G), proposals by decreasing objectness
    gt_areas: np.ndarray  # (G,)


def evaluate_box_proposals(
    dataset_predictions: Iterable[Mapping[str, Any]],
    coco_api: COCO,
    thresholds: torch.Tensor | None = None,
    area: str = "all",
    limit: int | None = None,
) -> dict[str, Any]:
    """Recall of proposals, without regard to classes.

    In each image, the proposal and the ground truth that overlap most are a pair, then those that
    overlap most among the others, and so on. Crowds are left out.

    Args:
        dataset_predictions: ``image_id`` and ``proposals`` (Instances with ``proposal_boxes`` and
            ``objectness_logits``) of each image.
        coco_api: the ground truth.
        thresholds: IoUs from which on a ground truth is found; 0.5, 0.55, ..., 0.95 by default.
        area: of ground truths: all, small (up to 32 x 32 pixels), medium (up to 96 x 96), large,
            96-128, 128-256, 256-512 or 512-inf.
        limit: proposals of highest objectness that count in an image; None for all.

    Returns:
        ``ar``, the mean of ``recalls`` at the ``thresholds``; ``gt_overlaps``, sorted IoUs of the
        pairs; ``num_pos``, the number of ground truths. Recall of nothing is NaN.
    """
    overlaps = [_overlaps(prediction, coco_api) for prediction in dataset_predictions]
    return _recall(overlaps, thresholds, area, limit)


def average_recalls(
    dataset_predictions: Iterable[Mapping[str, Any]], coco_api: COCO, logger: logging.Logger
) -> dict[str, float]:
    """Average recall in percent with 100 and 1000 proposals an image: AR@100, ARs@100, ...

    ``logger`` gets a table of them.
    """
    logger.info("Evaluating bbox proposals ...")
    overlaps = [_overlaps(prediction, coco_api) for prediction in dataset_predictions]
    results = {
        f"AR{suffix}@{limit}": float(_recall(overlaps, None, area, limit)["ar"].item() * 100)
        for limit in _LIMITS
        for suffix, area in _AREAS_BY_SUFFIX.items()
    }
    logger.info("Proposal metrics: \n%s", create_small_table(results))
    return results


def _overlaps(prediction: Mapping[str, Any], coco_api: COCO) -> _ImageOverlaps:
    annotations = [
        annotation
        for annotation in coco_api.imgToAnns.get(prediction["image_id"], [])
        if not annotation.get("iscrowd", 0)
    ]
    gt_boxes = torch.as_tensor([a["bbox"] for a in annotations], dtype=torch.float32)
    gt_boxes = BoxMode.convert(gt_boxes.reshape(-1, 4), BoxMode.XYWH_ABS, BoxMode.XYXY_ABS)
    proposals: Instances = prediction["proposals"]
    order = proposals.objectness_logits.argsort(descending=True, stable=True)
    boxes = proposals.proposal_boxes[order]
    return _ImageOverlaps(
        ious=pairwise_iou(boxes, Boxes(gt_boxes)).numpy(),
        gt_areas=np.array([a["area"] for a in annotations], np.float32),
    )


def _recall(
    overlaps: Iterable[_ImageOverlaps],
    thresholds: torch.Tensor | None,
    area: str,
    limit: int | None,
) -> dict[str, Any]:
    if area not in _AREA_RANGES:
        raise ValueError(f"area must be one of {', '.join(_AREA_RANGES)}, got {area!r}")
    smallest, largest = _AREA_RANGES[area]
    best: list[float] = []
    num_pos = 0
    for image in overlaps:
        in_range = (image.gt_areas >= smallest) & (image.gt_areas <= largest)
        num_pos += int(in_range.sum())
        best += _pair(image.ious[:limit, in_range])
    if thresholds is None:
        thresholds = torch.arange(0.5, 0.95 + 1e-5, 0.05, dtype=torch.float32)
    # Ground truths without a proposal have no overlap.
    best += [0.0] * (num_pos - len(best))
    gt_overlaps = torch.tensor(best, dtype=torch.float32).sort().values
    found = (gt_overlaps[None] >= thresholds[:, None]).float().sum(dim=1)
    recalls = found / float(num_pos)
    return {
        "ar": recalls.mean(),
        "recalls": recalls,
        "thresholds": thresholds,
        "gt_overlaps": gt_overlaps,
        "num_pos": num_pos,
    }


def _pair(ious: np.ndarray) -> list[float]:
    """IoUs of the pairs that overlap, from ``(P, G)``."""
    ious = ious[ious.any(axis=1)]  # a copy, without proposals that pair with nothing
    pairs = []
    for _ in range(min(ious.shape)):
        proposal, gt = divmod(int(ious.argmax()), ious.shape[1])
        iou = float(ious[proposal, gt])
        if iou <= 0:
            break
        pairs.append(iou)
        ious[proposal], ious[:, gt] = -1, -1
    return pairs
