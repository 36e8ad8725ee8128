"""Optimizers and learning rate schedules."""

from detectron2.solver import build, lr_scheduler
from detectron2.solver.build import (
    build_lr_scheduler,
    build_optimizer,
    get_default_optimizer_params,
)
from detectron2.solver.lr_scheduler import (
    LRMultiplier,
    LRScheduler,
    WarmupCosineLR,
    WarmupMultiStepLR,
    WarmupParamScheduler,
)

__all__ = [
    "LRMultiplier",
    "LRScheduler",
    "WarmupCosineLR",
    "WarmupMultiStepLR",
    "WarmupParamScheduler",
    "build",
    "build_lr_scheduler",
    "build_optimizer",
    "get_default_optimizer_params",
    "lr_scheduler",
]
