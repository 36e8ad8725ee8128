"""The protocol of LVIS, whose images are annotated for some categories each.

A. Gupta, P. Dollár, R. Girshick: LVIS: A Dataset for Large Vocabulary Instance Segmentation,
sections 2 and 3. The numbers are those of the ``lvis`` package (version 0.5.3).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from pycocotools.coco import COCO

from detectron2.evaluation import _coco_ops  # noqa: F401  (registers the ops)
from detectron2.evaluation._coco_columns import AnnotationList
from detectron2.evaluation._coco_detections import Detections
from detectron2.evaluation._coco_packing import (
    PackedAnnotations,
    Side,
    group_annotations,
    select_side,
)
from detectron2.evaluation._coco_similarity import box_ious, mask_ious

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALL_THRESHOLDS = np.linspace(0.0, 1.0, 101)
AREA_RANGES = {
    "all": (0.0, 1e5**2),
    "small": (0.0, 32.0**2),
    "medium": (32.0**2, 96.0**2),
    "large": (96.0**2, 1e5**2),
}
# Rare: in 1 to 10 training images; common: in up to 100; frequent: in more.
FREQUENCIES = ("r", "c", "f")


@dataclass(frozen=True)
class LVISEvaluation:
    """Precision and recall of each category, -1 where it has no ground truth that counts.

    ``T`` IoU thresholds, ``R`` recall thresholds, ``K`` categories by id, ``A`` area ranges.
    """

    precision: np.ndarray  # (T, R, K, A)
    recall: np.ndarray  # (T, K, A)
    frequencies: np.ndarray  # (K,), one of FREQUENCIES each
    max_dets: int

    def results(self) -> dict[str, float]:
        """The summary: AP, AP50, AP75, APs, APm, APl, APr, APc, APf, and average recalls; each in
        [0, 1], or -1 where there is no ground truth."""
        # A category is -1 at all recalls or at none.
        precision = self.precision.mean(axis=1)  # (T, K, A)
        results = {"AP": self._mean(precision[..., 0])}
        for percent in (50, 75):
            at = np.isclose(IOU_THRESHOLDS, percent / 100)
            results[f"AP{percent}"] = self._mean(precision[at, :, 0])
        areas = {name[0]: index for index, name in enumerate(AREA_RANGES) if index > 0}
        for suffix, area in areas.items():
            results[f"AP{suffix}"] = self._mean(precision[..., area])
        for frequency in FREQUENCIES:
            of_frequency = self.frequencies == frequency
            results[f"AP{frequency}"] = self._mean(precision[:, of_frequency, 0])
        results[f"AR@{self.max_dets}"] = self._mean(self.recall[..., 0])
        for suffix, area in areas.items():
            results[f"AR{suffix}@{self.max_dets}"] = self._mean(self.recall[..., area])
        return results

    @staticmethod
    def _mean(values: np.ndarray) -> float:
        # The mean of many -1 may be off by a rounding error.
        valid = values[values > -0.5]
        return float(np.mean(valid)) if valid.size else -1.0


def evaluate_lvis(
    lvis_gt: COCO, detections: Detections, iou_type: str, max_dets: int = 300
) -> LVISEvaluation:
    """Evaluate boxes or masks.

    A detection counts where its category is known for its image: it has ground truth there, or is
    listed as absent. One without a match does not count where the ground truth of its category is
    not exhaustive.

    Args:
        lvis_gt: images with ``neg_category_ids`` and ``not_exhaustive_category_ids``, categories
            with ``frequency``.
        detections: of any of its images. Areas are those of the boxes, if there are boxes.
        iou_type: "bbox" or "segm".
        max_dets: detections of highest score that count in an image, of all categories together;
            negative for all.

    Raises:
        ValueError: if an annotation, image or category lacks a value.
    """
    if iou_type not in ("bbox", "segm"):
        raise ValueError(f"iou_type must be 'bbox' or 'segm', got {iou_type!r}")
    image_ids, category_ids = sorted(lvis_gt.imgs), sorted(lvis_gt.cats)
    packed = _pack(lvis_gt, detections, image_ids, category_ids, max_dets)
    ious = box_ious(packed) if iou_type == "bbox" else mask_ious(packed)
    offsets = torch.from_numpy(packed.dt_offsets), torch.from_numpy(packed.gt_offsets)
    dt_status, gt_ignored, _ = torch.ops.detectron2.coco_match(
        torch.from_numpy(ious),
        torch.from_numpy(packed.dt_areas),
        torch.from_numpy(packed.gt_areas),
        torch.from_numpy(packed.dt_ignore),
        torch.from_numpy(packed.gt_crowd),
        torch.from_numpy(packed.gt_ignore),
        *offsets,
        torch.tensor(list(AREA_RANGES.values()), dtype=torch.float64),
        torch.from_numpy(IOU_THRESHOLDS),
        False,
    )
    precision, recall, _ = torch.ops.detectron2.coco_accumulate(
        dt_status,
        gt_ignored,
        torch.from_numpy(packed.dt_scores),
        torch.from_numpy(packed.dt_ranks),
        torch.from_numpy(packed.dt_category_offsets),
        torch.from_numpy(packed.gt_category_offsets),
        torch.from_numpy(RECALL_THRESHOLDS),
        torch.tensor([np.iinfo(np.int64).max]),
        False,
    )
    return LVISEvaluation(
        precision=precision[..., 0].numpy(),
        recall=recall[..., 0].numpy(),
        frequencies=_frequencies(lvis_gt, category_ids),
        max_dets=max_dets,
    )


def _pack(
    lvis_gt: COCO,
    detections: Detections,
    image_ids: list[Any],
    category_ids: list[Any],
    max_dets: int,
) -> PackedAnnotations:
    annotations = AnnotationList(
        lvis_gt.dataset.get("annotations", []), "ground truth", lvis_gt.imgs
    )
    gt = _without_empty(select_side(annotations, image_ids, category_ids))
    dt = select_best(detections, max_dets)
    dt = _without_empty(select_side(dt, image_ids, category_ids))

    num_categories = len(category_ids)
    verified = np.union1d(
        gt.images * num_categories + gt.categories,
        _image_categories(lvis_gt, "neg_category_ids", image_ids, category_ids),
    )
    dt = dt.select(np.isin(dt.images * num_categories + dt.categories, verified))
    not_exhaustive = _image_categories(
        lvis_gt, "not_exhaustive_category_ids", image_ids, category_ids
    )
    return group_annotations(
        gt,
        dt,
        gt_crowd=np.zeros(len(gt), bool),
        gt_ignore=gt.annotations.flags("ignore"),
        dt_ignore=np.isin(dt.images * num_categories + dt.categories, not_exhaustive),
        num_images=len(image_ids),
        num_categories=num_categories,
    )


def select_best(detections: Detections, max_dets: int) -> Detections:
    """The ``max_dets`` detections of highest score of each image; the first among equals."""
    if max_dets < 0:
        return detections
    order = np.lexsort((-detections.column("score"), detections.images))
    counts = np.bincount(detections.images, minlength=len(detections.image_ids))
    begin = np.repeat(np.cumsum(counts) - counts, counts)
    keep = np.empty(len(detections), bool)
    keep[order] = np.arange(len(detections)) - begin < max_dets
    return detections.select(keep)


def _without_empty(side: Side) -> Side:
    """The protocol leaves annotations without area out."""
    areas = side.annotations.column("area")
    return side.select((areas > 0) & np.isfinite(areas))


def _image_categories(
    lvis_gt: COCO, key: str, image_ids: Iterable[Any], category_ids: list[Any]
) -> np.ndarray:
    """What an image lists under ``key``: image position times ``K`` plus category position."""
    positions = {category_id: position for position, category_id in enumerate(category_ids)}
    listed: list[int] = []
    for image, image_id in enumerate(image_ids):
        record: Mapping[str, Any] = lvis_gt.imgs[image_id]
        if key not in record:
            raise ValueError(f"image {image_id!r} has no {key!r}: is this an LVIS data set?")
        begin = image * len(category_ids)
        listed += [begin + positions[c] for c in record[key] if c in positions]
    return np.array(listed, np.int64)


def _frequencies(lvis_gt: COCO, category_ids: list[Any]) -> np.ndarray:
    frequencies = []
    for category_id in category_ids:
        frequency = lvis_gt.cats[category_id].get("frequency")
        if frequency not in FREQUENCIES:
            raise ValueError(
                f"'frequency' of category {category_id!r} must be one of {FREQUENCIES}, got "
                f"{frequency!r}"
            )
        frequencies.append(frequency)
    return np.array(frequencies)
