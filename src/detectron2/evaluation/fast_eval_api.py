"""COCO evaluation with the COCO API's interface and a native core."""

import copy
import datetime
import logging
import time
from typing import Any

import numpy as np
import torch
from pycocotools.cocoeval import COCOeval, Params

from detectron2.evaluation import _coco_ops  # noqa: F401  (registers the ops)
from detectron2.evaluation._coco_packing import PackedAnnotations, pack_annotations
from detectron2.evaluation._coco_results import load_results
from detectron2.evaluation._coco_similarity import box_ious, keypoint_similarities, mask_ious
from detectron2.evaluation._coco_tables import image_table, similarity_table

__all__ = ["COCOeval_opt", "load_results"]

logger = logging.getLogger(__name__)


class COCOeval_opt(COCOeval):  # noqa: N801  (the name is public API)
    """A :class:`pycocotools.cocoeval.COCOeval` that is many times as fast.

    ``evaluate()``, ``accumulate()`` and ``summarize()`` give the same ``eval`` and ``stats``, for
    "bbox", "segm" and "keypoints", except where the COCO API is wrong: a ground truth or detection
    of id 0 can be matched like any other, annotations that share an id all count, and keypoints can
    be evaluated with ``params.useCats = 0``.

    :attr:`ious` and :attr:`evalImgs` are built when they are first read, which takes longer than
    the evaluation itself. The COCO API's methods for a single image (``computeIoU``,
    ``computeOks``, ``evaluateImg``) are not used.
    """

    def __init__(self, cocoGt: Any = None, cocoDt: Any = None, iouType: str = "segm") -> None:  # noqa: N803
        self._packed: PackedAnnotations | None = None
        super().__init__(cocoGt, cocoDt, iouType)

    def evaluate(self) -> None:
        """Match detections to ground truths, per image, category, area range and IoU threshold.

        Sorts ``params.imgIds``, ``params.catIds`` and ``params.maxDets``, as the COCO API does.

        Raises:
            ValueError: if an annotation lacks a value that is needed, or holds one that is not
                finite or of the wrong length.
        """
        start = time.perf_counter()
        params = self.params
        if params.useSegm is not None:
            params.iouType = "segm" if params.useSegm == 1 else "bbox"
        params.imgIds = list(np.unique(params.imgIds))
        if params.useCats:
            params.catIds = list(np.unique(params.catIds))
        params.maxDets = sorted(params.maxDets)

        self._packed = pack_annotations(self.cocoGt, self.cocoDt, params)
        self._similarities = self._compute_similarities(self._packed)
        self._paramsEval = copy.deepcopy(params)
        self._dt_status, self._gt_ignored, _ = self._match(return_matches=False)
        self._ious = self._eval_images = None
        self.eval = {}
        logger.info("COCO matching of %s: %.2f s", params.iouType, time.perf_counter() - start)

    def accumulate(self) -> None:
        """Compute precision and recall of each category from the matches, into ``self.eval``.

        With ``T`` IoU thresholds, ``R`` recall thresholds, ``K`` categories (1 if ``useCats`` is
        0), ``A`` area ranges and ``M`` values of ``maxDets``, ``eval`` holds ``precision`` and
        ``scores`` of shape ``(T, R, K, A, M)`` and ``recall`` of shape ``(T, K, A, M)``, float64,
        -1 where nothing is to be found; ``params``, ``counts`` (the five sizes) and ``date``.

        Raises:
            RuntimeError: if :meth:`evaluate` was not called, or not since ``params`` changed in
                more than ``recThrs``.
        """
        start = time.perf_counter()
        params = self._accumulation_params()
        packed = self._packed
        precision, recall, scores = torch.ops.detectron2.coco_accumulate(
            self._dt_status,
            self._gt_ignored,
            torch.from_numpy(packed.dt_scores),
            torch.from_numpy(packed.dt_ranks),
            torch.from_numpy(packed.dt_category_offsets),
            torch.from_numpy(packed.gt_category_offsets),
            torch.tensor(np.asarray(params.recThrs, dtype=np.float64)),
            torch.tensor(params.maxDets, dtype=torch.int64),
            True,
        )
        self.eval = {
            "params": params,
            "counts": list(precision.shape),
            "date": datetime.datetime.now().strftime("%Y-%m-%d %H:%M:%S"),
            "precision": precision.numpy(),
            "recall": recall.numpy(),
            "scores": scores.numpy(),
        }
        logger.info("COCO accumulation: %.2f s", time.perf_counter() - start)

    @property
    def ious(self) -> dict[tuple[Any, Any], Any]:
        """IoU (OKS for keypoints) by (image id, category id); as the COCO API's, see there."""
        if self._ious is None:
            self._ious = similarity_table(self._packed, self._similarities, self._paramsEval)
        return self._ious

    @ious.setter
    def ious(self, value: dict[tuple[Any, Any], Any]) -> None:
        self._ious = value

    @property
    def evalImgs(self) -> Any:  # noqa: N802
        """Matches per category, area range and image; as the COCO API's, see there.

        In ``dtMatches`` and ``gtMatches`` 0 says "no match", so that a match with an annotation of
        id 0 does not show in them.
        """
        if self._eval_images is None:
            dt_status, gt_ignored, dt_matches = self._match(return_matches=True)
            self._eval_images = image_table(
                self._packed,
                dt_status.numpy(),
                gt_ignored.numpy(),
                dt_matches.numpy(),
                self._paramsEval,
            )
        return self._eval_images

    @evalImgs.setter
    def evalImgs(self, value: Any) -> None:  # noqa: N802
        self._eval_images = value

    def _compute_similarities(self, packed: PackedAnnotations) -> np.ndarray:
        if self.params.iouType == "bbox":
            return box_ious(packed)
        if self.params.iouType == "segm":
            return mask_ious(packed)
        if self.params.iouType == "keypoints":
            return keypoint_similarities(packed, self.params.kpt_oks_sigmas)
        raise ValueError(
            f"params.iouType must be 'bbox', 'segm' or 'keypoints', got {self.params.iouType!r}"
        )

    def _match(self, return_matches: bool) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        packed, params = self._packed, self._paramsEval
        return torch.ops.detectron2.coco_match(
            torch.from_numpy(self._similarities),
            torch.from_numpy(packed.dt_areas),
            torch.from_numpy(packed.gt_areas),
            torch.from_numpy(packed.dt_ignore),
            torch.from_numpy(packed.gt_crowd),
            torch.from_numpy(packed.gt_ignore),
            torch.from_numpy(packed.dt_offsets),
            torch.from_numpy(packed.gt_offsets),
            torch.tensor(params.areaRng, dtype=torch.float64).reshape(-1, 2),
            torch.tensor(np.asarray(params.iouThrs, dtype=np.float64)),
            return_matches,
        )

    def _accumulation_params(self) -> Params:
        """``self.params``, in the form that goes into ``self.eval``."""
        if self._packed is None:
            raise RuntimeError("accumulate() needs evaluate() to be called first")
        params = self.params
        for name in ("imgIds", "catIds", "iouThrs", "areaRng", "maxDets", "useCats", "iouType"):
            if not np.array_equal(getattr(params, name), getattr(self._paramsEval, name)):
                raise RuntimeError(f"params.{name} changed: call evaluate() again")
        if not params.useCats:
            params = copy.copy(params)
            params.catIds = [-1]
        return params
