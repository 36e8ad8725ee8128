from fvcore.common.param_scheduler import MultiStepParamScheduler

from detectron2.config import LazyCall as L
from detectron2.solver import WarmupParamScheduler

# 16 images an iteration.
_ITERATIONS = 90000
_WARMUP = 1000


def default_X_scheduler(num_X):
    """The schedule of `num_X` times 90,000 iterations of 16 images, on COCO about 12 epochs each.

    Long ones keep the last 60,000 iterations of "1x", whose last 20,000 are at a hundredth of the
    rate; of milestones only the ratio counts.
    """
    total = num_X * _ITERATIONS
    milestones = [60000, 80000, 90000] if num_X <= 2 else [total - 60000, total - 20000, total]
    decay = L(MultiStepParamScheduler)(milestones=milestones, values=[1.0, 0.1, 0.01])
    return L(WarmupParamScheduler)(
        scheduler=decay, warmup_method="linear", warmup_factor=0.001, warmup_length=_WARMUP / total
    )


lr_multiplier_1x = default_X_scheduler(1)
lr_multiplier_2x = default_X_scheduler(2)
lr_multiplier_3x = default_X_scheduler(3)
lr_multiplier_6x = default_X_scheduler(6)
lr_multiplier_9x = default_X_scheduler(9)
