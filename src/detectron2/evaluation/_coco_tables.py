"""The COCO API's tables of single images and categories, from packed arrays.

The tables hold one Python object for each category, image and area range, which is slow to make and
large. Nothing but inspection needs them.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from pycocotools.cocoeval import Params

from detectron2.evaluation._coco_packing import PackedAnnotations
from detectron2.evaluation._coco_similarity import pair_offsets

# DetectionStatus::kIgnored of the native core.
_IGNORED = 2


def similarity_table(
    packed: PackedAnnotations, similarities: np.ndarray, params: Params
) -> dict[tuple[Any, Any], Any]:
    """``COCOeval.ious``: a ``(detections, ground truths)`` array for each (image id, category id).

    It is an empty list where there are no detections or no ground truths. The category id is -1
    where categories do not matter.
    """
    offsets = pair_offsets(packed)
    table: dict[tuple[Any, Any], Any] = {
        (image_id, category_id): []
        for image_id in params.imgIds
        for category_id in _category_ids(params)
    }
    for group, key in enumerate(_group_keys(packed, params)):
        values = similarities[offsets[group] : offsets[group + 1]]
        if len(values):
            num_gt = packed.gt_offsets[group + 1] - packed.gt_offsets[group]
            table[key] = values.reshape(-1, num_gt)
    return table


def image_table(
    packed: PackedAnnotations,
    dt_status: np.ndarray,
    gt_ignored: np.ndarray,
    dt_matches: np.ndarray,
    params: Params,
) -> list[dict[str, Any] | None]:
    """``COCOeval.evalImgs``: matches by category, area range and image, None where all is empty.

    Args:
        packed: ``D`` detections and ``G`` ground truths.
        dt_status: ``(A, T, D)`` uint8, for ``A`` area ranges and ``T`` IoU thresholds.
        gt_ignored: ``(A, G)`` bool.
        dt_matches: ``(A, T, D)`` int64 indices of ground truths, -1 without a match.
    """
    table: dict[tuple[Any, int, Any], dict[str, Any] | None] = {
        (category_id, area, image_id): None
        for category_id in _category_ids(params)
        for area in range(len(params.areaRng))
        for image_id in params.imgIds
    }
    all_dt_ids, all_gt_ids = packed.detections.values("id"), packed.ground_truths.values("id")
    for group, (image_id, category_id) in enumerate(_group_keys(packed, params)):
        dt = slice(*packed.dt_offsets[group : group + 2])
        gt = slice(*packed.gt_offsets[group : group + 2])
        dt_ids = [all_dt_ids[index] for index in packed.dt_order[dt]]
        gt_ids = [all_gt_ids[index] for index in packed.gt_order[gt]]
        for area, area_range in enumerate(params.areaRng):
            status, ignored = dt_status[area, :, dt], gt_ignored[area, gt]
            matched_dt, matched_gt = _matched_ids(
                dt_matches[area, :, dt] - gt.start, dt_ids, gt_ids
            )
            # The COCO API lists the ground truths that count before those that are ignored.
            order = np.argsort(ignored, kind="stable")
            table[category_id, area, image_id] = {
                "image_id": image_id,
                "category_id": category_id,
                "aRng": area_range,
                "maxDet": params.maxDets[-1],
                "dtIds": dt_ids,
                "gtIds": [gt_ids[position] for position in order],
                "dtMatches": matched_gt,
                "gtMatches": matched_dt[:, order],
                "dtScores": packed.dt_scores[dt].tolist(),
                "gtIgnore": ignored[order].astype(np.int64),
                "dtIgnore": status == _IGNORED,
            }
    return list(table.values())


def _matched_ids(
    matches: np.ndarray, dt_ids: list[int], gt_ids: list[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Ids of what each ground truth and each detection of a group is matched to, 0 for nothing.

    ``matches`` gives ground truths by position in the group, negative for none, shape ``(T, D)``;
    the results have the shapes ``(T, G)`` and ``(T, D)``. A crowd has the last of its detections.
    """
    matched_dt = np.zeros((len(matches), len(gt_ids)))
    matched_gt = np.zeros(matches.shape)
    threshold, dt = np.nonzero(matches >= 0)
    gt = matches[threshold, dt]
    matched_dt[threshold, gt] = np.array(dt_ids, dtype=np.float64)[dt]
    matched_gt[threshold, dt] = np.array(gt_ids, dtype=np.float64)[gt]
    return matched_dt, matched_gt


def _category_ids(params: Params) -> list[Any]:
    return params.catIds if params.useCats else [-1]


def _group_keys(packed: PackedAnnotations, params: Params) -> Iterator[tuple[Any, Any]]:
    """The (image id, category id) of each group."""
    category_ids = _category_ids(params)
    for image, category in zip(packed.group_images, packed.group_categories, strict=True):
        yield params.imgIds[image], category_ids[category]
