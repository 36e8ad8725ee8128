"""Trackers that match frames at the least total cost."""

from __future__ import annotations

from typing import Any

import numpy as np

from detectron2.config import CfgNode as CfgNode_
from detectron2.config import configurable
from detectron2.structures.boxes import Boxes
from detectron2.structures.instances import Instances
from detectron2.tracking._box_tracks import BoxTracks
from detectron2.tracking.base_tracker import BaseTracker

__all__ = ["BaseHungarianTracker", "BaseTracker", "Boxes"]


class BaseHungarianTracker(BoxTracks):
    """Matches the instances of a frame with the previous ones at the least total cost.

    As many as possible are matched, whatever they cost: a subclass's large costs make a match
    unlikely, not impossible.
    """

    @configurable
    def __init__(
        self,
        video_height: int,
        video_width: int,
        max_num_instances: int = 200,
        max_lost_frame_count: int = 0,
        min_box_rel_dim: float = 0.02,
        min_instance_period: int = 1,
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

    @classmethod
    def from_config(cls, cfg: CfgNode_) -> dict[str, Any]:
        raise NotImplementedError(f"{cls.__name__} has no from_config")

    def build_cost_matrix(self, instances: Instances, prev_instances: Instances) -> np.ndarray:
        """What it costs to match each of N instances with each of M previous ones, ``(N, M)``."""
        raise NotImplementedError(f"{type(self).__name__} has no build_cost_matrix")

    def update(self, instances: Instances) -> Instances:
        """Take in the next frame; needs SciPy.

        Args:
            instances: its detections, with ``pred_boxes``, which are `Boxes`, and possibly
                ``scores``, which tell whom to follow where there are too many. They get the
                fields ``ID``, ``ID_period`` and ``lost_frame_count``, in place.

        Returns:
            The instances, with those that are lost appended; see :class:`BoxTracks`.

        Raises:
            NotImplementedError: the instances have keypoints.
        """
        if instances.has("pred_keypoints"):
            raise NotImplementedError(
                f"{type(self).__name__} tracks no instances with keypoints: remove the field "
                "'pred_keypoints', or use BBoxIOUTracker"
            )
        instances = self._initialize_extra_fields(instances)
        if self._prev_instances is not None:
            cost_matrix = self.build_cost_matrix(instances, self._prev_instances)
            matched_idx, matched_prev_idx = _least_cost_assignment(cost_matrix)
            instances = self._process_matched_idx(instances, matched_idx, matched_prev_idx)
            instances = self._process_unmatched_idx(instances, matched_idx)
            instances = self._process_unmatched_prev_idx(instances, matched_prev_idx)
        self._remember(instances)
        return instances

    def _process_matched_idx(
        self, instances: Instances, matched_idx: np.ndarray, matched_prev_idx: np.ndarray
    ) -> Instances:
        """Let instances go on as those of the previous frame."""
        self._continue(
            instances,
            zip(
                np.asarray(matched_idx).tolist(), np.asarray(matched_prev_idx).tolist(), strict=True
            ),
        )
        return instances

    def _process_unmatched_idx(self, instances: Instances, matched_idx: np.ndarray) -> Instances:
        """Give the other instances a new identity."""
        new = np.setdiff1d(np.arange(len(instances)), np.asarray(matched_idx))
        self._start(instances, new.tolist())
        return instances

    def _process_unmatched_prev_idx(
        self, instances: Instances, matched_prev_idx: np.ndarray
    ) -> Instances:
        """Append the other previous instances, as far as they are kept."""
        return self._append_lost(instances, np.asarray(matched_prev_idx).tolist())


def _least_cost_assignment(cost_matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    try:
        from scipy.optimize import linear_sum_assignment
    except ImportError as error:
        raise ImportError("Hungarian trackers need SciPy: pip install scipy") from error
    return linear_sum_assignment(cost_matrix)
