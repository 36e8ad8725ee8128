"""Pairs of instances that may be the same, as matchers take them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from detectron2.structures.instances import Instances

__all__ = ["LARGE_COST_VALUE", "create_prediction_pairs"]

LARGE_COST_VALUE = 100000
"""The cost of matching what does not overlap enough."""


def create_prediction_pairs(
    instances: Instances,
    prev_instances: Instances,
    iou_all: np.ndarray | torch.Tensor,
    threshold: float = 0.5,
) -> list[dict[str, Any]]:
    """List the pairs that overlap enough.

    Args:
        instances: N of this frame.
        prev_instances: M of the previous frame, with ``ID`` and ``ID_period``.
        iou_all: ``(N, M)``.
        threshold: the least IoU of a pair.

    Returns:
        For each pair, row by row, ``idx``, ``prev_idx``, ``IoU``, and the previous instance's
        ``prev_id`` and ``prev_period``.

    Raises:
        ValueError: ``iou_all`` has another shape.
    """
    if isinstance(iou_all, torch.Tensor):
        iou_all = iou_all.cpu().numpy()
    iou_all = np.asarray(iou_all)
    if iou_all.shape != (len(instances), len(prev_instances)):
        raise ValueError(
            f"the IoU of {len(instances)} and {len(prev_instances)} instances has the shape "
            f"{iou_all.shape}"
        )
    indices = np.argwhere(iou_all >= threshold).tolist()
    return [
        {
            "idx": index,
            "prev_idx": prev_index,
            "prev_id": prev_instances.ID[prev_index],
            "IoU": float(iou_all[index, prev_index]),
            "prev_period": prev_instances.ID_period[prev_index],
        }
        for index, prev_index in indices
    ]
