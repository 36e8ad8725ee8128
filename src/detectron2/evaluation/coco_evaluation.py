"""Evaluation of detections, masks, keypoints and proposals by the rules of COCO."""

import contextlib
import copy
import io
import logging
import os
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detectron2.config import CfgNode
from detectron2.data.catalog import MetadataCatalog
from detectron2.data.datasets.coco import convert_to_coco_json
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
from detectron2.evaluation._coco_max_dets import COCOevalMaxDets, mean_of_valid
from detectron2.evaluation._coco_predictions import PackedPredictions
from detectron2.evaluation._coco_results import load_results
from detectron2.evaluation._detection_files import (
    save_predictions,
    save_proposals,
    save_results,
)
from detectron2.evaluation._result_tables import log_per_category_table
from detectron2.evaluation.evaluator import DatasetEvaluator
from detectron2.evaluation.fast_eval_api import COCOeval_opt
from detectron2.structures import Boxes, BoxMode, Instances, pairwise_iou  # noqa: F401
from detectron2.utils.file_io import PathManager
from detectron2.utils.logger import create_small_table

__all__ = ["COCOEvaluator", "COCOevalMaxDets", "instances_to_coco_json"]

_METRICS = {
    "bbox": ("AP", "AP50", "AP75", "APs", "APm", "APl"),
    "segm": ("AP", "AP50", "AP75", "APs", "APm", "APl"),
    "keypoints": ("AP", "AP50", "AP75", "APm", "APl"),
}
# The API's summary is for this number, the last of the three that a summary has.
_STANDARD_MAX_DETS = (1, 10, 100)


