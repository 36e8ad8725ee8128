"""What every tracker is, and the registry of trackers."""

from __future__ import annotations

from typing import Any

from detectron2.config import CfgNode as CfgNode_
from detectron2.config import configurable
from detectron2.structures.instances import Instances
from detectron2.utils.registry import Registry

__all__ = ["TRACKER_HEADS_REGISTRY", "BaseTracker", "build_tracker_head"]

TRACKER_HEADS_REGISTRY = Registry("TRACKER_HEADS")
"""Classes of trackers, called with a config."""


class BaseTracker:
    """Gives the instances of each frame an identity that lasts over frames.

    A tracker follows one video; a new video needs a new tracker.
    """

    @configurable
    def __init__(self, **kwargs: Any) -> None:
        """
        Args:
            **kwargs: not used here.
        """
        self._prev_instances: Instances | None = None
        self._id_count = 0

    @classmethod
    def from_config(cls, cfg: CfgNode_) -> dict[str, Any]:
        raise NotImplementedError(f"{cls.__name__} has no from_config")

    def update(self, predictions: Instances) -> Instances:
        """Take in the next frame.

        Args:
            predictions: what was detected in it; see the trackers for the fields that they need.

        Returns:
            The same with identities.
        """
        raise NotImplementedError(f"{type(self).__name__} has no update")


def build_tracker_head(cfg: CfgNode_) -> BaseTracker:
    """Make the tracker that ``cfg.TRACKER_HEADS.TRACKER_NAME`` names.

    ``get_cfg()`` has no ``TRACKER_HEADS``: it is for the user to add. The trackers of this package
    read ``VIDEO_HEIGHT`` and ``VIDEO_WIDTH``, in pixels, and, where they are there, their other
    arguments in upper case, such as ``MAX_NUM_INSTANCES`` and ``TRACK_IOU_THRESHOLD``.

    Raises:
        KeyError: there is no tracker of that name.
        AttributeError: a key is missing.
    """
    return TRACKER_HEADS_REGISTRY.get(cfg.TRACKER_HEADS.TRACKER_NAME)(cfg)
