"""A greedy tracker by the overlap of boxes."""

from __future__ import annotations

from typing import Any

import numpy as np

from detectron2.config import CfgNode as CfgNode_
from detectron2.config import configurable
from detectron2.structures.boxes import Boxes, pairwise_iou
from detectron2.structures.instances import Instances
from detectron2.tracking._box_tracks import BoxTracks, arguments_of_iou_tracker
from detectron2.tracking.base_tracker import TRACKER_HEADS_REGISTRY, BaseTracker

__all__ = ["BBoxIOUTracker", "BaseTracker", "Boxes"]


@TRACKER_HEADS_REGISTRY.register()
class BBoxIOUTracker(BoxTracks):
    """Each instance, in its order, is the first previous one that overlaps enough and is free."""

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
            track_iou_threshold: the least IoU of an instance with what it was a frame before.
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
        self._matched_idx: set[int] = set()

    @classmethod
    def from_config(cls, cfg: CfgNode_) -> dict[str, Any]:
        return arguments_of_iou_tracker(cls, cfg)

    def update(self, instances: Instances) -> Instances:
        """Take in the next frame.

        Args:
            instances: its detections, with ``pred_boxes``, which are `Boxes`, and possibly
                ``scores``, which tell whom to follow where there are too many. They get the
                fields ``ID``, ``ID_period`` and ``lost_frame_count``, in place.

        Returns:
            The instances, with those that are lost appended; see :class:`BoxTracks`.
        """
        instances = self._initialize_extra_fields(instances)
        if self._prev_instances is not None:
            iou = pairwise_iou(instances.pred_boxes, self._prev_instances.pred_boxes)
            pairs = _first_fit(iou.cpu().numpy() >= self._track_iou_threshold)
            self._continue(instances, pairs)
            self._matched_idx = {index for index, _ in pairs}
            instances = self._assign_new_id(instances)
            instances = self._append_lost(instances, {prev_index for _, prev_index in pairs})
        self._remember(instances)
        return instances

    def _assign_new_id(self, instances: Instances) -> Instances:
        """Give those that were not matched a new identity."""
        new = [index for index in range(len(instances)) if index not in self._matched_idx]
        self._start(instances, new)
        return instances


def _first_fit(allowed: np.ndarray) -> list[tuple[int, int]]:
    """Give each row of a bool ``(N, M)`` the first column that is allowed and not taken yet."""
    is_free = np.ones(allowed.shape[1], dtype=bool)
    pairs = []
    for row in np.flatnonzero(allowed.any(axis=1)).tolist():
        fitting = allowed[row] & is_free
        column = int(fitting.argmax())
        if fitting[column]:
            is_free[column] = False
            pairs.append((row, column))
    return pairs
