"""The hooks, on a trainer of a few weights."""

import json
import logging
import math
import os

import pytest
import torch
from fvcore.common.checkpoint import Checkpointer
from fvcore.common.param_scheduler import LinearParamScheduler
from torch import nn

from detectron2.engine import SimpleTrainer, TrainerBase, hooks
from detectron2.utils.events import EventWriter, JSONWriter, get_event_storage

from .toys import Toy, batches, sgd


class Idle(TrainerBase):
    def run_step(self):
        pass


def toy_trainer(**options):
    model = Toy()
    return SimpleTrainer(model, batches(), sgd(model), **options)


@pytest.fixture
def log(caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("detectron2"), "propagate", True)
    caplog.set_level(logging.INFO)
    return caplog


def test_callbacks():
    calls = []
    hook = hooks.CallbackHook(
        before_train=lambda t: calls.append(("before_train", t.iter)),
        after_train=lambda t: calls.append(("after_train", t.iter)),
        before_step=lambda t: calls.append(("before_step", t.iter)),
        after_step=lambda t: calls.append(("after_step", t.iter)),
    )
    trainer = Idle()
    trainer.register_hooks([hook])
    trainer.train(0, 1)
    assert calls == [("before_train", 0), ("before_step", 0), ("after_step", 0), ("after_train", 1)]


def test_time_is_stored_after_the_warm_up():
    trainer = Idle()
    trainer.register_hooks([hooks.IterationTimer(warmup_iter=3)])
    trainer.train(10, 16)
    # The third iteration of this run is the first that counts.
    assert [i for _, i in trainer.storage.history("time").values()] == [12, 13, 14, 15]


def test_timer_tells_its_summary(log):
    trainer = Idle()
    trainer.register_hooks([hooks.IterationTimer()])
    trainer.train(0, 10)
    assert "8 iterations" in log.text
    assert "Total training time" in log.text


class Writes(EventWriter):
    def __init__(self):
        self.iterations, self.closed = [], False

    def write(self):
        self.iterations.append(get_event_storage().iter)

    def close(self):
        self.closed = True


def test_periodic_writer():
    writer = Writes()
    trainer = Idle()
    trainer.register_hooks([hooks.PeriodicWriter([writer], period=4)])
    trainer.train(0, 10)
    assert writer.iterations == [3, 7, 9, 10]
    assert writer.closed


def test_every_writer_is_closed_though_one_fails():
    class Fails(Writes):
        def write(self):
            raise OSError("disk full")

    writer = Writes()
    trainer = Idle()
    trainer.register_hooks([hooks.PeriodicWriter([Fails(), writer], period=100)])
    with pytest.raises(OSError, match="disk full"):
        trainer.train(0, 3)
    assert writer.closed


def test_periodic_writer_takes_writers_only():
    with pytest.raises(TypeError, match="3"):
        hooks.PeriodicWriter([3])


@pytest.mark.parametrize("async_write_metrics", [False, True])
def test_the_last_metrics_are_written_though_an_exception_ends_training(
    tmp_path, async_write_metrics
):
    def fail(trainer):
        if trainer.iter == 5:
            raise ValueError("stop")

    path = tmp_path / "metrics.json"
    trainer = toy_trainer(async_write_metrics=async_write_metrics)
    trainer.register_hooks(
        [hooks.CallbackHook(after_step=fail), hooks.PeriodicWriter([JSONWriter(str(path))])]
    )
    with pytest.raises(ValueError, match="stop"):
        trainer.train(0, 9)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines[-1]["iteration"] == 5
    assert "total_loss" in lines[-1]


def checkpoint_files(folder):
    return sorted(name for name in os.listdir(folder) if name.endswith(".pth"))


def test_periodic_checkpoints(tmp_path):
    trainer = toy_trainer()
    checkpointer = Checkpointer(trainer.model, str(tmp_path), trainer=trainer)
    trainer.register_hooks([hooks.PeriodicCheckpointer(checkpointer, 3, max_to_keep=2)])
    trainer.train(0, 10)
    assert checkpoint_files(tmp_path) == [
        "model_0000005.pth",
        "model_0000008.pth",
        "model_final.pth",
    ]
    assert (tmp_path / "last_checkpoint").read_text() == "model_final.pth"
    saved = torch.load(tmp_path / "model_0000005.pth")
    assert set(saved) == {"model", "trainer", "iteration"}
    assert saved["iteration"] == saved["trainer"]["iteration"] == 5


