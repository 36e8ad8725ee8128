"""The pieces put together as most programs need them: a trainer and a predictor from a config.

They follow common conventions, and more than most code here they may change. A program with
other needs is better written with :mod:`detectron2.engine.train_loop` and hooks, in the way of
this file.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import torch

from detectron2.engine import hooks
from detectron2.engine._predictor import DefaultPredictor
from detectron2.engine._rng_state import get_rng_state, set_rng_state
from detectron2.engine._setup import (
    _get,
    create_ddp_model,
    default_argument_parser,
    default_setup,
    default_writers,
)
from detectron2.engine.train_loop import AMPTrainer, HookBase, SimpleTrainer, TrainerBase
from detectron2.utils import comm
from detectron2.utils._lazy import lazy_attributes

if TYPE_CHECKING:
    from torch import nn

    from detectron2.config import CfgNode
    from detectron2.evaluation import DatasetEvaluator
    from detectron2.utils.events import EventWriter

__all__ = [
    "DefaultPredictor",
    "DefaultTrainer",
    "create_ddp_model",
    "default_argument_parser",
    "default_setup",
    "default_writers",
]

# Also importable from here, as programs do, without loading it all beforehand.
_REEXPORTED = {
    "CfgNode": "detectron2.config",
    "LazyConfig": "detectron2.config",
    "DetectionCheckpointer": "detectron2.checkpoint",
    "MetadataCatalog": "detectron2.data",
    "build_detection_test_loader": "detectron2.data",
    "build_detection_train_loader": "detectron2.data",
    "DatasetEvaluator": "detectron2.evaluation",
    "inference_on_dataset": "detectron2.evaluation",
    "print_csv_format": "detectron2.evaluation",
    "verify_results": "detectron2.evaluation",
    "build_model": "detectron2.modeling",
    "build_lr_scheduler": "detectron2.solver",
    "build_optimizer": "detectron2.solver",
    "seed_all_rng": "detectron2.utils.env",
    "collect_env_info": "detectron2.utils.collect_env",
    "CommonMetricPrinter": "detectron2.utils.events",
    "JSONWriter": "detectron2.utils.events",
    "TensorboardXWriter": "detectron2.utils.events",
    "PathManager": "detectron2.utils.file_io",
    "setup_logger": "detectron2.utils.logger",
}
__getattr__ = lazy_attributes(__name__, _REEXPORTED)


class _CallAfterBackward(HookBase):
    """Lets the hooks of the outer trainer know of the inner one's backward pass."""

    def __init__(self, outer: TrainerBase) -> None:
        self._outer = weakref.ref(outer)

    def after_backward(self) -> None:
        self._outer().after_backward()


