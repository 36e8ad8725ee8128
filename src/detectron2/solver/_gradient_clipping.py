"""Optimizers that clip gradients before each step."""

from collections.abc import Callable, Iterable
from enum import Enum
from typing import Any

import torch
from torch.optim.optimizer import Optimizer

from detectron2.config import CfgNode

_Parameters = torch.Tensor | Iterable[torch.Tensor]


class GradientClipType(Enum):
    """What SOLVER.CLIP_GRADIENTS.CLIP_TYPE may be."""

    VALUE = "value"
    NORM = "norm"


def create_gradient_clipper(cfg: CfgNode) -> Callable[[_Parameters], None]:
    """A function that clips the gradients of parameters in place, each parameter by itself.

    It takes one parameter or many, and skips those without a gradient.

    Args:
        cfg: the node SOLVER.CLIP_GRADIENTS. CLIP_TYPE "value" limits each element to
            [-CLIP_VALUE, CLIP_VALUE]; "norm" scales each gradient whose norm of order NORM_TYPE is
            above CLIP_VALUE down to it.

    Raises:
        ValueError: another CLIP_TYPE.
    """
    clip_type, limit = GradientClipType(cfg.CLIP_TYPE), float(cfg.CLIP_VALUE)
    order = float(cfg.NORM_TYPE)

    def clip_values(parameters: _Parameters) -> None:
        if gradients := _gradients(parameters):
            torch._foreach_clamp_min_(gradients, -limit)
            torch._foreach_clamp_max_(gradients, limit)

    def clip_norms(parameters: _Parameters) -> None:
        if gradients := _gradients(parameters):
            # As in torch.nn.utils.clip_grad_norm_, without waiting for the device to compare.
            factors = torch._foreach_norm(gradients, order)
            torch._foreach_add_(factors, 1e-6)
            torch._foreach_reciprocal_(factors)
            torch._foreach_mul_(factors, limit)
            torch._foreach_clamp_max_(factors, 1.0)
            torch._foreach_mul_(gradients, factors)

    return clip_values if clip_type is GradientClipType.VALUE else clip_norms


def _gradients(parameters: _Parameters) -> list[torch.Tensor]:
    if isinstance(parameters, torch.Tensor):
        parameters = [parameters]
    return [parameter.grad for parameter in parameters if parameter.grad is not None]


def maybe_add_gradient_clipping(
    cfg: CfgNode, optimizer: type[Optimizer] | Optimizer
) -> type[Optimizer] | Optimizer:
    """Make an optimizer clip gradients, if ``cfg.SOLVER.CLIP_GRADIENTS.ENABLED``.

    Args:
        cfg: the whole configuration.
        optimizer: a class of optimizers, or an optimizer that no learning rate scheduler has yet.

    Returns:
        For a class a subclass named ``<class>WithGradientClip``; for an optimizer itself, now of
        that subclass. Without clipping, what was given.

    Raises:
        ValueError: an unknown CLIP_TYPE, or an optimizer whose ``step`` was replaced, so that it
            would not clip.
    """
    if not cfg.SOLVER.CLIP_GRADIENTS.ENABLED:
        return optimizer
    # On all parameters in one go, which gives each what it would get by itself.
    clipper = create_gradient_clipper(cfg.SOLVER.CLIP_GRADIENTS)
    if isinstance(optimizer, type):
        return _generate_optimizer_class_with_gradient_clipping(optimizer, global_clipper=clipper)
    if "step" in vars(optimizer):
        raise ValueError(
            "the optimizer's step has been replaced, by a learning rate scheduler perhaps: add "
            f"gradient clipping before that to {optimizer}"
        )
    optimizer.__class__ = _generate_optimizer_class_with_gradient_clipping(
        type(optimizer), global_clipper=clipper
    )
    return optimizer


def _generate_optimizer_class_with_gradient_clipping(
    optimizer: type[Optimizer],
    *,
    per_param_clipper: Callable[[torch.Tensor], Any] | None = None,
    global_clipper: Callable[[list[torch.Tensor]], Any] | None = None,
) -> type[Optimizer]:
    """A subclass of ``optimizer`` that clips gradients before each step.

    Exactly one clipper is given; it changes gradients in place.

    Args:
        optimizer: the class.
        per_param_clipper: called with each parameter.
        global_clipper: called with the list of all parameters, those of all groups.
    """
    if (per_param_clipper is None) == (global_clipper is None):
        raise ValueError("give one of per_param_clipper and global_clipper")

    @torch.no_grad()
    def clip(self: Optimizer) -> None:
        parameters = [p for group in self.param_groups for p in group["params"]]
        if global_clipper is not None:
            global_clipper(parameters)
        else:
            for parameter in parameters:
                per_param_clipper(parameter)

    def step(self: Optimizer, closure: Callable[[], Any] | None = None) -> Any:
        if closure is None:
            clip(self)
            return optimizer.step(self)

        # The closure makes the gradients, possibly several times in a step.
        def closure_with_clipping() -> Any:
            loss = closure()
            clip(self)
            return loss

        return optimizer.step(self, closure_with_clipping)

    # An optimizer's constructor wraps its class's step so that it runs the registered hooks. With
    # two classes they would run twice a step: wrap the inner one now, and mark the outer one.
    if not getattr(optimizer.step, "hooked", False):
        optimizer.step = Optimizer.profile_hook_step(optimizer.step)
        optimizer.step.hooked = True
    step.hooked = True

    return type(optimizer.__name__ + "WithGradientClip", (optimizer,), {"step": step})