def best_checkpoint_run(folder, values, start=0, mode="max", trainer=None):
    trainer = trainer or toy_trainer()
    checkpointer = Checkpointer(trainer.model, str(folder))
    hook = hooks.BestCheckpointer(2, checkpointer, "m/AP", mode)
    results = iter(values)
    trainer.register_hooks([hooks.EvalHook(2, lambda: {"m": {"AP": next(results)}}), hook])
    trainer.train(start, start + 2 * len(values))
    return hook


@pytest.mark.parametrize(
    ("mode", "values", "best_iter"),
    [
        ("max", [1, 5, 3, 7, math.nan, 2], 7),
        ("min", [3, 5, 1, 7, math.nan, 2], 5),
        ("max", [math.nan, math.inf, 3, 1], 5),
        # The last evaluation is that after training.
        ("max", [1, 2, 3], 6),
    ],
)
def test_best_checkpoint(tmp_path, mode, values, best_iter):
    hook = best_checkpoint_run(tmp_path, values, mode=mode)
    assert hook.best_iter == best_iter
    saved = torch.load(tmp_path / "model_best.pth")
    assert saved["iteration"] == best_iter


def test_a_resumed_training_keeps_the_best_checkpoint(tmp_path):
    best_checkpoint_run(tmp_path, [1, 9, 2])
    hook = best_checkpoint_run(tmp_path, [3, 4], start=6)
    assert (hook.best_metric, hook.best_iter) == (9, 3)
    assert torch.load(tmp_path / "model_best.pth")["iteration"] == 3
    hook = best_checkpoint_run(tmp_path, [10, 4], start=10)
    assert (hook.best_metric, hook.best_iter) == (10, 11)


def test_a_new_training_does_not_compare_with_an_older_one(tmp_path):
    best_checkpoint_run(tmp_path, [1, 9, 2])
    assert best_checkpoint_run(tmp_path, [3, 4]).best_metric == 4


def test_best_checkpoint_without_its_metric(tmp_path, log):
    trainer = toy_trainer()
    checkpointer = Checkpointer(trainer.model, str(tmp_path))
    trainer.register_hooks([hooks.BestCheckpointer(2, checkpointer, "m/AP")])
    trainer.train(0, 3)
    assert "m/AP" in log.text
    assert checkpoint_files(tmp_path) == []
    with pytest.raises(ValueError, match="most"):
        hooks.BestCheckpointer(2, checkpointer, "m/AP", mode="most")


def test_learning_rate_follows_a_torch_scheduler():
    trainer = toy_trainer()
    scheduler = torch.optim.lr_scheduler.StepLR(trainer.optimizer, 2, gamma=0.1)
    trainer.register_hooks([hooks.LRScheduler(trainer.optimizer, scheduler)])
    trainer.train(0, 5)
    stored = [value for value, _ in trainer.storage.history("lr").values()]
    assert stored == pytest.approx([0.05, 0.05, 0.005, 0.005, 0.0005])
    assert trainer.state_dict()["hooks"]["LRScheduler"]["last_epoch"] == 5


def test_learning_rate_follows_a_schedule_of_fvcore():
    trainer = toy_trainer()
    trainer.scheduler = LinearParamScheduler(1.0, 0.0)
    trainer.register_hooks([hooks.LRScheduler()])
    trainer.train(0, 5)
    stored = [value for value, _ in trainer.storage.history("lr").values()]
    assert stored == pytest.approx([0.05, 0.04, 0.03, 0.02, 0.01])


