"""Start a training in one process for each GPU, on one machine or on several."""

import logging
import multiprocessing
import multiprocessing.connection
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from detectron2.utils import comm

__all__ = ["DEFAULT_TIMEOUT", "launch"]

DEFAULT_TIMEOUT = timedelta(minutes=30)
"""How long processes wait for each other, at the start and in each exchange."""

# When one process has failed, the others may have metrics to write; one that hangs, hangs for ever.
_SECONDS_TO_END = 5.0
# The kernel closes the connections of a process that is killed before it tells its parent, so that
# another, which fails of that, can be the first to be heard of.
_SECONDS_TO_HEAR_OF_ALL = 1.0


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
    world, _server = _meeting_point(dist_url, num_machines, machine_rank, world_size, timeout)
    first_rank = machine_rank * num_gpus_per_machine
    workers = _Workers(first_rank)
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


def _backend() -> str:
    return "nccl" if torch.cuda.device_count() and dist.is_nccl_available() else "gloo"


def _check_gpus(num_gpus_per_machine: int) -> None:
    if _backend() == "nccl" and num_gpus_per_machine > torch.cuda.device_count():
        raise RuntimeError(
            f"num_gpus_per_machine is {num_gpus_per_machine}, but this machine has "
            f"{torch.cuda.device_count()} visible GPUs"
        )


# Where the processes find each other


@dataclass(frozen=True)
class _World:
    """All processes, and their meeting point: a server, or a file."""

    size: int
    timeout: timedelta
    host: str = ""
    port: int = 0
    file: str = ""

    def join(self, rank: int) -> None:
        if self.file:
            store = dist.FileStore(self.file, self.size)
        else:
            store = dist.TCPStore(self.host, self.port, is_master=False, timeout=self.timeout)
        dist.init_process_group(
            _backend(), store=store, rank=rank, world_size=self.size, timeout=self.timeout
        )


def _meeting_point(
    dist_url: str | None, num_machines: int, machine_rank: int, world_size: int, timeout: timedelta
) -> tuple[_World, Any]:
    """The world, and the server that the machine of rank 0 runs for it.

    The server is in this process, not in rank 0's: its port is taken from the moment it is chosen,
    and it outlives every rank.
    """
    if dist_url is None:
        dist_url = "env://" if "MASTER_ADDR" in os.environ else "auto"
    if dist_url == "env://":
        dist_url = _url_from_environment()
    if dist_url == "auto":
        if num_machines > 1:
            raise ValueError(
                f"{num_machines} machines need a dist_url like 'tcp://host:port', with the host "
                "of machine rank 0"
            )
        dist_url = "tcp://localhost:0"
    url = urlsplit(dist_url)
    if url.scheme == "file" and url.path:
        _check_file(url.path, num_machines)
        return _World(world_size, timeout, file=url.path), None
    try:
        host, port = url.hostname, url.port
    except ValueError:
        host = port = None
    if url.scheme != "tcp" or not host or port is None:
        raise ValueError(
            "dist_url must be 'tcp://host:port', 'file:///path', 'env://' or 'auto', got "
            f"{dist_url!r}"
        )
    if machine_rank != 0:
        return _World(world_size, timeout, host, port), None
    try:
        server = dist.TCPStore(host, port, is_master=True, timeout=timeout, wait_for_workers=False)
    except RuntimeError as error:
        raise RuntimeError(
            f"cannot listen on the port of dist_url {dist_url!r}; if another training has it, give "
            "another port, or 'auto' on one machine"
        ) from error
    return _World(world_size, timeout, host, server.port), server


def _url_from_environment() -> str:
    host, port = os.environ.get("MASTER_ADDR"), os.environ.get("MASTER_PORT")
    if not host or not port:
        raise ValueError(
            "dist_url 'env://' needs the environment variables MASTER_ADDR and MASTER_PORT, got "
            f"{host!r} and {port!r}"
        )
    return f"tcp://[{host}]:{port}" if ":" in host else f"tcp://{host}:{port}"


def _check_file(path: str, num_machines: int) -> None:
    if num_machines > 1:
        logging.getLogger(__name__).warning(
            "dist_url is a file, %s: all %d machines must see it, on a file system whose locks "
            "work. 'tcp://host:port' needs neither.",
            path,
            num_machines,
        )
    elif Path(path).exists() and Path(path).stat().st_size:
        # What another run left in it would have this one wait for that one's processes.
        raise ValueError(f"the file of dist_url exists already: {path}")


