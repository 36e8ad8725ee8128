"""What the processes of test_launch.py run: functions in a module, which can be pickled."""

import json
import os
import signal
import sys
import time
from pathlib import Path

import torch
import torch.distributed as dist

from detectron2.engine.launch import launch
from detectron2.utils import comm


def report(folder, tensor):
    """Writes what this process knows of the others, after an exchange with them."""
    device = torch.cuda.current_device() if dist.get_backend() == "nccl" else "cpu"
    total = torch.tensor(comm.get_rank() + 1, device=device)
    dist.all_reduce(total)
    facts = {
        "world": [comm.get_world_size(), comm.get_rank()],
        "local": [comm.get_local_size(), comm.get_local_rank()],
        "backend": dist.get_backend(),
        "device": device,
        "sum": total.item(),
        "argument": tensor.tolist(),
    }
    Path(folder, f"{comm.get_rank()}.json").write_text(json.dumps(facts))


def fail_or_wait(how, folder):
    """Rank 1 ends badly while rank 0 waits for it, which then writes what it has."""
    if comm.get_rank() == 1:
        if how == "raise":
            raise ValueError("no annotation of image 17")
        os.kill(os.getpid(), signal.SIGKILL)
    try:
        comm.synchronize()
    finally:
        Path(folder, "written").touch()


def write_pid_and_wait(folder):
    Path(folder, f"{comm.get_rank()}.pid").write_text(str(os.getpid()))
    time.sleep(60)


if __name__ == "__main__":
    what, folder, *numbers = sys.argv[1:]
    if what == "report":
        launch(report, *map(int, numbers), args=(folder, torch.ones(2)))
    else:
        launch(write_pid_and_wait, 2, args=(folder,))
