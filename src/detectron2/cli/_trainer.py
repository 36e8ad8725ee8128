"""Training by a ``CfgNode``."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from detectron2.cli._datasets import check_files
from detectron2.cli._errors import UsageError
from detectron2.cli._evaluators import evaluate, evaluator_from_config
from detectron2.cli._terminal import ProgressBar, print_results
from detectron2.engine import DefaultTrainer, HookBase
from detectron2.utils import comm

if TYPE_CHECKING:
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


def check_classes(cfg: CfgNode) -> None:
    """Raise a UsageError if a model of known architecture has not as many classes as its data set
    names: labels beyond would be out of the range of the loss."""
    from detectron2.cli._datasets import load_records, metadata_with_classes

    keys = {
        "GeneralizedRCNN": "MODEL.ROI_HEADS.NUM_CLASSES",
        "PanopticFPN": "MODEL.ROI_HEADS.NUM_CLASSES",
        "RetinaNet": "MODEL.RETINANET.NUM_CLASSES",
    }
    key = keys.get(cfg.MODEL.META_ARCHITECTURE)
    for name in cfg.DATASETS.TRAIN:
        if comm.is_main_process():
            with contextlib.suppress(NotImplementedError):
                load_records(name)
        classes = metadata_with_classes(name).get("thing_classes")
        if key is None or classes is None:
            continue
        section, _, option = key.removeprefix("MODEL.").partition(".")
        configured = cfg.MODEL[section][option]
        if len(classes) > configured:
            raise UsageError(
                f"{name} has {len(classes)} classes, but {key} is {configured}: add "
                f"{key}={len(classes)}"
            )
