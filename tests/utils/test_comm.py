"""Communication between processes: in one that is not distributed, and in two over gloo."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist

from detectron2.utils import comm


def test_a_single_process_is_alone():
    assert comm.get_world_size() == comm.get_local_size() == 1
    assert comm.get_rank() == comm.get_local_rank() == 0
    assert comm.is_main_process()
    comm.synchronize()
    data = object()
    assert comm.all_gather(data)[0] is data
    assert comm.gather(data)[0] is data
    assert len(comm.all_gather(data)) == len(comm.gather(data)) == 1
    values = {"a": torch.ones(())}
    assert comm.reduce_dict(values) is values


def test_the_seed_of_a_single_process_follows_numpys():
    np.random.seed(5)
    seed = comm.shared_random_seed()
    assert type(seed) is int
    assert 0 <= seed < 2**31
    np.random.seed(5)
    assert seed == comm.shared_random_seed()
    assert seed != comm.shared_random_seed()


def test_there_is_no_local_group_before_it_is_made():
    assert comm._LOCAL_PROCESS_GROUP is None
    with pytest.raises(RuntimeError, match="create_local_process_group"):
        comm.get_local_process_group()
    with pytest.raises(ValueError, match="1 processes cannot be split into machines of 2"):
        comm.create_local_process_group(2)


def error_of(function, *args):
    try:
        function(*args)
    except (RuntimeError, ValueError) as error:
        return str(error)
    return None


def worker(rank, folder):
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2
    )
    results = {
        "world": (comm.get_world_size(), comm.get_rank(), comm.is_main_process()),
        "too early": error_of(comm.get_local_rank),
        "split": error_of(comm.create_local_process_group, 3),
    }
    comm.create_local_process_group(1)
    results["two machines"] = comm.get_local_size(), comm.get_local_rank()
    results["twice"] = error_of(comm.create_local_process_group, 1)
    comm._LOCAL_PROCESS_GROUP = None
    comm.create_local_process_group(2)
    results["one machine"] = comm.get_local_size(), comm.get_local_rank()

    data = {"rank": rank, "boxes": torch.full((1 + 3 * rank,), float(rank))}
    results["all"] = comm.all_gather(data)
    results["at 0"] = comm.gather(data)
    results["at 1"] = comm.gather(rank, dst=1)
    results["in group"] = comm.all_gather(rank, group=comm.get_local_process_group())
    alone = [dist.new_group([i]) for i in range(2)][rank]
    results["alone"] = comm.all_gather(rank, group=alone), comm.gather(rank, rank, alone)

    np.random.seed(rank)
    results["seeds"] = [comm.shared_random_seed() for _ in range(2)]
    names = ["b", "a"] if rank else ["a", "b"]
    values = {name: torch.tensor(10.0 * rank + (name == "b")) for name in names}
    results["average"] = comm.reduce_dict(values)
    results["sum"] = comm.reduce_dict(values, average=False)
    results["reduced nothing"] = comm.reduce_dict({})

    # As with NCCL, objects travel over a gloo group beside the world's own; a new world's is new.
    get_backend = dist.get_backend
    dist.get_backend = lambda: "nccl"
    results["beside nccl"] = [comm.all_gather(rank), comm.all_gather(-rank)]
    first = comm._world_and_gloo_group[1]
    dist.destroy_process_group()
    dist.get_backend = get_backend
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous2", rank=rank, world_size=2
    )
    dist.get_backend = lambda: "nccl"
    results["new world"] = comm.all_gather(rank)
    results["new group"] = comm._world_and_gloo_group[1] is not first
    dist.get_backend = get_backend

    if rank == 1:
        Path(folder, "arrived").touch()
    comm.synchronize()
    results["both arrived"] = Path(folder, "arrived").exists()
    torch.save(results, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def results(run_in_two_processes):
    """What two processes saw, by rank."""
    return run_in_two_processes(__file__)


def test_ranks(results):
    assert results[0]["world"] == (2, 0, True)
    assert results[1]["world"] == (2, 1, False)
    for rank in range(2):
        assert results[rank]["two machines"] == (1, 0)
        assert results[rank]["one machine"] == (2, rank)
        assert "create_local_process_group" in results[rank]["too early"]
        assert results[rank]["split"] == "2 processes cannot be split into machines of 3"
        assert "exists already" in results[rank]["twice"]


def test_gathering(results):
    for seen in results:
        assert [data["rank"] for data in seen["all"]] == [0, 1]
        assert [data["boxes"].tolist() for data in seen["all"]] == [[0.0], [1.0] * 4]
        assert seen["in group"] == [0, 1]
    assert [data["rank"] for data in results[0]["at 0"]] == [0, 1]
    assert results[1]["at 0"] == results[0]["at 1"] == []
    assert results[1]["at 1"] == [0, 1]
    assert [seen["alone"] for seen in results] == [([0], [0]), ([1], [1])]


def test_a_gloo_group_beside_another_backend(results):
    for seen in results:
        assert seen["beside nccl"] == [[0, 1], [0, -1]]
        assert seen["new world"] == [0, 1]
        assert seen["new group"]


def test_shared_seeds(results):
    assert results[0]["seeds"] == results[1]["seeds"]
    first, second = results[0]["seeds"]
    assert first != second
    np.random.seed(0)
    assert first == comm.shared_random_seed()


def test_reduction(results):
    assert {name: t.item() for name, t in results[0]["average"].items()} == {"a": 5, "b": 6}
    assert {name: t.item() for name, t in results[0]["sum"].items()} == {"a": 10, "b": 12}
    for seen in results:
        assert sorted(seen["average"]) == ["a", "b"]
        assert seen["reduced nothing"] == {}


def test_synchronization(results):
    assert all(seen["both arrived"] for seen in results)


if __name__ == "__main__":
    worker(int(sys.argv[1]), sys.argv[2])
