"""Augmentations that crop."""

from collections.abc import Sequence

import numpy as np
import torch
from fvcore.transforms.transform import NoOpTransform, Transform, TransformList

from detectron2.structures import Boxes, pairwise_iou

from ._window import CropTransform, PadTransform
from .augmentation import Augmentation


class RandomCrop(Augmentation):
    """Keep a random window.

    Args:
        crop_type: how the window's size is found.
            "relative": the share ``crop_size`` of the image's.
            "relative_range": shares drawn from ``[crop_size, 1]``, for each axis.
            "absolute": ``crop_size``, or the image's where that is less.
            "absolute_range": each side drawn from ``crop_size``, which is ``(min, max)``, or from
            what of it the image allows.
        crop_size: ``(h, w)``, shares in ``(0, 1]`` or pixels; ``(min, max)`` for "absolute_range".

    Raises:
        ValueError: there is no such type, or ``crop_size`` does not belong to it.
    """

    def __init__(self, crop_type: str, crop_size: Sequence[float]) -> None:
        super().__init__()
        first, second = crop_size
        if crop_type in ("relative", "relative_range"):
            valid = 0 < first <= 1 and 0 < second <= 1
        elif crop_type == "absolute":
            valid = first >= 1 and second >= 1
        elif crop_type == "absolute_range":
            valid = 1 <= first <= second
        else:
            raise ValueError(
                "crop_type must be 'relative', 'relative_range', 'absolute' or 'absolute_range', "
                f"got {crop_type!r}"
            )
        if not valid:
            raise ValueError(f"{tuple(crop_size)} is no crop_size for the crop_type {crop_type!r}")
        self._init({"crop_type": crop_type, "crop_size": crop_size})

    def get_transform(self, image: np.ndarray) -> Transform:
        """A transform for an image ``(H, W, ...)``."""
        return self.place(image.shape[:2])

    def place(self, image_size: tuple[int, int]) -> CropTransform:
        """Draw a window for an image of the size ``(H, W)``."""
        h, w = image_size
        crop_h, crop_w = self.get_crop_size(image_size)
        y0 = np.random.randint(h - crop_h + 1)
        x0 = np.random.randint(w - crop_w + 1)
        return CropTransform(x0, y0, crop_w, crop_h, w, h)

    def get_crop_size(self, image_size: tuple[int, int]) -> tuple[int, int]:
        """Draw the size ``(h, w)`` of a window, in pixels, for an image of the size ``(H, W)``."""
        h, w = image_size
        if self.crop_type == "absolute":
            return min(int(self.crop_size[0]), h), min(int(self.crop_size[1]), w)
        if self.crop_type == "absolute_range":
            low, high = self.crop_size
            crop_h = np.random.randint(min(h, low), min(h, high) + 1)
            crop_w = np.random.randint(min(w, low), min(w, high) + 1)
            return crop_h, crop_w
        shares = np.asarray(self.crop_size, dtype=np.float64)
        if self.crop_type == "relative_range":
            # In float32 as ever, so that a seed keeps its crops.
            shares = np.asarray(self.crop_size, dtype=np.float32)
            shares = shares + np.random.rand(2) * (1 - shares)
        # A crop of an image that has pixels has pixels.
        return max(int(h * shares[0] + 0.5), min(h, 1)), max(int(w * shares[1] + 0.5), min(w, 1))


class RandomCrop_CategoryAreaConstraint(Augmentation):  # noqa: N801
    """As `RandomCrop`, but no category is to fill most of the window.

    Ten windows are tried; if none will do, the last is taken.

    Args:
        crop_type, crop_size: see `RandomCrop`.
        single_category_max_area: the largest share of the window that one category may have, and
            there must be a second one; with 1 or more, any window will do.
        ignored_category: a label that does not count.
    """

    def __init__(
        self,
        crop_type: str,
        crop_size: Sequence[float],
        single_category_max_area: float = 1.0,
        ignored_category: int | None = None,
    ) -> None:
        super().__init__()
        self.crop_aug = RandomCrop(crop_type, crop_size)
        self._init(locals())

    def get_transform(self, image: np.ndarray, sem_seg: np.ndarray) -> Transform:
        """A transform for an image ``(H, W, ...)`` with its labels ``(H, W)``.

        Raises:
            ValueError: the sizes differ, or there are no labels.
        """
        if self.single_category_max_area >= 1.0:
            return self.crop_aug.get_transform(image)
        if sem_seg is None or sem_seg.shape != image.shape[:2]:
            raise ValueError(
                f"an image of the shape {image.shape} needs labels of its height and width, got "
                f"{None if sem_seg is None else sem_seg.shape}"
            )
        for _ in range(10):
            crop = self.crop_aug.place(sem_seg.shape)
            counts = self._count(crop.apply_image(sem_seg))
            if len(counts) > 1 and max(counts) < sum(counts) * self.single_category_max_area:
                break
        return crop

    def _count(self, labels: np.ndarray) -> list[int]:
        """How often each label comes up, other than the ignored one."""
        if labels.dtype == np.uint8:
            # Without the sorting that `np.unique` does.
            counts = np.bincount(labels.ravel())
            values = np.flatnonzero(counts)
            counts = counts[values]
        else:
            values, counts = np.unique(labels, return_counts=True)
        if self.ignored_category is not None:
            counts = counts[values != self.ignored_category]
        return counts.tolist()


