"""Start a training in one process for each GPU, on one machine or on several."""

import os
import socket
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from detectron2.engine._rendezvous import World, backend, meeting_point
from detectron2.engine._workers import Workers
from detectron2.utils import comm

__all__ = ["DEFAULT_TIMEOUT", "launch"]

DEFAULT_TIMEOUT = timedelta(minutes=30)
"""How long processes wait for each other, at the start and in each exchange."""


def launch(
    main_func: Callable[..., Any],
    num_gpus_per_machine: int,
    num_machines: int = 1,
    machine_rank: int = 0,
    dist_url: str | None = None,
    args: tuple[Any, ...] = (),
    timeout: timedelta = DEFAULT_TIMEOUT,
) -> None:
    """Call ``main_func(*args)`` in as many processes as there are GPUs to train on.

    Every machine calls it. For one process in all, the function is called right here. Otherwise
    each process has its ``torch.distributed`` group (NCCL, or gloo without GPUs), its machine's
    group (:mod:`detectron2.utils.comm`) and its GPU as the current device. When one fails, the
    others on its machine are ended, and the error is raised here.

    In a program that torchrun has started, the processes are torchrun's: this one joins the
    others and calls the function. ``num_gpus_per_machine`` may then be 1, whatever torchrun says.

    Args:
        main_func: a function that can be pickled, thus one defined in a module. What it returns
            is dropped.
        num_gpus_per_machine: processes on each machine; without GPUs, processes on its CPU.
        num_machines: how many machines call this.
        machine_rank: the index of this one.
        dist_url: where the processes find each other. "tcp://host:port", a free port of the
            machine of rank 0; "file:///path", a new file that all machines see; "env://", the
            host and port in the environment variables MASTER_ADDR and MASTER_PORT; "auto", any
            free port, for one machine. None means "env://" if MASTER_ADDR is set, else "auto".
        args: arguments of ``main_func``.
        timeout: how long processes wait for each other.

    Raises:
        ValueError: numbers, ranks or a URL that do not fit together.
        RuntimeError: fewer GPUs than processes, or a port that is taken.
        torch.multiprocessing.ProcessRaisedException: ``main_func`` raised in a process; it has
            the traceback.
        torch.multiprocessing.ProcessExitedException: a process died otherwise.
    """
    if dist.is_available() and dist.is_torchelastic_launched():
        _run_in_torchrun(main_func, args, num_gpus_per_machine, num_machines, timeout)
        return
    _check_numbers(num_gpus_per_machine, num_machines, machine_rank)
    world_size = num_gpus_per_machine * num_machines
    if world_size <= 1:
        main_func(*args)
        return
    _check_gpus(num_gpus_per_machine)
    world, _server = meeting_point(dist_url, num_machines, machine_rank, world_size, timeout)
    first_rank = machine_rank * num_gpus_per_machine
    workers = Workers(first_rank)
    try:
        for local_rank in range(num_gpus_per_machine):
            workers.start(
                *(_work, world, local_rank, num_gpus_per_machine, first_rank, main_func, args)
            )
        workers.wait()
    finally:
        workers.stop()


def _check_numbers(num_gpus_per_machine: int, num_machines: int, machine_rank: int) -> None:
    if num_machines < 1:
        raise ValueError(f"num_machines must be positive, got {num_machines}")
    if not 0 <= machine_rank < num_machines:
        raise ValueError(
            f"machine_rank must be in [0, {num_machines}) for {num_machines} machines, got "
            f"{machine_rank}"
        )
    # Without GPUs, 0 of them on one machine means this process.
    if num_gpus_per_machine < (0 if num_machines == 1 else 1):
        raise ValueError(
            f"num_gpus_per_machine must be positive, got {num_gpus_per_machine} with "
            f"{num_machines} machines"
        )


def _check_gpus(num_gpus_per_machine: int) -> None:
    if backend() == "nccl" and num_gpus_per_machine > torch.cuda.device_count():
        raise RuntimeError(
            f"num_gpus_per_machine is {num_gpus_per_machine}, but this machine has "
            f"{torch.cuda.device_count()} visible GPUs"
        )


def _find_free_port() -> int:
    """A port that is free now; another program can take it before it is used."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        return probe.getsockname()[1]


def _work(
    world: World,
    local_rank: int,
    processes_per_machine: int,
    first_rank: int,
    main_func: Callable[..., Any],
    args: tuple[Any, ...],
) -> None:
    if backend() == "nccl":
        torch.cuda.set_device(local_rank)
    world.join(first_rank + local_rank)
    comm.create_local_process_group(processes_per_machine)
    # From here on nobody waits for one who has not come.
    comm.synchronize()
    main_func(*args)
    _leave_world()


def _leave_world() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()
    comm._LOCAL_PROCESS_GROUP = None


def _run_in_torchrun(
    main_func: Callable[..., Any],
    args: tuple[Any, ...],
    num_gpus_per_machine: int,
    num_machines: int,
    timeout: timedelta,
) -> None:
    world_size = int(os.environ["WORLD_SIZE"])
    local_size = int(os.environ["LOCAL_WORLD_SIZE"])
    local_rank = int(os.environ["LOCAL_RANK"])
    machines = world_size // local_size
    if num_gpus_per_machine not in (0, 1, local_size) or num_machines not in (1, machines):
        raise ValueError(
            f"torchrun started {local_size} processes on each of {machines} machines, but "
            f"{num_gpus_per_machine} on each of {num_machines} are asked for: leave it to torchrun"
        )
    if world_size == 1:
        main_func(*args)
        return
    _check_gpus(local_size)
    if backend() == "nccl":
        torch.cuda.set_device(local_rank)
    # A program written for torchrun may have begun already.
    if not dist.is_initialized():
        dist.init_process_group(backend(), init_method="env://", timeout=timeout)
    if comm._LOCAL_PROCESS_GROUP is None:
        comm.create_local_process_group(local_size)
    comm.synchronize()
    main_func(*args)
    _leave_world()
