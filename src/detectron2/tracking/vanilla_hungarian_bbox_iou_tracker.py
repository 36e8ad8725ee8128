"""A Hungarian tracker for which boxes overlap enough or not."""

from __future__ import annotations

from typing import Any

import numpy as np

from detectron2.config import CfgNode as CfgNode_
from detectron2.config import configurable
from detectron2.structures.boxes import pairwise_iou
from detectron2.structures.instances import Instances
from detectron2.tracking._box_tracks import arguments_of_iou_tracker
from detectron2.tracking.base_tracker import TRACKER_HEADS_REGISTRY
from detectron2.tracking.hungarian_tracker import BaseHungarianTracker
from detectron2.tracking.utils import LARGE_COST_VALUE, create_prediction_pairs

__all__ = ["LARGE_COST_VALUE", "VanillaHungarianBBoxIOUTracker"]


@TRACKER_HEADS_REGISTRY.register()
class VanillaHungarianBBoxIOUTracker(BaseHungarianTracker):
    """Matches as many pairs as possible whose boxes overlap enough.

    A pair costs -1 if its IoU is at least ``track_iou_threshold``, else ``LARGE_COST_VALUE``.
    """

    @configurable
    def __init__(
        self,
        *,
        video_height: int,
        video_width: int,
        max_num_instances: int = 200,
        max_lost_frame_count: int = 0,
        min_box_rel_dim: float = 0.02,
        min_instance_period: int = 1,
        track_iou_threshold: float = 0.5,
        **kwargs: Any,
    ) -> None:
        """
        Args:
            video_height: in pixels.
            video_width: in pixels.
            max_num_instances: how many are followed at most.
            max_lost_frame_count: how many frames a lost instance is kept.
            min_box_rel_dim: the least share of the video's sides that the box of a lost instance
                must have to be kept.
            min_instance_period: a lost instance is kept if it was in more frames than these.
            track_iou_threshold: the least IoU of a cheap pair.
            **kwargs: not used.

        Raises:
            ValueError: the video has no size, or ``max_num_instances`` is negative.
        """
        super().__init__(
            video_height,
            video_width,
            max_num_instances,
            max_lost_frame_count,
            min_box_rel_dim,
            min_instance_period,
            **kwargs,
        )
        self._track_iou_threshold = track_iou_threshold

    @classmethod
    def from_config(cls, cfg: CfgNode_) -> dict[str, Any]:
        return arguments_of_iou_tracker(cls, cfg)

    def build_cost_matrix(self, instances: Instances, prev_instances: Instances) -> np.ndarray:
        """What it costs to match N instances with M previous ones; ``(N, M)`` float64."""
        iou = pairwise_iou(instances.pred_boxes, prev_instances.pred_boxes)
        pairs = create_prediction_pairs(
            instances, prev_instances, iou, threshold=self._track_iou_threshold
        )
        cost_matrix = np.full(tuple(iou.shape), LARGE_COST_VALUE, dtype=np.float64)
        return self.assign_cost_matrix_values(cost_matrix, pairs)

    def assign_cost_matrix_values(
        self, cost_matrix: np.ndarray, bbox_pairs: list[dict[str, Any]]
    ) -> np.ndarray:
        """Set the costs of pairs that overlap enough.

        Args:
            cost_matrix: ``(N, M)``, changed in place.
            bbox_pairs: from :func:`create_prediction_pairs`.
        """
        for pair in bbox_pairs:
            cost_matrix[pair["idx"], pair["prev_idx"]] = -1
        return cost_matrix