class FixedSizeCrop(Augmentation):
    """Crop to a size, at a random place, and pad what is smaller than that.

    Args:
        crop_size: ``(h, w)``.
        pad: whether smaller images are padded, at the right and at the bottom.
        pad_value: of the padding in images.
        seg_pad_value: of the padding in segmentations.
    """

    def __init__(
        self,
        crop_size: tuple[int, int],
        pad: bool = True,
        pad_value: float = 128.0,
        seg_pad_value: int = 255,
    ) -> None:
        super().__init__()
        if min(crop_size) < 1:
            raise ValueError(f"crop_size must be positive, got {tuple(crop_size)}")
        self._init(locals())

    def get_transform(self, image: np.ndarray) -> TransformList:
        """A crop, followed by a padding if asked for, for an image ``(H, W, ...)``."""
        h, w = image.shape[:2]
        crop_h, crop_w = min(self.crop_size[0], h), min(self.crop_size[1], w)
        # One number for both axes: the window lies on the image's diagonal.
        place = np.random.uniform(0.0, 1.0)
        x0, y0 = round((w - crop_w) * place), round((h - crop_h) * place)
        transforms: list[Transform] = [CropTransform(x0, y0, crop_w, crop_h, w, h)]
        if self.pad:
            right, bottom = self.crop_size[1] - crop_w, self.crop_size[0] - crop_h
            transforms.append(
                PadTransform(
                    0, 0, right, bottom, crop_w, crop_h, self.pad_value, self.seg_pad_value
                )
            )
        return TransformList(transforms)


class MinIoURandomCrop(Augmentation):
    """Keep a random window that overlaps with the boxes by at least a random IoU.

    Liu et al., "SSD: Single Shot MultiBox Detector", section 2.2. Every box must overlap with the
    window by that much, and the centre of one must lie in it.

    Args:
        min_ious: the IoUs to choose from; beside them there are always 0 and 1, the latter for the
            whole image.
        min_crop_size: the smallest share of an image's width and height that a window may have.
        mode_trials: how many IoUs are tried; after that the image stays whole.
        crop_trials: how many windows are tried for an IoU.
    """

    def __init__(
        self,
        min_ious: Sequence[float] = (0.1, 0.3, 0.5, 0.7, 0.9),
        min_crop_size: float = 0.3,
        mode_trials: int = 1000,
        crop_trials: int = 50,
    ) -> None:
        super().__init__()
        if not 0 < min_crop_size <= 1:
            raise ValueError(f"min_crop_size must be within (0, 1], got {min_crop_size}")
        self._init(locals())
        self.sample_mode = (1, *min_ious, 0)

    def get_transform(self, image: np.ndarray, boxes: np.ndarray | None) -> Transform:
        """A transform for an image ``(H, W, ...)`` with boxes ``(N, 4)`` xyxy, or with None."""
        if boxes is None:
            return NoOpTransform()
        h, w = image.shape[:2]
        for _ in range(self.mode_trials):
            min_iou = np.random.choice(self.sample_mode)
            if min_iou == 1:
                break
            for _ in range(self.crop_trials):
                crop = self._draw(np.array([w, h]))
                if crop is not None and _is_good(crop, boxes, min_iou):
                    return crop
        return NoOpTransform()

    def _draw(self, image_size: np.ndarray) -> CropTransform | None:
        """A window within an image of the size wh, or None for one too narrow or too flat."""
        size = np.random.uniform(self.min_crop_size * image_size, image_size)
        if not 0.5 <= size[1] / size[0] <= 2 or min(size) < 1:
            return None
        # Up to 1, not from 0: what a seed gives is kept.
        corner = np.random.uniform(image_size - size, 1.0)
        numbers = np.concatenate([corner, size, image_size]).astype(int)
        return CropTransform(*numbers.tolist())


def _is_good(crop: CropTransform, boxes: np.ndarray, min_iou: float) -> bool:
    if len(boxes) == 0:
        return True
    window = crop.x0, crop.y0, crop.x0 + crop.w, crop.y0 + crop.h
    ious = pairwise_iou(
        Boxes(torch.tensor([window], dtype=torch.float32)), Boxes(torch.as_tensor(boxes))
    )
    if ious.min() < min_iou:
        return False
    x0, y0, x1, y1 = window
    x, y = (boxes[:, 0] + boxes[:, 2]) / 2, (boxes[:, 1] + boxes[:, 3]) / 2
    return bool(((x > x0) & (x < x1) & (y > y0) & (y < y1)).any())
