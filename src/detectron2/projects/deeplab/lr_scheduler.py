"""Learning rates that fall as a power of what is left of the training."""

from torch.optim.optimizer import Optimizer

from detectron2.solver.lr_scheduler import _ConfiguredLR, _get_warmup_factor_at_iter

__all__ = ["WarmupPolyLR"]


class WarmupPolyLR(_ConfiguredLR):
    """Learning rates times ``(1 - i / max_iters) ** power`` at iteration i, after a warm-up.

    The warm-up multiplies that. The schedule is 0, or the constant ending, beyond ``max_iters``.

    Args:
        optimizer: its groups' learning rates are changed.
        max_iters: iterations until 0 is reached.
        warmup_factor, warmup_iters, warmup_method: the warm-up takes ``warmup_iters`` iterations,
            "linear" from ``warmup_factor`` to 1, or "constant" at ``warmup_factor``.
        last_epoch: iterations done already, minus 1.
        power: of the polynomial.
        constant_ending: after the warm-up, the fraction of the base learning rate below which the
            learning rate does not fall.

    Raises:
        ValueError: ``max_iters`` is not positive, or another ``warmup_method``.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        max_iters: int,
        warmup_factor: float = 0.001,
        warmup_iters: int = 1000,
        warmup_method: str = "linear",
        last_epoch: int = -1,
        power: float = 0.9,
        constant_ending: float = 0.0,
    ) -> None:
        if max_iters < 1:
            raise ValueError(f"max_iters must be positive, got {max_iters}")
        self.max_iters = max_iters
        self.warmup_factor, self.warmup_iters = warmup_factor, warmup_iters
        self.warmup_method = warmup_method
        self.power, self.constant_ending = power, constant_ending
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """The learning rate of each parameter group at the current iteration."""
        warmup = _get_warmup_factor_at_iter(
            self.warmup_method, self.last_epoch, self.warmup_iters, self.warmup_factor
        )
        factor = max(1 - self.last_epoch / self.max_iters, 0.0) ** self.power
        if warmup == 1.0:
            factor = max(factor, self.constant_ending)
        return [base_lr * warmup * factor for base_lr in self.base_lrs]

    def _compute_values(self) -> list[float]:
        return self.get_lr()
