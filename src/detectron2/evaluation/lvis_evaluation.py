"""Evaluation of detections, masks and proposals by the rules of LVIS."""

import copy
import logging
import os
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from pycocotools.coco import COCO

from detectron2.config import CfgNode
from detectron2.data.catalog import MetadataCatalog
from detectron2.evaluation._box_proposals import average_recalls
from detectron2.evaluation._box_proposals import (
    evaluate_box_proposals as _evaluate_box_proposals,  # noqa: F401  (used downstream)
)
from detectron2.evaluation._coco_checks import check_detections
from detectron2.evaluation._coco_collected import (
    Collected,
    collect,
    detections_of,
    gather_collected,
    has_kind,
    nothing_collected,
)
from detectron2.evaluation._coco_detections import Detections
from detectron2.evaluation._detection_files import (
    save_predictions,
    save_proposals,
    save_results,
)
from detectron2.evaluation._lvis_protocol import evaluate_lvis
from detectron2.evaluation.coco_evaluation import (
    dataset_category_ids,
    instances_to_coco_json,
    load_coco,
)
from detectron2.evaluation.evaluator import DatasetEvaluator
from detectron2.structures import Boxes, BoxMode, pairwise_iou  # noqa: F401
from detectron2.utils.logger import create_small_table

__all__ = ["LVISEvaluator"]

_METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "APr", "APc", "APf")
_OFFICIAL_MAX_DETS = 300


class LVISEvaluator(DatasetEvaluator):
    """Average precision of boxes and masks, and average recall of proposals, by LVIS.

    https://www.lvisdataset.org. The ``lvis`` package is not needed; numbers equal its.
    """

    def __init__(
        self,
        dataset_name: str,
        tasks: Sequence[str] | None = None,
        distributed: bool = True,
        output_dir: str | None = None,
        *,
        max_dets_per_image: int | None = None,
    ) -> None:
        """Args:
        dataset_name: its metadata has ``json_file``, annotations in LVIS' format.
        tasks: of "bbox" and "segm"; None for those that the predictions allow.
        distributed: bring the predictions of all processes together; otherwise each process
            evaluates its own.
        output_dir: where ``instances_predictions.pth`` and ``lvis_instances_results.json`` are
            written; None for nowhere.
        max_dets_per_image: detections of highest score that count in an image, over all classes;
            None for LVIS' 300.
        """
        self._logger = logging.getLogger(__name__)
        if isinstance(tasks, CfgNode):
            self._logger.warning("LVISEvaluator takes no config: give tasks by name")
            tasks = None
        self._metadata = MetadataCatalog.get(dataset_name)
        self._lvis_api = load_coco(self._metadata.json_file)
        # Test sets have no annotations: for them, results are only written.
        self._do_evaluation = bool(self._lvis_api.dataset.get("annotations"))
        self._tasks = tasks
        self._max_dets_per_image = max_dets_per_image
        self._output_dir = output_dir
        self._distributed = distributed
        self._cpu_device = torch.device("cpu")
        self._predictions = nothing_collected(self, LVISEvaluator)
        self._results: OrderedDict[str, dict[str, float]] = OrderedDict()

    def reset(self) -> None:
        """Forget the predictions."""
        self._predictions = nothing_collected(self, LVISEvaluator)

    def process(
        self, inputs: Sequence[Mapping[str, Any]], outputs: Sequence[Mapping[str, Any]]
    ) -> None:
        """Take in a batch, as :meth:`COCOEvaluator.process` does."""
        collect(self._predictions, inputs, outputs, self._cpu_device, instances_to_coco_json)

    def evaluate(self) -> OrderedDict[str, dict[str, float]] | dict[str, Any]:
        """Evaluate what was processed.

        Returns:
            In rank 0 the metrics in percent by task: ``AP``, ``AP50``, ``AP75``, ``APs``, ``APm``,
            ``APl``, and ``APr``, ``APc``, ``APf`` of rare, common and frequent classes; for
            "box_proposals" ``AR@100``, ``ARs@100`` and so on. Where there is no ground truth the
            average precision is -100, as the official -1 in percent. Empty in other processes,
            without predictions, and for a data set without annotations.

        Raises:
            ValueError: the predictions cannot be those for this data set.
        """
        predictions: Collected | None = self._predictions
        if self._distributed:
            predictions = gather_collected(predictions)
        if predictions is None:
            return {}
        if not len(predictions):
            self._logger.warning("[LVISEvaluator] Did not receive valid predictions.")
            return {}
        if self._output_dir:
            save_predictions(predictions, self._output_dir)

        self._results = OrderedDict()
        if has_kind(predictions, "proposals"):
            self._eval_box_proposals(predictions)
        if has_kind(predictions, "instances"):
            self._eval_predictions(predictions)
        return copy.deepcopy(self._results)

    def _tasks_from_predictions(
        self, predictions: Sequence[Mapping[str, Any]] | Detections
    ) -> list[str]:
        """The tasks that the results allow."""
        if isinstance(predictions, Detections):
            has_masks = predictions.masks is not None
        else:
            has_masks = any("segmentation" in prediction for prediction in predictions)
        return ["bbox", "segm"] if has_masks else ["bbox"]

    def _eval_predictions(self, predictions: Collected) -> None:
        """Evaluate instances of all tasks, into ``self._results``."""
        self._logger.info("Preparing results in the LVIS format ...")
        detections = detections_of(predictions, self._lvis_api.imgs)
        ids = dataset_category_ids(self._metadata, detections.category_ids)
        if not hasattr(self._metadata, "thing_dataset_id_to_contiguous_id"):
            ids = ids + 1  # LVIS counts its categories from 1
        detections = replace(detections, category_ids=ids)
        tasks = self._tasks or self._tasks_from_predictions(detections)
        if len(detections):
            detections.column("score")
        if self._output_dir:
            path = os.path.join(self._output_dir, "lvis_instances_results.json")
            save_results(predictions, detections, path, self._logger)
        if not self._do_evaluation:
            self._logger.info("Annotations are not available for evaluation.")
            return
        check_detections(detections, self._lvis_api, None, self._logger)
        self._logger.info("Evaluating predictions ...")
        for task in sorted(tasks):
            self._results[task] = _evaluate_predictions_on_lvis(
                self._lvis_api,
                detections,
                task,
                max_dets_per_image=self._max_dets_per_image,
                class_names=getattr(self._metadata, "thing_classes", None),
            )

    def _eval_box_proposals(self, predictions: Collected) -> None:
        """Evaluate proposals, into ``self._results``."""
        with_proposals = [prediction for prediction in predictions if "proposals" in prediction]
        if self._output_dir:
            save_proposals(with_proposals, self._output_dir)
        if not self._do_evaluation:
            self._logger.info("Annotations are not available for evaluation.")
            return
        self._results["box_proposals"] = average_recalls(
            with_proposals, self._lvis_api, self._logger
        )


