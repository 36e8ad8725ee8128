"""A training that is killed and resumed ends like one that is not; two processes are like one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("resumed.py")
CHECKS = [
    "check_killed_at_random_points_and_resumed",
    "check_resuming_starts_after_the_last_checkpoint",
    "check_resuming_a_training_that_has_ended",
    "check_two_processes_are_like_one",
    "check_two_processes_with_asynchronous_metrics_are_like_one",
    "check_each_process_tells_of_its_own_bad_loss",
    "check_two_processes_resume_together",
]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("resumed")
    # Small tensors gain nothing from threads, and forked processes may not have them.
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    path = folder / "results.json"
    command = [sys.executable, "-W", "ignore", PROGRAM, path, folder]
    run = subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert run.returncode == 0, run.stdout
    return json.loads(path.read_text())


def test_every_check_is_here(results):
    assert list(results) == CHECKS


@pytest.mark.parametrize("name", CHECKS)
def test_resuming(results, name):
    assert results[name] == ""