class COCOEvaluator(DatasetEvaluator):
    """Average precision of boxes, masks and keypoints, and average recall of proposals, by COCO.

    https://cocodataset.org/#detection-eval and https://cocodataset.org/#keypoints-eval. Works for
    any data set of things; one that is not in COCO's format is converted on the way.

    Predictions are kept as flat arrays, which is also how they travel between processes.
    """

    def __init__(
        self,
        dataset_name: str,
        tasks: Sequence[str] | None = None,
        distributed: bool = True,
        output_dir: str | None = None,
        *,
        max_dets_per_image: int | None = None,
        use_fast_impl: bool = True,
        kpt_oks_sigmas: Sequence[float] = (),
        allow_cached_coco: bool = True,
    ) -> None:
        """Args:
        dataset_name: its metadata has ``json_file``, annotations in COCO's format; or it is
            registered in the catalog and has ``thing_classes``, and is converted to such a file
            in ``output_dir``.
        tasks: of "bbox", "segm" and "keypoints"; None for those that the predictions allow.
        distributed: bring the predictions of all processes together; otherwise each process
            evaluates its own.
        output_dir: where ``instances_predictions.pth`` (all predictions, for ``torch.load``) and
            ``coco_instances_results.json`` (in COCO's format) are written; None for nowhere.
        max_dets_per_image: detections of highest score that count for a class in an image; None
            for COCO's 100. Not for keypoints, where it is 20.
        use_fast_impl: evaluate by :class:`COCOeval_opt`; otherwise by pycocotools, with the same
            numbers.
        kpt_oks_sigmas: standard deviations of the keypoints in relation to an object's size;
            empty for those of COCO's 17.
        allow_cached_coco: use a converted file that is there already.

        Raises:
            ValueError: the data set must be converted, and there is no ``output_dir``.
        """
        self._logger = logging.getLogger(__name__)
        self._distributed = distributed
        self._output_dir = output_dir
        self._use_fast_impl = use_fast_impl
        self._max_dets_per_image = (
            None
            if max_dets_per_image is None
            else [*_STANDARD_MAX_DETS[:2], int(max_dets_per_image)]
        )
        if isinstance(tasks, CfgNode):
            self._logger.warning(
                "COCOEvaluator takes no config: give tasks and kpt_oks_sigmas by name"
            )
            kpt_oks_sigmas = kpt_oks_sigmas or tasks.TEST.KEYPOINT_OKS_SIGMAS
            tasks = None
        self._tasks = tasks
        self._kpt_oks_sigmas = kpt_oks_sigmas
        self._cpu_device = torch.device("cpu")
        self._metadata = MetadataCatalog.get(dataset_name)
        if not hasattr(self._metadata, "json_file"):
            self._metadata.json_file = self._convert(dataset_name, output_dir, allow_cached_coco)
        self._coco_api = load_coco(self._metadata.json_file)
        # Test sets have no annotations: for them, results are only written.
        self._do_evaluation = "annotations" in self._coco_api.dataset
        self._predictions = self._no_predictions()
        self._results: OrderedDict[str, dict[str, float]] = OrderedDict()

    def _convert(self, dataset_name: str, output_dir: str | None, allow_cached: bool) -> str:
        if output_dir is None:
            raise ValueError(
                f"the data set {dataset_name!r} has no 'json_file' in its metadata: it must be "
                f"converted to COCO's format, for which output_dir is needed"
            )
        self._logger.info("Converting %r to COCO's format ...", dataset_name)
        path = os.path.join(output_dir, f"{dataset_name}_coco_format.json")
        convert_to_coco_json(dataset_name, path, allow_cached=allow_cached)
        return path

    def _no_predictions(self) -> Collected:
        return nothing_collected(self, COCOEvaluator)

    def reset(self) -> None:
        """Forget the predictions."""
        self._predictions = self._no_predictions()

    def process(
        self, inputs: Sequence[Mapping[str, Any]], outputs: Sequence[Mapping[str, Any]]
    ) -> None:
        """Take in a batch.

        Args:
            inputs: dicts with ``image_id``.
            outputs: dicts with ``instances``: Instances in the image's own size with
                ``pred_boxes``, ``scores``, ``pred_classes`` and, as the model has them,
                ``pred_masks`` ``(N, H, W)`` and ``pred_keypoints`` ``(N, K, 3)``. And with
                ``proposals``, or only them: Instances with ``proposal_boxes`` and
                ``objectness_logits``.
        """
        collect(self._predictions, inputs, outputs, self._cpu_device, self._records)

    def _records(self, instances: Instances, image_id: Any) -> list[dict[str, Any]]:
        return instances_to_coco_json(instances, image_id)

    def evaluate(
        self, img_ids: Sequence[Any] | None = None
    ) -> OrderedDict[str, dict[str, float]] | dict[str, Any]:
        """Evaluate what was processed.

        Args:
            img_ids: the images to evaluate; None for all of the data set.

        Returns:
            In rank 0 the metrics in percent by task: ``AP``, ``AP50``, ``AP75``, ``APs`` (not for
            keypoints), ``APm``, ``APl``, and ``AP-<class>`` where there are several classes; for
            "box_proposals" ``AR@100``, ``ARs@100`` and so on. NaN where there is no ground truth,
            and without any detection. Empty in other processes, without predictions, and for a data
            set without annotations.

        Raises:
            ValueError: the predictions cannot be those for this data set: unknown images or
                categories, numbers that are not finite. See also the warnings in the log.
        """
        predictions: Collected | None = self._predictions
        if self._distributed:
            predictions = gather_collected(predictions)
        if predictions is None:
            return {}
        if not len(predictions):
            self._logger.warning("[COCOEvaluator] Did not receive valid predictions.")
            return {}
        if self._output_dir:
            save_predictions(predictions, self._output_dir)

        self._results = OrderedDict()
        if has_kind(predictions, "proposals"):
            self._eval_box_proposals(predictions)
        if has_kind(predictions, "instances"):
            self._eval_predictions(predictions, img_ids=img_ids)
        return copy.deepcopy(self._results)

    def _tasks_from_predictions(
        self, predictions: Sequence[Mapping[str, Any]] | Detections
    ) -> list[str]:
        """The tasks that the results allow, "bbox" always; sorted."""
        tasks = {"bbox"}
        if isinstance(predictions, Detections):
            tasks |= {"segm"} if predictions.masks is not None else set()
            tasks |= {"keypoints"} if predictions.keypoints is not None else set()
        else:
            keys = set().union(*predictions)
            tasks |= {"segm"} if "segmentation" in keys else set()
            tasks |= {"keypoints"} if "keypoints" in keys else set()
        return sorted(tasks)

    def _eval_predictions(
        self, predictions: Collected, img_ids: Sequence[Any] | None = None
    ) -> None:
        """Evaluate instances of all tasks, into ``self._results``."""
        self._logger.info("Preparing results for COCO format ...")
        detections = self._detections(predictions)
        tasks = self._wanted_tasks(detections)
        if len(detections):
            detections.column("score")
        if self._output_dir:
            path = os.path.join(self._output_dir, "coco_instances_results.json")
            save_results(predictions, detections, path, self._logger)
        if not self._do_evaluation:
            self._logger.info("Annotations are not available for evaluation.")
            return
        check_detections(detections, self._coco_api, img_ids, self._logger)

        cocoeval_fn = self._cocoeval_class()
        self._logger.info(
            "Evaluating predictions with %s COCO API...",
            "official" if cocoeval_fn is COCOeval else "unofficial",
        )
        for task in sorted(tasks):
            coco_eval = None
            if len(detections):
                coco_eval = _evaluate_predictions_on_coco(
                    self._coco_api,
                    detections,
                    task,
                    kpt_oks_sigmas=self._kpt_oks_sigmas,
                    cocoeval_fn=cocoeval_fn,
                    img_ids=img_ids,
                    max_dets_per_image=self._max_dets_per_image,
                )
            self._results[task] = self._derive_coco_results(
                coco_eval, task, class_names=getattr(self._metadata, "thing_classes", None)
            )

    def _wanted_tasks(self, detections: Detections) -> Sequence[str]:
        tasks = self._tasks or self._tasks_from_predictions(detections)
        if unknown := set(tasks) - set(_METRICS):
            raise ValueError(f"tasks must be among {sorted(_METRICS)}, got {sorted(unknown)}")
        return tasks

    def _cocoeval_class(self) -> type[COCOeval]:
        return COCOeval_opt if self._use_fast_impl else COCOeval

    def _detections(self, predictions: Collected) -> Detections:
        """All instances, with the category ids of the data set."""
        detections = detections_of(predictions, self._coco_api.imgs)
        return replace(
            detections,
            category_ids=dataset_category_ids(self._metadata, detections.category_ids),
        )

    def _eval_box_proposals(self, predictions: Collected) -> None:
        """Evaluate proposals, into ``self._results``."""
        predictions = [prediction for prediction in predictions if "proposals" in prediction]
        if self._output_dir:
            save_proposals(predictions, self._output_dir)
        if not self._do_evaluation:
            self._logger.info("Annotations are not available for evaluation.")
            return
        self._results["box_proposals"] = average_recalls(predictions, self._coco_api, self._logger)

    def _derive_coco_results(
        self, coco_eval: COCOeval | None, iou_type: str, class_names: Sequence[str] | None = None
    ) -> dict[str, float]:
        """Metrics in percent by name from a summarised evaluation.

        Args:
            coco_eval: None where there were no detections, of which all metrics are NaN.
            iou_type: the task.
            class_names: in the order of the data set's category ids; with several, there is an
                ``AP-<class>`` for each.
        """
        metrics = _METRICS[iou_type]
        if coco_eval is None:
            self._logger.warning("No predictions from the model!")
            return dict.fromkeys(metrics, float("nan"))
        results = {
            metric: _percent(value) for metric, value in zip(metrics, coco_eval.stats, strict=False)
        }
        self._logger.info("Evaluation results for %s: \n%s", iou_type, create_small_table(results))
        if not all(map(np.isfinite, results.values())):
            self._logger.info("Some metrics cannot be computed and are shown as NaN.")
        if class_names is None or len(class_names) <= 1:
            return results
        precisions = coco_eval.eval["precision"]  # (T, R, K, A, M)
        if len(class_names) != precisions.shape[2]:
            raise ValueError(
                f"the metadata has {len(class_names)} thing_classes, but {precisions.shape[2]} "
                f"categories were evaluated"
            )
        per_category = {
            name: _percent(mean_of_valid(precisions[:, :, index, 0, -1]))
            for index, name in enumerate(class_names)
        }
        log_per_category_table(self._logger, iou_type, per_category)
        results.update({f"AP-{name}": ap for name, ap in per_category.items()})
        return results


