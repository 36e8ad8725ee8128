"""Metrics of a training: the storage that takes them, and writers that show them."""

from detectron2.utils._event_storage import EventStorage, get_event_storage, has_event_storage
from detectron2.utils._event_writer import EventWriter
from detectron2.utils._json_writer import JSONWriter
from detectron2.utils._metric_printer import CommonMetricPrinter
from detectron2.utils._tensorboard_writer import TensorboardXWriter
from detectron2.utils._wandb_writer import WandbWriter

__all__ = [
    "CommonMetricPrinter",
    "EventStorage",
    "EventWriter",
    "JSONWriter",
    "TensorboardXWriter",
    "WandbWriter",
    "get_event_storage",
    "has_event_storage",
]
