"""The learning rate schedule that a configuration of DeepLab describes."""

from torch.optim.lr_scheduler import LRScheduler
from torch.optim.optimizer import Optimizer

from detectron2.config import CfgNode
from detectron2.projects.deeplab.lr_scheduler import WarmupPolyLR
from detectron2.solver.build import build_lr_scheduler as build_d2_lr_scheduler

__all__ = ["CfgNode", "WarmupPolyLR", "build_d2_lr_scheduler", "build_lr_scheduler"]


def build_lr_scheduler(cfg: CfgNode, optimizer: Optimizer) -> LRScheduler:
    """As :func:`detectron2.solver.build_lr_scheduler`, and ``"WarmupPolyLR"``.

    That one falls over MAX_ITER iterations with POLY_LR_POWER and POLY_LR_CONSTANT_ENDING.
    """
    solver = cfg.SOLVER
    if solver.LR_SCHEDULER_NAME != "WarmupPolyLR":
        return build_d2_lr_scheduler(cfg, optimizer)
    return WarmupPolyLR(
        optimizer,
        solver.MAX_ITER,
        warmup_factor=solver.WARMUP_FACTOR,
        warmup_iters=solver.WARMUP_ITERS,
        warmup_method=solver.WARMUP_METHOD,
        power=solver.POLY_LR_POWER,
        constant_ending=solver.POLY_LR_CONSTANT_ENDING,
    )
