"""Communication between the processes of a training or an evaluation.

Every function works without ``torch.distributed``, too: a process that has not initialised it is
rank 0 of 1, and there is nothing to wait for or to exchange. What exchanges Python objects pickles
them, so all processes must trust each other.
"""

from typing import Any

import numpy as np
import torch
import torch.distributed as dist

# The processes of this machine. Code written for upstream assigns to it, so it keeps this name.
_LOCAL_PROCESS_GROUP: dist.ProcessGroup | None = None

# A world, and the group over all its processes through which objects travel.
_world_and_gloo_group: tuple[dist.ProcessGroup, dist.ProcessGroup] | None = None


def _is_distributed() -> bool:
    return dist.is_available() and dist.is_initialized()


def get_world_size() -> int:
    """Number of processes, on all machines."""
    return dist.get_world_size() if _is_distributed() else 1


def get_rank() -> int:
    """Index of this process, in [0, :func:`get_world_size`)."""
    return dist.get_rank() if _is_distributed() else 0


def is_main_process() -> bool:
    """Whether this is rank 0, the process that writes logs and results."""
    return get_rank() == 0


def create_local_process_group(num_workers_per_machine: int) -> None:
    """Make the group of this machine's processes, which the ``local`` functions tell about.

    Every process calls it, once, after ``torch.distributed.init_process_group``. Ranks are taken
    to be numbered machine by machine.

    Args:
        num_workers_per_machine: processes of each machine; it divides the number of all.

    Raises:
        RuntimeError: there is a local group already.
        ValueError: the processes cannot be split so.
    """
    global _LOCAL_PROCESS_GROUP
    if _LOCAL_PROCESS_GROUP is not None:
        raise RuntimeError("the local process group exists already")
    world_size = get_world_size()
    if num_workers_per_machine < 1 or world_size % num_workers_per_machine:
        raise ValueError(
            f"{world_size} processes cannot be split into machines of {num_workers_per_machine}"
        )
    # Each group is made by all processes, those that are not in it included.
    for first in range(0, world_size, num_workers_per_machine):
        ranks = list(range(first, first + num_workers_per_machine))
        group = dist.new_group(ranks)
        if get_rank() in ranks:
            _LOCAL_PROCESS_GROUP = group


def get_local_process_group() -> dist.ProcessGroup:
    """The group of this machine's processes.

    Raises:
        RuntimeError: :func:`create_local_process_group` was not called.
    """
    if _LOCAL_PROCESS_GROUP is None:
        raise RuntimeError(
            "there is no local process group: detectron2.engine.launch makes it, and processes "
            "started otherwise call detectron2.utils.comm.create_local_process_group"
        )
    return _LOCAL_PROCESS_GROUP


def get_local_rank() -> int:
    """Index of this process among those of its machine; needs the local group if distributed."""
    if not _is_distributed():
        return 0
    return get_local_process_group().rank()


def get_local_size() -> int:
    """Number of processes of this machine; needs the local group if distributed."""
    if not _is_distributed():
        return 1
    return get_local_process_group().size()


def synchronize() -> None:
    """Wait until all processes have come here."""
    if get_world_size() > 1:
        # NCCL would guess the device, and hang if it guesses wrong.
        on_device = dist.get_backend() == dist.Backend.NCCL
        dist.barrier(device_ids=[torch.cuda.current_device()] if on_device else None)


def _group_for_objects() -> dist.ProcessGroup:
    """All processes, over gloo: NCCL would carry pickles through the GPU's memory."""
    global _world_and_gloo_group
    world = dist.group.WORLD
    if dist.get_backend() == dist.Backend.GLOO:
        return world
    if _world_and_gloo_group is None or _world_and_gloo_group[0] is not world:
        _world_and_gloo_group = world, dist.new_group(backend="gloo")
    return _world_and_gloo_group[1]


def all_gather(data: Any, group: dist.ProcessGroup | None = None) -> list[Any]:
    """Collect an object from each process.

    Args:
        data: anything that pickles.
        group: the processes that take part; None means all, over gloo.

    Returns:
        One object a process, by rank; without others, ``data`` itself in a list.
    """
    if get_world_size() == 1:
        return [data]
    group = _group_for_objects() if group is None else group
    size = dist.get_world_size(group)
    if size == 1:
        return [data]
    gathered = [None] * size
    dist.all_gather_object(gathered, data, group=group)
    return gathered


def gather(data: Any, dst: int = 0, group: dist.ProcessGroup | None = None) -> list[Any]:
    """Collect an object from each process in one of them.

    Args:
        data: anything that pickles.
        dst: the global rank of the process that gets the objects.
        group: the processes that take part; None means all, over gloo.

    Returns:
        On ``dst`` one object a process, by rank; an empty list on the others.
    """
    if get_world_size() == 1:
        return [data]
    group = _group_for_objects() if group is None else group
    size = dist.get_world_size(group)
    if size == 1:
        return [data]
    gathered = [None] * size if get_rank() == dst else None
    dist.gather_object(data, gathered, dst=dst, group=group)
    return [] if gathered is None else gathered


def shared_random_seed() -> int:
    """A random number in [0, 2**31) that is the same in all processes.

    Rank 0 draws it from NumPy's global generator, and the others draw one, too, so that
    generators that agreed before still do. All processes call it together.
    """
    seed = int(np.random.randint(2**31))
    if get_world_size() == 1:
        return seed
    shared = [seed]
    dist.broadcast_object_list(shared, src=0, group=_group_for_objects())
    return shared[0]


def reduce_dict(
    input_dict: dict[str, torch.Tensor], average: bool = True
) -> dict[str, torch.Tensor]:
    """Sum or average scalars over all processes, in one exchange.

    Args:
        input_dict: 0-dimensional tensors on one device, under the same names in every process.
        average: divide the sums by the number of processes.

    Returns:
        The results under the same names on rank 0. Elsewhere the values are partial sums without
        a meaning. One process gets its own dictionary back.
    """
    world_size = get_world_size()
    if world_size == 1 or not input_dict:
        return input_dict
    with torch.no_grad():
        # The order of insertion may differ between processes.
        names = sorted(input_dict)
        values = torch.stack([input_dict[name] for name in names])
        dist.reduce(values, dst=0)
        if average and is_main_process():
            values /= world_size
        return dict(zip(names, values.unbind(), strict=True))
