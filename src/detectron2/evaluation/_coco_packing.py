"""COCO annotations as flat arrays, grouped by category and image."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import Params

from detectron2.evaluation._coco_columns import AnnotationList
from detectron2.evaluation._coco_detections import Detections
from detectron2.evaluation._coco_results import PackedResults

Annotations = AnnotationList | Detections


@dataclass(frozen=True)
class PackedAnnotations:
    """Detections and ground truths of one evaluation.

    A group is one category in one image, or one image where categories do not matter. Only groups
    that hold something are listed, ordered by category, then image; within a group, detections are
    ordered by decreasing score (equal scores as in the data set), ground truths as in the data set.

    ``D`` counts detections, ``G`` ground truths, ``N`` groups, ``K`` categories (1 where categories
    do not matter). Offsets are int64, scores and areas (square pixels) float64, flags bool.
    """

    detections: Annotations  # as in the data set; number d is at dt_order[d]
    ground_truths: Annotations
    dt_order: np.ndarray  # (D,) int64
    gt_order: np.ndarray  # (G,) int64
    dt_scores: np.ndarray  # (D,)
    dt_ranks: np.ndarray  # (D,) int64, place within the group, from 0
    dt_areas: np.ndarray  # (D,)
    gt_areas: np.ndarray  # (G,)
    dt_ignore: np.ndarray  # (D,), ignored where unmatched
    gt_crowd: np.ndarray  # (G,)
    gt_ignore: np.ndarray  # (G,)
    group_images: np.ndarray  # (N,) int64 positions in the image ids
    group_categories: np.ndarray  # (N,) int64 positions in the category ids
    dt_offsets: np.ndarray  # (N + 1,)
    gt_offsets: np.ndarray  # (N + 1,)
    dt_category_offsets: np.ndarray  # (K + 1,)
    gt_category_offsets: np.ndarray  # (K + 1,)

    def dt_rows(self, key: str, length: int) -> np.ndarray:
        """``key`` of all detections, float64 ``(D, length)``."""
        return self.detections.rows(key, length)[self.dt_order]

    def gt_rows(self, key: str, length: int) -> np.ndarray:
        """``key`` of all ground truths, float64 ``(G, length)``."""
        return self.ground_truths.rows(key, length)[self.gt_order]


@dataclass(frozen=True)
class Side:
    """What takes part of the detections, or of the ground truths: ``N`` annotations."""

    annotations: Annotations
    images: np.ndarray  # (N,) int64 positions in the image ids
    categories: np.ndarray  # (N,) int64 positions in the category ids

    def select(self, keep: np.ndarray) -> "Side":
        """Those at which ``keep``, bool ``(N,)``, is true."""
        if keep.all():
            return self
        return Side(self.annotations.select(keep), self.images[keep], self.categories[keep])

    def __len__(self) -> int:
        return len(self.images)


def select_side(
    annotations: Annotations, image_ids: Sequence[Any], category_ids: Sequence[Any]
) -> Side:
    """The annotations in the given images and categories."""
    images = annotations.positions("image_id", image_ids)
    categories = annotations.positions("category_id", category_ids)
    return Side(annotations, images, categories).select((images >= 0) & (categories >= 0))


def pack_annotations(coco_gt: COCO, coco_dt: COCO, params: Params) -> PackedAnnotations:
    """Pack what lies in the images and categories of ``params``, by the rules of COCO.

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
    gt = select_side(annotations_of(coco_gt, "ground truth"), params.imgIds, params.catIds)
    dt = select_side(annotations_of(coco_dt, "detection"), params.imgIds, params.catIds)
    crowd = gt.annotations.flags("iscrowd")
    ignore = crowd
    if params.iouType == "keypoints":
        ignore = crowd | (gt.annotations.column("num_keypoints") == 0)
    return group_annotations(
        gt,
        dt,
        gt_crowd=crowd,
        gt_ignore=ignore,
        dt_ignore=np.zeros(len(dt), bool),
        num_images=len(params.imgIds),
        num_categories=len(params.catIds) if params.useCats else None,
        max_dets=max(params.maxDets),
    )


def annotations_of(coco: COCO, kind: str) -> Annotations:
    """All annotations that a COCO object holds; ``kind`` names them in errors."""
    if isinstance(coco, PackedResults):
        return coco.detections
    return AnnotationList(coco.dataset.get("annotations", []), kind, coco.imgs)


def group_annotations(
    gt: Side,
    dt: Side,
    *,
    gt_crowd: np.ndarray,
    gt_ignore: np.ndarray,
    dt_ignore: np.ndarray,
    num_images: int,
    num_categories: int | None,
    max_dets: int | None = None,
) -> PackedAnnotations:
    """Put the annotations in the order of their groups.

    Args:
        gt: ground truths, with ``area``.
        dt: detections, with ``score`` and ``area``.
        gt_crowd: which of ``gt`` may be matched any number of times.
        gt_ignore: which of ``gt`` do not count.
        dt_ignore: which of ``dt`` do not count where they are unmatched.
        num_images: number of image ids.
        num_categories: number of category ids; None if categories do not matter.
        max_dets: detections that are kept in a group; None for all.
    """
    if num_categories is None:
        gt_groups, dt_groups, num_categories = gt.images, dt.images, 1
    else:
        gt_groups = gt.categories * num_images + gt.images
        dt_groups = dt.categories * num_images + dt.images

    # Without categories, the annotations of an image still follow each other category by category,
    # which decides between equal scores and between equal IoUs.
    gt_order = np.lexsort((gt.categories, gt_groups))
    dt_scores = dt.annotations.column("score")
    dt_order = np.lexsort((dt.categories, -dt_scores, dt_groups))

    gt_groups, dt_groups = gt_groups[gt_order], dt_groups[dt_order]
    groups = np.union1d(gt_groups, dt_groups)
    dt_begin = np.searchsorted(dt_groups, groups)
    dt_ranks = np.arange(len(dt)) - np.repeat(dt_begin, np.diff(dt_begin, append=len(dt)))
    if max_dets is not None:
        within_limit = dt_ranks < max_dets
        dt_order, dt_ranks = dt_order[within_limit], dt_ranks[within_limit]
        dt_groups = dt_groups[within_limit]

    category_begin = np.arange(num_categories) * num_images
    return PackedAnnotations(
        detections=dt.annotations,
        ground_truths=gt.annotations,
        dt_order=dt_order,
        gt_order=gt_order,
        dt_scores=dt_scores[dt_order],
        dt_ranks=dt_ranks,
        dt_areas=dt.annotations.column("area")[dt_order],
        gt_areas=gt.annotations.column("area")[gt_order],
        dt_ignore=dt_ignore[dt_order],
        gt_crowd=gt_crowd[gt_order],
        gt_ignore=gt_ignore[gt_order],
        group_images=groups % max(num_images, 1),
        group_categories=groups // max(num_images, 1),
        dt_offsets=_offsets(dt_groups, groups),
        gt_offsets=_offsets(gt_groups, groups),
        dt_category_offsets=_offsets(dt_groups, category_begin),
        gt_category_offsets=_offsets(gt_groups, category_begin),
    )


def _offsets(sorted_keys: np.ndarray, boundaries: np.ndarray) -> np.ndarray:
    """Where the runs that begin at each boundary start in ``sorted_keys``, and the end."""
    return np.append(np.searchsorted(sorted_keys, boundaries), len(sorted_keys))
