"""Scores of the Cityscapes benchmark (Cordts et al., "The Cityscapes Dataset", section 4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from detectron2.evaluation import _cityscapes_labels as labels
from detectron2.evaluation._joint_areas import joint_areas

AP_THRESHOLDS = np.arange(0.5, 1.0, 0.05)

_MIN_INSTANCE_SIZE = 100  # pixels

_IS_SCORED = np.isin(np.arange(labels.NUM_LABELS), list(labels.NAMES))


@dataclass
class InstanceMatches:
    """The predicted instances of one label in one image."""

    scores: np.ndarray
    """``(P,)``."""
    iou: np.ndarray
    """``(P,)``, the IoU with the ground truth that they overlap most."""
    ground_truth: np.ndarray
    """``(P,)`` int64, which one that is of the image and label; -1 if it does not count itself,
    being a group or small."""
    ignored_share: np.ndarray
    """``(P,)``, the share of pixels where nothing can be wrong."""
    count: int
    """How many ground truths there are to be found."""


def match_instances(
    instance_ids: np.ndarray, masks: np.ndarray, scores: np.ndarray, predicted: np.ndarray
) -> dict[int, InstanceMatches]:
    """Match the predicted instances of an image with the ground truth.

    Args:
        instance_ids: ``(H, W)``, the ground truth.
        masks: ``(P, H, W)`` bool; empty ones are left out.
        scores: ``(P,)``.
        predicted: ``(P,)``, label ids.

    Returns:
        Matches by label id, for all labels that have instances.
    """
    pixels = np.bincount(instance_ids.ravel())
    segment_ids = np.flatnonzero(pixels)
    areas = pixels[segment_ids]
    segments = np.cumsum(pixels > 0)[instance_ids] - 1
    overlaps = np.zeros((len(masks), len(segment_ids)), dtype=np.int64)
    for row, mask in zip(overlaps, masks, strict=True):
        row += _count_covered(segments, mask, len(segment_ids))
    sizes = overlaps.sum(axis=1)
    is_void = (segment_ids < labels.NUM_LABELS) & ~np.isin(segment_ids, list(labels.NAMES))

    matches = {}
    for label in labels.INSTANCE_IDS:
        is_group = segment_ids == label
        is_label = is_group | (segment_ids // labels.INSTANCE_DIVISOR == label)
        is_small = is_label & (areas < _MIN_INSTANCE_SIZE)
        is_counted = is_label & ~is_group & ~is_small
        number = np.where(is_counted, np.cumsum(is_counted) - 1, -1)
        # As the benchmark has it, what is a group and small is counted twice.
        ignored_weight = is_void.astype(np.int64) + is_group + is_small

        chosen = (predicted == label) & (sizes > 0)
        overlap, size = overlaps[chosen], sizes[chosen]
        iou = np.where(is_label, overlap / (areas + size[:, None] - overlap), 0.0)
        best = iou.argmax(axis=1)
        matches[label] = InstanceMatches(
            scores=np.asarray(scores, dtype=np.float64)[chosen],
            iou=iou[np.arange(len(best)), best],
            ground_truth=number[best],
            ignored_share=overlap @ ignored_weight / size,
            count=int(is_counted.sum()),
        )
    return matches


def _count_covered(segments: np.ndarray, mask: np.ndarray, count: int) -> np.ndarray:
    """How many pixels of each segment a mask covers, ``(count,)``."""
    rows = np.flatnonzero(mask.any(axis=1))
    if rows.size == 0:
        return np.zeros(count, dtype=np.int64)
    box = slice(rows[0], rows[-1] + 1)
    columns = np.flatnonzero(mask[box].any(axis=0))
    box = box, slice(columns[0], columns[-1] + 1)
    return np.bincount(segments[box][mask[box]], minlength=count)


def instance_average_precision(matches: Sequence[InstanceMatches], threshold: float) -> float:
    """The average precision of a label over all images.

    A ground truth is found by the prediction of the highest score among those whose IoU with it
    is above the threshold; the others of these are wrong. Any other prediction is wrong unless its
    IoU with a group or small instance, or its ignored share, is above the threshold.

    Args:
        matches: of each image.
        threshold: at least 0.5, so that a prediction overlaps one ground truth by so much at most.

    Returns:
        Between 0 and 1; NaN if there is no ground truth.
    """
    total = sum(match.count for match in matches)
    if total == 0:
        return float("nan")
    offsets = np.cumsum([0, *(match.count for match in matches)])
    scores = np.concatenate([match.scores for match in matches])
    iou = np.concatenate([match.iou for match in matches])
    ignored_share = np.concatenate([match.ignored_share for match in matches])
    ground_truth = np.concatenate(
        [
            np.where(match.ground_truth >= 0, match.ground_truth + offset, -1)
            for match, offset in zip(matches, offsets[:-1], strict=True)
        ]
    )
    order = np.argsort(-scores, kind="stable")
    hits = order[(iou[order] > threshold) & (ground_truth[order] >= 0)]
    right = np.zeros(len(scores), dtype=bool)
    right[hits[np.unique(ground_truth[hits], return_index=True)[1]]] = True
    wrong = (iou <= threshold) & (ignored_share <= threshold)
    wrong[hits] = ~right[hits]

    counted = right | wrong
    return _area_under_steps(scores[counted], right[counted], total)


def _area_under_steps(scores: np.ndarray, right: np.ndarray, total: int) -> float:
    """The area under precision over recall, one point for each score that occurs.

    Each precision, and 1 at a recall of 0, holds half-way to the neighbouring recalls.
    """
    levels, level = np.unique(scores, return_inverse=True)
    # From the lowest score on: what is at least as high.
    at_least = [
        np.bincount(level, weights=weights, minlength=len(levels))[::-1].cumsum()[::-1]
        for weights in (right, np.ones(len(right)))
    ]
    precision = np.append(at_least[0] / at_least[1], 1.0)
    recall = np.append(at_least[0] / total, 0.0)
    padded = np.concatenate([recall[:1], recall, [0.0]])
    return float(precision @ ((padded[:-2] - padded[2:]) / 2))


def instance_weights(instance_ids: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Count the pixels of instances, each instance as if it was of the usual size of its label.

    Args:
        instance_ids: ``(H, W)``, the ground truth.
        predicted: ``(H, W)``, predicted label ids.

    Returns:
        For each of the labels that have instances, ``(8, 3)``: pixels, those predicted right, and
        those predicted as some label of the same super-category.
    """
    sizes: dict[int, np.ndarray] = {}
    for (instance, label), area in joint_areas(instance_ids, predicted).items():
        actual = instance // labels.INSTANCE_DIVISOR
        if instance <= labels.INSTANCE_DIVISOR or actual not in labels.INSTANCE_IDS:
            continue
        is_same_kind = label in super_category(actual)
        counts = sizes.setdefault(instance, np.zeros(3, dtype=np.int64))
        counts += np.array([1, label == actual, is_same_kind]) * area
    weighted = np.zeros((len(labels.INSTANCE_IDS), 3))
    for instance, counts in sorted(sizes.items()):
        label = instance // labels.INSTANCE_DIVISOR
        weight = labels.MEAN_INSTANCE_SIZE[label] / counts[0]
        weighted[labels.INSTANCE_IDS.index(label)] += counts * weight
    return weighted


