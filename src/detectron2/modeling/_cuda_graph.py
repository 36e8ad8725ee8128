"""Functions recorded as CUDA graphs."""

import gc
import importlib
import sys
import threading
import time
import weakref
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import torch

# Of all threads, one records at a time: PyTorch's allocator is then in a state of its own.
_recording = threading.Lock()

_abandoned: list[torch.cuda.CUDAGraph] = []

# In seconds.
_LONGEST_PATIENCE = 0.002


class NotNowError(Exception):
    """A recording would disturb another thread."""


class _Here(threading.local):
    is_recording = False


_here = _Here()


def is_recording() -> bool:
    """Whether this thread records a `CudaGraph`, which holds what its function says it reads."""
    return _here.is_recording


class CudaGraph:
    """What a function of tensors does on the device, for tensors of the same form, recorded.

    The function must not wait for the device. What it returns is computed anew, in the same place,
    at every :meth:`replay`.

    Attributes:
        outputs: what the function computes.
        read: the tensors that it says it has read.
    """

    def __init__(
        self, function: Callable[..., Any], inputs: Sequence[torch.Tensor], lane: "Lane"
    ) -> None:
        """Record, and compute nothing.

        Args:
            function: called with tensors like ``inputs``; gives what it computes, and a list of
                other tensors that it read. It must have been called before, so that algorithms
                are chosen and kernels loaded.
            inputs: on one device.
            lane: of the stream that it is to be replayed on. No other graph may be recorded with
                one that a recording has failed with; those that were can still be replayed.

        Raises:
            NotNowError: another thread waits for the whole device. Nothing has happened.
        """
        self._inputs = [torch.empty_strided(x.shape, x.stride(), **_kind(x)) for x in inputs]
        if not _is_in_common_pool(self._inputs[0]):
            # Of what is recorded, too, which could not know when it is given to others.
            raise RuntimeError("memory comes from a pool that someone has chosen")
        lane.prepare()
        self._graph = torch.cuda.CUDAGraph()
        self._lane = lane
        with (
            _recording,
            _without_garbage_collection(),
            _without_waits_for_the_device(),
            torch.cuda.stream(lane.side_stream),
        ):
            # What autocast has cached would not outlive the context; nor would what it caches now.
            torch.clear_autocast_cache()
            try:
                self.outputs, self.read = self._record(function, lane)
            finally:
                torch.clear_autocast_cache()

    def _record(self, function: Callable[..., Any], lane: "Lane") -> Any:
        _here.is_recording = True
        try:
            with _generator_of_its_own(self._inputs[0].device):
                self._graph.capture_begin(pool=lane.pool, capture_error_mode="thread_local")
            outputs = function(*self._inputs)
            self._graph.capture_end()
        except BaseException:
            self._abandon(lane)
            raise
        finally:
            _here.is_recording = False
        return outputs

    def _abandon(self, lane: "Lane") -> None:
        """End the recording, however far it came."""
        for end in (self._graph.capture_end, self._graph.reset):
            with suppress(RuntimeError):
                end()
        device = self._inputs[0].device.index
        try:
            torch._C._cuda_endAllocateToPool(device, lane.pool)
        except RuntimeError:
            return
        # A release that leaves its allocators as they are while something is recorded. There is
        # no way to end that of the host's memory: it goes on asking the graph whether it records.
        torch._C._cuda_releasePool(device, lane.pool)
        _abandoned.append(self._graph)

    def replay(self, inputs: Sequence[torch.Tensor]) -> None:
        """Compute :attr:`outputs` of ``inputs``, on the current stream."""
        for own, x in zip(self._inputs, inputs, strict=True):
            own.copy_(x)
        self._graph.replay()


class Lane:
    """What the graphs of one stream and one thread share: the memory that they compute in, which
    is theirs one after the other."""

    def __init__(self, device: torch.device) -> None:
        self.pool = torch.cuda.graph_pool_handle()
        with _recording:
            self.side_stream, self._workspace = _unused_stream(device)
        entry = (self.side_stream, self._workspace, self.pool)
        weakref.finalize(self, _unused[device].append, entry)

    def prepare(self) -> None:
        """Be ready for a recording."""
        if self._workspace is not None:
            self._workspace.make()


