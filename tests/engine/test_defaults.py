"""What programs start with: arguments, set-up, the default trainer and predictor."""

import argparse
import importlib
import importlib.util
import json
import logging
import os
import subprocess
import sys
import types
from typing import ClassVar

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import LazyConfig, get_cfg
from detectron2.engine import (
    AMPTrainer,
    DefaultPredictor,
    DefaultTrainer,
    HookBase,
    SimpleTrainer,
    TrainerBase,
    create_ddp_model,
    default_argument_parser,
    default_setup,
    default_writers,
    hooks,
)
from detectron2.utils.events import EventStorage

from .toys import Toy, batches


@pytest.fixture
def log(caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("detectron2"), "propagate", True)
    caplog.set_level(logging.INFO)
    return caplog


@pytest.fixture
def cfg(tmp_path):
    cfg = get_cfg()
    cfg.MODEL.DEVICE = "cpu"
    cfg.OUTPUT_DIR = str(tmp_path / "out")
    cfg.SOLVER.MAX_ITER = 6
    cfg.SOLVER.STEPS = (4,)
    cfg.SOLVER.WARMUP_ITERS = 0
    cfg.SOLVER.CHECKPOINT_PERIOD = 4
    return cfg


# Arguments


def test_default_arguments():
    arguments = vars(default_argument_parser().parse_args([]))
    url = arguments.pop("dist_url")
    assert arguments == {
        "config_file": "",
        "resume": False,
        "eval_only": False,
        "num_gpus": 1,
        "num_machines": 1,
        "machine_rank": 0,
        "opts": [],
    }
    port = int(url.removeprefix("tcp://127.0.0.1:"))
    assert 2**15 + 2**14 <= port < 2**16
    # Every start of the same user's program takes the same one.
    assert default_argument_parser().parse_args([]).dist_url == url


def test_given_arguments():
    command = (
        "--config-file c --num-gpus 3 --num-machines 2 --machine-rank 1 --dist-url u A.B 1 --x"
    )
    arguments = default_argument_parser(epilog="The end.").parse_args(command.split())
    assert (arguments.num_gpus, arguments.num_machines, arguments.machine_rank) == (3, 2, 1)
    assert (arguments.config_file, arguments.dist_url) == ("c", "u")
    assert arguments.opts == ["A.B", "1", "--x"]
    assert default_argument_parser(epilog="The end.").format_help().rstrip().endswith("The end.")


# Set-up


@pytest.fixture
def restored(monkeypatch):
    """What the set-up changes in the process."""
    monkeypatch.setenv("PYTHONHASHSEED", "random")
    loggers = [logging.getLogger(name) for name in ("fvcore", "detectron2")]
    handlers = [(logger, logger.handlers[:], logger.propagate) for logger in loggers]
    precision = torch.get_float32_matmul_precision()
    tf32, benchmark = torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark
    yield
    for logger, before, propagate in handlers:
        for handler in logger.handlers:
            if handler not in before:
                handler.close()
        logger.handlers, logger.propagate = before, propagate
    torch.set_float32_matmul_precision(precision)
    torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark = tf32, benchmark


def test_set_up(cfg, tmp_path, restored):
    cfg.SEED = 12
    cfg.CUDNN_BENCHMARK = True
    cfg.FLOAT32_PRECISION = "highest"
    config_file = tmp_path / "given.yaml"
    config_file.write_text("SEED: 12  # of the file\n")
    arguments = argparse.Namespace(config_file=str(config_file), eval_only=False)
    default_setup(cfg, arguments)
    first = torch.rand(1), np.random.rand()
    text = (tmp_path / "out" / "log.txt").read_text()
    for part in ("Rank of current process: 0", "PyTorch", "eval_only=False", "# of the file"):
        assert part in text
    saved = get_cfg()
    saved.merge_from_file(os.path.join(cfg.OUTPUT_DIR, "config.yaml"))
    assert saved == cfg
    assert torch.backends.cudnn.benchmark
    assert torch.get_float32_matmul_precision() == "highest"
    assert not torch.backends.cudnn.allow_tf32

    default_setup(cfg, argparse.Namespace())
    assert (torch.rand(1), np.random.rand()) == first


