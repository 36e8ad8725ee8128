"""Counts and scores of semantic segmentation."""

from __future__ import annotations

import numpy as np
import torch

BOUNDARY_MAX_CLASSES = 254
"""The labels of differences are 8-bit, with one for what is ignored."""


def most_likely_labels(logits: torch.Tensor) -> np.ndarray:
    """The label of the highest logit, the first one of equals.

    Args:
        logits: ``(C, H, W)``, on any device.

    Returns:
        ``(H, W)``, uint8 if all labels fit, else int64.
    """
    # max() is several times as fast as argmax() on the CPU. What is copied is narrow already.
    labels = logits.max(dim=0).indices
    return (labels.to(torch.uint8) if len(logits) <= 256 else labels).cpu().numpy()


def confusion_matrix(predicted: np.ndarray, actual: np.ndarray, size: int) -> np.ndarray:
    """Count the pixels of each pair of labels.

    Args:
        predicted: labels in [0, size), of any shape and integer type.
        actual: the same.
        size: the number of labels.

    Returns:
        ``(size, size)`` int64; rows are predicted, columns actual labels.
    """
    dtype = np.uint16 if size <= 256 else np.int64
    pairs = predicted.astype(dtype)
    pairs *= size
    pairs += actual.astype(dtype, copy=False)
    return np.bincount(pairs.ravel(), minlength=size * size).reshape(size, size)


def boundary_differences(labels: np.ndarray, dilation_ratio: float = 0.02) -> np.ndarray:
    """Subtract from each label the lowest one around it.

    "Around" is a square that reaches ``dilation_ratio`` of the image's diagonal, at least one
    pixel, to each side; outside of the image everything is 0. For a mask of zeros and ones this is
    the inner boundary of Cheng et al., "Boundary IoU", section 4. For more labels it is what the
    boundary IoU of upstream's evaluator is made of: 0 where no lower label is near.

    Args:
        labels: ``(H, W)`` uint8.
        dilation_ratio: the boundary's width over the diagonal's length.
    """
    height, width = labels.shape
    radius = max(1, round(dilation_ratio * np.hypot(height, width)))
    lowest = np.zeros_like(labels)
    if min(height, width) > 2 * radius:
        inner = _sliding_minimum(_sliding_minimum(labels, radius).T, radius).T
        lowest[radius:-radius, radius:-radius] = inner
    return labels - lowest


def _sliding_minimum(values: np.ndarray, radius: int) -> np.ndarray:
    """Minima of all windows of ``2 * radius + 1`` rows; as many rows as there are windows."""
    window = 2 * radius + 1
    size = 1
    while size * 2 <= window:
        values = np.minimum(values[:-size], values[size:])
        size *= 2
    if size < window:
        values = np.minimum(values[: size - window], values[window - size :])
    return values


def segmentation_scores(
    counts: np.ndarray, boundary_counts: np.ndarray | None, class_names: list[str]
) -> dict[str, float]:
    """Score a confusion matrix.

    Args:
        counts: ``(C + 1, C + 1)``; rows are predicted, columns actual labels, the last one is what
            is ignored.
        boundary_counts: the same of :func:`boundary_differences`, or None.
        class_names: C names.

    Returns:
        Percentages. mIoU, mACC and fwIoU are over the classes with ground truth; what a class has
        not is NaN.
    """
    hits, actual, predicted = _counts_by_class(counts)
    with np.errstate(invalid="ignore"):
        accuracy = hits / actual
        iou = np.where(actual > 0, hits / (actual + predicted - hits), np.nan)
        weights = actual / actual.sum()
        overall = hits.sum() / actual.sum()
    boundary_iou = None
    if boundary_counts is not None:
        boundary_hits, boundary_actual, boundary_predicted = _counts_by_class(boundary_counts)
        with np.errstate(invalid="ignore"):
            boundary_iou = boundary_hits / (boundary_actual + boundary_predicted - boundary_hits)

    present = actual > 0
    scores = {
        "mIoU": _mean(iou[present]),
        "fwIoU": np.sum(iou[present] * weights[present]) if present.any() else np.nan,
    }
    for index, name in enumerate(class_names):
        scores[f"IoU-{name}"] = iou[index]
        if boundary_iou is not None:
            scores[f"BoundaryIoU-{name}"] = boundary_iou[index]
            # A class without a boundary keeps its IoU; one without ground truth has neither.
            lower = np.fmin(iou[index], boundary_iou[index]) if present[index] else np.nan
            scores[f"min(IoU, B-Iou)-{name}"] = lower
    scores["mACC"] = _mean(accuracy[present])
    scores["pACC"] = overall
    for index, name in enumerate(class_names):
        scores[f"ACC-{name}"] = accuracy[index]
    return {name: 100 * float(value) for name, value in scores.items()}


def _counts_by_class(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Right, actual and predicted pixels of each class, those with ground truth only; float64."""
    valid = counts[:-1, :-1].astype(np.float64)
    return valid.diagonal(), valid.sum(axis=0), valid.sum(axis=1)


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else np.nan