def _find_free_port() -> int:
    """A port that is free now; another program can take it before it is used."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        return probe.getsockname()[1]


# In each process


def _work(
    world: _World,
    local_rank: int,
    processes_per_machine: int,
    first_rank: int,
    main_func: Callable[..., Any],
    args: tuple[Any, ...],
) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if _backend() == "nccl":
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


def _end_with_parent() -> NoReturn:
    """Do not go on, waiting for others perhaps, when the program that started this is killed."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_SECONDS_TO_END)
    os._exit(1)


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
    if _backend() == "nccl":
        torch.cuda.set_device(local_rank)
    # A program written for torchrun may have begun already.
    if not dist.is_initialized():
        dist.init_process_group(_backend(), init_method="env://", timeout=timeout)
    if comm._LOCAL_PROCESS_GROUP is None:
        comm.create_local_process_group(local_size)
    comm.synchronize()
    main_func(*args)
    _leave_world()


# In the process that starts them


@dataclass
class _Worker:
    process: Any
    failures: multiprocessing.connection.Connection
    # Held open here, so that the other end never reads as closed.
    _failures_of_process: multiprocessing.connection.Connection


class _Workers:
    """The processes of this machine, which end together when one fails."""

    def __init__(self, first_rank: int) -> None:
        self._first_rank = first_rank
        self._workers: list[_Worker] = []

    def start(self, function: Callable[..., None], *args: Any) -> None:
        context = mp.get_context("spawn")
        reader, writer = context.Pipe(duplex=False)
        # Not a daemon: those must not have processes of their own, such as data loaders'.
        process = context.Process(target=_report_failure, args=(writer, function, args))
        process.start()
        self._workers.append(_Worker(process, reader, writer))

    def wait(self) -> None:
        """Until all have ended; raises when the first fails."""
        running = list(self._workers)
        while running:
            # A process that has ended does not show while its own children hold its end open, so
            # look from time to time.
            ends = [end for w in running for end in (w.process.sentinel, w.failures)]
            multiprocessing.connection.wait(ends, timeout=1.0)
            ended = [w for w in running if not w.process.is_alive()]
            if any(w.process.exitcode for w in ended) or any(w.failures.poll() for w in running):
                self._raise_first_failure()
            running = [w for w in running if w not in ended]

    def _raise_first_failure(self) -> NoReturn:
        time.sleep(_SECONDS_TO_HEAR_OF_ALL)
        # In this order: one that has ended has reported before that.
        failed = [w for w in self._workers if not w.process.is_alive() and w.process.exitcode]
        reports = [(w, *w.failures.recv()) for w in self._workers if w.failures.poll()]
        for worker in failed:
            if all(worker is not reporter for reporter, _, _ in reports):
                # It could not tell why, and the others' failures follow from its end.
                self._raise_exited(worker)
        # One that lost its connection to another fails after it.
        worker, _, text = min(reports, key=lambda report: report[1])
        self._raise_failed(worker, text)

    def stop(self) -> None:
        """End those that still run, if they do not end by themselves, as one does that loses its
        connection to another or is interrupted from the terminal."""
        for end in ("terminate", "kill"):
            deadline = time.monotonic() + _SECONDS_TO_END
            for worker in self._workers:
                worker.process.join(max(0.0, deadline - time.monotonic()))
            for worker in self._workers:
                getattr(worker.process, end)()
        for worker in self._workers:
            worker.process.join()

    def _raise_failed(self, worker: _Worker, text: str) -> NoReturn:
        # Let it write what it has buffered.
        worker.process.join(_SECONDS_TO_END)
        index = self._workers.index(worker)
        raise mp.ProcessRaisedException(
            f"rank {self._first_rank + index} failed:\n\n{text}", index, worker.process.pid
        )

    def _raise_exited(self, worker: _Worker) -> NoReturn:
        index, code = self._workers.index(worker), worker.process.exitcode
        name = signal.Signals(-code).name if -code in set(signal.Signals) else None
        how = f"by signal {name or -code}" if code < 0 else f"with exit code {code}"
        raise mp.ProcessExitedException(
            f"rank {self._first_rank + index} ended {how}",
            *(index, worker.process.pid, code, name),
        )


def _report_failure(
    failures: multiprocessing.connection.Connection,
    function: Callable[..., None],
    args: tuple[Any, ...],
) -> None:
    try:
        function(*args)
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    except Exception:
        text, now = traceback.format_exc(), time.time()
        sys.stdout.flush()
        # It fits into the pipe, so that nobody waits for the rest of one that is killed now.
        failures.send((now, text[-12_000:]))
        sys.exit(1)