def instances_to_coco_json(instances: Instances, img_id: Any) -> list[dict[str, Any]]:
    """Instances in the format of COCO's results.

    Args:
        instances: on the CPU, see :meth:`COCOEvaluator.process`.
        img_id: the image's id.

    Returns:
        A dict for each: ``image_id``, ``category_id`` (the model's class), ``bbox`` (XYWH),
        ``score``; ``segmentation`` (coded run lengths) where there are masks, and ``keypoints`` (x,
        y and score of each, half a pixel less than the model's) where there are.
    """
    predictions = PackedPredictions()
    predictions.add(img_id, instances)
    return list(predictions.detections().records())


def _evaluate_predictions_on_coco(
    coco_gt: COCO,
    coco_results: Sequence[dict[str, Any]] | Detections,
    iou_type: str,
    kpt_oks_sigmas: Sequence[float] | None = None,
    cocoeval_fn: type[COCOeval] = COCOeval_opt,
    img_ids: Sequence[Any] | None = None,
    max_dets_per_image: Sequence[int] | None = None,
    *,
    use_fast_impl: bool = True,
) -> COCOeval:
    """Evaluate results and print the summary.

    Args:
        coco_gt: the ground truth.
        coco_results: in COCO's format, at least one. For "segm", areas are those of the masks.
        iou_type: "bbox", "segm" or "keypoints".
        kpt_oks_sigmas: of the keypoints; None or empty for COCO's.
        cocoeval_fn: does the work.
        img_ids: the images to evaluate; None for all.
        max_dets_per_image: three numbers of detections that count for a class in an image; None
            for 1, 10 and 100. Not for keypoints.
        use_fast_impl: as evaluators of upstream's release 0.6 pass it; False is pycocotools'
            COCOeval in place of ``cocoeval_fn``.
    """
    if not use_fast_impl:
        cocoeval_fn = COCOeval
    if not len(coco_results):
        raise ValueError("there are no results to evaluate")
    max_dets = list(_STANDARD_MAX_DETS if max_dets_per_image is None else max_dets_per_image)
    if len(max_dets) < 3:
        raise ValueError(f"max_dets_per_image must be three numbers, got {max_dets}")
    is_packed = isinstance(coco_results, Detections)
    if iou_type == "segm":
        coco_results = (
            coco_results.without_boxes()
            if is_packed
            else [{k: v for k, v in result.items() if k != "bbox"} for result in coco_results]
        )
    if issubclass(cocoeval_fn, COCOeval_opt):
        coco_dt = load_results(coco_gt, coco_results)
    else:
        records = coco_results.records() if is_packed else map(dict, coco_results)
        coco_dt = coco_gt.loadRes(list(records))
    if max_dets[2] != _STANDARD_MAX_DETS[2]:
        cocoeval_fn = type("COCOevalMaxDets", (COCOevalMaxDets, cocoeval_fn), {})
    coco_eval = cocoeval_fn(coco_gt, coco_dt, iou_type)
    if iou_type != "keypoints":
        coco_eval.params.maxDets = max_dets
    else:
        _set_keypoint_sigmas(coco_eval, coco_gt, coco_dt, kpt_oks_sigmas)
    if img_ids is not None:
        coco_eval.params.imgIds = img_ids
    coco_eval.evaluate()
    coco_eval.accumulate()
    coco_eval.summarize()
    return coco_eval


