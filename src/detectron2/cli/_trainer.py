"""Training by a ``CfgNode``."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from detectron2.cli._config import dataset_names, is_lazy
from detectron2.cli._datasets import check_files, load_records, metadata_with_classes
from detectron2.cli._errors import UsageError
from detectron2.cli._evaluators import evaluate, evaluator_from_config
from detectron2.cli._terminal import ProgressBar, print_results
from detectron2.engine import DefaultTrainer, HookBase
from detectron2.utils import comm

if TYPE_CHECKING:
    from omegaconf import DictConfig
    from torch import nn

    from detectron2.config import CfgNode
    from detectron2.evaluation import DatasetEvaluator


class ShowProgress(HookBase):
    """A bar on the terminal, with the loss."""

    def before_train(self) -> None:
        self._bar = ProgressBar(self.trainer.max_iter, "train")

    def after_step(self) -> None:
        latest = self.trainer.storage.latest()
        note = f"loss {latest['total_loss'][0]:.3g}" if "total_loss" in latest else ""
        self._bar.update(self.trainer.iter + 1, note)

    def after_train(self) -> None:
        self._bar.close()


class Trainer(DefaultTrainer):
    """The default trainer, evaluating each data set as its ``evaluator_type`` says."""

    verbose = False

    def build_hooks(self) -> list[HookBase | None]:
        hooks = super().build_hooks()
        if comm.is_main_process():
            hooks.append(ShowProgress())
        return hooks

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str) -> DatasetEvaluator:
        return evaluator_from_config(cfg, dataset_name)

    @classmethod
    def test(
        cls,
        cfg: CfgNode,
        model: nn.Module,
        evaluators: DatasetEvaluator | Sequence[DatasetEvaluator] | None = None,
    ) -> dict[str, Any]:
        if evaluators is not None:
            return super().test(cfg, model, evaluators)
        results = evaluate(cfg, model, verbose=cls.verbose)
        if comm.is_main_process():
            for name, of_dataset in results.items():
                print_results(of_dataset, name)
        return next(iter(results.values())) if len(results) == 1 else results


def train(cfg: CfgNode, *, resume: bool, verbose: bool) -> None:
    """Train in this process, which may be one of several."""
    check_classes(cfg)
    check_files(cfg.DATASETS.TEST)
    Trainer.verbose = verbose
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=resume)
    trainer.train()


def check_classes(cfg: CfgNode | DictConfig, *, are_loaded: bool = False) -> None:
    """Raise a UsageError if a model of known architecture has not as many classes as its data set
    names: labels beyond would be those of the background, or out of the range of the loss.

    Args:
        cfg: the configuration.
        are_loaded: the data sets were loaded before; else they are here.
    """
    key, configured = _configured_classes(cfg)
    for name in dataset_names(cfg, "train"):
        if comm.is_main_process() and not are_loaded:
            with contextlib.suppress(NotImplementedError):
                load_records(name)
        classes = metadata_with_classes(name).get("thing_classes")
        if configured is not None and classes is not None and len(classes) > configured:
            raise UsageError(
                f"{name} has {len(classes)} classes, but {key} is {configured}: add "
                f"{key}={len(classes)}"
            )


def _configured_classes(cfg: CfgNode | DictConfig) -> tuple[str, int | None]:
    """The key of the number of classes, and the number; None if it is not known."""
    if is_lazy(cfg):
        target = cfg.model.get("_target_", "")
        name = getattr(target, "__name__", str(target).rpartition(".")[2])
        key = {
            "GeneralizedRCNN": "model.roi_heads.num_classes",
            "PanopticFPN": "model.roi_heads.num_classes",
            "RetinaNet": "model.num_classes",
            "FCOS": "model.num_classes",
        }.get(name, "")
        value = OmegaConf.select(cfg, key, default=None) if key else None
        return key, value if isinstance(value, int) else None
    section = {
        "GeneralizedRCNN": "ROI_HEADS",
        "PanopticFPN": "ROI_HEADS",
        "RetinaNet": "RETINANET",
    }.get(cfg.MODEL.META_ARCHITECTURE)
    if section is None:
        return "", None
    return f"MODEL.{section}.NUM_CLASSES", cfg.MODEL[section].NUM_CLASSES
