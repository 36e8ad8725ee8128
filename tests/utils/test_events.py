"""The storage of metrics, and its JSON, TensorBoard, W&B and log writers."""

import json
import logging
import math
import signal
import statistics
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch

from detectron2.utils import _deferred_scalars
from detectron2.utils._deferred_scalars import DeferredScalars
from detectron2.utils.events import (
    CommonMetricPrinter,
    EventStorage,
    EventWriter,
    JSONWriter,
    TensorboardXWriter,
    WandbWriter,
    get_event_storage,
    has_event_storage,
)


class TestStorage:
    def test_innermost_is_active(self) -> None:
        assert not has_event_storage()
        with pytest.raises(AssertionError, match="no EventStorage is active"):
            get_event_storage()
        with EventStorage() as outer:
            with EventStorage(5) as inner:
                assert get_event_storage() is inner
            assert get_event_storage() is outer
        assert not has_event_storage()

    def test_left_after_an_error(self) -> None:
        with pytest.raises(KeyError), EventStorage():
            raise KeyError("x")
        assert not has_event_storage()

    def test_wrong_order_of_leaving(self) -> None:
        with pytest.raises(RuntimeError, match="not the innermost"):
            EventStorage().__exit__(None, None, None)

    def test_values_iterations_and_scopes(self) -> None:
        storage = EventStorage(10)
        with storage.name_scope("scope"):
            with storage.name_scope("inner/"):
                storage.put_scalar("c", 1)
            with pytest.raises(ZeroDivisionError), storage.name_scope("inner"):
                raise ZeroDivisionError
            storage.put_scalars(a=torch.tensor([2.5]), b=np.float32(4))
        storage.step()
        storage.put_scalar("d", 3, cur_iter=7)
        assert storage.latest() == {
            "scope/a": (2.5, 10),
            "scope/b": (4.0, 10),
            "inner/c": (1.0, 10),
            "d": (3.0, 7),
        }
        assert storage.iter == storage.iteration == 11
        storage.iter = 40
        assert storage.iter == 40

    def test_smoothing_is_over_iterations(self) -> None:
        storage = EventStorage()
        for iteration in range(0, 40, 3):
            storage.put_scalar("sparse", iteration**2, cur_iter=iteration)
            storage.put_scalar("raw", iteration, smoothing_hint=False, cur_iter=iteration)
        # The last is at 39: iterations 30, 33, 36 and 39 are in (29, 39].
        assert storage.count_samples("sparse", 10) == 4
        smoothed = storage.latest_with_smoothing_hint(10)
        assert smoothed["sparse"] == (statistics.median([30**2, 33**2, 36**2, 39**2]), 39)
        assert smoothed["raw"] == (39, 39)
        assert storage.count_samples("sparse", 0) == 1

    @pytest.mark.parametrize("length", [1, 2, 19, 20, 33])
    def test_median(self, length: int) -> None:
        values = np.random.default_rng(length).standard_normal(length)
        storage = EventStorage()
        for value in values:
            storage.put_scalar("a", value)
            storage.step()
        assert storage.latest_with_smoothing_hint(20)["a"][0] == np.median(values[-20:])
        storage.put_scalar("a", math.nan)
        assert math.isnan(storage.latest_with_smoothing_hint(20)["a"][0])

    def test_smoothing_hint_stays(self) -> None:
        storage = EventStorage()
        storage.put_scalar("a", 1)
        with pytest.raises(ValueError, match="'a' has smoothing_hint=True, got False"):
            storage.put_scalar("a", 1, smoothing_hint=False)
        assert storage.smoothing_hints() == {"a": True}

    def test_unknown_name(self) -> None:
        with pytest.raises(KeyError, match="zzz"):
            EventStorage().history("zzz")

    @pytest.mark.parametrize(
        "values", [torch.tensor([[0.0, 1.0], [4.0, 4.0]]), torch.tensor([3, 3, 3])]
    )
    def test_histogram(self, values: torch.Tensor) -> None:
        storage = EventStorage(6)
        storage.put_histogram("h", values, bins=4)
        (histogram,) = storage._histograms
        counts, edges = np.histogram(values.numpy(), bins=4)
        assert histogram["bucket_counts"] == counts.tolist()
        np.testing.assert_allclose(histogram["bucket_limits"], edges[1:])
        assert histogram["num"] == values.numel()
        assert histogram["sum"] == values.sum()
        assert histogram["sum_squares"] == (values**2).sum()
        assert (histogram["min"], histogram["max"]) == (values.min(), values.max())
        assert histogram["global_step"] == 6
        storage.clear_histograms()
        assert not storage._histograms

    @pytest.mark.parametrize("values", [torch.zeros(0), torch.tensor([1.0, float("nan")])])
    def test_histogram_of_nothing(self, values: torch.Tensor) -> None:
        with pytest.raises(ValueError, match="'h' needs finite values"):
            EventStorage().put_histogram("h", values)


