"""Functions recorded as CUDA graphs."""

import gc
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Protocol

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


class Lane(Protocol):
    """Where a graph is recorded.

    Attributes:
        pool: the memory that it computes in.
        side_stream: of nobody else.
    """

    pool: Any
    side_stream: torch.cuda.Stream

    def prepare(self) -> None:
        """Be ready for a recording."""


class CudaGraph:
    """What a function of tensors does on the device, for tensors of the same form, recorded.

    The function must not wait for the device. What it returns is computed anew, in the same place,
    at every :meth:`replay`.

    Attributes:
        outputs: what the function computes.
        read: the tensors that it says it has read.
    """

    def __init__(
        self, function: Callable[..., Any], inputs: Sequence[torch.Tensor], lane: Lane
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

    def _record(self, function: Callable[..., Any], lane: Lane) -> Any:
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

    def _abandon(self, lane: Lane) -> None:
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