class DefaultTrainer(TrainerBase):
    """Training as most configurations mean it, with checkpoints, evaluation and logs.

    ::

        trainer = MyTrainer(cfg)  # a subclass that has a build_evaluator
        trainer.resume_or_load(resume=args.resume)
        trainer.train()

    The loop is a :class:`SimpleTrainer`, or an :class:`AMPTrainer` if ``SOLVER.AMP.ENABLED``
    (``SOLVER.AMP.DTYPE`` is ``"float16"`` or ``"bfloat16"``). What it is made of comes from the
    ``build_*`` methods. Beyond checkpoints and evaluation, optional keys of the configuration
    switch on: ``SOLVER.EMA_DECAY``, greater than 0, an average of the weights, which evaluation
    then uses; ``TEST.BEST_METRIC``, e.g. ``"bbox/AP"``, a checkpoint ``model_best`` by it; and
    with that ``TEST.EARLY_STOPPING_PATIENCE``, a number of evaluations without an improvement
    after which training ends. For ``TEST.BEST_METRIC_MODE`` ``"min"`` less is better.

    Attributes:
        scheduler: of the learning rate.
        checkpointer: saves and loads model and trainer.
        start_iter, max_iter: of the training.
        cfg: the configuration, scaled to the number of processes.
    """

    # Set here, as subclasses with parts of their own call the __init__ of TrainerBase only.
    _rng_state: dict[str, Any] | None = None

    def __init__(self, cfg: CfgNode) -> None:
        """
        Args:
            cfg: the configuration; it is not changed.

        Raises:
            ValueError: ``SOLVER.AMP.DTYPE`` is another, or :meth:`auto_scale_workers` cannot scale
                the batch.
        """
        super().__init__()
        from detectron2.checkpoint import DetectionCheckpointer

        _show_log()
        cfg = self.auto_scale_workers(cfg, comm.get_world_size())
        self._trainer = self._build_trainer(cfg)
        self._trainer.register_hooks([_CallAfterBackward(self)])
        model, optimizer = self._trainer.model, self._trainer.optimizer
        self.scheduler = self.build_lr_scheduler(cfg, optimizer)
        self.checkpointer = DetectionCheckpointer(
            model, cfg.OUTPUT_DIR, trainer=weakref.proxy(self)
        )
        self.start_iter = 0
        self.max_iter = cfg.SOLVER.MAX_ITER
        self.cfg = cfg
        self.register_hooks(self.build_hooks())

    def _build_trainer(self, cfg: CfgNode) -> SimpleTrainer:
        inner_model = self.build_model(cfg)
        optimizer = self.build_optimizer(cfg, inner_model)
        batches = self.build_train_loader(cfg)
        model = create_ddp_model(inner_model, broadcast_buffers=False)
        if cfg.SOLVER.AMP.ENABLED:
            return AMPTrainer(model, batches, optimizer, precision=_amp_dtype(cfg))
        return SimpleTrainer(model, batches, optimizer)

    def resume_or_load(self, resume: bool = True) -> None:
        """Go on from the last checkpoint in ``OUTPUT_DIR``, or load ``MODEL.WEIGHTS``.

        Args:
            resume: go on with model, optimizer, iteration and hooks if there is a checkpoint.
                Otherwise, and without one, only the model is loaded, and training starts anew.
        """
        # A folder that not all machines share is rank 0's.
        resume = resume and comm.all_gather(self.checkpointer.has_checkpoint())[0]
        self.checkpointer.resume_or_load(self.cfg.MODEL.WEIGHTS, resume=resume)
        if resume:
            # The checkpoint was made at the end of that iteration.
            self.start_iter = self.iter + 1

    def build_hooks(self) -> list[HookBase | None]:
        """The hooks, in this order: timing, learning rate, what changes weights, checkpoints,
        evaluation, what looks at its results, and, last, writers."""
        cfg = self.cfg
        period = cfg.TEST.EVAL_PERIOD
        result: list[HookBase | None] = [hooks.IterationTimer(), hooks.LRScheduler()]
        ema_decay = _get(cfg, "SOLVER.EMA_DECAY", default=0.0)
        if ema_decay > 0:
            result.append(hooks.EMA(self.model, ema_decay, self.checkpointer))
        result.append(self._build_precise_bn())
        if comm.is_main_process():
            result.append(
                hooks.PeriodicCheckpointer(self.checkpointer, cfg.SOLVER.CHECKPOINT_PERIOD)
            )
        result.append(hooks.EvalHook(period, self._evaluate))
        result.extend(self._build_metric_hooks())
        if comm.is_main_process():
            result.append(hooks.PeriodicWriter(self.build_writers(), period=20))
        return result

    def _build_precise_bn(self) -> HookBase | None:
        from fvcore.nn.precise_bn import get_bn_modules

        if not self.cfg.TEST.PRECISE_BN.ENABLED or not get_bn_modules(self.model):
            return None
        cfg = self.cfg.clone()
        cfg.defrost()
        # Few batches are read; the workers of the training's loader have the memory.
        cfg.DATALOADER.NUM_WORKERS = 0
        return hooks.PreciseBN(
            cfg.TEST.EVAL_PERIOD,
            self.model,
            self.build_train_loader(cfg),
            cfg.TEST.PRECISE_BN.NUM_ITER,
        )

    def _build_metric_hooks(self) -> list[HookBase]:
        cfg = self.cfg
        metric = _get(cfg, "TEST.BEST_METRIC", default="")
        if not metric:
            return []
        period, mode = cfg.TEST.EVAL_PERIOD, _get(cfg, "TEST.BEST_METRIC_MODE", default="max")
        result: list[HookBase] = []
        if comm.is_main_process():
            result.append(hooks.BestCheckpointer(period, self.checkpointer, metric, mode))
        patience = _get(cfg, "TEST.EARLY_STOPPING_PATIENCE", default=0)
        if patience > 0:
            result.append(hooks.EarlyStopping(period, metric, patience, mode))
        return result

    def _evaluate(self) -> Any:
        self._last_eval_results = self.test(self.cfg, self.model)
        return self._last_eval_results

    def build_writers(self) -> list[EventWriter]:
        """The writers of metrics, in rank 0; those of :func:`default_writers`."""
        return default_writers(self.cfg.OUTPUT_DIR, self.max_iter)

    def train(self) -> Any:
        """Train from ``start_iter`` to ``max_iter``.

        Returns:
            In rank 0, if ``TEST.EXPECTED_RESULTS`` is set, the results of the last evaluation,
            which were compared with it; else None.

        Raises:
            RuntimeError: ``TEST.EXPECTED_RESULTS`` is set, but there was no evaluation.
        """
        super().train(self.start_iter, self.max_iter)
        if self.cfg.TEST.EXPECTED_RESULTS and comm.is_main_process():
            from detectron2.evaluation import verify_results

            if not hasattr(self, "_last_eval_results"):
                raise RuntimeError("TEST.EXPECTED_RESULTS is set, but there was no evaluation")
            verify_results(self.cfg, self._last_eval_results)
            return self._last_eval_results
        return None

    def before_train(self) -> None:
        """Restore the random generators of a resumed training, then call the hooks."""
        super().before_train()
        if self._rng_state is not None:
            # It draws a seed for its workers, which had happened before the checkpoint.
            _ = self._trainer._data_loader_iter
            set_rng_state(self._rng_state)
            self._rng_state = None

    def run_step(self) -> None:
        """An iteration of the inner trainer."""
        self._trainer.iter = self.iter
        self._trainer.run_step()

    def after_step(self) -> None:
        """Have all metrics written when the hooks see the last iteration, then call the hooks."""
        if self.iter + 1 >= self.max_iter and isinstance(self._trainer, SimpleTrainer):
            self._trainer._finish_metrics()
        super().after_step()

    def after_train(self) -> None:
        """Write the metrics of an iteration that ended early, then call the hooks."""
        try:
            if isinstance(self._trainer, SimpleTrainer):
                self._trainer._finish_metrics()
        finally:
            super().after_train()

    def state_dict(self) -> dict[str, Any]:
        """That of :class:`TrainerBase`, ``"_trainer"``, and, of a single process, ``"rng"``."""
        state = super().state_dict()
        state["_trainer"] = self._trainer.state_dict()
        # The others' generators are out of rank 0's reach, which writes the checkpoint.
        if comm.get_world_size() == 1:
            state["rng"] = get_rng_state()
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what :meth:`state_dict` gave."""
        super().load_state_dict(state_dict)
        self._trainer.load_state_dict(state_dict["_trainer"])
        if comm.get_world_size() == 1:
            self._rng_state = state_dict.get("rng")

    @property
    def model(self) -> nn.Module:
        """The inner trainer's, wrapped for several processes."""
        return self._trainer.model

    @model.setter
    def model(self, value: nn.Module) -> None:
        self._trainer.model = value

    @property
    def data_loader(self) -> Iterable[Any]:
        """The inner trainer's."""
        return self._trainer.data_loader

    @data_loader.setter
    def data_loader(self, value: Iterable[Any]) -> None:
        self._trainer.data_loader = value

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """The inner trainer's."""
        return self._trainer.optimizer

    @optimizer.setter
    def optimizer(self, value: torch.optim.Optimizer) -> None:
        self._trainer.optimizer = value

    @classmethod
    def build_model(cls, cfg: CfgNode) -> nn.Module:
        """The model; by :func:`detectron2.modeling.build_model`."""
        from detectron2.modeling import build_model

        model = build_model(cfg)
        logging.getLogger(__name__).info("Model:\n%s", model)
        return model

    @classmethod
    def build_optimizer(cls, cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
        """The optimizer; by :func:`detectron2.solver.build_optimizer`."""
        from detectron2 import solver

        return solver.build_optimizer(cfg, model)

    @classmethod
    def build_lr_scheduler(
        cls, cfg: CfgNode, optimizer: torch.optim.Optimizer
    ) -> torch.optim.lr_scheduler.LRScheduler:
        """The learning rate scheduler; by :func:`detectron2.solver.build_lr_scheduler`."""
        from detectron2 import solver

        return solver.build_lr_scheduler(cfg, optimizer)

    @classmethod
    def build_train_loader(cls, cfg: CfgNode) -> Iterable[Any]:
        """The batches; by :func:`detectron2.data.build_detection_train_loader`."""
        from detectron2 import data

        return data.build_detection_train_loader(cfg)

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str) -> Iterable[Any]:
        """A data set for evaluation; by :func:`detectron2.data.build_detection_test_loader`."""
        from detectron2 import data

        return data.build_detection_test_loader(cfg, dataset_name)

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str) -> DatasetEvaluator:
        """The evaluator of a data set: to be written in a subclass.

        Raises:
            NotImplementedError: it is not.
        """
        raise NotImplementedError(
            f"{cls.__name__}.build_evaluator is needed to evaluate {dataset_name!r}: write one "
            "that returns a DatasetEvaluator, or pass evaluators to test()"
        )

    @classmethod
    def test(
        cls,
        cfg: CfgNode,
        model: nn.Module,
        evaluators: DatasetEvaluator | Sequence[DatasetEvaluator] | None = None,
    ) -> dict[str, Any]:
        """Evaluate a model on ``cfg.DATASETS.TEST``.

        Args:
            cfg: the configuration.
            model: it is evaluated in evaluation mode.
            evaluators: one for each data set; None means those of :meth:`build_evaluator`. A data
                set for which that is not implemented is left out, with a warning.

        Returns:
            The results by data set; of a single data set, its results. They are those of rank 0;
            other processes get nothing of use.

        Raises:
            ValueError: there are more or fewer evaluators than data sets.
            TypeError: an evaluator returns no dict in rank 0.
        """
        from detectron2.evaluation import DatasetEvaluator, inference_on_dataset, print_csv_format

        logger = logging.getLogger(__name__)
        names = cfg.DATASETS.TEST
        if isinstance(evaluators, DatasetEvaluator):
            evaluators = [evaluators]
        if evaluators is not None and len(evaluators) != len(names):
            raise ValueError(f"{len(names)} data sets and {len(evaluators)} evaluators")
        results: dict[str, Any] = {}
        for index, name in enumerate(names):
            data_loader = cls.build_test_loader(cfg, name)
            if evaluators is not None:
                evaluator = evaluators[index]
            else:
                try:
                    evaluator = cls.build_evaluator(cfg, name)
                except NotImplementedError as error:
                    logger.warning("No evaluation of %s: %s", name, error)
                    results[name] = {}
                    continue
            results[name] = inference_on_dataset(model, data_loader, evaluator)
            # None where this is not rank 0.
            if comm.is_main_process():
                if not isinstance(results[name], dict):
                    raise TypeError(
                        f"an evaluator must return a dict in rank 0, not {results[name]!r}"
                    )
                logger.info("Evaluation results for %s in csv format:", name)
                print_csv_format(results[name])
        return next(iter(results.values())) if len(results) == 1 else results

    @staticmethod
    def auto_scale_workers(cfg: CfgNode, num_workers: int) -> CfgNode:
        """Scale a configuration that is meant for another number of processes.

        With n times as many processes as ``SOLVER.REFERENCE_WORLD_SIZE`` the batch and the
        learning rate are n times as large, and everything counted in iterations is divided by n
        (Goyal et al., "Accurate, Large Minibatch SGD", 2.1).

        Args:
            cfg: ``SOLVER.REFERENCE_WORLD_SIZE`` 0 means that nothing is scaled.
            num_workers: the number of processes.

        Returns:
            ``cfg`` itself if there is nothing to do, else a scaled copy, whose reference is
            ``num_workers``.

        Raises:
            ValueError: ``SOLVER.IMS_PER_BATCH`` is no multiple of the reference.
        """
        reference = cfg.SOLVER.REFERENCE_WORLD_SIZE
        if reference in (0, num_workers):
            return cfg
        if cfg.SOLVER.IMS_PER_BATCH % reference:
            raise ValueError(
                f"SOLVER.IMS_PER_BATCH {cfg.SOLVER.IMS_PER_BATCH} is no multiple of "
                f"SOLVER.REFERENCE_WORLD_SIZE {reference}"
            )
        frozen = cfg.is_frozen()
        cfg = cfg.clone()
        cfg.defrost()
        scale = num_workers / reference
        solver = cfg.SOLVER
        solver.IMS_PER_BATCH = round(solver.IMS_PER_BATCH * scale)
        solver.BASE_LR = solver.BASE_LR * scale
        solver.MAX_ITER = round(solver.MAX_ITER / scale)
        solver.WARMUP_ITERS = round(solver.WARMUP_ITERS / scale)
        solver.STEPS = tuple(round(step / scale) for step in solver.STEPS)
        cfg.TEST.EVAL_PERIOD = round(cfg.TEST.EVAL_PERIOD / scale)
        solver.CHECKPOINT_PERIOD = round(solver.CHECKPOINT_PERIOD / scale)
        solver.REFERENCE_WORLD_SIZE = num_workers
        logging.getLogger(__name__).info(
            "Scaled from %d processes to %d: batch size %d, learning rate %g, %d iterations, "
            "warm-up %d",
            reference,
            num_workers,
            solver.IMS_PER_BATCH,
            solver.BASE_LR,
            solver.MAX_ITER,
            solver.WARMUP_ITERS,
        )
        if frozen:
            cfg.freeze()
        return cfg


def _show_log() -> None:
    """Without a set-up by the program, training would say nothing."""
    if not logging.getLogger("detectron2").isEnabledFor(logging.INFO):
        from detectron2.utils.logger import setup_logger

        setup_logger()


def _amp_dtype(cfg: CfgNode) -> torch.dtype:
    name = _get(cfg, "SOLVER.AMP.DTYPE", default="float16")
    if name not in ("float16", "bfloat16"):
        raise ValueError(f'SOLVER.AMP.DTYPE must be "float16" or "bfloat16", not {name!r}')
    return getattr(torch, name)