def test_learning_rate_hook_that_stores_more():
    """A subclass finds the optimizer and the group by the names that upstream has."""

    class AllRates(hooks.LRScheduler):
        def after_step(self):
            rates = [group["lr"] for group in self._optimizer.param_groups]
            for index, rate in enumerate(rates):
                self.trainer.storage.put_scalar(f"lr_{index}", rate, smoothing_hint=False)
            shown = rates[self._best_param_group_id]
            self.trainer.storage.put_scalar("lr", shown, smoothing_hint=False)
            assert self.scheduler is self._scheduler
            self.scheduler.step()

    trainer = toy_trainer()
    scheduler = torch.optim.lr_scheduler.StepLR(trainer.optimizer, 2, gamma=0.1)
    trainer.register_hooks([AllRates(trainer.optimizer, scheduler)])
    trainer.train(0, 3)
    for name in ("lr", "lr_0"):
        stored = [value for value, _ in trainer.storage.history(name).values()]
        assert stored == pytest.approx([0.05, 0.05, 0.005])


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        ([(1, 0.1), (3, 0.2), (3, 0.3)], 1),
        ([(1, 0.1), (1, 0.2), (1, 0.3), (1, 0.2)], 1),
        ([(1, 0.1), (1, 0.2)], 0),
    ],
)
def test_representative_parameter_group(groups, expected):
    options = [
        {"params": [nn.Parameter(torch.zeros(1)) for _ in range(count)], "lr": lr}
        for count, lr in groups
    ]
    assert hooks.LRScheduler.get_best_param_group_id(torch.optim.SGD(options, lr=1)) == expected


def test_evaluation():
    trainer = Idle()
    evaluations = []

    def evaluate():
        evaluations.append(trainer.iter)
        return {"bbox": {"AP": len(evaluations), "per": {"cat": torch.tensor(2.5)}}}

    others = []
    trainer.register_hooks(
        [
            hooks.EvalHook(5, evaluate),
            hooks.EvalHook(4, lambda: others.append(trainer.iter), eval_after_train=False),
            hooks.EvalHook(0, lambda: others.append("end")),
        ]
    )
    trainer.train(0, 10)
    assert evaluations == [4, 10]
    assert others == [3, 7, "end"]
    assert trainer.storage.latest()["bbox/AP"] == (2.0, 10)
    assert trainer.storage.latest()["bbox/per/cat"] == (2.5, 10)
    assert not trainer.storage.smoothing_hints()["bbox/AP"]


def test_no_evaluation_after_an_exception():
    class Failing(TrainerBase):
        def run_step(self):
            raise ValueError("stop")

    trainer = Failing()
    evaluations = []
    trainer.register_hooks([hooks.EvalHook(5, lambda: evaluations.append(1))])
    with pytest.raises(ValueError, match="stop"):
        trainer.train(0, 9)
    assert evaluations == []


@pytest.mark.parametrize(
    ("result", "error", "message"),
    [({"a": {"b": "text"}}, ValueError, "a/b is 'text'"), ([1], TypeError, r"\[1\]")],
)
def test_evaluation_must_give_numbers(result, error, message):
    trainer = Idle()
    trainer.register_hooks([hooks.EvalHook(1, lambda: result)])
    with pytest.raises(error, match=message):
        trainer.train(0, 3)


# Averages of weights


class Drifting(TrainerBase):
    """Its weight becomes the number of iterations done."""

    def __init__(self):
        super().__init__()
        self.model = nn.Linear(1, 1)
        self.model.register_buffer("count", torch.zeros((), dtype=torch.long))
        nn.init.zeros_(self.model.weight)
        nn.init.zeros_(self.model.bias)
        self.model.tied = self.model.weight

    def run_step(self):
        with torch.no_grad():
            self.model.weight += 1
            self.model.count += 1


def averages(decay, updates):
    value = 0.0
    for n in range(1, updates + 1):
        d = min(decay, (1 + n) / (10 + n))
        value = d * value + (1 - d) * n
    return value


def test_evaluation_sees_averaged_weights():
    trainer = Drifting()
    seen = []
    trainer.register_hooks(
        [
            hooks.EMA(trainer.model, decay=0.3),
            hooks.EvalHook(
                3, lambda: seen.append((trainer.model.weight.item(), trainer.model.count.item()))
            ),
        ]
    )
    trainer.train(0, 6)
    assert [weight for weight, _ in seen] == pytest.approx([averages(0.3, 3), averages(0.3, 6)])
    assert [count for _, count in seen] == [3, 6]
    assert trainer.model.weight.item() == 6


