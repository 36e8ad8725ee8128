"""A mask in whichever form it comes, and in the form that is asked for."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from pycocotools import mask as coco_mask

from detectron2.structures.masks import polygons_to_bitmask
from detectron2.utils._mask_contours import mask_contours

__all__ = ["GenericMask"]


class GenericMask:
    """The mask of one instance: a bitmap, polygons or COCO's run lengths.

    Attributes:
        height: of the image.
        width: of the image.
        is_polygons: whether it was made from polygons.
    """

    def __init__(self, mask_or_polygons: Any, height: int, width: int) -> None:
        """Wrap a mask.

        Args:
            mask_or_polygons: an array or tensor ``(height, width)``, in which what is not 0 is
                set; a list of polygons, each ``[x0, y0, x1, y1, ...]`` in pixels; or a dict of
                COCO with ``size`` and ``counts``, compressed or not.
            height: of the image.
            width: of the image.

        Raises:
            ValueError: something else, a mask of another size, or a polygon with an odd number of
                values or fewer than six.
        """
        self.height, self.width = height, width
        self.is_polygons = isinstance(mask_or_polygons, (list, tuple))
        self._mask: np.ndarray | None = None
        self._polygons: list[np.ndarray] | None = None
        self._has_holes: bool | None = None
        if isinstance(mask_or_polygons, dict):
            self._mask = _decode(mask_or_polygons)
        elif self.is_polygons:
            self._polygons = [_as_polygon(polygon) for polygon in mask_or_polygons]
        elif isinstance(mask_or_polygons, (np.ndarray, torch.Tensor)):
            array = _as_array(mask_or_polygons)
            self._mask = (array if array.dtype == np.bool_ else array != 0).view(np.uint8)
        else:
            raise ValueError(
                f"a mask is an array, a list of polygons or a dict, got {type(mask_or_polygons)}"
            )
        if self._mask is not None and self._mask.shape != (height, width):
            raise ValueError(
                f"the mask has the shape {self._mask.shape}, the image {(height, width)}"
            )

    @property
    def mask(self) -> np.ndarray:
        """As a bitmap, uint8 ``(height, width)``, values 0 and 1."""
        if self._mask is None:
            assert self._polygons is not None
            self._mask = self.polygons_to_mask(self._polygons)
        return self._mask

    @property
    def polygons(self) -> list[np.ndarray]:
        """As polygons ``[x0, y0, x1, y1, ...]``: those it was made from, or the borders of the
        bitmap, through the centres of its pixels; those of holes come last."""
        if self._polygons is None:
            self._polygons, self._has_holes = self.mask_to_polygons(self.mask)
        return self._polygons

    @property
    def has_holes(self) -> bool:
        """Whether the bitmap has a hole; False for what was made from polygons."""
        if self._has_holes is None:
            if self._polygons is None:
                self._polygons, self._has_holes = self.mask_to_polygons(self.mask)
            else:
                self._has_holes = False
        return self._has_holes

    def mask_to_polygons(self, mask: np.ndarray) -> tuple[list[np.ndarray], bool]:
        """Follow the borders of a bitmap.

        Args:
            mask: ``(H, W)``; what is not 0 is set.

        Returns:
            The borders as in :attr:`polygons`, without those of one or two pixels, which are no
            polygons; and whether there is a hole.
        """
        outer, holes = mask_contours(mask)
        polygons = [(border + 0.5).reshape(-1) for border in [*outer, *holes] if len(border) >= 3]
        return polygons, len(holes) > 0

    def polygons_to_mask(self, polygons: Sequence[np.ndarray]) -> np.ndarray:
        """The union of polygons as a bitmap, uint8 ``(height, width)``, with COCO's pixels."""
        return polygons_to_bitmask(list(polygons), self.height, self.width).view(np.uint8)

    def area(self) -> int:
        """Number of pixels."""
        return int(np.count_nonzero(self.mask))

    def bbox(self) -> np.ndarray:
        """The box ``(x0, y0, x1, y1)`` around the pixels of the polygons, float64; zeros where
        there are none. A bitmap's polygons go through the centres of its outer pixels."""
        mask = self.polygons_to_mask(self.polygons)
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        if len(rows) == 0:
            return np.zeros(4)
        return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], np.float64)


def _as_array(value: np.ndarray | torch.Tensor) -> np.ndarray:
    return value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else value


def _as_polygon(polygon: Any) -> np.ndarray:
    array = np.asarray(_as_array(polygon), np.float64).reshape(-1)
    if array.size < 6 or array.size % 2:
        raise ValueError(
            f"a polygon is [x0, y0, x1, y1, ...] with at least 6 values, got {array.size} of them"
        )
    return array


def _decode(run_lengths: dict[str, Any]) -> np.ndarray:
    if not {"size", "counts"} <= run_lengths.keys():
        raise ValueError(f"run lengths have 'size' and 'counts', got {sorted(run_lengths)}")
    if isinstance(run_lengths["counts"], list):
        run_lengths = coco_mask.frPyObjects(run_lengths, *run_lengths["size"])
    return coco_mask.decode(run_lengths)
