"""launch: the processes it starts, how they find each other, and how they end."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
import torch.multiprocessing as mp

from detectron2.engine import _workers
from detectron2.engine._rendezvous import meeting_point
from detectron2.engine.launch import DEFAULT_TIMEOUT, _find_free_port, launch

FOLDER = Path(__file__).parent


@pytest.fixture(autouse=True)
def environment(monkeypatch, request):
    """Processes that can import what they run, and that see GPUs in tests of GPUs only."""
    if "gpu" not in request.keywords:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.syspath_prepend(FOLDER)
    for name in ("MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RUN_ID"):
        monkeypatch.delenv(name, raising=False)


def launched(name):
    import launched

    return getattr(launched, name)


def facts_in(folder):
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]


def expected_facts(world_size, local_size):
    return [
        {
            "world": [world_size, rank],
            "local": [local_size, rank % local_size],
            "backend": "gloo",
            "device": "cpu",
            "sum": world_size * (world_size + 1) // 2,
            "argument": [1.0, 1.0],
        }
        for rank in range(world_size)
    ]


def test_one_process_is_this_one():
    calls = []
    for number in (0, 1):
        assert launch(calls.append, number, args=(os.getpid(),)) is None
    assert calls == [os.getpid()] * 2
    assert timedelta(minutes=30) == DEFAULT_TIMEOUT


def test_two_processes(tmp_path):
    launch(launched("report"), 2, dist_url="auto", args=(tmp_path, torch.ones(2)))
    assert facts_in(tmp_path) == expected_facts(2, 2)


@pytest.mark.gpu
def test_two_gpus(tmp_path):
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs")
    launch(launched("report"), 2, args=(tmp_path, torch.ones(2)))
    on_gpus = [
        {**facts, "backend": "nccl", "device": rank}
        for rank, facts in enumerate(expected_facts(2, 2))
    ]
    assert facts_in(tmp_path) == on_gpus


def test_two_machines(tmp_path):
    """One a thread here, the second before the first; the one port is all they share."""
    url = f"tcp://127.0.0.1:{_find_free_port()}"

    def machine(rank):
        launch(launched("report"), 1, 2, rank, url, (tmp_path, torch.ones(2)))

    second = threading.Thread(target=machine, args=(1,))
    second.start()
    machine(0)
    second.join()
    assert facts_in(tmp_path) == expected_facts(2, 1)


def test_torchrun(tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    run = subprocess.run(
        [*command, FOLDER / "launched.py", "report", tmp_path, "1"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert run.returncode == 0, run.stderr
    assert facts_in(tmp_path) == expected_facts(2, 2)


def test_torchruns_numbers_win_over_others(monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    for name, value in {"WORLD_SIZE": 4, "LOCAL_WORLD_SIZE": 2, "LOCAL_RANK": 0}.items():
        monkeypatch.setenv(name, str(value))
    message = "2 processes on each of 2 machines, but {} on each of {} are asked for"
    with pytest.raises(ValueError, match=message.format(8, 1)):
        launch(print, 8)
    with pytest.raises(ValueError, match=message.format(1, 3)):
        launch(print, 1, 3)


@pytest.mark.parametrize(
    ("how", "error", "message"),
    [
        ("raise", mp.ProcessRaisedException, r"rank 1 failed:\n\nTraceback(.|\n)*in fail_or_wait"),
        ("kill", mp.ProcessExitedException, "rank 1 ended by signal SIGKILL"),
    ],
)
def test_a_process_that_ends_badly_ends_all(how, error, message, tmp_path):
    start = time.monotonic()
    with pytest.raises(error, match=message) as caught:
        launch(launched("fail_or_wait"), 2, args=(how, tmp_path))
    assert caught.value.error_index == 1
    assert (tmp_path / "written").exists()
    assert time.monotonic() - start < 40
    if how == "raise":
        assert "ValueError: no annotation of image 17" in str(caught.value)
    if how == "kill":
        assert caught.value.signal_name == "SIGKILL"


@pytest.mark.parametrize(
    ("ends", "message"),
    [
        # Exit codes, and what was reported when.
        ([(1, (2.0, "lost 1")), (1, (1.0, "cause"))], "rank 5 failed:\n\ncause"),
        ([(1, (2.0, "lost 1")), (-9, None)], "rank 5 ended by signal SIGKILL"),
        ([(1, (2.0, "lost 1")), (None, None)], "rank 4 failed:\n\nlost 1"),
        ([(0, None), (-63, None)], "rank 5 ended by signal 63"),
    ],
)
def test_the_cause_is_told_from_what_follows_from_it(monkeypatch, ends, message):
    monkeypatch.setattr(_workers, "_SECONDS_TO_HEAR_OF_ALL", 0.0)
    workers = _workers.Workers(first_rank=4)
    for exitcode, report in ends:
        process = Mock(exitcode=exitcode, is_alive=lambda code=exitcode: code is None, pid=1)
        reader, writer = mp.Pipe(duplex=False)
        process.sentinel = writer
        if report:
            writer.send(report)
        workers._workers.append(_workers._Worker(process, reader, writer))
    with pytest.raises((mp.ProcessRaisedException, mp.ProcessExitedException)) as caught:
        workers.wait()
    assert str(caught.value) == message


def interrupt(*_):
    raise KeyboardInterrupt


def test_an_interrupted_process_does_not_end_as_if_it_were_done():
    # The others would wait for it.
    with pytest.raises(SystemExit) as caught:
        _workers._report_failure(None, interrupt, ())
    assert caught.value.code == 130


def test_an_interrupt_here_ends_the_processes(monkeypatch, tmp_path):
    monkeypatch.setattr(_workers.Workers, "wait", interrupt)
    monkeypatch.setattr(_workers, "_SECONDS_TO_END", 0.1)
    with pytest.raises(KeyboardInterrupt):
        launch(launched("write_pid_and_wait"), 2, args=(tmp_path,))
    assert not mp.active_children()


def test_processes_end_with_the_program_that_started_them(tmp_path):
    program = subprocess.Popen(
        [sys.executable, FOLDER / "launched.py", "wait", tmp_path],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )

    def wait_until(condition):
        end = time.monotonic() + 40
        while not condition():
            assert time.monotonic() < end
            time.sleep(0.1)

    files = [tmp_path / f"{rank}.pid" for rank in range(2)]
    wait_until(lambda: all(file.exists() and file.read_text() for file in files))
    program.kill()
    program.wait()
    wait_until(lambda: not any(is_running(int(file.read_text())) for file in files))


def is_running(pid):
    try:
        # One that has ended may be left for an idle init to collect.
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_function_that_cannot_be_pickled_is_an_error():
    with pytest.raises(Exception, match=r"<locals>|<lambda>"):
        launch(lambda: None, 2)


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ((1, 0), "num_machines must be positive, got 0"),
        ((1, 2, 2), r"machine_rank must be in \[0, 2\) for 2 machines, got 2"),
        ((1, 1, -1), r"machine_rank must be in \[0, 1\) for 1 machines, got -1"),
        ((-1,), "num_gpus_per_machine must be positive, got -1"),
        ((0, 2), "num_gpus_per_machine must be positive, got 0 with 2 machines"),
        ((1, 2, 0, "auto"), "2 machines need a dist_url"),
        ((1, 2, 0), "2 machines need a dist_url"),
        ((2, 1, 0, "127.0.0.1:80"), "dist_url must be .* got '127.0.0.1:80'"),
        ((2, 1, 0, "tcp://localhost"), "got 'tcp://localhost'"),
        ((2, 1, 0, "tcp://localhost:port"), "got 'tcp://localhost:port'"),
        ((2, 1, 0, "env://"), "MASTER_ADDR and MASTER_PORT, got None and None"),
    ],
)
def test_numbers_and_urls_that_do_not_fit(numbers, message):
    with pytest.raises(ValueError, match=message):
        launch(print, *numbers)


def test_more_processes_than_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.distributed, "is_nccl_available", lambda: True)
    with pytest.raises(RuntimeError, match="is 3, but this machine has 2 visible GPUs"):
        launch(print, 3)


def test_a_port_that_is_taken():
    with socket.socket() as other:
        other.bind(("", 0))
        other.listen()
        url = f"tcp://127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(RuntimeError, match=f"cannot listen on the port of dist_url '{url}'"):
            launch(print, 2, dist_url=url)


def test_a_file_that_another_run_left(tmp_path):
    (tmp_path / "left").write_text("something")
    with pytest.raises(ValueError, match=r"exists already: .*/left"):
        launch(print, 2, dist_url=f"file://{tmp_path}/left")


def place_of(*args):
    world, _server = meeting_point(*args, 2, timedelta(seconds=5))
    return world.host, world.port, world.file


def test_where_processes_meet(monkeypatch, tmp_path, caplog):
    host, port, _ = place_of(None, 1, 0)
    assert host == "localhost"
    assert port > 0
    assert place_of("tcp://[::1]:123", 2, 1) == ("::1", 123, "")
    assert place_of(f"file://{tmp_path}/new", 1, 0) == ("", 0, f"{tmp_path}/new")
    assert not caplog.text
    place_of(f"file://{tmp_path}/new", 2, 0)
    assert "all 2 machines must see it" in caplog.text
    monkeypatch.setenv("MASTER_ADDR", "example")
    monkeypatch.setenv("MASTER_PORT", "77")
    assert place_of(None, 2, 1) == place_of("env://", 2, 1) == ("example", 77, "")
