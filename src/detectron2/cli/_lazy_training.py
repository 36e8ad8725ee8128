"""Training by a lazy config: sections ``model``, ``optimizer``, ``lr_multiplier``, ``dataloader``
and ``train``, as those of the model zoo have them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from detectron2.checkpoint import DetectionCheckpointer
from detectron2.cli._config import build_model, dataset_names
from detectron2.cli._datasets import check_files
from detectron2.cli._errors import UsageError
from detectron2.cli._evaluators import evaluate_lazy
from detectron2.cli._terminal import print_results
from detectron2.cli._trainer import ShowProgress, check_classes
from detectron2.config import instantiate
from detectron2.engine import AMPTrainer, SimpleTrainer, create_ddp_model, default_writers, hooks
from detectron2.utils import comm

if TYPE_CHECKING:
    from omegaconf import DictConfig

_SECTIONS = ("model", "optimizer", "lr_multiplier", "dataloader", "train")


def train_lazy(cfg: DictConfig, *, resume: bool, verbose: bool) -> None:
    """Train in this process, which may be one of several."""
    missing = [name for name in _SECTIONS if name not in cfg]
    if missing:
        raise UsageError(f"training needs {', '.join(missing)} in the configuration")
    check_files(dataset_names(cfg, "train") + dataset_names(cfg, "test"))
    settings = cfg.train
    model = build_model(cfg)
    cfg.optimizer.params.model = model
    optimizer = instantiate(cfg.optimizer)
    batches = instantiate(cfg.dataloader.train)
    check_classes(cfg, are_loaded=True)
    wrapped = create_ddp_model(model, **settings.get("ddp", {}))
    mixed_precision = OmegaConf.select(settings, "amp.enabled", default=False)
    trainer = (AMPTrainer if mixed_precision else SimpleTrainer)(wrapped, batches, optimizer)
    checkpointer = DetectionCheckpointer(model, settings.output_dir, trainer=trainer)

    trainer.register_hooks(_hooks(cfg, trainer, wrapped, checkpointer, verbose))
    checkpointer.resume_or_load(settings.init_checkpoint, resume=resume)
    resumed = resume and checkpointer.has_checkpoint()
    trainer.train(trainer.iter + 1 if resumed else 0, settings.max_iter)


def _hooks(
    cfg: DictConfig,
    trainer: SimpleTrainer,
    model: Any,
    checkpointer: DetectionCheckpointer,
    verbose: bool,
) -> list[Any]:
    settings = cfg.train

    def test() -> dict[str, Any]:
        results = evaluate_lazy(cfg, model, verbose=verbose)
        for name, of_dataset in results.items():
            if comm.is_main_process():
                print_results(of_dataset, name)
        return next(iter(results.values()), {})

    result = [
        hooks.IterationTimer(),
        hooks.LRScheduler(scheduler=instantiate(cfg.lr_multiplier)),
    ]
    is_main = comm.is_main_process()
    if is_main:
        result.append(hooks.PeriodicCheckpointer(checkpointer, **settings.checkpointer))
    result.append(hooks.EvalHook(settings.eval_period, test))
    if is_main:
        writers = default_writers(settings.output_dir, settings.max_iter)
        result.append(hooks.PeriodicWriter(writers, period=settings.log_period))
        result.append(ShowProgress())
    return result