def test_set_up_leaves_the_precision_and_does_not_benchmark_evaluation(cfg, restored):
    torch.backends.cudnn.benchmark = False
    cfg.CUDNN_BENCHMARK = True
    before = torch.get_float32_matmul_precision()
    default_setup(cfg, argparse.Namespace(eval_only=True))
    assert not torch.backends.cudnn.benchmark
    assert torch.get_float32_matmul_precision() == before


def test_set_up_without_a_seed(cfg, restored):
    numbers = []
    for _ in range(2):
        default_setup(cfg, argparse.Namespace())
        numbers.append(torch.rand(1).item())
    assert numbers[0] != numbers[1]


@pytest.mark.parametrize("nested", [True, False])
def test_set_up_with_a_lazy_config(tmp_path, restored, nested):
    values = {"output_dir": str(tmp_path / "out"), "cudnn_benchmark": True, "seed": 3}
    cfg = OmegaConf.create(
        {"train": values, "dump": 1} if nested else {"output_dir": str(tmp_path)}
    )
    default_setup(cfg, argparse.Namespace())
    folder = tmp_path / "out" if nested else tmp_path
    assert (folder / "log.txt").exists()
    assert LazyConfig.load(str(folder / "config.yaml")) == cfg
    assert torch.backends.cudnn.benchmark == nested


def test_set_up_refuses_other_precisions(cfg, restored):
    cfg.FLOAT32_PRECISION = "exact"
    with pytest.raises(ValueError, match="exact"):
        default_setup(cfg, argparse.Namespace())


@pytest.mark.parametrize("has_tensorboard", [True, False])
def test_default_writers(tmp_path, monkeypatch, caplog, has_tensorboard):
    spec = importlib.util.find_spec("json") if has_tensorboard else None
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    folder = tmp_path / "new"
    writers = default_writers(str(folder), 10)
    names = [type(writer).__name__ for writer in writers]
    assert names[:2] == ["CommonMetricPrinter", "JSONWriter"]
    assert names[2:] == (["TensorboardXWriter"] if has_tensorboard else [])
    assert ("tensorboard is not installed" in caplog.text) is not has_tensorboard
    with EventStorage(0) as storage:
        storage.put_scalar("a", 1.0)
        writers[1].write()
    assert json.loads((folder / "metrics.json").read_text()) == {"iteration": 0, "a": 1.0}
    writers[1].close()


def test_a_single_process_needs_no_wrapper():
    model = Toy()
    assert create_ddp_model(model, broadcast_buffers=False) is model


# The trainer


class Trainer(DefaultTrainer):
    evaluated: ClassVar = []

    @classmethod
    def build_model(cls, cfg):
        return Toy()

    @classmethod
    def build_train_loader(cls, cfg):
        return batches()

    @classmethod
    def test(cls, cfg, model, evaluators=None):
        cls.evaluated.append(model.fc.weight.detach().clone())
        return {"bbox": {"AP": float(len(cls.evaluated))}}

    def build_writers(self):
        return super().build_writers()[:2]


@pytest.fixture
def trainer_class():
    return type("TrainerOfTest", (Trainer,), {"evaluated": []})


def names_of(trainer):
    return [type(hook).__name__ for hook in trainer._hooks]


def test_default_training(cfg, trainer_class):
    trainer = trainer_class(cfg)
    assert names_of(trainer) == [
        "IterationTimer",
        "LRScheduler",
        "PeriodicCheckpointer",
        "EvalHook",
        "PeriodicWriter",
    ]
    assert type(trainer._trainer) is SimpleTrainer
    trainer.resume_or_load(resume=False)
    assert trainer.train() is None
    assert sorted(os.listdir(cfg.OUTPUT_DIR)) == [
        "last_checkpoint",
        "metrics.json",
        "model_0000003.pth",
        "model_final.pth",
    ]
    with open(os.path.join(cfg.OUTPUT_DIR, "metrics.json")) as file:
        lines = [json.loads(line) for line in file]
    written = {name: value for line in lines for name, value in line.items()}
    assert written["bbox/AP"] == 1
    # Of the last iteration, after the step of the schedule.
    assert written["lr"] == pytest.approx(1e-4)
    assert {"total_loss", "loss_a", "time", "data_time", "eta_seconds"} <= written.keys()


