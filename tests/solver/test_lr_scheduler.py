"""Schedules against formulas written out here, their ends, and what a resumed training follows."""

import gc
import logging
import math
import weakref

import pytest
import torch
from fvcore.common.param_scheduler import (
    ConstantParamScheduler,
    CosineParamScheduler,
    LinearParamScheduler,
    MultiStepParamScheduler,
    StepParamScheduler,
)
from torch import nn

from detectron2.solver import (
    LRMultiplier,
    WarmupCosineLR,
    WarmupMultiStepLR,
    WarmupParamScheduler,
    build_lr_scheduler,
)
from detectron2.solver.lr_scheduler import _get_warmup_factor_at_iter

from .config import config


def sgd(*lrs):
    groups = [{"params": [nn.Parameter(torch.zeros(1))], "lr": lr} for lr in lrs or (1.0,)]
    return torch.optim.SGD(groups, momentum=0.5)


def lrs_of(scheduler, iterations):
    """The first group's learning rate in each iteration, and the one after the last."""
    lrs = [scheduler.optimizer.param_groups[0]["lr"]]
    for _ in range(iterations):
        scheduler.optimizer.step()
        scheduler.step()
        lrs.append(scheduler.optimizer.param_groups[0]["lr"])
    return lrs


def configured_lrs(**solver):
    solver = {"BASE_LR": 1.0, "MAX_ITER": 40, "STEPS": (20, 30), "WARMUP_ITERS": 8, **solver}
    solver.setdefault("WARMUP_FACTOR", 0.25)
    return lrs_of(build_lr_scheduler(config(**solver), sgd()), solver["MAX_ITER"])


def linear(start, end, share):
    return start + (end - start) * share


def test_the_default_schedule():
    scheduler = build_lr_scheduler(config(), sgd(0.001))
    expected = {
        0: 1e-6,
        1: 1.999e-6,
        500: 5.005e-4,
        999: 9.99001e-4,
        1000: 1e-3,
        29999: 1e-3,
        30000: 1e-4,
        39999: 1e-4,
    }
    for iteration, lr in expected.items():
        scheduler.last_epoch = iteration
        assert scheduler.get_lr() == pytest.approx([lr], rel=1e-9)


@pytest.mark.parametrize("method", ["linear", "constant"])
def test_multi_step(method):
    for i, lr in enumerate(configured_lrs(WARMUP_METHOD=method)):
        if i < 8:
            expected = linear(0.25, 1, i / 8) if method == "linear" else 0.25
        else:
            expected = 0.1 ** ((i >= 20) + (i >= 30))
        assert lr == pytest.approx(expected), i


@pytest.mark.parametrize("rescale", [False, True])
def test_cosine(rescale):
    lrs = configured_lrs(
        LR_SCHEDULER_NAME="WarmupCosineLR", BASE_LR_END=0.2, RESCALE_INTERVAL=rescale
    )

    def cosine(where):
        return 0.2 + 0.8 * (1 + math.cos(math.pi * where)) / 2

    for i, lr in enumerate(lrs):
        if i < 8:
            expected = linear(0.25, 1 if rescale else cosine(8 / 40), i / 8)
        else:
            expected = cosine((i - 8) / 32 if rescale else i / 40)
        assert lr == pytest.approx(expected), i


