from fvcore.common.param_scheduler import MultiStepParamScheduler

from detectron2.config import LazyCall as L
from detectron2.solver import WarmupParamScheduler

# 100 epochs of COCO with 64 images an iteration.
_ITERATIONS = 184375
_MILESTONES = [163889, 177546]
_WARMUP = 500


def train_for(epochs, train, lr_multiplier):
    """Set the length of training, in epochs that are a multiple or part of 100."""
    times = epochs / 100
    train.max_iter = int(_ITERATIONS * times)
    lr_multiplier.scheduler.milestones = [int(step * times) for step in _MILESTONES]
    lr_multiplier.scheduler.num_updates = train.max_iter


def large_scale_jitter_schedule():
    return L(WarmupParamScheduler)(
        scheduler=L(MultiStepParamScheduler)(
            values=[1.0, 0.1, 0.01], milestones=_MILESTONES, num_updates=_ITERATIONS
        ),
        warmup_length=_WARMUP / _ITERATIONS,
        warmup_factor=0.067,
    )
