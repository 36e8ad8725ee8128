"""Panoptic quality (Kirillov et al., "Panoptic Segmentation", section 4), by the rules of COCO's
panoptic API."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from detectron2.evaluation._joint_areas import joint_areas

VOID = 0
"""The id of pixels that belong to no segment."""

_MAX_ID = (1 << 24) - 1


def ids_to_rgb(ids: np.ndarray) -> np.ndarray:
    """Turn ids ``(H, W)`` in [0, 2^24) into the colours of panoptic PNG files, ``(H, W, 3)``."""
    if ids.size and not 0 <= int(ids.min()) <= int(ids.max()) <= _MAX_ID:
        raise ValueError(f"ids of segments are from 0 to {_MAX_ID}, got {ids.min()} to {ids.max()}")
    return np.stack([(ids >> shift & 255).astype(np.uint8) for shift in (0, 8, 16)], axis=-1)


def rgb_to_ids(rgb: np.ndarray) -> np.ndarray:
    """The inverse of :func:`ids_to_rgb`, int32."""
    red, green, blue = (rgb[..., channel].astype(np.int32) for channel in range(3))
    return red | green << 8 | blue << 16


class CategoryCounts:
    """What one image adds to a category."""

    __slots__ = ("fn", "fp", "iou", "tp")

    def __init__(self) -> None:
        self.iou = 0.0
        """Sum of the IoUs of matched segments."""
        self.tp = self.fp = self.fn = 0

    def as_row(self) -> tuple[float, int, int, int]:
        """IoU, true positives, false positives, false negatives."""
        return self.iou, self.tp, self.fp, self.fn


def match_segments(
    actual_ids: np.ndarray,
    actual_segments: Sequence[Mapping[str, Any]],
    predicted_ids: np.ndarray,
    predicted_segments: Sequence[Mapping[str, Any]],
) -> dict[int, CategoryCounts]:
    """Match the segments of one image.

    Segments of one category match if their IoU is above 0.5, where void pixels of the ground truth
    do not count. A predicted segment without a match is not wrong if more than half of it is void
    or the crowd of its category (the last one listed, if there are several).

    Args:
        actual_ids: ground truth, ids ``(H, W)``.
        actual_segments: dicts with ``id``, ``category_id`` and perhaps ``area`` and ``iscrowd``.
        predicted_ids: prediction, ids ``(H, W)``.
        predicted_segments: dicts with ``id`` and ``category_id``.

    Returns:
        Counts by category.

    Raises:
        ValueError: the sizes differ, or the predicted segments are not those of the map.
    """
    if actual_ids.shape != predicted_ids.shape:
        raise ValueError(
            f"the prediction's size (height, width) is {predicted_ids.shape}, that of the ground "
            f"truth is {actual_ids.shape}"
        )
    overlaps = joint_areas(actual_ids, predicted_ids)
    actual_areas, areas = Counter(), Counter()
    for (actual_id, predicted_id), area in overlaps.items():
        actual_areas[actual_id] += area
        areas[predicted_id] += area
    actual = {segment["id"]: segment for segment in actual_segments}
    predicted = {segment["id"]: segment["category_id"] for segment in predicted_segments}
    _check_segments(predicted, areas)

    counts: dict[int, CategoryCounts] = {}

    def of(category: int) -> CategoryCounts:
        return counts.setdefault(category, CategoryCounts())

    matched_actual, matched_predicted = set(), set()
    for (actual_id, predicted_id), overlap in overlaps.items():
        segment = actual.get(actual_id)
        if segment is None or predicted_id not in predicted or segment.get("iscrowd"):
            continue
        category = segment["category_id"]
        if category != predicted[predicted_id]:
            continue
        void = overlaps.get((VOID, predicted_id), 0)
        actual_area = segment.get("area", actual_areas[actual_id])
        iou = overlap / (actual_area + areas[predicted_id] - overlap - void)
        if iou > 0.5:
            of(category).tp += 1
            of(category).iou += iou
            matched_actual.add(actual_id)
            matched_predicted.add(predicted_id)

    crowds = {}
    for actual_id, segment in actual.items():
        if actual_id in matched_actual:
            continue
        if segment.get("iscrowd"):
            crowds[segment["category_id"]] = actual_id
        else:
            of(segment["category_id"]).fn += 1

    for predicted_id, category in predicted.items():
        if predicted_id in matched_predicted:
            continue
        excused = overlaps.get((VOID, predicted_id), 0)
        if category in crowds:
            excused += overlaps.get((crowds[category], predicted_id), 0)
        if excused <= 0.5 * areas[predicted_id]:
            of(category).fp += 1
    return counts


def _check_segments(predicted: Mapping[int, int], areas: Mapping[int, int]) -> None:
    if undescribed := sorted(areas.keys() - predicted.keys() - {VOID}):
        raise ValueError(f"segments_info has no segment of id {undescribed[0]}, which is predicted")
    if absent := sorted(predicted.keys() - areas.keys()):
        raise ValueError(f"segments_info has a segment of id {absent[0]}, but no pixel has that id")


def quality(counts: np.ndarray) -> np.ndarray:
    """Panoptic, segmentation and recognition quality of categories.

    Args:
        counts: ``(C, 4)``: sum of IoUs, true positives, false positives, false negatives.

    Returns:
        ``(C, 3)`` in [0, 1]; NaN for a category that is neither in the ground truth nor predicted.
    """
    iou, tp, fp, fn = np.asarray(counts, dtype=np.float64).reshape(-1, 4).T
    total = tp + (fp + fn) / 2
    with np.errstate(invalid="ignore"):
        recognition = tp / total
        panoptic = iou / total
    segmentation = np.where(total > 0, iou / np.maximum(tp, 1), np.nan)
    return np.stack([panoptic, segmentation, recognition], axis=1)
