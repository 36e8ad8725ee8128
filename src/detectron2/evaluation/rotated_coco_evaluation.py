"""Evaluation of rotated boxes by the rules of COCO."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pycocotools.mask
import torch
from pycocotools.coco import COCO

from detectron2.evaluation import coco_evaluation
from detectron2.evaluation._coco_collected import Collected
from detectron2.evaluation._coco_detections import Detections
from detectron2.evaluation._coco_packing import Annotations, PackedAnnotations
from detectron2.evaluation._coco_similarity import box_ious, pair_offsets
from detectron2.evaluation.coco_evaluation import COCOEvaluator
from detectron2.evaluation.fast_eval_api import COCOeval_opt
from detectron2.structures import BoxMode, Instances, RotatedBoxes  # noqa: F401
from detectron2.structures.rotated_boxes import (
    pairwise_iou as pairwise_iou_rotated,  # noqa: F401  (importable here, too)
)

__all__ = ["RotatedCOCOEvaluator", "RotatedCOCOeval"]

_Rows = Sequence[Sequence[float]] | np.ndarray


class RotatedCOCOeval(COCOeval_opt):
    """A COCOeval whose annotations' ``bbox`` is XYWH or, rotated, XYWHA (:class:`BoxMode`).

    Where any box of the evaluation is rotated, the others count as rotated by 0 degrees.
    """

    @staticmethod
    def is_rotated(box_list: _Rows) -> bool:
        """Whether these are rotated boxes, of five numbers each; False for none."""
        if isinstance(box_list, np.ndarray):
            return box_list.ndim == 2 and box_list.shape[1] == 5
        return len(box_list) > 0 and all(len(box) == 5 for box in box_list)

    @staticmethod
    def boxlist_to_tensor(boxlist: _Rows, output_box_dim: int) -> torch.Tensor:
        """Boxes as a float32 tensor ``(N, output_box_dim)``.

        Args:
            boxlist: N boxes, XYWH or XYWHA.
            output_box_dim: 4 for XYWH, 5 for XYWHA.

        Raises:
            ValueError: boxes cannot be brought into this form.
        """
        if output_box_dim not in (4, 5):
            raise ValueError(f"output_box_dim must be 4 or 5, got {output_box_dim}")
        if not len(boxlist):
            return torch.zeros(0, output_box_dim)
        lengths = {len(box) for box in boxlist}
        if lengths == {output_box_dim}:
            return torch.as_tensor(np.asarray(boxlist), dtype=torch.float32)
        if output_box_dim == 4 or not lengths <= {4, 5}:
            raise ValueError(
                f"boxes of {sorted(lengths)} numbers cannot become boxes of {output_box_dim}"
            )
        return torch.from_numpy(_as_rotated(boxlist)).float()

    def compute_iou_dt_gt(
        self, dt: _Rows, gt: _Rows, is_crowd: Sequence[int]
    ) -> np.ndarray | list[Any]:
        """IoU of each detection with each ground truth, ``(D, G)``.

        Args:
            dt: D boxes, XYWH or XYWHA.
            gt: G boxes, likewise.
            is_crowd: G flags; the union with a crowd is the detection's area alone.
        """
        if not (self.is_rotated(dt) or self.is_rotated(gt)):
            return pycocotools.mask.iou(dt, gt, is_crowd)
        return _rotated_ious(_as_rotated(dt), _as_rotated(gt), np.asarray(is_crowd, bool))

    def computeIoU(self, imgId: int, catId: int) -> Any:  # noqa: N802, N803
        """The entry of :attr:`ious` for an image and a category, after :meth:`evaluate`."""
        if self._packed is None:
            raise RuntimeError("computeIoU() needs evaluate() to be called first")
        return self.ious[imgId, catId if self.params.useCats else -1]

    def _compute_similarities(self, packed: PackedAnnotations) -> np.ndarray:
        if self.params.iouType != "bbox":
            raise ValueError(
                f"params.iouType must be 'bbox' for rotated boxes, got {self.params.iouType!r}"
            )
        dt, gt = _box_rows(packed.detections), _box_rows(packed.ground_truths)
        if not any(len(box) == 5 for rows in (dt, gt) for box in rows):
            return box_ious(packed)
        dt, gt = _as_rotated(dt)[packed.dt_order], _as_rotated(gt)[packed.gt_order]
        offsets = pair_offsets(packed)
        ious = np.empty(offsets[-1])
        for group in np.flatnonzero(np.diff(offsets)):
            of_dt = slice(*packed.dt_offsets[group : group + 2])
            of_gt = slice(*packed.gt_offsets[group : group + 2])
            ious[offsets[group] : offsets[group + 1]] = _rotated_ious(
                dt[of_dt], gt[of_gt], packed.gt_crowd[of_gt]
            ).ravel()
        return ious


class RotatedCOCOEvaluator(COCOEvaluator):
    """Average precision of rotated boxes by the rules of COCO: the task "bbox" only.

    Boxes of the ground truth and of the predictions are XYWHA (:class:`BoxMode`), or axis-aligned
    ones, which count as rotated by 0 degrees. A crowd may be rotated, too. Instances that
    :meth:`process` takes have ``pred_boxes`` (RotatedBoxes or Boxes), ``scores`` and
    ``pred_classes``.
    """

    def instances_to_json(self, instances: Instances, img_id: Any) -> list[dict[str, Any]]:
        """Instances in the format of COCO's results; ``bbox`` has five numbers if rotated."""
        return coco_evaluation.instances_to_coco_json(instances, img_id)

    def _no_predictions(self) -> Collected:
        has_own = type(self).instances_to_json is not RotatedCOCOEvaluator.instances_to_json
        return [] if has_own else super()._no_predictions()

    def _records(self, instances: Instances, image_id: Any) -> list[dict[str, Any]]:
        return self.instances_to_json(instances, image_id)

    def _wanted_tasks(self, detections: Detections) -> Sequence[str]:
        if self._tasks is not None and set(self._tasks) != {"bbox"}:
            raise ValueError(f"rotated boxes have the task 'bbox' only, got {list(self._tasks)}")
        return ["bbox"]

    def _cocoeval_class(self) -> type[RotatedCOCOeval]:
        return RotatedCOCOeval

    def _evaluate_predictions_on_coco(
        self, coco_gt: COCO, coco_results: Sequence[dict[str, Any]] | Detections
    ) -> RotatedCOCOeval:
        """Evaluate results, at least one, and print the summary."""
        return coco_evaluation._evaluate_predictions_on_coco(
            coco_gt, coco_results, "bbox", cocoeval_fn=RotatedCOCOeval
        )


