"""COCO annotations as flat arrays, grouped by category and image."""

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import Params

Annotation = dict[str, Any]


@dataclass(frozen=True)
class PackedAnnotations:
    """Detections and ground truths of one evaluation.

    A group is one category in one image, or one image where categories do not matter. Only groups
    that hold something are listed, ordered by category, then image; within a group, detections are
    ordered by decreasing score (equal scores as in the data set), ground truths as in the data set.

    ``D`` counts detections, ``G`` ground truths, ``N`` groups, ``K`` categories (1 where categories
    do not matter). Offsets are int64, scores and areas (square pixels) float64, flags bool.
    """

    detections: list[Annotation]  # as in the data set; number d is detections[dt_order[d]]
    ground_truths: list[Annotation]
    dt_order: np.ndarray  # (D,) int64
    gt_order: np.ndarray  # (G,) int64
    dt_scores: np.ndarray  # (D,)
    dt_ranks: np.ndarray  # (D,) int64, place within the group, from 0
    dt_areas: np.ndarray  # (D,)
    gt_areas: np.ndarray  # (G,)
    gt_crowd: np.ndarray  # (G,)
    gt_ignore: np.ndarray  # (G,)
    group_images: np.ndarray  # (N,) int64 indices into params.imgIds
    group_categories: np.ndarray  # (N,) int64 indices into params.catIds
    dt_offsets: np.ndarray  # (N + 1,)
    gt_offsets: np.ndarray  # (N + 1,)
    dt_category_offsets: np.ndarray  # (K + 1,)
    gt_category_offsets: np.ndarray  # (K + 1,)

    def dt_rows(self, key: str, length: int) -> np.ndarray:
        """``key`` of all detections, float64 ``(D, length)``; see :func:`numeric_rows`."""
        return numeric_rows(self.detections, key, "detection", length)[self.dt_order]

    def gt_rows(self, key: str, length: int) -> np.ndarray:
        """``key`` of all ground truths, float64 ``(G, length)``; see :func:`numeric_rows`."""
        return numeric_rows(self.ground_truths, key, "ground truth", length)[self.gt_order]

    def group_detections(self, group: int) -> list[Annotation]:
        """The detections of one group."""
        begin, end = self.dt_offsets[group : group + 2]
        return [self.detections[index] for index in self.dt_order[begin:end]]

    def group_ground_truths(self, group: int) -> list[Annotation]:
        """The ground truths of one group."""
        begin, end = self.gt_offsets[group : group + 2]
        return [self.ground_truths[index] for index in self.gt_order[begin:end]]


def pack_annotations(coco_gt: COCO, coco_dt: COCO, params: Params) -> PackedAnnotations:
    """Pack what lies in the images and categories of ``params``.

    Of each group, only the ``max(params.maxDets)`` detections of highest score are kept.

    Args:
        coco_gt: the ground truth; its annotations need ``area``, and ``num_keypoints`` where
            ``params.iouType`` is "keypoints". Whether one is ignored follows from ``iscrowd`` and
            ``num_keypoints`` alone: as in the COCO API, a key ``ignore`` has no effect.
        coco_dt: the results; they need ``score`` and ``area``.
        params: ``imgIds`` and ``catIds`` must be sorted and without duplicates.

    Raises:
        ValueError: if an annotation lacks a key or holds something else than finite numbers there.
    """
    gts, gt_images, gt_categories = _select(coco_gt, params, "ground truth")
    dts, dt_images, dt_categories = _select(coco_dt, params, "detection")
    num_categories = len(params.catIds) if params.useCats else 1
    num_images = len(params.imgIds)
    if params.useCats:
        gt_groups = gt_categories * num_images + gt_images
        dt_groups = dt_categories * num_images + dt_images
    else:
        gt_groups, dt_groups = gt_images, dt_images

    # Without categories, the annotations of an image still follow each other category by category,
    # which decides between equal scores and between equal IoUs.
    gt_order = np.lexsort((gt_categories, gt_groups))
    dt_scores = numeric_column(dts, "score", "detection")
    dt_order = np.lexsort((dt_categories, -dt_scores, dt_groups))

    groups = np.union1d(gt_groups, dt_groups)
    dt_begin = np.searchsorted(dt_groups[dt_order], groups)
    dt_ranks = np.arange(len(dts)) - np.repeat(dt_begin, np.diff(dt_begin, append=len(dts)))
    within_limit = dt_ranks < max(params.maxDets)
    dt_order, dt_ranks = dt_order[within_limit], dt_ranks[within_limit]
    dt_groups, gt_groups = dt_groups[dt_order], gt_groups[gt_order]

    crowd = np.fromiter((bool(gt.get("iscrowd", 0)) for gt in gts), bool, len(gts))
    ignore = crowd
    if params.iouType == "keypoints":
        ignore = crowd | (numeric_column(gts, "num_keypoints", "ground truth") == 0)
    category_begin = np.arange(num_categories) * num_images
    return PackedAnnotations(
        detections=dts,
        ground_truths=gts,
        dt_order=dt_order,
        gt_order=gt_order,
        dt_scores=dt_scores[dt_order],
        dt_ranks=dt_ranks,
        dt_areas=numeric_column(dts, "area", "detection")[dt_order],
        gt_areas=numeric_column(gts, "area", "ground truth")[gt_order],
        gt_crowd=crowd[gt_order],
        gt_ignore=ignore[gt_order],
        group_images=groups % max(num_images, 1),
        group_categories=groups // max(num_images, 1),
        dt_offsets=_offsets(dt_groups, groups),
        gt_offsets=_offsets(gt_groups, groups),
        dt_category_offsets=_offsets(dt_groups, category_begin),
        gt_category_offsets=_offsets(gt_groups, category_begin),
    )


