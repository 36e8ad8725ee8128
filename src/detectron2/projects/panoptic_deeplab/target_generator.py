"""Targets of Panoptic-DeepLab."""

from collections.abc import Collection
from typing import Any

import numpy as np
import torch

__all__ = ["PanopticDeepLabTargetGenerator"]


class PanopticDeepLabTargetGenerator:
    """Makes classes, centres and offsets, with weights, of a panoptic annotation."""

    def __init__(
        self,
        ignore_label: int,
        thing_ids: Collection[int],
        sigma: float = 8,
        ignore_stuff_in_offset: bool = False,
        small_instance_area: int = 0,
        small_instance_weight: float = 1,
        ignore_crowd_in_semantic: bool = False,
    ) -> None:
        """
        Args:
            ignore_label: class of pixels that are not annotated.
            thing_ids: classes of things.
            sigma: standard deviation of the Gaussian around a centre, in pixels.
            ignore_stuff_in_offset: whether offsets do not count on stuff; otherwise they are to be
                0 there.
            small_instance_area: things of fewer pixels are small.
            small_instance_weight: weight of the pixels of small things in the semantic loss.
            ignore_crowd_in_semantic: whether crowds get the class ``ignore_label``.

        Attributes:
            g: the Gaussian, float64 ``(6 sigma + 3, 6 sigma + 3)``, 1 in its middle.
        """
        if sigma <= 0:
            raise ValueError(f"sigma must be positive, got {sigma}")
        self.ignore_label = ignore_label
        self.thing_ids = set(thing_ids)
        self.ignore_stuff_in_offset = ignore_stuff_in_offset
        self.small_instance_area = small_instance_area
        self.small_instance_weight = small_instance_weight
        self.ignore_crowd_in_semantic = ignore_crowd_in_semantic
        self.sigma = sigma
        self._reach = int(3 * sigma + 1)
        distance = np.arange(-self._reach, self._reach + 1, dtype=np.float64)
        self.g = np.exp(-(distance[:, None] ** 2 + distance**2) / (2 * sigma**2))

    def __call__(
        self, panoptic: np.ndarray, segments_info: list[dict[str, Any]]
    ) -> dict[str, torch.Tensor | list[list[float]]]:
        """Make the targets of an image.

        Args:
            panoptic: ``(H, W)``, the id of each pixel's segment. Pixels with an id that no segment
                has are not annotated.
            segments_info: for each segment its ``id``, the contiguous ``category_id`` and
                ``iscrowd``. A crowd has no centre; its pixels do not count for centres and offsets.

        Returns:
            - ``sem_seg``: int64 ``(H, W)``, classes;
            - ``center``: ``(H, W)``, the largest of the Gaussians around the centres of things,
              which are the means of their pixels;
            - ``center_points``: (y, x) of each thing that has pixels;
            - ``offset``: ``(2, H, W)``, (dy, dx) from each pixel of a thing to its centre;
            - ``sem_seg_weights``: ``(H, W)``;
            - ``center_weights`` and ``offset_weights``: ``(1, H, W)``.

            All tensors but the first are float32.

        Raises:
            ValueError: ``panoptic`` has another shape, or two segments have the same id.
        """
        if panoptic.ndim != 2:
            raise ValueError(f"panoptic must have the shape (H, W), got {panoptic.shape}")
        # From here on index 0 are the pixels without a segment, 1 is the first segment.
        index = _segment_indices(panoptic, [segment["id"] for segment in segments_info])
        count = 1 + len(segments_info)
        areas = np.bincount(index.ravel(), minlength=count)
        sem_seg = np.full(count, self.ignore_label, dtype=np.int64)
        sem_seg_weights = np.ones(count, dtype=np.float32)
        center_weights = np.zeros(count, dtype=np.float32)
        offset_weights = np.zeros(count, dtype=np.float32)
        things = []
        for i, segment in enumerate(segments_info, start=1):
            is_crowd = bool(segment["iscrowd"])
            is_thing = segment["category_id"] in self.thing_ids
            if not (is_crowd and self.ignore_crowd_in_semantic):
                sem_seg[i] = segment["category_id"]
            if is_thing and areas[i] < self.small_instance_area:
                sem_seg_weights[i] = self.small_instance_weight
            if is_crowd:
                continue
            center_weights[i] = 1
            offset_weights[i] = is_thing or not self.ignore_stuff_in_offset
            if is_thing and areas[i] > 0:
                things.append(i)

        centers = _centers(index, count, areas)[things]
        return {
            "sem_seg": torch.from_numpy(sem_seg[index]),
            "center": torch.from_numpy(self._heatmap(panoptic.shape, centers)),
            "center_points": centers.tolist(),
            "offset": torch.from_numpy(_offsets(index, count, things, centers)),
            "sem_seg_weights": torch.from_numpy(sem_seg_weights[index]),
            "center_weights": torch.from_numpy(center_weights[index[None]]),
            "offset_weights": torch.from_numpy(offset_weights[index[None]]),
        }

    def _heatmap(self, size: tuple[int, int], centers: np.ndarray) -> np.ndarray:
        """float32 ``(H, W)``, the largest of the Gaussians around ``(K, 2)``, (y, x)."""
        reach = self._reach
        gaussian = self.g.astype(np.float32)
        # With a margin, so that no Gaussian is cut off at the border.
        padded = np.zeros((size[0] + 2 * reach, size[1] + 2 * reach), dtype=np.float32)
        for y, x in np.rint(centers).astype(np.int64):
            window = padded[y : y + 2 * reach + 1, x : x + 2 * reach + 1]
            np.maximum(window, gaussian, out=window)
        return np.ascontiguousarray(padded[reach : reach + size[0], reach : reach + size[1]])


