"""Learning rate schedules with warm-up.

A schedule is a ``ParamScheduler`` of fvcore: a function from the share of the training that is
done, in [0, 1], to a factor. :class:`LRMultiplier` makes it an ``LRScheduler`` of PyTorch, stepped
once an iteration.
"""

import bisect
import logging
import math
import weakref
from collections.abc import Sequence
from typing import Any

import torch
from fvcore.common.param_scheduler import (
    CompositeParamScheduler,
    ConstantParamScheduler,
    LinearParamScheduler,
    ParamScheduler,
)
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.optimizer import Optimizer

__all__ = [
    "LRMultiplier",
    "LRScheduler",
    "WarmupCosineLR",
    "WarmupMultiStepLR",
    "WarmupParamScheduler",
]

logger = logging.getLogger(__name__)


def _value_at(scheduler: ParamScheduler, where: float) -> float:
    """``scheduler(where)``, also at the very end, which schedulers on [0, 1) do not take."""
    try:
        return scheduler(where)
    except (IndexError, RuntimeError):
        # fvcore's step schedulers index past their last value already an epsilon before the end.
        epsilon = ParamScheduler.WHERE_EPSILON
        if not 1 - epsilon <= where <= 1:
            raise
        return scheduler(1 - 2 * epsilon)


class WarmupParamScheduler(CompositeParamScheduler):
    """A schedule with a warm-up before it.

    Args:
        scheduler: the schedule without warm-up.
        warmup_factor: the warm-up starts at ``warmup_factor * scheduler(0)``.
        warmup_length: share of the whole training that the warm-up takes, in [0, 1].
        warmup_method: "linear", up to the value with which ``scheduler`` goes on, or "constant",
            which stays at the start value.
        rescale_interval: squeeze the whole of ``scheduler`` into what the warm-up leaves. By
            default the warm-up takes the place of its beginning.

    Raises:
        ValueError: another method, or a length outside [0, 1].
    """

    def __init__(
        self,
        scheduler: ParamScheduler,
        warmup_factor: float,
        warmup_length: float,
        warmup_method: str = "linear",
        rescale_interval: bool = False,
    ) -> None:
        if not 0 <= warmup_length <= 1:
            raise ValueError(f"warmup_length must be in [0, 1], got {warmup_length}")
        start = warmup_factor * scheduler(0.0)
        if warmup_method == "linear":
            end = _value_at(scheduler, 0.0 if rescale_interval else warmup_length)
            warmup = LinearParamScheduler(start, end)
        elif warmup_method == "constant":
            warmup = ConstantParamScheduler(start)
        else:
            raise ValueError(f"warmup_method must be 'linear' or 'constant', got {warmup_method!r}")
        # What is left after a warm-up of length 1 is a point, which cannot be scaled.
        rescaled = rescale_interval and warmup_length < 1
        super().__init__(
            [warmup, scheduler],
            lengths=[warmup_length, 1 - warmup_length],
            interval_scaling=["rescaled", "rescaled" if rescaled else "fixed"],
        )