def test_weights_come_back_though_evaluation_fails():
    trainer = Drifting()
    ema = hooks.EMA(trainer.model)

    def fail():
        raise ValueError("stop")

    trainer.register_hooks([ema, hooks.EvalHook(2, fail)])
    with pytest.raises(ValueError, match="stop"):
        trainer.train(0, 6)
    assert trainer.model.weight.item() == 2


def test_averages_are_part_of_the_state():
    whole, part = Drifting(), Drifting()
    ema = hooks.EMA(whole.model, decay=0.9)
    whole.register_hooks([ema])
    whole.train(0, 7)

    part.register_hooks([hooks.EMA(part.model, decay=0.9)])
    part.train(0, 3)
    resumed = Drifting()
    resumed.model.load_state_dict(part.model.state_dict())
    resumed_ema = hooks.EMA(resumed.model, decay=0.9)
    resumed.register_hooks([resumed_ema])
    resumed.load_state_dict(part.state_dict())
    assert resumed_ema.averaged_state_dict()["weight"].item() == pytest.approx(averages(0.9, 3))
    resumed.train(3, 7)
    expected = ema.averaged_state_dict()
    assert expected.keys() == whole.model.state_dict().keys()
    for name, tensor in resumed_ema.averaged_state_dict().items():
        assert torch.equal(tensor, expected[name])


def test_averages_start_from_weights_loaded_after_the_hook_was_made():
    trainer = Drifting()
    ema = hooks.EMA(trainer.model, decay=0.0)
    nn.init.constant_(trainer.model.weight, 100.0)
    trainer.register_hooks([ema])
    trainer.train(0, 1)
    # decay 0 is the last weight itself.
    assert ema.averaged_state_dict()["weight"].item() == 101


def test_averaged_weights_are_saved_at_the_end(tmp_path):
    trainer = Drifting()
    checkpointer = Checkpointer(trainer.model, str(tmp_path))
    ema = hooks.EMA(trainer.model, 0.9, checkpointer)
    trainer.register_hooks([ema, hooks.PeriodicCheckpointer(checkpointer, 100)])
    trainer.train(0, 3)
    saved = torch.load(tmp_path / "model_ema.pth")["model"]
    assert saved["weight"].item() == pytest.approx(averages(0.9, 3))
    assert (tmp_path / "last_checkpoint").read_text() == "model_final.pth"


def test_averages_of_another_model_are_refused():
    ema = hooks.EMA(nn.Linear(1, 1))
    with pytest.raises(ValueError, match="bias"):
        ema.load_state_dict({"updates": 1, "average": {"weight": torch.zeros(1, 1)}})
    with pytest.raises(ValueError, match=r"1\.5"):
        hooks.EMA(nn.Linear(1, 1), decay=1.5)


# Early stopping


def stopping_run(values, start=0, state=None, **options):
    trainer = Idle()
    results = iter(values)
    evaluations = []

    def evaluate():
        evaluations.append(trainer.iter)
        return {"AP": next(results, 0.0)}

    writer = Writes()
    trainer.register_hooks(
        [
            hooks.EvalHook(2, evaluate),
            hooks.EarlyStopping(2, "AP", **options),
            hooks.PeriodicWriter([writer]),
        ]
    )
    if state is not None:
        trainer.load_state_dict(state)
    trainer.train(start, 100)
    return trainer, evaluations, writer


def test_training_ends_when_a_metric_gets_no_better():
    trainer, evaluations, writer = stopping_run([1, 3, 2, 3, 2.9, 8], patience=3)
    # Evaluations 3 to 5, of which the last is at iteration 9, are no better than the second.
    assert trainer.iter == 11
    assert evaluations == [1, 3, 5, 7, 9, 11]
    assert writer.iterations == [10, 11]


