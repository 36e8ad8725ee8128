"""Average precision by the rules of the PASCAL VOC development kits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass
class VocObjects:
    """The ground truths of one class, image by image."""

    image_index: np.ndarray
    """``(G,)`` int64, the number of each one's image, non-decreasing."""
    boxes: np.ndarray
    """``(G, 4)`` float64, ``(xmin, ymin, xmax, ymax)``; pixels counted from 1, the last one
    included."""
    difficult: np.ndarray
    """``(G,)`` bool: neither found nor missed, whatever is detected there."""

    @property
    def count(self) -> int:
        """How many there are to be found."""
        return np.count_nonzero(~self.difficult)


@dataclass
class VocMatches:
    """What the detections of one class are closest to; the same for every IoU threshold."""

    iou: np.ndarray
    """``(D,)`` float64, with the closest ground truth of the image, 0 without one; by falling
    score."""
    ground_truth: np.ndarray
    """``(D,)`` int64, which that is; -1 without one."""


def average_precision(
    recall: np.ndarray, precision: np.ndarray, use_07_metric: bool = False
) -> float:
    """The area under the precision envelope, or the mean of 11 points of it.

    Args:
        recall: ``(D,)``, non-decreasing.
        precision: ``(D,)``.
        use_07_metric: VOC 2007's: the mean of the highest precision at a recall of 0, 0.1, … 1 or
            more. Otherwise that of VOC 2010 and later, the exact area.
    """
    # envelope[i]: the highest precision from the i-th detection on, and 0 beyond the last one.
    envelope = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)
    if use_07_metric:
        first = np.searchsorted(recall, np.arange(0.0, 1.1, 0.1), side="left")
        return float(envelope[first].sum() / 11)
    steps = np.diff(recall, prepend=0.0)
    return float((steps * envelope[:-1]).sum())


def match(
    image_index: np.ndarray, scores: np.ndarray, boxes: np.ndarray, objects: VocObjects
) -> VocMatches:
    """Find the closest ground truth of each detection, of the detection's image.

    Args:
        image_index: ``(D,)`` int64, the number of each detection's image.
        scores: ``(D,)``; of equal ones the first detection comes first.
        boxes: ``(D, 4)``, in the coordinates of the ground truths.
        objects: the ground truths.
    """
    images = max(image_index.max(initial=-1), objects.image_index.max(initial=-1)) + 1
    counts = np.bincount(objects.image_index, minlength=images)
    offsets = np.cumsum(counts) - counts

    order = np.argsort(-scores, kind="stable")
    image_index, boxes = image_index[order], boxes[order].astype(np.float64)
    best_iou = np.zeros(len(order))
    best = np.full(len(order), -1, dtype=np.int64)
    # All detections with the first ground truth of their image, then with the second, ...
    remaining = np.flatnonzero(counts[image_index] > 0)
    for k in range(counts.max(initial=0)):
        remaining = remaining[counts[image_index[remaining]] > k]
        candidate = offsets[image_index[remaining]] + k
        iou = _iou(boxes[remaining], objects.boxes[candidate])
        better = iou > best_iou[remaining]
        better_detections = remaining[better]
        best_iou[better_detections] = iou[better]
        best[better_detections] = candidate[better]
    return VocMatches(best_iou, best)


def _iou(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """IoU of each box with its counterpart, ``(N,)``; the last pixel belongs to a box."""
    low = np.maximum(boxes[:, :2], others[:, :2])
    high = np.minimum(boxes[:, 2:], others[:, 2:])
    intersection = np.maximum(high - low + 1, 0).prod(axis=1)
    areas = [(b[:, 2:] - b[:, :2] + 1).prod(axis=1) for b in (boxes, others)]
    return intersection / (areas[0] + areas[1] - intersection)


def precision_recall(
    matches: VocMatches, objects: VocObjects, threshold: float
) -> tuple[np.ndarray, np.ndarray]:
    """Precision and recall after each detection, by falling score.

    A detection is right if its IoU with the closest ground truth is above the threshold and no
    detection of a higher score was right with the same one. Otherwise it is wrong, except above
    the threshold with a difficult ground truth: then it does not count.

    Returns:
        ``(D,)`` each. The recall is NaN if no ground truth counts.
    """
    hits = np.flatnonzero(matches.iou > threshold)
    found = matches.ground_truth[hits]
    counted = ~objects.difficult[found]
    first = np.zeros(len(hits), dtype=bool)
    first[np.unique(found, return_index=True)[1]] = True

    is_right = np.zeros(len(matches.iou), dtype=bool)
    is_right[hits[counted & first]] = True
    is_wrong = np.ones(len(matches.iou), dtype=bool)
    is_wrong[hits[~counted | first]] = False

    right, wrong = np.cumsum(is_right, dtype=np.float64), np.cumsum(is_wrong, dtype=np.float64)
    recall = right / objects.count if objects.count else np.full(len(right), np.nan)
    return right / np.maximum(right + wrong, np.finfo(np.float64).eps), recall
