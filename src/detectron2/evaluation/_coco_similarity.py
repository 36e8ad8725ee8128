"""How well each detection covers each ground truth of its group: IoU, or OKS for keypoints.

Each function returns a float64 array of one value for every pair (detection, ground truth) within a
group: the groups one after another, each as a row-major matrix with one row a detection.
"""

from collections.abc import Sequence

import numpy as np
import pycocotools.mask
import torch
from pycocotools.coco import COCO

from detectron2.evaluation import _coco_ops  # noqa: F401  (registers the ops)
from detectron2.evaluation._coco_packing import PackedAnnotations

# Bounds the memory of the OKS computation: 17 keypoints of this many pairs take 9 MB an array.
_PAIRS_PER_CHUNK = 1 << 16


def pair_offsets(packed: PackedAnnotations) -> np.ndarray:
    """Where the pairs of each group begin, and the end: int64, shape ``(N + 1,)``."""
    num_pairs = np.diff(packed.dt_offsets) * np.diff(packed.gt_offsets)
    return np.append(0, np.cumsum(num_pairs))


def box_ious(packed: PackedAnnotations) -> np.ndarray:
    """IoU of the annotations' ``bbox``, in XYWH absolute pixels.

    Against a crowd, the union is the detection's area alone, as the COCO protocol has it.

    Raises:
        ValueError: if a ``bbox`` is absent or not four finite numbers.
    """
    ious = torch.ops.detectron2.coco_box_iou(
        torch.from_numpy(packed.dt_rows("bbox", 4)),
        torch.from_numpy(packed.gt_rows("bbox", 4)),
        torch.from_numpy(packed.gt_crowd),
        torch.from_numpy(packed.dt_offsets),
        torch.from_numpy(packed.gt_offsets),
    )
    return ious.numpy()


def mask_ious(packed: PackedAnnotations, coco_gt: COCO, coco_dt: COCO) -> np.ndarray:
    """IoU of the annotations' masks (polygons or RLE), by pycocotools, group by group."""
    offsets = pair_offsets(packed)
    ious = np.empty(offsets[-1])
    for group in np.flatnonzero(np.diff(offsets)):
        ious[offsets[group] : offsets[group + 1]] = pycocotools.mask.iou(
            list(map(coco_dt.annToRLE, packed.group_detections(group))),
            list(map(coco_gt.annToRLE, packed.group_ground_truths(group))),
            packed.gt_crowd[packed.gt_offsets[group] : packed.gt_offsets[group + 1]],
        ).ravel()
    return ious


def keypoint_similarities(packed: PackedAnnotations, sigmas: Sequence[float]) -> np.ndarray:
    """Object keypoint similarity (https://cocodataset.org/#keypoints-eval).

    ``exp(-d**2 / (2 * area * (2 * sigma)**2))``, averaged over the keypoints that are labelled in
    the ground truth. One without labelled keypoints is there to be ignored: for it, ``d`` is the
    distance of any keypoint to the box of twice its size around it.

    Args:
        sigmas: one a keypoint; annotations hold ``keypoints`` as ``(x, y, visibility)`` for each.

    Raises:
        ValueError: if ``keypoints`` (or a ground truth's ``bbox``) is absent or of another length.
    """
    length = 3 * len(sigmas)
    dt_keypoints = packed.dt_rows("keypoints", length)
    gt_keypoints = packed.gt_rows("keypoints", length)
    gt_boxes = packed.gt_rows("bbox", 4)
    variances = (np.asarray(sigmas, dtype=np.float64) * 2) ** 2

    offsets = pair_offsets(packed)
    similarities = np.empty(offsets[-1])
    for begin in range(0, offsets[-1], _PAIRS_PER_CHUNK):
        pairs = np.arange(begin, min(begin + _PAIRS_PER_CHUNK, offsets[-1]))
        groups = np.searchsorted(offsets, pairs, side="right") - 1
        row, column = np.divmod(pairs - offsets[groups], np.diff(packed.gt_offsets)[groups])
        dt = packed.dt_offsets[groups] + row
        gt = packed.gt_offsets[groups] + column
        similarities[pairs] = _oks(
            dt_keypoints[dt].reshape(len(dt), -1, 3),
            gt_keypoints[gt].reshape(len(gt), -1, 3),
            gt_boxes[gt],
            packed.gt_areas[gt],
            variances,
        )
    return similarities


def _oks(
    dt_pk3: np.ndarray,
    gt_pk3: np.ndarray,
    gt_boxes_p4: np.ndarray,
    gt_areas_p: np.ndarray,
    variances_k: np.ndarray,
) -> np.ndarray:
    """OKS of ``P`` pairs, shape ``(P,)``."""
    labelled = gt_pk3[..., 2] > 0
    any_labelled = labelled.any(axis=1)
    to_keypoint = dt_pk3[..., :2] - gt_pk3[..., :2]
    corner, size = gt_boxes_p4[:, None, :2], gt_boxes_p4[:, None, 2:]
    to_box = np.maximum(0, corner - size - dt_pk3[..., :2]) + np.maximum(
        0, dt_pk3[..., :2] - (corner + size * 2)
    )
    distance = np.where(any_labelled[:, None, None], to_keypoint, to_box)
    squared = distance[..., 0] ** 2 + distance[..., 1] ** 2
    error = squared / variances_k / (gt_areas_p[:, None] + np.spacing(1)) / 2
    counted = labelled | ~any_labelled[:, None]
    return np.where(counted, np.exp(-error), 0).sum(axis=1) / counted.sum(axis=1)
