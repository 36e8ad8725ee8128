"""Saving and loading models, and the names of published ones."""

from fvcore.common.checkpoint import Checkpointer, PeriodicCheckpointer

import detectron2.checkpoint.catalog  # noqa: F401  (makes catalog:// paths known)
from detectron2.checkpoint.detection_checkpoint import DetectionCheckpointer

__all__ = ["Checkpointer", "DetectionCheckpointer", "PeriodicCheckpointer"]