def _set_keypoint_sigmas(
    coco_eval: COCOeval, coco_gt: COCO, coco_dt: COCO, sigmas: Sequence[float] | None
) -> None:
    if sigmas:
        coco_eval.params.kpt_oks_sigmas = np.array(sigmas)
    num_sigmas = len(coco_eval.params.kpt_oks_sigmas)
    lengths = {len(a["keypoints"]) for a in coco_gt.anns.values() if "keypoints" in a}
    detections = getattr(coco_dt, "detections", None)
    lengths.add(
        len(next(iter(coco_dt.anns.values()))["keypoints"])
        if detections is None
        else detections.row_length("keypoints")
    )
    if lengths != {3 * num_sigmas}:
        raise ValueError(
            f"there are {num_sigmas} keypoint sigmas, but {sorted(n // 3 for n in lengths)} "
            f"keypoints in predictions and ground truth: cfg.TEST.KEYPOINT_OKS_SIGMAS, or "
            f"kpt_oks_sigmas, must have one for each keypoint"
        )


def load_coco(json_file: str) -> COCO:
    """Read annotations in COCO's format, without the API's messages on stdout."""
    with contextlib.redirect_stdout(io.StringIO()):
        return COCO(PathManager.get_local_path(json_file))


def dataset_category_ids(metadata: Any, classes: np.ndarray) -> np.ndarray:
    """The data set's category ids of a model's classes, int64 ``(D,)`` both.

    Without ``thing_dataset_id_to_contiguous_id`` in the metadata they are the same.

    Raises:
        ValueError: a class is out of range.
    """
    mapping = getattr(metadata, "thing_dataset_id_to_contiguous_id", None)
    if mapping is None:
        return classes
    num_classes = len(mapping)
    if sorted(mapping.values()) != list(range(num_classes)):
        raise ValueError(
            f"thing_dataset_id_to_contiguous_id of {metadata.name!r} must map to 0, ..., "
            f"{num_classes - 1}, got {mapping}"
        )
    outside = (classes < 0) | (classes >= num_classes)
    if outside.any():
        raise ValueError(
            f"a prediction has the class {int(classes[outside][0])}, but the data set "
            f"{metadata.name!r} has {num_classes} classes, of which predictions are in "
            f"[0, {num_classes - 1}]"
        )
    ids = np.empty(num_classes, np.int64)
    ids[list(mapping.values())] = list(mapping.keys())
    return ids[classes]


def _percent(value: float) -> float:
    return float(value * 100 if value >= 0 else "nan")
