"""How well each detection covers each ground truth of its group: IoU, or OKS for keypoints.

Each function returns a float64 array of one value for every pair (detection, ground truth) within a
group: the groups one after another, each as a row-major matrix with one row a detection.
"""

from collections.abc import Sequence

import numpy as np
import torch

from detectron2.evaluation import _coco_ops  # noqa: F401  (registers the ops)
from detectron2.evaluation._coco_packing import PackedAnnotations


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


def mask_ious(packed: PackedAnnotations) -> np.ndarray:
    """IoU of the annotations' masks, from their run lengths.

    Against a crowd, the union is the detection's area alone.

    Raises:
        ValueError: if a ``segmentation`` is absent, malformed, or of another size than those that
            it competes with.
    """
    dt_masks = packed.detections.coded_masks().take(packed.dt_order)
    gt_masks = packed.ground_truths.coded_masks().take(packed.gt_order)
    _check_sizes(packed, dt_masks.sizes, gt_masks.sizes)
    ious = torch.ops.detectron2.coco_mask_iou(
        *dt_masks.tensors(),
        *gt_masks.tensors(),
        torch.from_numpy(packed.gt_crowd),
        torch.from_numpy(packed.dt_offsets),
        torch.from_numpy(packed.gt_offsets),
    )
    return ious.numpy()


def _check_sizes(packed: PackedAnnotations, dt_sizes: np.ndarray, gt_sizes: np.ndarray) -> None:
    """Masks of a group must have the size of its first ground truth."""
    num_gt, num_dt = np.diff(packed.gt_offsets), np.diff(packed.dt_offsets)
    if not len(gt_sizes):
        return
    first = gt_sizes[np.minimum(packed.gt_offsets[:-1], len(gt_sizes) - 1)]
    for kind, sizes, counts in (
        ("detection", dt_sizes, num_dt),
        ("ground truth", gt_sizes, num_gt),
    ):
        groups = np.repeat(np.arange(len(counts)), counts)
        differs = (sizes != first[groups]).any(axis=1) & (num_gt[groups] > 0)
        if differs.any():
            bad = int(np.flatnonzero(differs)[0])
            raise ValueError(
                f"the mask of a {kind} has the size {sizes[bad].tolist()}, but ground truth of the "
                f"same image has {first[groups[bad]].tolist()} (height, width)"
            )


def keypoint_similarities(packed: PackedAnnotations, sigmas: Sequence[float]) -> np.ndarray:
    """Object keypoint similarity (https://cocodataset.org/#keypoints-eval).

    ``exp(-d**2 / (2 * area * (2 * sigma)**2))``, averaged over the keypoints that are labelled in
    the ground truth. One without labelled keypoints is there to be ignored: for it, ``d`` is the
    distance of any keypoint to the box of three times its size around it.

    Args:
        sigmas: one a keypoint; annotations hold ``keypoints`` as ``(x, y, visibility)`` for each.

    Raises:
        ValueError: if ``keypoints`` (or a ground truth's ``bbox``) is absent or of another length.
    """
    count = len(sigmas)
    dt_keypoints = packed.dt_rows("keypoints", 3 * count).reshape(-1, count, 3)
    gt_keypoints = packed.gt_rows("keypoints", 3 * count).reshape(-1, count, 3)
    similarities = torch.ops.detectron2.coco_keypoint_similarity(
        torch.from_numpy(dt_keypoints),
        torch.from_numpy(gt_keypoints),
        torch.from_numpy(packed.gt_rows("bbox", 4)),
        torch.from_numpy(packed.gt_areas),
        torch.tensor(np.asarray(sigmas, dtype=np.float64)),
        torch.from_numpy(packed.dt_offsets),
        torch.from_numpy(packed.gt_offsets),
    )
    return similarities.numpy()
