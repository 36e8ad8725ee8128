"""Augmentations that flip, rotate and move, and the one that decides whether to."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from fvcore.transforms.transform import NoOpTransform, Transform

from ._augment_sizes import _is_range
from ._extent import ExtentTransform
from ._flip import HFlipTransform, VFlipTransform
from ._rotation import RotationTransform
from .augmentation import Augmentation, as_augmentation


def _check_probability(prob: float) -> None:
    if not 0 <= prob <= 1:
        raise ValueError(f"prob must be within [0, 1], got {prob}")


class RandomApply(Augmentation):
    """Apply a transform or an augmentation with a probability.

    Args:
        tfm_or_aug: what to apply.
        prob: the probability.
    """

    def __init__(self, tfm_or_aug: Transform | Augmentation, prob: float = 0.5) -> None:
        super().__init__()
        _check_probability(prob)
        self.aug = as_augmentation(tfm_or_aug)
        self.prob = prob

    def get_transform(self, *args: Any) -> Transform:
        """The transform for the arguments of the augmentation, or none."""
        return self.aug.get_transform(*args) if self._decide() else NoOpTransform()

    def __call__(self, aug_input: Any) -> Transform:
        """Apply it to an input, in place, or not."""
        return self.aug(aug_input) if self._decide() else NoOpTransform()

    def _decide(self) -> bool:
        return self._rand_range() < self.prob

    def __repr__(self) -> str:
        return f"RandomApply({self.aug}, prob={self.prob})"

    __str__ = __repr__


class RandomFlip(Augmentation):
    """Mirror an image with a probability.

    Args:
        prob: the probability.
        horizontal, vertical: whether left and right, or top and bottom, change places; one of
            them.

    Raises:
        ValueError: both or none of the directions are set, or ``prob`` is no probability.
    """

    def __init__(
        self, prob: float = 0.5, *, horizontal: bool = True, vertical: bool = False
    ) -> None:
        super().__init__()
        _check_probability(prob)
        if bool(horizontal) == bool(vertical):
            raise ValueError(
                "one of horizontal and vertical must be set (use two RandomFlip for both), "
                f"got {horizontal} and {vertical}"
            )
        self._init(locals())

    def get_transform(self, image: np.ndarray) -> Transform:
        """A transform for an image ``(H, W, ...)``."""
        h, w = image.shape[:2]
        if self._rand_range() >= self.prob:
            return NoOpTransform()
        return HFlipTransform(w) if self.horizontal else VFlipTransform(h)


class RandomRotation(Augmentation):
    """Rotate an image counter-clockwise by a random angle.

    Args:
        angle: in degrees: the range ``(min, max)`` with ``sample_style`` "range", the values to
            choose from with "choice", or one value.
        expand: whether the result is large enough for the whole rotated image.
        center: xy of the fixed point as shares of width and height: the range
            ``((min_x, min_y), (max_x, max_y))``, the points to choose from, or one point. The
            image's centre by default; without effect if ``expand``.
        sample_style: "range" or "choice".
        interp: see `RotationTransform`.

    Raises:
        ValueError: an argument is none of these.
    """

    def __init__(
        self,
        angle: float | Sequence[float],
        expand: bool = True,
        center: Sequence[float] | Sequence[Sequence[float]] | None = None,
        sample_style: str = "range",
        interp: int | None = None,
    ) -> None:
        super().__init__()
        self.is_range = _is_range(sample_style)
        if np.ndim(angle) == 0:
            angle = (angle, angle)
        if center is not None and np.ndim(center[0]) == 0:
            center = (center, center)
        for name, values in (("angle", angle), ("center", center)):
            if values is not None and (len(values) != 2 if self.is_range else len(values) == 0):
                raise ValueError(
                    f"{name} must hold {'two values' if self.is_range else 'values'} with "
                    f"sample_style {sample_style!r}, got {values}"
                )
        self._init(locals())

    def get_transform(self, image: np.ndarray) -> Transform:
        """A transform for an image ``(H, W, ...)``."""
        h, w = image.shape[:2]
        center = None
        if self.is_range:
            angle = np.random.uniform(*self.angle)
            if self.center is not None:
                low, high = self.center
                center = [np.random.uniform(low[i], high[i]) for i in (0, 1)]
        else:
            angle = float(np.random.choice(self.angle))
            if self.center is not None:
                center = self.center[np.random.choice(len(self.center))]
        if angle % 360 == 0:
            return NoOpTransform()
        if center is not None:
            center = (w * center[0], h * center[1])
        return RotationTransform(h, w, angle, self.expand, center, self.interp)


class RandomExtent(Augmentation):
    """Scale a rectangle of the image's size, and move it, and keep what is in it.

    Args:
        scale_range: the range of the rectangle's factor: below 1 it zooms in, above 1 out.
        shift_range: ``(x, y)``: how far it moves in all, as shares of width and height, half of it
            to either side.
    """

    def __init__(self, scale_range: tuple[float, float], shift_range: tuple[float, float]) -> None:
        super().__init__()
        if not 0 < scale_range[0] <= scale_range[1]:
            raise ValueError(f"scale_range must be 0 < min <= max, got {tuple(scale_range)}")
        self._init(locals())

    def get_transform(self, image: np.ndarray) -> Transform:
        """A transform for an image ``(H, W, ...)``."""
        h, w = image.shape[:2]
        scale = np.random.uniform(*self.scale_range)
        center_x = w * (0.5 + self.shift_range[0] * (np.random.rand() - 0.5))
        center_y = h * (0.5 + self.shift_range[1] * (np.random.rand() - 0.5))
        half_w, half_h = 0.5 * scale * w, 0.5 * scale * h
        return ExtentTransform(
            src_rect=(
                center_x - half_w,
                center_y - half_h,
                center_x + half_w,
                center_y + half_h,
            ),
            output_size=(max(int(scale * h), 1), max(int(scale * w), 1)),
        )