def read_lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


class TestJSONWriter:
    def test_lines(self, tmp_path: Path) -> None:
        path = tmp_path / "metrics.json"
        with EventStorage() as storage:
            writer = JSONWriter(str(path), window_size=4)
            for iteration in range(10):
                storage.put_scalars(loss=iteration**2)
                storage.put_scalar("lr", iteration, smoothing_hint=False)
                if iteration % 5 == 4:
                    writer.write()
                    writer.write()  # nothing new
                storage.step()
            writer.close()
        assert read_lines(path) == [
            {"iteration": 4, "loss": statistics.median([1, 4, 9, 16]), "lr": 4},
            {"iteration": 9, "loss": statistics.median([36, 49, 64, 81]), "lr": 9},
        ]
        assert path.read_text().startswith('{"iteration": 4, "loss"')

    def test_late_scalars_are_not_lost(self, tmp_path: Path) -> None:
        path = tmp_path / "metrics.json"
        with EventStorage(19) as storage:
            writer = JSONWriter(str(path))
            storage.put_scalar("loss", 1)
            writer.write()
            storage.put_scalar("AP", 30)
            storage.put_scalar("earlier", 5, cur_iter=3)
            storage.iter = 39
            storage.put_scalar("loss", 3)
            writer.write()
        assert read_lines(path) == [
            {"iteration": 19, "loss": 1},
            {"iteration": 3, "earlier": 5},
            {"iteration": 19, "AP": 30},
            {"iteration": 39, "loss": 3},
        ]

    def test_old_estimates_are_left_out(self, tmp_path: Path) -> None:
        path = tmp_path / "metrics.json"
        with EventStorage(3) as storage:
            writer = JSONWriter(str(path))
            storage.put_scalar("loss", 1)
            writer.write()
            storage.put_scalar("eta_seconds", 60, smoothing_hint=False)
            writer.write()
            storage.step()
            storage.put_scalar("eta_seconds", 59, smoothing_hint=False)
            writer.write()
            writer.close()
            writer.close()
        assert read_lines(path) == [
            {"iteration": 3, "loss": 1},
            {"iteration": 4, "eta_seconds": 59},
        ]

    def test_nan_is_written_once(self, tmp_path: Path) -> None:
        path = tmp_path / "metrics.json"
        with EventStorage() as storage:
            writer = JSONWriter(str(path))
            storage.put_scalar("loss", math.nan)
            writer.write()
            writer.write()
            writer.close()
        assert len(read_lines(path)) == 1

    @pytest.mark.parametrize(
        ("content", "kept"),
        [
            ("", ""),
            ('{"iteration": 1}\n', '{"iteration": 1}\n'),
            ('{"iteration": 1}\n{"iter', '{"iteration": 1}\n'),
            ('{"iter', ""),
            ('{"iteration": 1}', '{"iteration": 1}\n'),
        ],
    )
    def test_appends_after_a_kill(self, tmp_path: Path, content: str, kept: str) -> None:
        path = tmp_path / "metrics.json"
        path.write_text(content)
        with EventStorage(2) as storage:
            writer = JSONWriter(str(path))
            storage.put_scalar("loss", 1)
            writer.write()
            writer.close()
        assert path.read_text() == kept + '{"iteration": 2, "loss": 1.0}\n'


def test_what_was_written_survives_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    script = f"""
import os, signal
from detectron2.utils.events import EventStorage, JSONWriter
with EventStorage(7) as storage:
    writer = JSONWriter({str(path)!r})
    storage.put_scalar("loss", 1)
    writer.write()
    os.kill(os.getpid(), signal.SIGKILL)
"""
    process = subprocess.run([sys.executable, "-c", script], check=False)
    assert process.returncode == -signal.SIGKILL
    assert read_lines(path) == [{"iteration": 7, "loss": 1}]


