"""Leaves out what the machine cannot run (mark `gpu`) and what takes minutes (mark `slow`).

Every test starts from the same random numbers.
"""

import random

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