class _Workspace:
    """Memory that cuBLAS works in on a side stream, in a pool that stays.

    PyTorch keeps it for each stream and thread. It lies in the pool that is recorded into when
    cuBLAS works there for the first time, or anew, after someone has let go of all workspaces. In
    the pool of a lane it would outlive the graphs, but not the pool.
    """

    def __init__(self, side_stream: torch.cuda.Stream) -> None:
        self.pool = torch.cuda.graph_pool_handle()
        self.side_stream = side_stream
        self._first: CudaGraph | None = None

    def prepare(self) -> None:
        """Nothing; there it is like a lane."""

    def make(self) -> None:
        """If this thread has none."""
        x = torch.zeros(16, 16, device=self.side_stream.device)
        _multiply(x)
        graph = CudaGraph(_multiply, [x], self)
        # The pool stays as long as a graph of it does.
        self._first = self._first or graph


def _multiply(x: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
    return torch.addmm(x[0], x, x) @ x, []


# Of lanes that are gone: stream, workspace, and the pool that they had.
_unused: dict[torch.device, list[tuple[torch.cuda.Stream, _Workspace | None, Any]]]
_unused = defaultdict(list)


def _unused_stream(device: torch.device) -> tuple[torch.cuda.Stream, _Workspace | None]:
    """One that nobody else launches anything on, and that PyTorch keeps no memory of a lane for."""
    for entry in _unused[device]:
        if not _is_used(entry[2]):
            _unused[device].remove(entry)
            return entry[:2]
    stream = _new_stream(device)
    # It costs memory, and is for those who multiply matrices only.
    has_to_stay = len(_unused[device]) > 0
    return stream, _Workspace(stream) if has_to_stay else None


def _is_used(pool: Any) -> bool:
    return any(
        segment["segment_pool_id"] == pool and segment["allocated_size"] > 0
        for segment in torch.cuda.memory_snapshot()
    )


def _new_stream(device: torch.device) -> torch.cuda.Stream:
    """One that nobody else has, unlike PyTorch's: what anybody launches there is recorded."""
    with torch.cuda.device(device):
        stream = importlib.import_module("detectron2._C_cuda").create_stream()
    return torch.cuda.ExternalStream(stream, device)


def _kind(x: torch.Tensor) -> dict[str, Any]:
    return {"dtype": x.dtype, "device": x.device}


def _is_in_common_pool(x: torch.Tensor) -> bool:
    for segment in torch.cuda.memory_snapshot():
        start = segment["address"]
        if start <= x.data_ptr() < start + segment["total_size"]:
            return segment["segment_pool_id"] == (0, 0)
    return False


@contextmanager
def _generator_of_its_own(device: torch.device):
    """A graph that begins meanwhile takes no part in the random numbers of others.

    They could not be drawn, in any thread, while it is recorded. It draws none itself.
    """
    default = torch.cuda.default_generators[device.index]
    state = default.graphsafe_get_state()
    default.graphsafe_set_state(torch.Generator(device))
    try:
        yield
    finally:
        default.graphsafe_set_state(state)


@contextmanager
def _without_waits_for_the_device():
    """Threads that are to wait for a whole device wait for the end of the recording first.

    CUDA would refuse it, and end the recording. Nothing else that they may do disturbs it.
    """
    names = ("_cuda_synchronize", "_accelerator_synchronizeDevice")
    functions = {name: getattr(torch._C, name) for name in names}
    for name, function in functions.items():
        setattr(torch._C, name, _after_recording(function))
    try:
        start = time.monotonic()
        while _are_others_waiting():
            if time.monotonic() - start > _LONGEST_PATIENCE:
                raise NotNowError
            time.sleep(_LONGEST_PATIENCE / 20)
        yield
    finally:
        for name, function in functions.items():
            setattr(torch._C, name, function)


def _are_others_waiting() -> bool:
    """Whether other threads have called CUDA to wait for a device, and are not back."""
    functions = (torch.cuda.synchronize, torch.accelerator.synchronize)
    codes = [getattr(x, "__code__", None) for x in functions]
    return any(frame.f_code in codes for frame in sys._current_frames().values())


def _after_recording(function: Callable[..., Any]) -> Callable[..., Any]:
    def wait(*args: Any) -> Any:
        if _here.is_recording:
            return function(*args)
        with _recording:
            return function(*args)

    return wait


@contextmanager
def _without_garbage_collection():
    """Tensors of others must not be given back to the device meanwhile."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