def test_a_trainer_that_puts_its_parts_together_itself(cfg, trainer_class):
    """As semi-supervised trainers do, of whose ``__init__`` that of TrainerBase is the only other
    one called."""

    class Teacher(trainer_class):
        def __init__(self, cfg):
            TrainerBase.__init__(self)
            model = self.build_model(cfg)
            optimizer = self.build_optimizer(cfg, model)
            self._trainer = SimpleTrainer(model, self.build_train_loader(cfg), optimizer)
            self.scheduler = self.build_lr_scheduler(cfg, optimizer)
            self.checkpointer = DetectionCheckpointer(model, cfg.OUTPUT_DIR, trainer=self)
            self.start_iter, self.max_iter, self.cfg = 0, cfg.SOLVER.MAX_ITER, cfg
            self.register_hooks(self.build_hooks())

    trainer = Teacher(cfg)
    trainer.resume_or_load()
    trainer.train()
    plain = trainer_class(cfg)
    plain.train()
    assert torch.equal(trainer.model.fc.weight, plain.model.fc.weight)
    again = Teacher(cfg)
    again.resume_or_load()
    assert again.start_iter == 6


def test_the_default_training_is_the_plain_one(cfg, trainer_class):
    cfg.SOLVER.STEPS = ()
    trainer = trainer_class(cfg)
    trainer.train()
    model = Toy()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.001, momentum=0.9, weight_decay=1e-4)
    for x in batches()[:6]:
        optimizer.zero_grad()
        sum(model(x).values()).backward()
        optimizer.step()
    torch.testing.assert_close(trainer.model.fc.weight, model.fc.weight, rtol=1e-6, atol=1e-7)


def test_properties_are_those_of_the_inner_trainer(cfg, trainer_class):
    trainer = trainer_class(cfg)
    for name in ("model", "optimizer", "data_loader"):
        assert getattr(trainer, name) is getattr(trainer._trainer, name)
    model, data = Toy(), batches(3)
    trainer.model, trainer.data_loader = model, data
    assert trainer._trainer.model is model
    assert trainer._trainer.data_loader is data


def test_weights_are_loaded(cfg, trainer_class, tmp_path):
    model = Toy(seed=4)
    cfg.MODEL.WEIGHTS = str(tmp_path / "weights.pth")
    torch.save({"model": model.state_dict()}, cfg.MODEL.WEIGHTS)
    trainer = trainer_class(cfg)
    # There is nothing to resume.
    trainer.resume_or_load(resume=True)
    assert trainer.start_iter == 0
    assert torch.equal(trainer.model.fc.weight, model.fc.weight)


def test_the_configured_schedule_wins_over_the_checkpoint(cfg, trainer_class, log):
    cfg.SOLVER.CHECKPOINT_PERIOD = 2
    cfg.SOLVER.MAX_ITER = 2
    trainer_class(cfg).train()
    cfg.SOLVER.MAX_ITER = 6
    cfg.SOLVER.BASE_LR = 0.5
    trainer = trainer_class(cfg)
    trainer.resume_or_load()
    assert trainer.start_iter == 2
    trainer.train()
    rates = [value for value, _ in trainer.storage.history("lr").values()]
    assert rates == pytest.approx([0.5, 0.5, 0.05, 0.05])
    assert "0.001" in log.text


def test_hooks_hear_of_the_backward_pass(cfg, trainer_class):
    seen = []

    class Look(HookBase):
        def after_backward(self):
            seen.append(self.trainer.model.fc.weight.grad is not None)

    trainer = trainer_class(cfg)
    trainer.register_hooks([Look()])
    trainer.train()
    assert seen == [True] * 6


