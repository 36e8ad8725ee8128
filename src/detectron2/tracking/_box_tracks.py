"""What trackers by boxes share: the bookkeeping of identities."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import torch

from detectron2.config import CfgNode
from detectron2.structures.instances import Instances
from detectron2.tracking.base_tracker import BaseTracker


class BoxTracks(BaseTracker):
    """Identities as fields of instances.

    The fields are lists of ints, one for each instance:

    - ``ID``: the identity, counted from 0 over the video;
    - ``ID_period``: in how many frames it was detected;
    - ``lost_frame_count``: since how many frames it is lost, 0 if it is detected.

    Instances of the previous frame that are not found again are appended, with the box that they
    had. Not so if they are lost for ``max_lost_frame_count`` frames already, were detected in
    ``min_instance_period`` frames or fewer, or a side of their box is shorter than
    ``min_box_rel_dim`` of the video's.

    At most ``max_num_instances`` are followed: where there are more, those detected go before
    those lost, and higher scores before lower ones. The others are returned, too, but not looked
    for in the next frame.
    """

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
        """Arguments as for :class:`BBoxIOUTracker`."""
        super().__init__(**kwargs)
        if video_height <= 0 or video_width <= 0:
            raise ValueError(
                f"a video's height and width are positive, got {video_height} and {video_width}"
            )
        if max_num_instances < 0:
            raise ValueError(f"max_num_instances must not be negative, got {max_num_instances}")
        self._video_height = video_height
        self._video_width = video_width
        self._max_num_instances = max_num_instances
        self._max_lost_frame_count = max_lost_frame_count
        self._min_box_rel_dim = min_box_rel_dim
        self._min_instance_period = min_instance_period

    def _initialize_extra_fields(self, instances: Instances) -> Instances:
        """Add the fields, in place; in a video's first frame every instance is new."""
        count = len(instances)
        instances.ID = [None] * count
        instances.ID_period = [None] * count
        instances.lost_frame_count = [None] * count
        if self._prev_instances is None:
            self._start(instances, range(count))
        return instances

    def _start(self, instances: Instances, indices: Iterable[int]) -> None:
        """Instances that were not there before."""
        for index in indices:
            instances.ID[index] = self._id_count
            self._id_count += 1
            instances.ID_period[index] = 1
            instances.lost_frame_count[index] = 0

    def _continue(self, instances: Instances, pairs: Iterable[tuple[int, int]]) -> None:
        """Instances that are those of the previous frame, by their indices in both."""
        previous = self._prev_instances
        for index, prev_index in pairs:
            instances.ID[index] = previous.ID[prev_index]
            instances.ID_period[index] = previous.ID_period[prev_index] + 1
            instances.lost_frame_count[index] = 0

    def _append_lost(self, instances: Instances, found: Iterable[int]) -> Instances:
        """Append the previous instances that are worth waiting for.

        Args:
            instances: this frame's.
            found: indices of the previous instances that are among them.
        """
        previous = self._prev_instances
        boxes = previous.pred_boxes.tensor.cpu()
        shares = (boxes[:, 2:] - boxes[:, :2]) / torch.tensor(
            [self._video_width, self._video_height]
        )
        is_large = (shares >= self._min_box_rel_dim).all(dim=1).tolist()
        found = set(found)
        kept = [
            index
            for index in range(len(previous))
            if index not in found
            and is_large[index]
            and previous.lost_frame_count[index] < self._max_lost_frame_count
            and previous.ID_period[index] > self._min_instance_period
        ]
        if not kept:
            return instances
        lost = previous[torch.tensor(kept, device=previous.pred_boxes.device)]
        lost.lost_frame_count = [count + 1 for count in lost.lost_frame_count]
        return Instances.cat([instances, lost])

    def _remember(self, instances: Instances) -> None:
        """Keep a copy of what is to be followed."""
        if len(instances) > self._max_num_instances:
            scores = instances.scores.tolist() if instances.has("scores") else None
            order = sorted(
                range(len(instances)),
                key=lambda index: (
                    instances.lost_frame_count[index] > 0,
                    0.0 if scores is None else -scores[index],
                ),
            )
            followed = sorted(order[: self._max_num_instances])
            indices = torch.tensor(followed, dtype=torch.int64, device=instances.pred_boxes.device)
            instances = instances[indices]
        self._prev_instances = copy.deepcopy(instances)


def arguments_of_iou_tracker(tracker: type[BoxTracks], cfg: CfgNode) -> dict[str, Any]:
    """The arguments in a config: ``VIDEO_HEIGHT`` and ``VIDEO_WIDTH`` of ``TRACKER_HEADS``, and
    what else it has."""
    node = cfg.TRACKER_HEADS
    return {
        "_target_": f"{tracker.__module__}.{tracker.__qualname__}",
        "video_height": node.VIDEO_HEIGHT,
        "video_width": node.VIDEO_WIDTH,
        "max_num_instances": node.get("MAX_NUM_INSTANCES", 200),
        "max_lost_frame_count": node.get("MAX_LOST_FRAME_COUNT", 0),
        "min_box_rel_dim": node.get("MIN_BOX_REL_DIM", 0.02),
        "min_instance_period": node.get("MIN_INSTANCE_PERIOD", 1),
        "track_iou_threshold": node.get("TRACK_IOU_THRESHOLD", 0.5),
    }
