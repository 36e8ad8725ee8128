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
    groups = {key: group for group, key in enumerate(_group_keys(packed, params))}
    table: list[dict[str, Any] | None] = []
    for category_id in _category_ids(params):
        for area, area_range in enumerate(params.areaRng):
            for image_id in params.imgIds:
                group = groups.get((image_id, category_id))
                if group is None:
                    table.append(None)
                    continue
                dt = slice(*packed.dt_offsets[group : group + 2])
                gt = slice(*packed.gt_offsets[group : group + 2])
                entry = _group_entry(
                    packed,
                    dt,
                    gt,
                    dt_status[area, :, dt],
                    gt_ignored[area, gt],
                    dt_matches[area, :, dt] - gt.start,
                )
                entry |= {
                    "image_id": image_id,
                    "category_id": category_id,
                    "aRng": area_range,
                    "maxDet": params.maxDets[-1],
                }
                table.append(entry)
    return table


def _group_entry(
    packed: PackedAnnotations,
    dt: slice,
    gt: slice,
    status: np.ndarray,
    ignored: np.ndarray,
    matches: np.ndarray,
) -> dict[str, Any]:
    """One group's part of ``evalImgs``; ``matches`` are positions in the group, negative if none."""
    dt_ids = [detection["id"] for detection in packed.detections[dt]]
    gt_ids = [ground_truth["id"] for ground_truth in packed.ground_truths[gt]]
    dt_matches = np.zeros(status.shape)
    gt_matches = np.zeros((len(status), len(gt_ids)))
    threshold, detection = np.nonzero(matches >= 0)
    matched = matches[threshold, detection]
    dt_matches[threshold, detection] = np.array(gt_ids, dtype=np.float64)[matched]
    gt_matches[threshold, matched] = np.array(dt_ids, dtype=np.float64)[detection]
    # The COCO API lists the ground truths that count before those that are ignored.
    order = np.argsort(ignored, kind="stable")
    return {
        "dtIds": dt_ids,
        "gtIds": [gt_ids[position] for position in order],
        "dtMatches": dt_matches,
        "gtMatches": gt_matches[:, order],
        "dtScores": packed.dt_scores[dt].tolist(),
        "gtIgnore": ignored[order].astype(np.int64),
        "dtIgnore": status == _IGNORED,
    }


def _category_ids(params: Params) -> list[Any]:
    return params.catIds if params.useCats else [-1]


def _group_keys(packed: PackedAnnotations, params: Params) -> Iterator[tuple[Any, Any]]:
    """The (image id, category id) of each group."""
    category_ids = _category_ids(params)
    for image, category in zip(packed.group_images, packed.group_categories, strict=True):
        yield params.imgIds[image], category_ids[category]
