"""Leaves out what the machine cannot run (mark `gpu`) and what takes minutes (mark `slow`).

Every test starts from the same random numbers.
"""

import os
import random
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

# A Bazel workspace of its own.
collect_ignore = ["consumer"]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    no_cuda = None if torch.cuda.is_available() else pytest.mark.skip(reason="no CUDA device")
    slow_asked_for = "slow" in config.getoption("markexpr")
    not_asked_for = pytest.mark.skip(reason="slow; run with -m slow")
    for item in items:
        if no_cuda and "gpu" in item.keywords:
            item.add_marker(no_cuda)
        if not slow_asked_for and "slow" in item.keywords:
            item.add_marker(not_asked_for)


@pytest.fixture(autouse=True)
def _same_random_numbers() -> None:
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def run_in_two_processes(
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[str], list[Any]]:
    """Runs a file as ``python file rank folder`` for ranks 0 and 1, at the same time.

    Each process leaves ``folder/{rank}.pt``. The function returns what ``torch.load`` reads from
    them, by rank.
    """

    def run(path: str) -> list[Any]:
        folder = tmp_path_factory.mktemp("processes")
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        processes = [
            subprocess.Popen(
                [sys.executable, "-W", "ignore", path, str(rank), str(folder)], env=environment
            )
            for rank in range(2)
        ]
        try:
            assert [process.wait(timeout=120) for process in processes] == [0, 0]
        finally:
            for process in processes:
                process.kill()
        return [torch.load(folder / f"{rank}.pt") for rank in range(2)]

    return run
