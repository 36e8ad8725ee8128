"""The evaluator that fits a data set, and evaluation on all data sets of a configuration."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from detectron2.cli._errors import UsageError
from detectron2.cli._terminal import ProgressLoader, hidden_output

if TYPE_CHECKING:
    from omegaconf import DictConfig
    from torch import nn

    from detectron2.config import CfgNode
    from detectron2.evaluation import DatasetEvaluator


def build_evaluator(
    dataset: str, output_dir: str | None = None, keypoint_sigmas: tuple[float, ...] = ()
) -> DatasetEvaluator:
    """The evaluator, or evaluators as one, that a data set's ``evaluator_type`` stands for.

    Args:
        dataset: the registered name.
        output_dir: where predictions are written.
        keypoint_sigmas: see ``COCOEvaluator``.
    """
    from detectron2 import evaluation
    from detectron2.data import MetadataCatalog

    def coco() -> DatasetEvaluator:
        return evaluation.COCOEvaluator(
            dataset, output_dir=output_dir, kpt_oks_sigmas=keypoint_sigmas
        )

    def sem_seg() -> DatasetEvaluator:
        return evaluation.SemSegEvaluator(dataset, output_dir=output_dir)

    def panoptic() -> DatasetEvaluator:
        return evaluation.COCOPanopticEvaluator(dataset, output_dir)

    makers = {
        "coco": [coco],
        "lvis": [lambda: evaluation.LVISEvaluator(dataset, output_dir=output_dir)],
        "pascal_voc": [lambda: evaluation.PascalVOCDetectionEvaluator(dataset)],
        "rotated_coco": [lambda: evaluation.RotatedCOCOEvaluator(dataset, output_dir=output_dir)],
        "sem_seg": [sem_seg],
        "coco_panoptic_seg": [sem_seg, coco, panoptic],
        "ade20k_panoptic_seg": [sem_seg, coco, panoptic],
        "cityscapes_instance": [lambda: evaluation.CityscapesInstanceEvaluator(dataset)],
        "cityscapes_sem_seg": [lambda: evaluation.CityscapesSemSegEvaluator(dataset)],
        "cityscapes_panoptic_seg": [
            lambda: evaluation.CityscapesSemSegEvaluator(dataset),
            lambda: evaluation.CityscapesInstanceEvaluator(dataset),
            panoptic,
        ],
    }
    kind = MetadataCatalog.get(dataset).get("evaluator_type")
    if kind not in makers:
        raise UsageError(
            f"the data set {dataset} has the evaluator_type {kind!r}, which is unknown"
        )
    evaluators = [make() for make in makers[kind]]
    return evaluators[0] if len(evaluators) == 1 else evaluation.DatasetEvaluators(evaluators)


def evaluator_from_config(cfg: CfgNode, dataset: str) -> DatasetEvaluator:
    """That of :func:`build_evaluator`, with what the configuration says."""
    folder = os.path.join(cfg.OUTPUT_DIR, "inference", dataset)
    return build_evaluator(dataset, folder, tuple(cfg.TEST.KEYPOINT_OKS_SIGMAS))


def evaluate(cfg: CfgNode, model: nn.Module, *, verbose: bool) -> dict[str, dict[str, Any]]:
    """Evaluate a model on every data set of ``DATASETS.TEST``, with test-time augmentation if
    ``TEST.AUG.ENABLED``.

    Returns:
        The results of each data set, in rank 0.
    """
    from detectron2.data import build_detection_test_loader
    from detectron2.evaluation import inference_on_dataset

    if cfg.TEST.AUG.ENABLED:
        from detectron2.modeling import GeneralizedRCNNWithTTA

        model = GeneralizedRCNNWithTTA(cfg, model)
    results = {}
    for name in cfg.DATASETS.TEST:
        loader = ProgressLoader(build_detection_test_loader(cfg, name), name)
        evaluator = evaluator_from_config(cfg, name)
        # COCO's own tables would hide what matters.
        with hidden_output(unless=verbose):
            results[name] = inference_on_dataset(model, loader, evaluator)
    return results


def evaluate_lazy(cfg: DictConfig, model: nn.Module, *, verbose: bool) -> dict[str, Any]:
    """Evaluate a model on ``dataloader.test`` by ``dataloader.evaluator``.

    Returns:
        The results, in rank 0; nothing if there is no evaluator.
    """
    from omegaconf import OmegaConf

    from detectron2.config import instantiate
    from detectron2.evaluation import inference_on_dataset

    if "evaluator" not in cfg.dataloader:
        return {}
    name = str(OmegaConf.select(cfg, "dataloader.test.dataset.names", default="test"))
    loader = ProgressLoader(instantiate(cfg.dataloader.test), name)
    with hidden_output(unless=verbose):
        evaluator = instantiate(cfg.dataloader.evaluator)
        results = inference_on_dataset(model, loader, evaluator)
    return {name: results}