class Recorder:
    """Remembers the calls of any method."""

    def __init__(self, **kwargs: object) -> None:
        self.kwargs = kwargs
        self.calls = []

    def __getattr__(self, name: str):
        return lambda *args, **kwargs: self.calls.append((name, args, kwargs))

    def of(self, name: str) -> list[tuple]:
        return [args for method, args, _ in self.calls if method == name]


@pytest.fixture
def summary_writers(monkeypatch: pytest.MonkeyPatch) -> list[Recorder]:
    made = []

    def make(**kwargs: object) -> Recorder:
        made.append(Recorder(**kwargs))
        return made[-1]

    module = ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = make
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    return made


class TestTensorboardXWriter:
    def test_everything_once(self, summary_writers: list[Recorder]) -> None:
        image = torch.zeros(3, 4, 5)
        with EventStorage(8) as storage:
            writer = TensorboardXWriter("folder", window_size=2, max_queue=3)
            assert not summary_writers
            storage.put_scalar("loss", 2)
            storage.put_image("image", image)
            storage.put_histogram("histogram", torch.arange(4.0), bins=2)
            writer.write()
            assert not storage._vis_data
            assert not storage._histograms
            writer.write()
            storage.put_scalar("AP", 7)
            writer.write()
        writer.close()
        (made,) = summary_writers
        assert made.kwargs == {"log_dir": "folder", "max_queue": 3}
        assert made.of("add_scalar") == [("loss", 2, 8), ("AP", 7, 8)]
        assert made.of("add_image") == [("image", image, 8)]
        (histogram,) = [kwargs for name, _, kwargs in made.calls if name == "add_histogram_raw"]
        assert histogram["bucket_counts"] == [2, 2]
        assert made.calls[-1][0] == "close"
        assert "flush" in [name for name, _, _ in made.calls]

    def test_nothing_to_write_makes_no_file(self, summary_writers: list[Recorder]) -> None:
        with EventStorage():
            writer = TensorboardXWriter("folder")
            writer.write()
        writer.close()
        assert not summary_writers

    def test_missing_package_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
        with EventStorage() as storage:
            storage.put_scalar("loss", 2)
            with pytest.raises(ImportError, match="needs tensorboard, which"):
                TensorboardXWriter("folder").write()


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A stand-in for the package, with the run that ``init`` makes."""
    made = Recorder()
    module = ModuleType("wandb")
    module.run = None
    module.Image = lambda array: ("image", array)

    def make_histogram(np_histogram: tuple[np.ndarray, np.ndarray]) -> tuple:
        assert len(np_histogram[0]) <= 512
        assert len(np_histogram[1]) == len(np_histogram[0]) + 1
        assert (np.diff(np_histogram[1]) > 0).all()
        return "histogram", *np_histogram

    def init(**kwargs: object) -> Recorder:
        made.kwargs = kwargs
        return made

    module.Histogram, module.init = make_histogram, init
    monkeypatch.setitem(sys.modules, "wandb", module)
    return SimpleNamespace(module=module, run=made)


class TestWandbWriter:
    def test_scalars(self, wandb: SimpleNamespace) -> None:
        with EventStorage(8) as storage:
            writer = WandbWriter("folder", project="p")
            storage.put_scalar("loss", 2)
            writer.write()
            storage.put_scalar("AP", 7, cur_iter=3)
            writer.write()
        writer.close()
        assert wandb.run.kwargs == {"dir": "folder", "project": "p"}
        assert wandb.run.of("log") == [
            ({"iteration": 8, "loss": 2},),
            ({"iteration": 3, "AP": 7},),
        ]
        defined = [
            (args[0], kwargs.get("step_metric"))
            for n, args, kwargs in wandb.run.calls
            if n == "define_metric"
        ]
        assert defined == [("iteration", None), ("loss", "iteration"), ("AP", "iteration")]
        assert wandb.run.calls[-1][0] == "finish"

    def test_images_reach_writers_that_follow(
        self, wandb: SimpleNamespace, summary_writers: list[Recorder]
    ) -> None:
        image = torch.tensor([0.0, 0.5, 1.0]).reshape(3, 1, 1).expand(3, 4, 5)
        with EventStorage(8) as storage:
            writers = [WandbWriter(), TensorboardXWriter("folder")]
            for _ in range(2):
                storage.put_image("image", image)
                for writer in writers:
                    writer.write()
        for writer in writers:
            writer.close()
        logged = [call[0]["image"][1] for call in wandb.run.of("log")]
        assert [array.shape for array in logged] == [(4, 5, 3)] * 2
        assert logged[0][0, 0].tolist() == [0, 128, 255]
        assert len(summary_writers[0].of("add_image")) == 2

    def test_takes_images_away_where_no_other_writer_does(self, wandb: SimpleNamespace) -> None:
        with EventStorage() as storage:
            writer = WandbWriter()
            for _ in range(5):
                storage.put_image("image", np.zeros((3, 2, 2), np.uint8))
                storage.put_histogram("histogram", torch.ones(3), bins=7)
                writer.write()
                storage.step()
                assert len(storage._vis_data) == len(storage._histograms) == 1
        assert [call[0]["iteration"] for call in wandb.run.of("log")] == list(range(5))

    @pytest.mark.parametrize("bins", [1, 7, 512, 1000])
    def test_histograms(self, wandb: SimpleNamespace, bins: int) -> None:
        values = torch.linspace(-1, 2, 999)
        with EventStorage() as storage:
            writer = WandbWriter()
            storage.put_histogram("histogram", values, bins=bins)
            writer.write()
        _, counts, edges = wandb.run.of("log")[0][0]["histogram"]
        assert counts.sum() == 999
        np.testing.assert_allclose(edges[[0, -1]], [-1, 2], atol=1e-5)

    def test_uses_a_run_of_the_caller_and_leaves_it_open(self, wandb: SimpleNamespace) -> None:
        wandb.module.run, wandb.module.init = wandb.run, None
        with EventStorage() as storage:
            writer = WandbWriter()
            storage.put_scalar("loss", 2)
            writer.write()
        writer.close()
        assert wandb.run.of("log")
        assert not wandb.run.of("finish")

    def test_missing_package_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "wandb", None)
        with EventStorage() as storage:
            storage.put_scalar("loss", 2)
            with pytest.raises(ImportError, match="needs wandb, which"):
                WandbWriter().write()


@pytest.fixture
def printed(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The lines of the printer, as they come."""
    lines = []
    logger = logging.getLogger("detectron2.utils.events")
    monkeypatch.setattr(logger, "info", lines.append)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    return lines