@pytest.mark.parametrize(
    ("name", "expected"),
    [(None, torch.float16), ("float16", torch.float16), ("bfloat16", torch.bfloat16)],
)
def test_mixed_precision(cfg, trainer_class, name, expected):
    cfg.SOLVER.AMP.ENABLED = True
    if name is not None:
        cfg.merge_from_list(["SOLVER.AMP.DTYPE", name])
    trainer = trainer_class(cfg)
    assert type(trainer._trainer) is AMPTrainer
    assert trainer._trainer.precision is expected
    trainer.train()


def test_unknown_precision(cfg, trainer_class):
    cfg.SOLVER.AMP.ENABLED = True
    cfg.merge_from_list(["SOLVER.AMP.DTYPE", "float8"])
    with pytest.raises(ValueError, match="float8"):
        trainer_class(cfg)


def test_optional_hooks(cfg, trainer_class):
    cfg.TEST.EVAL_PERIOD = 2
    options = "SOLVER.EMA_DECAY 0.5 TEST.BEST_METRIC bbox/AP TEST.BEST_METRIC_MODE min"
    cfg.merge_from_list([*options.split(), "TEST.EARLY_STOPPING_PATIENCE", 1])
    trainer = trainer_class(cfg)
    assert names_of(trainer) == [
        "IterationTimer",
        "LRScheduler",
        "EMA",
        "PeriodicCheckpointer",
        "EvalHook",
        "BestCheckpointer",
        "EarlyStopping",
        "PeriodicWriter",
    ]
    trainer.train()
    # The metric grows with each evaluation, and less would be better.
    assert trainer.iter == 5
    files = os.listdir(cfg.OUTPUT_DIR)
    assert {"model_best.pth", "model_ema.pth", "model_final.pth"} <= set(files)
    average = torch.load(os.path.join(cfg.OUTPUT_DIR, "model_ema.pth"))["model"]["fc.weight"]
    assert torch.equal(trainer_class.evaluated[-1], average)
    assert not torch.equal(trainer.model.fc.weight, average)


class WithNorm(Trainer):
    @classmethod
    def build_model(cls, cfg):
        class Net(Toy):
            def __init__(self):
                super().__init__()
                self.bn = nn.BatchNorm1d(3)

            def forward(self, x):
                return super().forward(self.bn(x))

        return Net()


@pytest.mark.parametrize("trainer_class", [WithNorm, Trainer])
def test_precise_bn_if_there_is_batch_norm(cfg, trainer_class):
    cfg.TEST.PRECISE_BN.ENABLED = True
    cfg.TEST.PRECISE_BN.NUM_ITER = 7
    trainer = trainer_class(cfg)
    assert ("PreciseBN" in names_of(trainer)) == (trainer_class is WithNorm)
    trainer.train()


def test_expected_results(cfg, trainer_class, monkeypatch):
    import detectron2.evaluation

    verified = []
    monkeypatch.setattr(
        detectron2.evaluation,
        "verify_results",
        lambda cfg, results: verified.append(results),
        raising=False,
    )
    cfg.TEST.EXPECTED_RESULTS = [["bbox", "AP", 1.0, 0.1]]
    assert trainer_class(cfg).train() == {"bbox": {"AP": 1.0}}
    assert verified == [{"bbox": {"AP": 1.0}}]


# Evaluation by the default trainer


class Evaluator:
    def __init__(self, results):
        self.results = results


@pytest.fixture
def evaluation(monkeypatch):
    import detectron2.evaluation as module

    printed = []

    def inference(model, data_loader, evaluator):
        return {**evaluator.results, "on": data_loader}

    for name, value in {
        "DatasetEvaluator": Evaluator,
        "inference_on_dataset": inference,
        "print_csv_format": printed.append,
    }.items():
        monkeypatch.setattr(module, name, value, raising=False)
    return printed