def _evaluate_predictions_on_lvis(
    lvis_gt: COCO,
    lvis_results: Sequence[dict[str, Any]] | Detections,
    iou_type: str,
    max_dets_per_image: int | None = None,
    class_names: Sequence[str] | None = None,
) -> dict[str, float]:
    """Evaluate results, and log the metrics.

    Args:
        lvis_gt: the ground truth.
        lvis_results: in COCO's format. For "segm", areas are those of the masks.
        iou_type: "bbox" or "segm".
        max_dets_per_image: None for 300.
        class_names: not used.

    Returns:
        The nine metrics in percent; NaN without results.
    """
    logger = logging.getLogger(__name__)
    if not len(lvis_results):
        logger.warning("No predictions from the model!")
        return dict.fromkeys(_METRICS, float("nan"))
    if not isinstance(lvis_results, Detections):
        lvis_results = Detections.from_records(lvis_results, lvis_gt.imgs)
    if iou_type == "segm":
        lvis_results = lvis_results.without_boxes()
    max_dets = _OFFICIAL_MAX_DETS if max_dets_per_image is None else max_dets_per_image
    evaluation = evaluate_lvis(lvis_gt, lvis_results, iou_type, max_dets)
    summary = evaluation.results()
    logger.info("Official summary for %s: \n%s", iou_type, create_small_table(summary))
    results = {metric: summary[metric] * 100 for metric in _METRICS}
    logger.info("Evaluation results for %s: \n%s", iou_type, create_small_table(results))
    return results