class TestCommonMetricPrinter:
    def test_line(self, printed: list[str]) -> None:
        with EventStorage() as storage:
            printer = CommonMetricPrinter(max_iter=40, window_size=4)
            for iteration in range(10):
                storage.put_scalars(loss_x=iteration / 3, time=0.5 + iteration, data_time=iteration)
                storage.put_scalar("lr", 0.012345678, smoothing_hint=False)
                storage.put_scalar("[metric]AP", 2, smoothing_hint=False)
                storage.put_scalar("hidden", 1)
                if iteration < 9:
                    storage.step()
            printer.write()
            # 5 s is the median time; 30 iterations remain.
            assert storage.latest()["eta_seconds"] == (5.0 * 30, 9)
        assert printed == [
            " eta: 0:02:30  iter: 9  loss_x: 2.5  [metric]AP: 2  time: 5.0000  last_time: 9.5000"
            "  data_time: 7.5000  last_data_time: 9.0000  lr: 0.012346"
        ]

    def test_without_anything(self, printed: list[str]) -> None:
        with EventStorage(3):
            CommonMetricPrinter().write()
        assert printed == [" iter: 3  lr: N/A"]

    def test_subclass_with_a_line_of_its_own(self, printed: list[str]) -> None:
        class Short(CommonMetricPrinter):
            def write(self) -> None:
                storage = get_event_storage()
                self.logger.info(f"{storage.iter}/{self._max_iter} {self._get_eta(storage)}")

        with EventStorage(3) as storage:
            storage.put_scalar("time", 2.0)
            Short(max_iter=10).write()
        assert printed == ["3/10 0:00:12"]

    def test_eta_without_times(self, printed: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
        clock = iter([100.0, 110.0, 130.0])
        monkeypatch.setattr("time.perf_counter", lambda: next(clock))
        with EventStorage() as storage:
            printer = CommonMetricPrinter(max_iter=20)
            printer.write()
            printer.write()  # no iteration since: nothing to measure
            storage.iter = 10
            printer.write()
        assert printed[:2] == [" iter: 0  lr: N/A"] * 2
        assert printed[2].startswith(" eta: 0:00:18  iter: 10")  # 2 s an iteration, 9 remain

    def test_nothing_new_at_the_end(self, printed: list[str]) -> None:
        with EventStorage(9) as storage:
            printer = CommonMetricPrinter(max_iter=10)
            storage.put_scalar("loss", 1)
            printer.write()
            storage.step()
            storage.put_scalar("eval/AP", 30)
            printer.write()
        printer.close()
        assert len(printed) == 1

    def test_last_window_is_printed(self, printed: list[str]) -> None:
        with EventStorage(9) as storage:
            printer = CommonMetricPrinter(max_iter=10)
            storage.put_scalar("loss", 1)
            storage.step()
            printer.write()
        assert printed == [" iter: 10  loss: 1  lr: N/A"]


def test_writer_interface() -> None:
    with pytest.raises(NotImplementedError):
        EventWriter().write()
    EventWriter().close()


class TestDeferredScalars:
    def test_order_and_values(self) -> None:
        queue, seen = DeferredScalars(), []
        queue.add(torch.tensor([1, 2]), lambda v: seen.append(("a", v)))
        queue.add(None, lambda v: seen.append(("b", v)))
        queue.add(torch.tensor([0.5]), lambda v: seen.append(("c", v)))
        assert queue
        assert not seen
        queue.flush()
        assert seen == [("a", [1.0, 2.0]), ("b", []), ("c", [0.5])]
        queue.flush()
        assert not queue
        assert len(seen) == 3

    def test_does_not_grow_for_ever(self) -> None:
        queue, seen = DeferredScalars(), []
        for i in range(5000):
            queue.add(torch.tensor([i]), seen.extend)
        queue.flush()
        assert seen == list(range(5000))
        assert _deferred_scalars._MOST_PENDING < 5000

    def test_numbers_wait_for_those_before_them(self) -> None:
        storage = EventStorage(3)
        storage._deferred.add(torch.tensor([1.0]), lambda v: storage._record("x", v[0], 3))
        storage.put_scalar("x", 2.0)
        assert storage.history("x").values() == [(1.0, 3), (2.0, 3)]

    def test_later_scalars_on_the_cpu(self) -> None:
        storage = EventStorage(3)
        with storage.name_scope("stage1"):
            storage.put_scalars_later(torch.tensor([1, 4]), lambda v: {"part": v[0] / v[1]})
        assert storage.latest() == {"stage1/part": (0.25, 3)}
        storage.put_scalars_later(torch.tensor([0]), lambda v: {})
        assert set(storage.latest()) == {"stage1/part"}
        with pytest.raises(ValueError, match="smoothing_hint"):
            storage.put_scalars_later(torch.ones(1), lambda v: {"stage1/part": v[0]}, False)

    @pytest.mark.gpu
    @pytest.mark.parametrize("read", ["history", "histories", "latest", "smoothed", "hints"])
    def test_device_is_not_waited_for_until_read(self, read: str) -> None:
        value = torch.tensor(1.0, device="cuda")
        torch.cuda.set_sync_debug_mode("error")
        try:
            storage = EventStorage(5)
            with storage.name_scope("scope"):
                storage.put_scalar("a", value)
                storage.put_scalars_later(value[None], lambda v: {"b": v[0] + 1})
            value += 10  # The one that was put keeps its value.
            storage.step()
            storage.put_scalar("scope/a", 7.0)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        if read == "history":
            assert storage.history("scope/a").values() == [(1.0, 5), (7.0, 6)]
        elif read == "histories":
            assert set(storage.histories()) == {"scope/a", "scope/b"}
        elif read == "latest":
            assert storage.latest()["scope/a"] == (7.0, 6)
        elif read == "smoothed":
            assert storage.latest_with_smoothing_hint()["scope/a"] == (4.0, 6)
        else:
            assert storage.smoothing_hints() == {"scope/a": True, "scope/b": True}