class Tested(DefaultTrainer):
    @classmethod
    def build_test_loader(cls, cfg, dataset_name):
        return f"loader of {dataset_name}"

    @classmethod
    def build_evaluator(cls, cfg, dataset_name):
        if dataset_name == "other":
            return super().build_evaluator(cfg, dataset_name)
        return Evaluator({"AP": 3})


def test_results_of_one_and_of_several_data_sets(cfg, evaluation, log):
    model = Toy()
    cfg.DATASETS.TEST = ("a",)
    assert Tested.test(cfg, model) == {"AP": 3, "on": "loader of a"}
    given = Tested.test(cfg, model, Evaluator({"AR": 4}))
    assert given == {"AR": 4, "on": "loader of a"}
    assert evaluation == [{"AP": 3, "on": "loader of a"}, given]

    cfg.DATASETS.TEST = ("a", "other")
    assert Tested.test(cfg, model) == {"a": {"AP": 3, "on": "loader of a"}, "other": {}}
    assert "build_evaluator" in log.text
    with pytest.raises(ValueError, match="2 data sets and 1 evaluators"):
        Tested.test(cfg, model, [Evaluator({})])


# Other numbers of processes


def test_scaling_to_other_numbers_of_processes():
    cfg = get_cfg()
    assert DefaultTrainer.auto_scale_workers(cfg, 8) is cfg
    cfg.SOLVER.REFERENCE_WORLD_SIZE = 8
    assert DefaultTrainer.auto_scale_workers(cfg, 8) is cfg
    cfg.SOLVER.IMS_PER_BATCH = 16
    cfg.SOLVER.BASE_LR = 0.02
    cfg.SOLVER.STEPS = (30000, 35001)
    cfg.TEST.EVAL_PERIOD = 5001
    cfg.freeze()
    scaled = DefaultTrainer.auto_scale_workers(cfg, 16)
    assert scaled.is_frozen()
    solver = scaled.SOLVER
    assert (solver.IMS_PER_BATCH, solver.BASE_LR) == (32, 0.04)
    assert (solver.MAX_ITER, solver.WARMUP_ITERS, solver.STEPS) == (20000, 500, (15000, 17500))
    assert (scaled.TEST.EVAL_PERIOD, solver.CHECKPOINT_PERIOD) == (2500, 2500)
    assert solver.REFERENCE_WORLD_SIZE == 16
    assert cfg.SOLVER.MAX_ITER == 40000
    half = DefaultTrainer.auto_scale_workers(cfg, 4)
    assert (half.SOLVER.IMS_PER_BATCH, half.SOLVER.MAX_ITER) == (8, 80000)


def test_scaling_an_uneven_batch():
    cfg = get_cfg()
    cfg.SOLVER.REFERENCE_WORLD_SIZE = 8
    cfg.SOLVER.IMS_PER_BATCH = 12
    with pytest.raises(ValueError, match="12"):
        DefaultTrainer.auto_scale_workers(cfg, 4)


# The predictor


