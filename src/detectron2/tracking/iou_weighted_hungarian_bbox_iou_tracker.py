"""A Hungarian tracker for which boxes overlap more or less."""

from __future__ import annotations

from typing import Any

import numpy as np

from detectron2.config import CfgNode as CfgNode_
from detectron2.config import configurable
from detectron2.tracking.base_tracker import TRACKER_HEADS_REGISTRY
from detectron2.tracking.vanilla_hungarian_bbox_iou_tracker import VanillaHungarianBBoxIOUTracker

__all__ = ["CfgNode_", "IOUWeightedHungarianBBoxIOUTracker", "configurable"]


@TRACKER_HEADS_REGISTRY.register()
class IOUWeightedHungarianBBoxIOUTracker(VanillaHungarianBBoxIOUTracker):
    """Matches the pairs whose boxes overlap most.

    A pair costs its negative IoU if that is at least ``track_iou_threshold``, else
    ``LARGE_COST_VALUE``. It is made with the arguments of its base class.
    """

    def assign_cost_matrix_values(
        self, cost_matrix: np.ndarray, bbox_pairs: list[dict[str, Any]]
    ) -> np.ndarray:
        """Set the costs of pairs that overlap enough.

        Args:
            cost_matrix: ``(N, M)``, changed in place if it is one of floats.
            bbox_pairs: from :func:`create_prediction_pairs`.

        Returns:
            The matrix, of floats.
        """
        if not np.issubdtype(cost_matrix.dtype, np.floating):
            cost_matrix = cost_matrix.astype(np.float64)
        for pair in bbox_pairs:
            cost_matrix[pair["idx"], pair["prev_idx"]] = -pair["IoU"]
        return cost_matrix