def test_equal_steps_up_to_the_last_iteration_and_after_it():
    lrs = configured_lrs(
        LR_SCHEDULER_NAME="WarmupStepWithFixedGammaLR", NUM_DECAYS=3, GAMMA=0.5, WARMUP_ITERS=0
    )
    assert lrs == pytest.approx([0.5 ** min(i // 10, 3) for i in range(41)])


@pytest.mark.parametrize("warmup_iters", [0, 40, 1000])
@pytest.mark.parametrize("rescale", [False, True])
@pytest.mark.parametrize(
    "name", ["WarmupMultiStepLR", "WarmupCosineLR", "WarmupStepWithFixedGammaLR"]
)
def test_every_schedule_reaches_its_end(name, rescale, warmup_iters):
    for method in ("linear", "constant"):
        lrs = configured_lrs(
            LR_SCHEDULER_NAME=name,
            RESCALE_INTERVAL=rescale,
            WARMUP_ITERS=warmup_iters,
            WARMUP_METHOD=method,
        )
        assert len(lrs) == 41
        assert all(0 <= lr <= 1 for lr in lrs)
        assert lrs[0] == (0.25 if warmup_iters else 1.0)


def test_very_long_trainings_reach_their_end():
    # Positions within fvcore's tolerance of the end, which its step scheduler indexes past.
    cfg = config(LR_SCHEDULER_NAME="WarmupStepWithFixedGammaLR", MAX_ITER=5_000_000)
    scheduler = build_lr_scheduler(cfg, sgd())
    for iteration in (4_999_996, 4_999_999, 5_000_000):
        scheduler.last_epoch = iteration
        assert scheduler.get_lr() == pytest.approx([1e-3])


@pytest.mark.parametrize(
    "multiplier",
    [
        ConstantParamScheduler(0.5),
        StepParamScheduler(num_updates=4, values=[1.0, 0.5]),
        WarmupParamScheduler(ConstantParamScheduler(0.5), 0.1, 0.3, rescale_interval=True),
    ],
)
def test_a_multiplier_defined_short_of_the_end_keeps_its_last_value(multiplier):
    assert lrs_of(LRMultiplier(sgd(), multiplier, max_iter=7), 7)[-2:] == [0.5, 0.5]


def test_a_rescaled_schedule_reaches_its_end_after_any_warmup():
    # The end of what the warm-up leaves can be above 1 by rounding.
    schedule = MultiStepParamScheduler([1, 0.5], num_updates=100, milestones=[5])
    for warmup_iters in range(100):
        multiplier = WarmupParamScheduler(schedule, 0.1, warmup_iters / 100, rescale_interval=True)
        scheduler = LRMultiplier(sgd(), multiplier, max_iter=100)
        scheduler.last_epoch = 100
        assert scheduler.get_lr() == [0.5], warmup_iters


def test_beyond_the_end_is_an_error():
    for multiplier in (
        ConstantParamScheduler(0.5),
        MultiStepParamScheduler([1, 0.5], num_updates=4, milestones=[2]),
        StepParamScheduler(num_updates=4, values=[1.0, 0.5]),
    ):
        scheduler = LRMultiplier(sgd(), multiplier, max_iter=4)
        lrs_of(scheduler, 4)
        with pytest.raises((RuntimeError, IndexError)):
            scheduler.step()


def test_steps_beyond_the_end_are_left_out_and_named(caplog):
    assert configured_lrs(STEPS=(20, 40, 50), WARMUP_ITERS=0) == [1.0] * 20 + [0.1] * 21
    assert "MAX_ITER 40 on are left out: [20, 40, 50]" in caplog.text
    caplog.clear()
    assert configured_lrs(STEPS=(), WARMUP_ITERS=0) == [1.0] * 41
    assert not caplog.text


@pytest.mark.parametrize(
    ("solver", "message"),
    [
        ({"LR_SCHEDULER_NAME": "Cosine"}, "'Cosine'"),
        ({"STEPS": (30, 20)}, r"\[30, 20\]"),
        ({"STEPS": (0, 20)}, r"\[0, 20\]"),
        ({"MAX_ITER": 0}, "MAX_ITER must be positive, got 0"),
        ({"WARMUP_METHOD": "cubic"}, "'cubic'"),
        ({"LR_SCHEDULER_NAME": "WarmupCosineLR", "BASE_LR_END": 2.0}, r"got 2\.0 with BASE_LR 1"),
    ],
)
def test_what_makes_no_schedule_is_an_error(solver, message):
    with pytest.raises(ValueError, match=message):
        configured_lrs(**solver)


def test_each_group_keeps_its_proportion():
    scheduler = LRMultiplier(sgd(1.0, 0.5), LinearParamScheduler(1, 0), max_iter=4)
    lrs_of(scheduler, 1)
    assert scheduler.get_last_lr() == [0.75, 0.375]
    assert [group["lr"] for group in scheduler.optimizer.param_groups] == [0.75, 0.375]


def test_bad_arguments_of_a_multiplier():
    with pytest.raises(ValueError, match="ParamScheduler, got <built-in function abs>"):
        LRMultiplier(sgd(), abs, max_iter=3)
    with pytest.raises(ValueError, match="max_iter must be positive, got 0"):
        LRMultiplier(sgd(), ConstantParamScheduler(1), max_iter=0)
    with pytest.raises(ValueError, match=r"warmup_length must be in \[0, 1\], got 1\.5"):
        WarmupParamScheduler(ConstantParamScheduler(1), 0.1, 1.5)


class TestResume:
    """A checkpoint of a training with other learning rates, after 4 of 10 iterations."""

    @staticmethod
    def checkpoint(lr, multiplier):
        scheduler = LRMultiplier(sgd(lr), multiplier, max_iter=10)
        lrs_of(scheduler, 4)
        return scheduler.optimizer.state_dict(), scheduler.state_dict()

    @staticmethod
    def resume(lr, multiplier, states, order, max_iter=10):
        scheduler = LRMultiplier(sgd(lr), multiplier, max_iter)
        for which in order:
            (scheduler.optimizer, scheduler)[which].load_state_dict(states[which])
        return scheduler

    @pytest.mark.parametrize("order", [(0, 1), (1, 0)])
    def test_the_same_schedule_goes_on_without_a_word(self, order, caplog):
        caplog.set_level(logging.INFO)
        states = self.checkpoint(0.3, CosineParamScheduler(1, 0))
        scheduler = self.resume(0.3, CosineParamScheduler(1, 0), states, order)
        whole = lrs_of(LRMultiplier(sgd(0.3), CosineParamScheduler(1, 0), 10), 10)
        assert lrs_of(scheduler, 6) == whole[4:]
        assert not caplog.text

    @pytest.mark.parametrize("order", [(0, 1), (1, 0)])
    def test_the_configured_base_learning_rate_wins_and_says_so(self, order, caplog):
        states = self.checkpoint(0.3, LinearParamScheduler(1, 0))
        scheduler = self.resume(0.5, LinearParamScheduler(1, 0), states, order)
        (group,) = scheduler.optimizer.param_groups
        assert group["initial_lr"] == 0.5
        assert lrs_of(scheduler, 6) == pytest.approx([0.3, 0.25, 0.2, 0.15, 0.1, 0.05, 0])
        assert "the base learning rate 0.3; from iteration 4 on it is 0.5" in caplog.text

    @pytest.mark.parametrize("order", [(0, 1), (1, 0)])
    def test_another_schedule_wins_and_says_so(self, order, caplog):
        states = self.checkpoint(0.3, LinearParamScheduler(1, 0))
        scheduler = self.resume(0.3, LinearParamScheduler(1, 0), states, order, max_iter=20)
        assert lrs_of(scheduler, 1) == pytest.approx([0.24, 0.225])
        assert caplog.text.count("learning rate") == 1
        assert "learning rate at iteration 4 is 0.18; it is 0.24" in caplog.text

    def test_momentum_is_the_checkpoints(self):
        states = self.checkpoint(0.3, LinearParamScheduler(1, 0))
        optimizer_state, _ = states
        optimizer_state["state"] = {0: {"momentum_buffer": torch.full((1,), 7.0)}}
        scheduler = self.resume(0.5, LinearParamScheduler(1, 0), states, (1, 0))
        (state,) = scheduler.optimizer.state.values()
        assert state["momentum_buffer"].item() == 7.0

    def test_the_state_is_upstreams(self):
        _, state = self.checkpoint(0.3, LinearParamScheduler(1, 0))
        assert state == {"base_lrs": [0.3], "last_epoch": 4}

    def test_last_iter_resumes_too(self):
        optimizer = sgd(0.3)
        optimizer.param_groups[0]["initial_lr"] = 0.5
        scheduler = LRMultiplier(optimizer, LinearParamScheduler(1, 0), 10, last_iter=3)
        assert scheduler.get_last_lr() == pytest.approx([0.3])

    def test_a_learning_rate_that_is_a_tensor(self):
        optimizer = torch.optim.SGD(
            [nn.Parameter(torch.zeros(1))], lr=torch.tensor(0.5), foreach=False
        )
        scheduler = LRMultiplier(optimizer, LinearParamScheduler(1, 0), 10)
        lrs_of(scheduler, 4)
        other = torch.optim.SGD(
            [nn.Parameter(torch.zeros(1))], lr=torch.tensor(0.25), foreach=False
        )
        resumed = LRMultiplier(other, LinearParamScheduler(1, 0), 10)
        other.load_state_dict(optimizer.state_dict())
        resumed.load_state_dict(scheduler.state_dict())
        assert other.param_groups[0]["lr"].item() == pytest.approx(0.15)

    def test_an_optimizer_does_not_keep_its_schedule_alive(self):
        optimizer = sgd()
        schedule = LRMultiplier(optimizer, ConstantParamScheduler(1), 10)
        this = weakref.ref(schedule)
        del schedule
        gc.collect()
        assert this() is None
        optimizer.load_state_dict(optimizer.state_dict())

    def test_the_deprecated_classes_stay_as_configured_too(self):
        old = WarmupMultiStepLR(sgd(0.5), [5], warmup_iters=0)
        lrs_of(old, 7)
        new = WarmupMultiStepLR(sgd(0.5), [9], warmup_iters=0)
        new.load_state_dict(old.state_dict())
        assert new.milestones == [9]
        assert new.get_last_lr() == [0.5]


@pytest.mark.parametrize("method", ["linear", "constant"])
def test_deprecated_multi_step(method, caplog):
    scheduler = WarmupMultiStepLR(
        sgd(2.0), [6, 9], gamma=0.5, warmup_factor=0.1, warmup_iters=4, warmup_method=method
    )
    assert "deprecated" in caplog.text
    for i, lr in enumerate(lrs_of(scheduler, 12)):
        warmup = 1.0 if i >= 4 else linear(0.1, 1, i / 4) if method == "linear" else 0.1
        assert lr == pytest.approx(2 * warmup * 0.5 ** ((i >= 6) + (i >= 9)))
        assert i < 12 or scheduler._compute_values() == [lr]
    with pytest.raises(ValueError, match=r"rising order, got \[9, 6\]"):
        WarmupMultiStepLR(sgd(), [9, 6])


def test_deprecated_cosine(caplog):
    scheduler = WarmupCosineLR(sgd(2.0), 12, warmup_factor=0.1, warmup_iters=4)
    assert "deprecated" in caplog.text
    for i, lr in enumerate(lrs_of(scheduler, 12)):
        warmup = linear(0.1, 1, i / 4) if i < 4 else 1.0
        assert lr == pytest.approx(2 * warmup * (1 + math.cos(math.pi * i / 12)) / 2)
    assert scheduler._compute_values() == pytest.approx([0.0])


def test_warmup_factors():
    assert _get_warmup_factor_at_iter("linear", 5, 10, 0.2) == pytest.approx(0.6)
    assert _get_warmup_factor_at_iter("constant", 5, 10, 0.2) == 0.2
    assert _get_warmup_factor_at_iter("nothing", 10, 10, 0.2) == 1.0
    with pytest.raises(ValueError, match="'nothing'"):
        _get_warmup_factor_at_iter("nothing", 9, 10, 0.2)