class Looks(nn.Module):
    """Returns what it was given."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, batch):
        assert not torch.is_grad_enabled()
        assert not self.training
        self.calls = getattr(self, "calls", 0) + 1
        return [{**item, "weight": self.weight.item()} for item in batch]


class Doubling:
    """Stands for ResizeShortestEdge."""

    def __init__(self, short, longest):
        self.arguments = short, longest

    def get_transform(self, image):
        return types.SimpleNamespace(
            apply_image=lambda img: img.repeat(2, axis=0).repeat(2, axis=1)
        )


@pytest.fixture
def predictor_parts(monkeypatch, tmp_path):
    stand_ins = {
        "detectron2.modeling": {"build_model": lambda cfg: Looks()},
        "detectron2.data.transforms": {"ResizeShortestEdge": Doubling},
        "detectron2.data": {"MetadataCatalog": {"some": "its metadata"}},
    }
    for name, contents in stand_ins.items():
        module = types.ModuleType(name)
        vars(module).update(contents)
        monkeypatch.setitem(sys.modules, name, module)
    path = tmp_path / "weights.pth"
    torch.save({"model": {"weight": torch.ones(1)}}, path)
    return str(path)


@pytest.mark.parametrize("color_format", ["BGR", "RGB"])
def test_prediction(cfg, predictor_parts, color_format):
    cfg.MODEL.WEIGHTS = predictor_parts
    cfg.DATASETS.TEST = ("some",)
    cfg.INPUT.FORMAT = color_format
    predictor = DefaultPredictor(cfg)
    assert predictor.metadata == "its metadata"
    assert predictor.aug.arguments == ([800, 800], 1333)
    assert predictor.input_format == color_format
    assert predictor.cfg == cfg
    assert predictor.cfg is not cfg
    image = np.arange(2 * 4 * 3, dtype=np.uint8).reshape(2, 4, 3)
    output = predictor(image)
    assert (output["height"], output["width"], output["weight"]) == (2, 4, 1.0)
    pixels = output["image"]
    assert pixels.dtype == torch.float32
    assert pixels.shape == (3, 4, 8)
    channels = [0, 1, 2] if color_format == "BGR" else [2, 1, 0]
    assert pixels[:, 2, 5].tolist() == image[1, 2, channels].tolist()


def test_prediction_of_several_images(cfg, predictor_parts):
    predictor = DefaultPredictor(cfg)
    images = [np.zeros((2, 4, 3), np.uint8), np.ones((5, 3, 3), np.uint8)]
    outputs = predictor(images)
    assert predictor.model.calls == 1
    assert [(o["height"], o["width"]) for o in outputs] == [(2, 4), (5, 3)]
    assert predictor([]) == []
    assert not hasattr(predictor, "metadata")


def test_predictor_checks_its_input(cfg, predictor_parts):
    predictor = DefaultPredictor(cfg)
    with pytest.raises(ValueError, match=r"\(4, 4\)"):
        predictor(np.zeros((4, 4), np.uint8))
    cfg.INPUT.FORMAT = "L"
    with pytest.raises(ValueError, match="L"):
        DefaultPredictor(cfg)


# The modules


def test_public_names():
    import detectron2.engine as engine

    names = [
        "launch",
        "DEFAULT_TIMEOUT",
        "HookBase",
        "TrainerBase",
        "SimpleTrainer",
        "AMPTrainer",
        "CallbackHook",
        "IterationTimer",
        "PeriodicWriter",
        "PeriodicCheckpointer",
        "BestCheckpointer",
        "LRScheduler",
        "AutogradProfiler",
        "EvalHook",
        "PreciseBN",
        "TorchProfiler",
        "TorchMemoryStats",
        "create_ddp_model",
        "default_argument_parser",
        "default_setup",
        "default_writers",
        "DefaultPredictor",
        "DefaultTrainer",
        "train_loop",
        "hooks",
        "defaults",
    ]
    assert [name for name in names if not hasattr(engine, name)] == []
    assert set(engine.__all__) == {*names, "EMA", "EarlyStopping"}
    # Both the module and, as an attribute of the package, the function.
    assert callable(engine.launch)
    assert sys.modules["detectron2.engine.launch"].launch is engine.launch


def test_names_of_other_modules_are_importable_from_here():
    import detectron2.engine.defaults as defaults

    for name in ("CfgNode", "build_optimizer", "setup_logger", "JSONWriter", "seed_all_rng"):
        assert getattr(defaults, name).__name__ == name
    assert hooks.LRMultiplier is importlib.import_module("detectron2.solver").LRMultiplier
    with pytest.raises(AttributeError, match="nothing_such"):
        _ = defaults.nothing_such


def test_importing_loads_nothing_that_training_may_not_need():
    code = """
import sys
import detectron2.engine
parts = ["config", "checkpoint", "data", "evaluation", "modeling", "solver"]
print(*(p for p in parts if f"detectron2.{p}" in sys.modules))
print(*(n for n in ("cv2", "scipy", "tensorboard", "omegaconf") if n in sys.modules))
"""
    command = [sys.executable, "-W", "ignore", "-c", code]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert output.split() == []