class _ConfiguredLR(LRScheduler):
    """A schedule that stays as it was configured when a checkpoint is loaded.

    Its state is the iteration, with the base learning rates to compare. When it is loaded, or the
    optimizer's is, in any order, the optimizer gets the learning rates of this schedule at that
    iteration. Where the checkpoint's differ, a warning says so.
    """

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        self._loaded = False
        self._lrs_in_checkpoint: list[float] | None = None
        super().__init__(optimizer, last_epoch)
        # The optimizer may outlive the schedule.
        this = weakref.ref(self)

        def follow_schedule(optimizer: Optimizer) -> None:
            schedule = this()
            if schedule is not None:
                schedule._after_loading_optimizer()

        optimizer.register_load_state_dict_post_hook(follow_schedule)

    def state_dict(self) -> dict[str, Any]:
        """``base_lrs``, one a parameter group, and ``last_epoch``, the current iteration."""
        return {"base_lrs": self.base_lrs, "last_epoch": self.last_epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go to the iteration ``state_dict["last_epoch"]`` of the configured schedule."""
        self.last_epoch = state_dict["last_epoch"]
        self._loaded = True
        self._set_lrs()
        base_lrs = state_dict.get("base_lrs", self.base_lrs)
        if _differ(base_lrs, self.base_lrs):
            logger.warning(
                "The checkpoint was trained with the base learning rate %s; from iteration %d on "
                "it is %s, as configured now.",
                _distinct(base_lrs),
                self.last_epoch,
                _distinct(self.base_lrs),
            )
        else:
            self._compare_lrs()

    def _after_loading_optimizer(self) -> None:
        self._lrs_in_checkpoint = [float(group["lr"]) for group in self.optimizer.param_groups]
        self._set_lrs()
        self._compare_lrs()

    def _set_lrs(self) -> None:
        groups = self.optimizer.param_groups
        for group, base_lr, lr in zip(groups, self.base_lrs, self.get_lr(), strict=True):
            group["initial_lr"] = base_lr
            if isinstance(group["lr"], torch.Tensor):
                group["lr"].fill_(lr)
            else:
                group["lr"] = lr
        self._last_lr = [
            group["lr"].clone() if isinstance(group["lr"], torch.Tensor) else group["lr"]
            for group in groups
        ]

    def _compare_lrs(self) -> None:
        """Once both states are loaded, tell whether the checkpoint's schedule was another one."""
        if not self._loaded or self._lrs_in_checkpoint is None:
            return
        if _differ(self._lrs_in_checkpoint, self._last_lr):
            logger.warning(
                "The checkpoint's learning rate at iteration %d is %s; it is %s in the schedule "
                "configured now, which is followed.",
                self.last_epoch,
                _distinct(self._lrs_in_checkpoint),
                _distinct(self._last_lr),
            )
        self._lrs_in_checkpoint = None


def _differ(lrs: Sequence[Any], others: Sequence[Any]) -> bool:
    return len(lrs) != len(others) or not all(
        math.isclose(a, b, rel_tol=1e-9) for a, b in zip(lrs, others, strict=True)
    )


def _distinct(lrs: Sequence[Any]) -> str:
    return ", ".join(f"{lr:.6g}" for lr in sorted({float(lr) for lr in lrs}))


class LRMultiplier(_ConfiguredLR):
    """Learning rates that are the optimizer's own, times a schedule.

    After ``i`` calls of :meth:`step` the learning rate of each parameter group is its initial one,
    times ``multiplier(i / max_iter)``. The schedule is defined up to ``i == max_iter``, which
    follows the last iteration.

    It is not part of the checkpoints: a training resumed with another schedule, or with other
    initial learning rates, follows the new ones, with a warning, from the iteration it had reached.

    Args:
        optimizer: its groups' learning rates are changed; gradient clipping, if any, has been
            added to it already.
        multiplier: the schedule.
        max_iter: iterations of the whole training.
        last_iter: iterations done already, minus 1.

    Raises:
        ValueError: ``multiplier`` is not a ``ParamScheduler``, or ``max_iter`` is not positive.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        multiplier: ParamScheduler,
        max_iter: int,
        last_iter: int = -1,
    ) -> None:
        if not isinstance(multiplier, ParamScheduler):
            raise ValueError(
                "multiplier must be a fvcore.common.param_scheduler.ParamScheduler, got "
                f"{multiplier!r}"
            )
        if max_iter < 1:
            raise ValueError(f"max_iter must be positive, got {max_iter}")
        self._multiplier, self._max_iter = multiplier, max_iter
        super().__init__(optimizer, last_epoch=last_iter)

    def get_lr(self) -> list[float]:
        """The learning rate of each parameter group at the current iteration."""
        factor = _value_at(self._multiplier, self.last_epoch / self._max_iter)
        return [base_lr * factor for base_lr in self.base_lrs]


class WarmupMultiStepLR(_ConfiguredLR):
    """Learning rates multiplied by ``gamma`` at each milestone, after a warm-up. Deprecated.

    :class:`LRMultiplier` takes its place, with a :class:`WarmupParamScheduler` of a
    ``MultiStepParamScheduler``.

    Args:
        optimizer: its groups' learning rates are changed.
        milestones: iterations from which on a further ``gamma`` applies, in rising order.
        gamma: factor.
        warmup_factor, warmup_iters, warmup_method: the warm-up takes ``warmup_iters`` iterations,
            "linear" from ``warmup_factor`` to 1, or "constant" at ``warmup_factor``.
        last_epoch: iterations done already, minus 1.

    Raises:
        ValueError: unsorted milestones, or another method.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        milestones: list[int],
        gamma: float = 0.1,
        warmup_factor: float = 0.001,
        warmup_iters: int = 1000,
        warmup_method: str = "linear",
        last_epoch: int = -1,
    ) -> None:
        logger.warning("WarmupMultiStepLR is deprecated: use LRMultiplier")
        if list(milestones) != sorted(milestones):
            raise ValueError(f"milestones must be in rising order, got {milestones}")
        self.milestones, self.gamma = milestones, gamma
        self.warmup_factor, self.warmup_iters = warmup_factor, warmup_iters
        self.warmup_method = warmup_method
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """The learning rate of each parameter group at the current iteration."""
        factor = _get_warmup_factor_at_iter(
            self.warmup_method, self.last_epoch, self.warmup_iters, self.warmup_factor
        ) * self.gamma ** bisect.bisect_right(self.milestones, self.last_epoch)
        return [base_lr * factor for base_lr in self.base_lrs]

    def _compute_values(self) -> list[float]:
        return self.get_lr()