def numeric_column(annotations: Sequence[Annotation], key: str, kind: str) -> np.ndarray:
    """Read ``annotation[key]`` of every annotation, as a float64 array of shape ``(N,)``.

    ``kind`` names the annotations in errors.

    Raises:
        ValueError: if an annotation lacks ``key``, or its value is not a finite number.
    """
    try:
        column = np.fromiter(map(itemgetter(key), annotations), np.float64, len(annotations))
    except (KeyError, TypeError, ValueError):
        _raise_for_first(annotations, key, kind, "a number", _is_finite)
        raise
    if not np.isfinite(column).all():
        _raise_for_first(annotations, key, kind, "a finite number", _is_finite)
    return column


def numeric_rows(annotations: Sequence[Annotation], key: str, kind: str, length: int) -> np.ndarray:
    """Read ``annotation[key]``, a sequence of numbers, as a float64 array ``(N, length)``.

    ``kind`` names the annotations in errors.

    Raises:
        ValueError: if an annotation lacks ``key``, or it is not ``length`` finite numbers.
    """

    def is_row(value: Any) -> bool:
        return len(value) == length and all(map(_is_finite, value))

    wanted = f"{length} finite numbers"
    try:
        lengths = np.fromiter(
            map(len, map(itemgetter(key), annotations)), np.int64, len(annotations)
        )
        if (lengths != length).any():
            _raise_for_first(annotations, key, kind, wanted, is_row)
        numbers = itertools.chain.from_iterable(map(itemgetter(key), annotations))
        rows = np.fromiter(numbers, np.float64, length * len(annotations))
    except (KeyError, TypeError, ValueError):
        _raise_for_first(annotations, key, kind, wanted, is_row)
        raise
    if not np.isfinite(rows).all():
        _raise_for_first(annotations, key, kind, wanted, is_row)
    return rows.reshape(len(annotations), length)


def _is_finite(value: Any) -> bool:
    return bool(np.isfinite(float(value)))


def _raise_for_first(
    annotations: Iterable[Annotation],
    key: str,
    kind: str,
    wanted: str,
    is_valid: Callable[[Any], bool],
) -> None:
    """Raise the ValueError for the first annotation whose ``key`` is absent or not valid."""
    for annotation in annotations:
        name = f"{kind} {annotation.get('id')!r} of image {annotation.get('image_id')!r}"
        if key not in annotation:
            raise ValueError(f"{name} has no {key!r}")
        value = annotation[key]
        try:
            valid = is_valid(value)
        except (TypeError, ValueError):
            valid = False
        if not valid:
            raise ValueError(f"{key!r} of {name} must be {wanted}, got {value!r}")


def _select(
    coco: COCO, params: Params, kind: str
) -> tuple[list[Annotation], np.ndarray, np.ndarray]:
    """Annotations in the images and categories of ``params``, and the indices of both."""
    annotations = coco.dataset.get("annotations", [])
    images = _index_column(annotations, "image_id", params.imgIds, kind)
    categories = _index_column(annotations, "category_id", params.catIds, kind)
    keep = (images >= 0) & (categories >= 0)
    if keep.all():
        return annotations, images, categories
    return list(itertools.compress(annotations, keep)), images[keep], categories[keep]


def _index_column(
    annotations: Sequence[Annotation], key: str, ids: Iterable[Any], kind: str
) -> np.ndarray:
    """Positions of ``annotation[key]`` in ``ids``, -1 where it is not among them."""
    index = {value: position for position, value in enumerate(np.asarray(ids).tolist())}
    values = map(itemgetter(key), annotations)
    try:
        positions = map(index.get, values, itertools.repeat(-1))
        return np.fromiter(positions, np.int64, len(annotations))
    except KeyError:
        _raise_for_first(annotations, key, kind, "an id", lambda value: True)
        raise


def _offsets(sorted_keys: np.ndarray, boundaries: np.ndarray) -> np.ndarray:
    """Where the runs that begin at each boundary start in ``sorted_keys``, and the end."""
    return np.append(np.searchsorted(sorted_keys, boundaries), len(sorted_keys))
