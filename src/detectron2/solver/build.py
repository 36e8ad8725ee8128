"""The optimizer and the learning rate schedule that a configuration describes."""

import logging

import torch
from fvcore.common.param_scheduler import (
    CosineParamScheduler,
    MultiStepParamScheduler,
    ParamScheduler,
    StepWithFixedGammaParamScheduler,
)
from torch import nn
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.optimizer import Optimizer

from detectron2.config import CfgNode
from detectron2.solver._gradient_clipping import (
    GradientClipType,
    _generate_optimizer_class_with_gradient_clipping,
    create_gradient_clipper,
    maybe_add_gradient_clipping,
)
from detectron2.solver._param_groups import (
    _expand_param_groups,
    get_default_optimizer_params,
    reduce_param_groups,
)
from detectron2.solver.lr_scheduler import LRMultiplier, WarmupParamScheduler
from detectron2.utils.env import TORCH_VERSION

# Some are here only because code written for upstream imports them from here.
__all__ = [
    "TORCH_VERSION",
    "CfgNode",
    "GradientClipType",
    "_expand_param_groups",
    "_generate_optimizer_class_with_gradient_clipping",
    "build_lr_scheduler",
    "build_optimizer",
    "create_gradient_clipper",
    "get_default_optimizer_params",
    "maybe_add_gradient_clipping",
    "reduce_param_groups",
]


def build_optimizer(cfg: CfgNode, model: nn.Module) -> Optimizer:
    """SGD over a model's trainable parameters, as ``cfg.SOLVER`` describes it.

    BASE_LR, MOMENTUM, NESTEROV and WEIGHT_DECAY are its options; WEIGHT_DECAY_NORM,
    WEIGHT_DECAY_BIAS and BIAS_LR_FACTOR those of some parameters, as
    :func:`get_default_optimizer_params` has them; CLIP_GRADIENTS adds clipping.
    """
    solver = cfg.SOLVER
    groups = get_default_optimizer_params(
        model,
        base_lr=solver.BASE_LR,
        weight_decay_norm=solver.WEIGHT_DECAY_NORM,
        bias_lr_factor=solver.BIAS_LR_FACTOR,
        weight_decay_bias=solver.WEIGHT_DECAY_BIAS,
    )
    return maybe_add_gradient_clipping(cfg, torch.optim.SGD)(
        groups,
        lr=solver.BASE_LR,
        momentum=solver.MOMENTUM,
        nesterov=solver.NESTEROV,
        weight_decay=solver.WEIGHT_DECAY,
        # Few kernels for all parameters, with the result of one kernel each. fused=True would take
        # gradients that a GradScaler has not unscaled, which clipping cannot work on.
        foreach=True,
    )


def build_lr_scheduler(cfg: CfgNode, optimizer: Optimizer) -> LRScheduler:
    """The learning rate schedule that ``cfg.SOLVER`` describes, over MAX_ITER iterations.

    LR_SCHEDULER_NAME is one of

    - "WarmupMultiStepLR": times GAMMA from each iteration in STEPS on. Steps that the training does
      not reach are left out, with a warning.
    - "WarmupCosineLR": half a cosine from BASE_LR to BASE_LR_END.
    - "WarmupStepWithFixedGammaLR": times GAMMA after each of NUM_DECAYS + 1 equal intervals but
      the last.

    Each begins with a warm-up of WARMUP_ITERS, WARMUP_FACTOR, WARMUP_METHOD and RESCALE_INTERVAL
    (:class:`WarmupParamScheduler`).

    Raises:
        ValueError: an unknown name, or values that do not make a schedule.
    """
    solver = cfg.SOLVER
    if solver.MAX_ITER < 1:
        raise ValueError(f"SOLVER.MAX_ITER must be positive, got {solver.MAX_ITER}")
    schedule = WarmupParamScheduler(
        _schedule_without_warmup(solver),
        solver.WARMUP_FACTOR,
        min(solver.WARMUP_ITERS / solver.MAX_ITER, 1.0),
        solver.WARMUP_METHOD,
        solver.RESCALE_INTERVAL,
    )
    return LRMultiplier(optimizer, multiplier=schedule, max_iter=solver.MAX_ITER)


def _schedule_without_warmup(solver: CfgNode) -> ParamScheduler:
    name = solver.LR_SCHEDULER_NAME
    if name == "WarmupMultiStepLR":
        return _multi_step(list(solver.STEPS), solver.GAMMA, solver.MAX_ITER)
    if name == "WarmupCosineLR":
        end = solver.BASE_LR_END / solver.BASE_LR
        if not 0 <= end <= 1:
            raise ValueError(
                f"SOLVER.BASE_LR_END must be in [0, BASE_LR], got {solver.BASE_LR_END} with "
                f"BASE_LR {solver.BASE_LR}"
            )
        return CosineParamScheduler(1, end)
    if name == "WarmupStepWithFixedGammaLR":
        return StepWithFixedGammaParamScheduler(
            base_value=1.0,
            num_decays=solver.NUM_DECAYS,
            gamma=solver.GAMMA,
            num_updates=solver.MAX_ITER,
        )
    raise ValueError(
        "SOLVER.LR_SCHEDULER_NAME must be 'WarmupMultiStepLR', 'WarmupCosineLR' or "
        f"'WarmupStepWithFixedGammaLR', got {name!r}"
    )


def _multi_step(steps: list[int], gamma: float, max_iter: int) -> ParamScheduler:
    if any(step < 1 for step in steps) or steps != sorted(set(steps)):
        raise ValueError(f"SOLVER.STEPS must be positive and rise, got {steps}")
    reached = [step for step in steps if step < max_iter]
    if reached != steps:
        logging.getLogger(__name__).warning(
            "SOLVER.STEPS from SOLVER.MAX_ITER %d on are left out: %s", max_iter, steps
        )
    return MultiStepParamScheduler(
        [gamma**done for done in range(len(reached) + 1)],
        num_updates=max_iter,
        milestones=reached,
    )