class WarmupCosineLR(_ConfiguredLR):
    """Learning rates that fall to 0 as half a cosine, after a warm-up. Deprecated.

    :class:`LRMultiplier` takes its place, with a :class:`WarmupParamScheduler` of a
    ``CosineParamScheduler``. The warm-up multiplies the cosine.

    Args:
        optimizer: its groups' learning rates are changed.
        max_iters: iterations until 0 is reached.
        warmup_factor, warmup_iters, warmup_method, last_epoch: as :class:`WarmupMultiStepLR` has
            them.

    Raises:
        ValueError: a ``warmup_method`` that is neither "linear" nor "constant".
    """

    def __init__(
        self,
        optimizer: Optimizer,
        max_iters: int,
        warmup_factor: float = 0.001,
        warmup_iters: int = 1000,
        warmup_method: str = "linear",
        last_epoch: int = -1,
    ) -> None:
        logger.warning("WarmupCosineLR is deprecated: use LRMultiplier")
        self.max_iters = max_iters
        self.warmup_factor, self.warmup_iters = warmup_factor, warmup_iters
        self.warmup_method = warmup_method
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """The learning rate of each parameter group at the current iteration."""
        warmup = _get_warmup_factor_at_iter(
            self.warmup_method, self.last_epoch, self.warmup_iters, self.warmup_factor
        )
        factor = warmup * 0.5 * (1 + math.cos(math.pi * self.last_epoch / self.max_iters))
        return [base_lr * factor for base_lr in self.base_lrs]

    def _compute_values(self) -> list[float]:
        return self.get_lr()


def _get_warmup_factor_at_iter(
    method: str, iter: int, warmup_iters: int, warmup_factor: float
) -> float:
    """The warm-up's factor at an iteration; 1 from ``warmup_iters`` on."""
    if iter >= warmup_iters:
        return 1.0
    if method == "constant":
        return warmup_factor
    if method == "linear":
        done = iter / warmup_iters
        return warmup_factor * (1 - done) + done
    raise ValueError(f"the warm-up method must be 'linear' or 'constant', got {method!r}")