@pytest.mark.parametrize(
    ("options", "values", "end"),
    [
        ({"mode": "min", "patience": 1}, [3, 2, 1, 4], 9),
        ({"min_delta": 0.5, "patience": 2}, [1, 1.4, 1.5, 2], 7),
        ({"patience": 2}, [math.nan, math.nan, 1], 5),
    ],
)
def test_what_counts_as_better(options, values, end):
    assert stopping_run(values, **options)[0].iter == end


def test_early_stopping_goes_on_waiting_when_resumed():
    trainer, *_ = stopping_run([5, 4, 4, 6], patience=2)
    assert trainer.iter == 7
    state = trainer.state_dict()
    state["hooks"]["EarlyStopping"]["waited"] = 1
    resumed, *_ = stopping_run([4.5], start=6, state=state, patience=2)
    assert resumed.iter == 9


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patience": 0}, "0"),
        ({"patience": 2, "mode": "most"}, "most"),
        ({"patience": 2, "eval_period": 0}, "0"),
    ],
)
def test_early_stopping_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        hooks.EarlyStopping(**{"eval_period": 2, "val_metric": "AP", **options})


# PreciseBN, profilers


class Normalized(nn.Module):
    def __init__(self):
        super().__init__()
        self.bn = nn.BatchNorm1d(3)

    def forward(self, x):
        get_event_storage().put_scalar("seen", 1.0)
        return {"loss": self.bn(x).sum()}


@pytest.mark.parametrize(("period", "expected"), [(0, [7]), (3, [2, 5, 7])])
def test_precise_bn(period, expected):
    model = Normalized()
    data = batches(30)
    trainer = SimpleTrainer(model, batches(30, seed=9), sgd(model, lr=0.0))
    hook = hooks.PreciseBN(period, model, data, 10)
    runs = []
    update = hook.update_stats
    hook.update_stats = lambda: (runs.append(trainer.iter), update())
    trainer.register_hooks([hook])
    trainer.train(0, 8)
    assert runs == expected
    used = data[10 * (len(runs) - 1) : 10 * len(runs)]
    torch.testing.assert_close(
        model.bn.running_mean, torch.stack([x.mean(0) for x in used]).mean(0)
    )
    # What the model stored meanwhile is not of the training.
    assert len(trainer.storage.history("seen").values()) == 8


def test_precise_bn_without_batch_norm(log):
    hook = hooks.PreciseBN(1, Toy(), [], 10)
    trainer = Idle()
    trainer.register_hooks([hook])
    trainer.train(0, 2)
    hook.update_stats()
    assert "no BatchNorm" in log.text


def test_profiler(tmp_path):
    trainer = toy_trainer()
    trainer.register_hooks(
        [hooks.TorchProfiler(lambda t: t.iter == 1, str(tmp_path), save_tensorboard=False)]
    )
    trainer.train(0, 3)
    assert os.listdir(tmp_path) == ["profiler-trace-iter1.json"]
    events = json.loads((tmp_path / "profiler-trace-iter1.json").read_text())["traceEvents"]
    assert any("addmm" in event.get("name", "") for event in events)


def test_profiler_for_tensorboard(tmp_path):
    trainer = toy_trainer()
    trainer.register_hooks([hooks.TorchProfiler(lambda t: t.iter == 1, str(tmp_path))])
    trainer.train(0, 2)
    (trace,) = (tmp_path / "log" / "profiler-tensorboard-iter1").iterdir()
    assert trace.name.startswith("worker0")


def test_autograd_profiler(tmp_path):
    with pytest.warns(UserWarning, match="TorchProfiler"):
        hook = hooks.AutogradProfiler(lambda t: t.iter == 0, str(tmp_path))
    trainer = toy_trainer()
    trainer.register_hooks([hook])
    trainer.train(0, 1)
    assert os.listdir(tmp_path) == ["profiler-trace-iter0.json"]


def test_memory_statistics_without_cuda():
    trainer = Idle()
    trainer.register_hooks([hooks.TorchMemoryStats(period=1)])
    trainer.train(0, 2)


@pytest.mark.gpu
def test_memory_statistics(log):
    trainer = Idle()
    trainer.register_hooks([hooks.TorchMemoryStats(period=2, max_runs=2)])
    trainer.train(0, 9)
    assert log.text.count("max_reserved_mem") == 2
