"""Processes that end together."""

import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

import torch.multiprocessing as mp

# When one process has failed, the others may have metrics to write; one that hangs, hangs for ever.
_SECONDS_TO_END = 5.0
# The kernel closes the connections of a process that is killed before it tells its parent, so that
# another, which fails of that, can be the first to be heard of.
_SECONDS_TO_HEAR_OF_ALL = 1.0


@dataclass(eq=False)
class _Worker:
    process: Any
    failures: multiprocessing.connection.Connection
    # Held open here, so that the other end never reads as closed.
    _failures_of_process: multiprocessing.connection.Connection


class Workers:
    """The processes of this machine, which end together when one fails."""

    def __init__(self, first_rank: int) -> None:
        self._first_rank = first_rank
        self._workers: list[_Worker] = []

    def start(self, function: Callable[..., None], *args: Any) -> None:
        """Start the process of the next rank, which calls ``function(*args)``."""
        context = mp.get_context("spawn")
        reader, writer = context.Pipe(duplex=False)
        # Not a daemon: those must not have processes of their own, such as data loaders'.
        process = context.Process(target=_run, args=(writer, function, args))
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
        reports = {w: w.failures.recv() for w in self._workers if w.failures.poll()}
        for worker in failed:
            if worker not in reports:
                # It could not tell why, and the others' failures follow from its end.
                self._raise_exited(worker)
        # One that lost its connection to another fails after it.
        worker, (_, text) = min(reports.items(), key=lambda report: report[1][0])
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


def _run(
    failures: multiprocessing.connection.Connection,
    function: Callable[..., None],
    args: tuple[Any, ...],
) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        _report_failure(failures, function, args)
    finally:
        # PyTorch's handler raises when a process of a data loader ends, as they all may now.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)


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


def _end_with_parent() -> NoReturn:
    """Do not go on, waiting for others perhaps, when the program that started this is killed."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_SECONDS_TO_END)
    os._exit(1)
