"""Augmentations that resize."""

import sys
from collections.abc import Sequence

import numpy as np
from fvcore.transforms.transform import NoOpTransform, Transform
from PIL import Image

from ._resize import ResizeTransform
from .augmentation import Augmentation


class Resize(Augmentation):
    """Resize to a fixed size.

    Args:
        shape: ``(h, w)``, or one number for both.
        interp: a resampling filter of Pillow.
    """

    def __init__(self, shape: int | tuple[int, int], interp: int = Image.BILINEAR) -> None:
        super().__init__()
        self.shape = (shape, shape) if np.ndim(shape) == 0 else tuple(shape)
        self.interp = interp

    def get_transform(self, image: np.ndarray) -> Transform:
        """A transform for an image ``(H, W, ...)``."""
        return ResizeTransform(*image.shape[:2], *self.shape, self.interp)


class ResizeShortestEdge(Augmentation):
    """Resize to a size of the shorter side, unless that makes the longer one too long.

    Args:
        short_edge_length: the range ``(min, max)``, both included, of the shorter side with
            ``sample_style`` "range"; the values to choose from with "choice"; or one value. An
            image stays as it is where 0 is drawn.
        max_size: the longer side is at most this.
        sample_style: "range" or "choice".
        interp: a resampling filter of Pillow.

    Raises:
        ValueError: an argument is none of these.
    """

    def __init__(
        self,
        short_edge_length: int | Sequence[int],
        max_size: int = sys.maxsize,
        sample_style: str = "range",
        interp: int = Image.BILINEAR,
    ) -> None:
        super().__init__()
        self.is_range = _is_range(sample_style)
        if np.ndim(short_edge_length) == 0:
            short_edge_length = (short_edge_length, short_edge_length)
        if self.is_range and not (
            len(short_edge_length) == 2 and short_edge_length[0] <= short_edge_length[1]
        ):
            raise ValueError(
                "short_edge_length must be (min, max) with sample_style 'range', "
                f"got {short_edge_length}"
            )
        if len(short_edge_length) == 0 or min(short_edge_length) < 0 or max_size < 1:
            raise ValueError(
                "short_edge_length must hold sizes and max_size be one, "
                f"got {short_edge_length} and {max_size}"
            )
        self._init(locals())

    def get_transform(self, image: np.ndarray) -> Transform:
        """A transform for an image ``(H, W, ...)``."""
        h, w = image.shape[:2]
        if self.is_range:
            low, high = self.short_edge_length
            size = np.random.randint(low, high + 1)
        else:
            size = np.random.choice(self.short_edge_length)
        if size == 0:
            return NoOpTransform()
        new_h, new_w = self.get_output_shape(h, w, int(size), self.max_size)
        return ResizeTransform(h, w, new_h, new_w, self.interp)

    @staticmethod
    def get_output_shape(
        oldh: int, oldw: int, short_edge_length: int, max_size: int
    ) -> tuple[int, int]:
        """The new ``(h, w)`` of an image ``(oldh, oldw)``, each rounded half up, and at least 1."""
        # Without what TorchScript does not know: exported models call it.
        shortest = float(short_edge_length)
        longest = shortest / min(oldh, oldw) * max(oldh, oldw)
        if longest > max_size:
            shortest *= max_size / longest
            longest *= max_size / longest
        short, long = max(int(shortest + 0.5), 1), max(int(longest + 0.5), 1)
        return (short, long) if oldh < oldw else (long, short)


def _is_range(sample_style: str) -> bool:
    if sample_style not in ("range", "choice"):
        raise ValueError(f"sample_style must be 'range' or 'choice', got {sample_style!r}")
    return sample_style == "range"


class ResizeScale(Augmentation):
    """Resize to fit into a target size times a random factor, keeping the aspect ratio.

    Followed by a crop of fixed size it makes the "large scale jittering" of Ghiasi et al., "Simple
    Copy-Paste is a Strong Data Augmentation Method for Instance Segmentation".

    Args:
        min_scale, max_scale: the range of the factor.
        target_height, target_width: the target size.
        interp: a resampling filter of Pillow.
    """

    def __init__(
        self,
        min_scale: float,
        max_scale: float,
        target_height: int,
        target_width: int,
        interp: int = Image.BILINEAR,
    ) -> None:
        super().__init__()
        if not 0 < min_scale <= max_scale:
            raise ValueError(f"scales must be 0 < min <= max, got {min_scale} and {max_scale}")
        self._init(locals())

    def get_transform(self, image: np.ndarray) -> Transform:
        """A transform for an image ``(H, W, ...)``."""
        h, w = image.shape[:2]
        factor = np.random.uniform(self.min_scale, self.max_scale)
        scale = min(self.target_height * factor / h, self.target_width * factor / w)
        new_h, new_w = max(round(h * scale), 1), max(round(w * scale), 1)
        return ResizeTransform(h, w, new_h, new_w, self.interp)


class RandomResize(Augmentation):
    """Resize to one of several sizes.

    Args:
        shape_list: the sizes ``(h, w)``.
        interp: a resampling filter of Pillow.
    """

    def __init__(self, shape_list: Sequence[tuple[int, int]], interp: int = Image.BILINEAR) -> None:
        super().__init__()
        if len(shape_list) == 0:
            raise ValueError("shape_list must hold a size, got []")
        self.shape_list = shape_list
        self.interp = interp

    def get_transform(self, image: np.ndarray) -> Transform:
        """A transform for an image ``(H, W, ...)``."""
        new_h, new_w = self.shape_list[np.random.choice(len(self.shape_list))]
        return ResizeTransform(*image.shape[:2], new_h, new_w, self.interp)
