from detectron2.config import LazyCall as L
from detectron2.evaluation import COCOEvaluator, COCOPanopticEvaluator, SemSegEvaluator

from .coco import dataloader

_test_name = "coco_2017_val_panoptic_separated"

dataloader.train.dataset.names = "coco_2017_train_panoptic_separated"
# An image without instances still has stuff.
dataloader.train.dataset.filter_empty = False
dataloader.test.dataset.names = _test_name
dataloader.evaluator = [
    L(evaluator)(dataset_name=_test_name)
    for evaluator in (COCOEvaluator, SemSegEvaluator, COCOPanopticEvaluator)
]
