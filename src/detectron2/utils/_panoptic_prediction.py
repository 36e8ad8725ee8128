"""The segments of a panoptic segmentation."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

_VOID = -1


class _PanopticPrediction:
    """A panoptic segmentation, split into stuff and instances."""

    def __init__(
        self,
        panoptic_seg: torch.Tensor | np.ndarray,
        segments_info: list[dict[str, Any]] | None,
        metadata: Any = None,
    ) -> None:
        """Args:
            panoptic_seg: ``(H, W)``, the id of the segment that each pixel belongs to.
            segments_info: a dict for each segment with ``id``, ``category_id`` (contiguous) and
                ``isthing``. None if ids are ``category * metadata.label_divisor + k``, and -1
                where there is no segment.
            metadata: needed where ``segments_info`` is None.

        Raises:
            ValueError: ``segments_info`` is None, and the metadata have no ``label_divisor``.
        """
        if isinstance(panoptic_seg, torch.Tensor):
            panoptic_seg = panoptic_seg.detach().cpu().numpy()
        if panoptic_seg.ndim != 2:
            raise ValueError(
                f"a segmentation must have the shape (H, W), got {list(panoptic_seg.shape)}"
            )
        if segments_info is None:
            segments_info = infer_segments(panoptic_seg, metadata)
        self._seg = panoptic_seg
        self._info = {segment["id"]: segment for segment in segments_info}
        self._by_area = ids_by_area(panoptic_seg)

    def non_empty_mask(self) -> np.ndarray:
        """Where there is a segment; bool ``(H, W)``."""
        return np.isin(self._seg, list(self._info))

    def semantic_masks(self) -> Iterator[tuple[np.ndarray, dict[str, Any]]]:
        """Yield the mask, bool ``(H, W)``, and the info of each segment of stuff, the largest
        first."""
        yield from self._masks(is_thing=False)

    def instance_masks(self) -> Iterator[tuple[np.ndarray, dict[str, Any]]]:
        """Yield the same for each instance of a thing."""
        yield from self._masks(is_thing=True)

    def _masks(self, is_thing: bool) -> Iterator[tuple[np.ndarray, dict[str, Any]]]:
        for segment_id in self._by_area:
            info = self._info.get(segment_id)
            if info is not None and bool(info["isthing"]) == is_thing:
                yield self._seg == segment_id, info


def ids_by_area(segmentation: np.ndarray) -> list[int]:
    """The ids in a segmentation ``(H, W)`` of integers, that of most pixels first."""
    flat = segmentation.reshape(-1)
    if flat.size == 0:
        return []
    if np.issubdtype(flat.dtype, np.integer) and flat.min() >= 0 and flat.max() < flat.size:
        counts = np.bincount(flat)  # many times as fast as sorting
        ids = np.flatnonzero(counts)
        areas = counts[ids]
    else:
        ids, areas = np.unique(flat, return_counts=True)
    return [int(ids[index]) for index in np.argsort(-areas, kind="stable")]


def infer_segments(panoptic_seg: np.ndarray, metadata: Any) -> list[dict[str, Any]]:
    """The segments of ids that hold their category; -1 is the id of none.

    Args:
        panoptic_seg: ``(H, W)``, ids ``category * metadata.label_divisor + k``.
        metadata: tells also which categories are things.

    Returns:
        A dict for each segment with ``id``, ``isthing`` and ``category_id``, by ascending id.

    Raises:
        ValueError: the metadata have no ``label_divisor``.
    """
    divisor = getattr(metadata, "label_divisor", None)
    if divisor is None:
        raise ValueError("without segments_info, the metadata need a label_divisor")
    things = set(getattr(metadata, "thing_dataset_id_to_contiguous_id", {}).values())
    segments = []
    for segment_id in np.unique(panoptic_seg).tolist():
        if segment_id == _VOID:
            continue
        category = segment_id // divisor
        segments.append({"id": segment_id, "isthing": category in things, "category_id": category})
    return segments