def super_category(label: int) -> range:
    """The labels of a label's super-category."""
    return next(ids for ids in labels.SUPER_CATEGORIES.values() if label in ids)


def segmentation_scores(counts: np.ndarray, weighted: np.ndarray) -> dict[str, dict[str, float]]:
    """IoU and iIoU of labels and of super-categories.

    What is ignored in the ground truth does not count, whatever is predicted there.

    Args:
        counts: ``(34, 34)`` pixels; rows are predicted, columns actual labels.
        weighted: the sum of :func:`instance_weights`.

    Returns:
        Scores in [0, 1] under ``IoU``, ``iIoU``, ``IoU_sup`` and ``iIoU_sup``, by name; NaN where
        there is neither ground truth nor prediction.
    """
    results: dict[str, dict[str, float]] = {"IoU": {}, "iIoU": {}, "IoU_sup": {}, "iIoU_sup": {}}
    for label, name in labels.NAMES.items():
        hits = counts[label, label]
        false = counts[label, _IS_SCORED].sum() - hits
        results["IoU"][name] = _ratio(hits, counts[:, label].sum() + false)
        if label in labels.INSTANCE_IDS:
            total, right, _ = weighted[labels.INSTANCE_IDS.index(label)]
            results["iIoU"][name] = _ratio(right, total + false)
    for name, ids in labels.SUPER_CATEGORIES.items():
        inside = np.isin(np.arange(labels.NUM_LABELS), ids)
        scored = inside & _IS_SCORED
        actual = counts[:, scored].sum()
        hits = counts[np.ix_(scored, scored)].sum()
        others = _IS_SCORED & ~inside
        results["IoU_sup"][name] = _ratio(hits, actual + counts[np.ix_(scored, others)].sum())
        rows = [i for i, label in enumerate(labels.INSTANCE_IDS) if label in ids]
        if rows:
            total, _, right = weighted[rows].sum(axis=0)
            false = counts[np.ix_(inside, others)].sum()
            results["iIoU_sup"][name] = _ratio(right, total + false)
    return results


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole else float("nan")
