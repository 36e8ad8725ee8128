"""Loading into DistributedDataParallel, by two processes over gloo."""

import os
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from detectron2.checkpoint import DetectionCheckpointer


def made(folder, value):
    model = DistributedDataParallel(nn.Linear(2, 1))
    with torch.no_grad():
        model.module.weight.fill_(value)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    return model, DetectionCheckpointer(model, str(folder), optimizer=optimizer)


def outcome_of(function, *args, **kwargs):
    try:
        return function(*args, **kwargs)
    except (OSError, RuntimeError) as error:
        return f"{type(error).__name__}: {error}"


def worker(rank, folder):
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2
    )
    # A folder for each, as of machines that share no file system.
    own = folder / str(rank)
    results = {}

    model, checkpointer = made(own, 1.0)
    model(torch.ones(1, 2)).sum().backward()
    checkpointer.checkpointables["optimizer"].step()
    checkpointer.save("model", iteration=3)
    results["files"] = sorted(os.listdir(own)) if own.exists() else []
    results["saved"] = model.module.weight.detach().clone()

    model, checkpointer = made(own, 5.0)
    results["rest"] = checkpointer.resume_or_load("absent.pth")
    results["resumed"] = model.module.weight.detach().clone()
    results["momenta"] = len(checkpointer.checkpointables["optimizer"].state)

    model, checkpointer = made(own, 5.0)
    results["both have it"] = checkpointer.load(str(folder / "0" / "model.pth"), [])["iteration"]
    results["loaded"] = model.module.weight.detach().clone()

    # Only rank 1 has it, then nobody; then it is broken for one of both.
    own.mkdir(exist_ok=True)
    only_1 = own / "only_1.pth"
    broken = own / "broken.pth"
    torch.save(nn.Linear(2, 1).state_dict(), broken)
    if rank == 1:
        torch.save(nn.Linear(2, 1).state_dict(), only_1)
        broken.write_bytes(b"not a checkpoint")
    for path in (only_1, own / "absent.pth", broken):
        results[path.name] = outcome_of(checkpointer.load, str(path))
    results["after errors"] = model.module.weight.detach().clone()

    torch.save(results, folder / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def results(run_in_two_processes):
    """What two processes saw, by rank."""
    return run_in_two_processes(__file__)


def test_the_main_process_saves(results):
    assert results[0]["files"] == ["last_checkpoint", "model.pth"]
    assert results[1]["files"] == []


def test_a_process_without_the_file_gets_all_of_it(results):
    for rank in range(2):
        assert results[rank]["rest"] == {"iteration": 3}
        assert torch.equal(results[rank]["resumed"], results[0]["saved"])
        assert results[rank]["momenta"] == 2


def test_all_processes_load_a_file_that_they_share(results):
    for rank in range(2):
        assert results[rank]["both have it"] == 3
        assert torch.equal(results[rank]["loaded"], results[0]["saved"])


def test_errors_are_errors_of_all_processes(results):
    for rank in range(2):
        for name in ("only_1.pth", "absent.pth"):
            assert results[rank][name].startswith("OSError: rank 0 cannot read the checkpoint")
        assert results[rank]["broken.pth"].startswith("RuntimeError: rank 1 cannot load")
        assert torch.equal(results[rank]["after errors"], results[0]["saved"])


if __name__ == "__main__":
    worker(int(sys.argv[1]), Path(sys.argv[2]))
