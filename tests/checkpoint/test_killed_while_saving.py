"""A process that saves in a loop is killed at random moments: what it leaves can be resumed."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from detectron2.checkpoint import DetectionCheckpointer, PeriodicCheckpointer

KILLS = 8


def made(folder):
    """A model, and what saves it in ``folder``."""
    model = nn.ParameterList([torch.zeros(20_000) for _ in range(4)]).requires_grad_(False)
    return model, DetectionCheckpointer(model, str(folder), optimizer=torch.optim.SGD(model))


def save_for_ever(folder, name, saved):
    """Resume, and save; every number in the checkpoint of iteration i is i.

    Args:
        folder: to save to and resume from.
        name: of the one file to save to, or "" for those of PeriodicCheckpointer.
        saved: file descriptor that gets a byte a checkpoint.
    """
    model, checkpointer = made(folder)
    iteration = checkpointer.resume_or_load("").get("iteration", -1) + 1
    periodic = PeriodicCheckpointer(checkpointer, 1, max_to_keep=2)
    while True:
        for parameter in model:
            parameter.fill_(iteration)
        if name:
            checkpointer.save(name, iteration=iteration)
        else:
            periodic.step(iteration)
        os.write(saved, b".")
        iteration += 1


def kill_again_and_again(folder, name):
    random.seed(0)
    done = -1
    for _ in range(KILLS):
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                save_for_ever(folder, name, writer)
            finally:
                os._exit(1)
        os.close(writer)
        os.read(reader, 1)
        start = time.perf_counter()
        os.read(reader, 1)
        # Somewhere in one of the next two.
        time.sleep(2 * random.random() * (time.perf_counter() - start))
        os.kill(child, signal.SIGKILL)
        os.close(reader)
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status), "the child failed"
        model, checkpointer = made(folder)
        iteration = checkpointer.resume_or_load("")["iteration"]
        assert iteration >= done + 2
        done = iteration
        assert all((parameter == iteration).all() for parameter in model)
        # No other file is half written, either.
        for file in checkpointer.get_all_checkpoint_files():
            other, loader = made("")
            assert loader.load(file)["iteration"] <= iteration + 1
            assert all((parameter == other[0][0]).all() for parameter in other)
        # What kills leave does not pile up.
        assert len(list(folder.glob("*.tmp"))) <= 2


@pytest.mark.skipif(sys.platform != "linux", reason="forks")
def test_the_last_checkpoint_is_whole(tmp_path):
    # By a process of its own, since a fork does not have the threads that tests may have started.
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore", __file__, str(tmp_path)]
    subprocess.run(command, env=environment, check=True, timeout=120)


if __name__ == "__main__":
    kill_again_and_again(Path(sys.argv[1], "many"), "")
    kill_again_and_again(Path(sys.argv[1], "one"), "model_final")
