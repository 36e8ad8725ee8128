"""The inference loop, several evaluators as one, and what is done with their results."""

import logging
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from detectron2.evaluation import (
    DatasetEvaluator,
    DatasetEvaluators,
    inference_context,
    inference_on_dataset,
    print_csv_format,
    verify_results,
)
from detectron2.evaluation._inference_clock import InferenceClock
from detectron2.evaluation.testing import flatten_results_dict


class Recorder(DatasetEvaluator):
    def __init__(self, trace, results):
        self.trace, self.results = trace, results

    def reset(self):
        self.trace.append("reset")

    def process(self, inputs, outputs):
        self.trace.append(("process", inputs, outputs))

    def evaluate(self):
        self.trace.append("evaluate")
        return self.results


def test_order_of_calls():
    trace = []

    def model(inputs):
        trace.append(("model", torch.is_grad_enabled()))
        return inputs * 10

    names = ("on_start", "before_inference", "after_inference", "on_end")
    callbacks = {name: lambda name=name: trace.append(name) for name in names}
    results = inference_on_dataset(model, [1, 2], Recorder(trace, {"a": 1}), callbacks)
    assert results == {"a": 1}
    steps = [
        ["before_inference", ("model", False), "after_inference", ("process", i, 10 * i)]
        for i in (1, 2)
    ]
    assert trace == ["reset", "on_start", *steps[0], *steps[1], "on_end", "evaluate"]
    assert torch.is_grad_enabled()


def test_several_evaluators_and_none():
    evaluators = [Recorder([], {"a": 1}), Recorder([], None), Recorder([], {"b": 2})]
    assert inference_on_dataset(abs, [-1], evaluators) == {"a": 1, "b": 2}
    assert [e.trace for e in evaluators] == [["reset", ("process", -1, 1), "evaluate"]] * 3
    assert inference_on_dataset(abs, [-1], None) == {}
    assert inference_on_dataset(abs, [-1], evaluators[1]) == {}
    assert inference_on_dataset(abs, [], evaluators[0]) == {"a": 1}


def test_a_loader_without_a_length():
    recorder = Recorder([], {"a": 1})
    assert inference_on_dataset(abs, iter([-3, -4]), recorder) == {"a": 1}
    assert recorder.trace == ["reset", ("process", -3, 3), ("process", -4, 4), "evaluate"]


def test_results_of_the_same_name_clash():
    evaluators = DatasetEvaluators([Recorder([], {"bbox": 1}), Recorder([], {"bbox": 2})])
    with pytest.raises(ValueError, match="Recorder has results named 'bbox'"):
        evaluators.evaluate()


def test_unknown_callbacks_are_refused():
    with pytest.raises(ValueError, match=r"no callbacks named \['on_finish'\]"):
        inference_on_dataset(abs, [1], None, {"on_finish": print})


def test_each_module_gets_its_own_mode_back():
    model = nn.Sequential(nn.Dropout(), nn.Sequential(nn.BatchNorm1d(2)))
    model[1].eval()

    def fails():
        with inference_context(model):
            assert not any(module.training for module in model.modules())
            raise KeyError

    with pytest.raises(KeyError):
        fails()
    assert [module.training for module in model.modules()] == [True, True, False, False]


def test_the_clock_leaves_out_the_first_iterations(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    clock = InferenceClock(total=8)
    clock.start()
    for iteration in range(7):
        for stage, seconds in (("loading", 1), ("inference", 2), ("evaluation", 3)):
            now[0] += seconds * (100 if iteration < 5 else 1)
            clock.lap(stage)
        clock.end_iteration()
        assert clock.is_warm() == (iteration >= 5)
    stages = "loading 1.0000 s, inference 2.0000 s, evaluation 3.0000 s per batch"
    assert clock.progress() == f"Inference 7/8: {stages}; 0:00:06 left"
    assert clock.summary() == f"Inference of 7 batches took 0:50:12: {stages}"


def test_the_clock_of_a_short_loop(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    clock = InferenceClock(total=1)
    now[0] = 2.0
    clock.lap("inference")
    clock.end_iteration()
    assert "inference 2.0000 s" in clock.summary()
    assert "0.0000 s per batch" in InferenceClock(total=0).summary()


def test_csv_lines(caplog):
    results = {
        "bbox": {"AP": 12.34567, "AP50": torch.tensor(float("nan")), "AP-cat": 3},
        "total": 5.5,
    }
    with caplog.at_level(logging.INFO, "detectron2.evaluation"):
        print_csv_format(results)
    assert [record.getMessage() for record in caplog.records] == [
        "copypaste: Task: bbox",
        "copypaste: AP,AP50",
        "copypaste: 12.3457,nan",
        "copypaste: total=5.5",
    ]
    with pytest.raises(TypeError, match="not None"):
        print_csv_format(None)


def config(*expected):
    return SimpleNamespace(TEST=SimpleNamespace(EXPECTED_RESULTS=list(expected)))


def test_verification(caplog):
    results = {"bbox": {"AP": 12.3, "AR": float("nan")}, "total": 3}
    assert verify_results(config(), results) is True
    assert verify_results(config(["bbox", "AP", 12.0, 0.5]), results) is True
    for expected, message in [
        (["bbox", "AP", 12.0, 0.1], "bbox/AP is 12.3, not 12.0 ± 0.1"),
        (["bbox", "AR", 1.0, 99.0], "bbox/AR is nan, not 1.0 ± 99.0"),
        (["bbox", "APs", 1.0, 99.0], "bbox/APs is missing"),
        (["segm", "AP", 1.0, 99.0], "segm/AP is missing"),
        (["total", "AP", 1.0, 99.0], "total/AP is missing"),
    ]:
        caplog.clear()
        with pytest.raises(SystemExit) as exit_info:
            verify_results(config(["bbox", "AP", 12.0, 0.5], expected), results)
        assert exit_info.value.code == 1
        assert message in caplog.text


def test_flat_results():
    assert flatten_results_dict({"a": {"b": {"c": 1}, "d": 2}, "e": 3}) == {
        "a/b/c": 1,
        "a/d": 2,
        "e": 3,
    }