def _box_rows(annotations: Annotations) -> _Rows:
    if isinstance(annotations, Detections):
        return annotations.rows("bbox", annotations.row_length("bbox"))
    return annotations.values("bbox")


def _as_rotated(boxes: _Rows) -> np.ndarray:
    """XYWHA, float64 ``(N, 5)``, of boxes that are XYWH or XYWHA.

    Raises:
        ValueError: a box is neither, or not finite.
    """
    rotated = np.zeros((len(boxes), 5))
    if not len(boxes):
        return rotated
    lengths = np.array([0 if box is None else len(box) for box in boxes])
    if not np.isin(lengths, (4, 5)).all():
        bad = int(np.flatnonzero(~np.isin(lengths, (4, 5)))[0])
        raise ValueError(f"'bbox' must be four or five finite numbers, got {boxes[bad]!r}")
    for length in (4, 5):
        of_length = np.flatnonzero(lengths == length)
        if len(of_length):
            rows = np.array([boxes[n] for n in of_length], np.float64)
            if length == 4:
                rows = BoxMode.convert(rows, BoxMode.XYWH_ABS, BoxMode.XYWHA_ABS)
            rotated[of_length] = rows
    if not np.isfinite(rotated).all():
        bad = int(np.argwhere(~np.isfinite(rotated))[0, 0])
        raise ValueError(f"'bbox' must be four or five finite numbers, got {boxes[bad]!r}")
    return rotated


def _rotated_ious(dt: np.ndarray, gt: np.ndarray, crowd: np.ndarray) -> np.ndarray:
    """``(D, G)`` from ``(D, 5)`` and ``(G, 5)``."""
    dt_boxes, gt_boxes = torch.from_numpy(dt), torch.from_numpy(gt)
    ious = torch.ops.detectron2.box_iou_rotated(dt_boxes, gt_boxes).numpy()
    if not crowd.any():
        return ious
    dt_areas, gt_areas = dt[:, 2] * dt[:, 3], gt[:, 2] * gt[:, 3]
    intersections = ious * (dt_areas[:, None] + gt_areas) / (1 + ious)
    over_detection = intersections / np.where(dt_areas > 0, dt_areas, np.inf)[:, None]
    return np.where(crowd, np.minimum(over_detection, 1), ious)
