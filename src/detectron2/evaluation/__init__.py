"""Evaluation of predictions against ground truth.

An evaluator, and what it needs, is imported when it is first asked for.
"""

import importlib
from typing import TYPE_CHECKING, Any

from detectron2.evaluation import evaluator, testing
from detectron2.evaluation.evaluator import (
    DatasetEvaluator,
    DatasetEvaluators,
    inference_context,
    inference_on_dataset,
)
from detectron2.evaluation.testing import print_csv_format, verify_results

if TYPE_CHECKING:
    from detectron2.evaluation.cityscapes_evaluation import (
        CityscapesInstanceEvaluator,
        CityscapesSemSegEvaluator,
    )
    from detectron2.evaluation.coco_evaluation import COCOEvaluator
    from detectron2.evaluation.lvis_evaluation import LVISEvaluator
    from detectron2.evaluation.panoptic_evaluation import COCOPanopticEvaluator
    from detectron2.evaluation.pascal_voc_evaluation import PascalVOCDetectionEvaluator
    from detectron2.evaluation.rotated_coco_evaluation import RotatedCOCOEvaluator
    from detectron2.evaluation.sem_seg_evaluation import SemSegEvaluator

__all__ = [
    "COCOEvaluator",
    "COCOPanopticEvaluator",
    "CityscapesInstanceEvaluator",
    "CityscapesSemSegEvaluator",
    "DatasetEvaluator",
    "DatasetEvaluators",
    "LVISEvaluator",
    "PascalVOCDetectionEvaluator",
    "RotatedCOCOEvaluator",
    "SemSegEvaluator",
    "cityscapes_evaluation",
    "coco_evaluation",
    "evaluator",
    "fast_eval_api",
    "inference_context",
    "inference_on_dataset",
    "lvis_evaluation",
    "panoptic_evaluation",
    "pascal_voc_evaluation",
    "print_csv_format",
    "rotated_coco_evaluation",
    "sem_seg_evaluation",
    "testing",
    "verify_results",
]

_MODULES = (
    "cityscapes_evaluation",
    "coco_evaluation",
    "fast_eval_api",
    "lvis_evaluation",
    "panoptic_evaluation",
    "pascal_voc_evaluation",
    "rotated_coco_evaluation",
    "sem_seg_evaluation",
)

_HOMES = {
    "COCOEvaluator": "coco_evaluation",
    "COCOPanopticEvaluator": "panoptic_evaluation",
    "CityscapesInstanceEvaluator": "cityscapes_evaluation",
    "CityscapesSemSegEvaluator": "cityscapes_evaluation",
    "LVISEvaluator": "lvis_evaluation",
    "PascalVOCDetectionEvaluator": "pascal_voc_evaluation",
    "RotatedCOCOEvaluator": "rotated_coco_evaluation",
    "SemSegEvaluator": "sem_seg_evaluation",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