def _segment_indices(panoptic: np.ndarray, ids: list[int]) -> np.ndarray:
    """``(H, W)``: 1 + the index in ``ids`` of each pixel's id, or 0."""
    if len(set(ids)) != len(ids):
        raise ValueError(f"segments must have different ids, got {ids}")
    if not ids:
        return np.zeros(panoptic.shape, dtype=np.int64)
    order = np.argsort(ids)
    ascending = np.asarray(ids, dtype=np.int64)[order]
    position = np.searchsorted(ascending, panoptic).clip(max=len(ids) - 1)
    return np.where(ascending[position] == panoptic, order[position] + 1, 0)


def _centers(index: np.ndarray, count: int, areas: np.ndarray) -> np.ndarray:
    """float64 ``(count, 2)``: (y, x), the mean of the pixels of each index; 0 without any."""
    height, width = index.shape
    # Pixels of each index in each row and in each column.
    in_rows = np.bincount(
        (index * height + np.arange(height)[:, None]).ravel(), minlength=count * height
    )
    in_columns = np.bincount((index * width + np.arange(width)).ravel(), minlength=count * width)
    sums = np.stack(
        [
            in_rows.reshape(count, height) @ np.arange(height),
            in_columns.reshape(count, width) @ np.arange(width),
        ],
        axis=1,
    )
    return sums / np.maximum(areas, 1)[:, None]


def _offsets(index: np.ndarray, count: int, things: list[int], centers: np.ndarray) -> np.ndarray:
    """float32 ``(2, H, W)``: to the centre of the thing; 0 elsewhere."""
    height, width = index.shape
    center_of_index = np.zeros((2, count))
    center_of_index[:, things] = centers.T
    is_thing = np.zeros(count, dtype=np.float32)
    is_thing[things] = 1
    offsets = np.empty((2, height, width), dtype=np.float32)
    offsets[0] = center_of_index[0][index] - np.arange(height)[:, None]
    offsets[1] = center_of_index[1][index] - np.arange(width)
    return offsets * is_thing[index]
