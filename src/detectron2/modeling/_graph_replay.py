"""Inference in fewer calls: what a model does on the device, recorded and replayed as a CUDA graph.

A detector launches hundreds of kernels for an image, and of few images each takes less time than
its launch. A graph launches them all at once.
"""

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, Self

import torch
from torch import nn

from detectron2.layers.batch_norm import joint_affine_maps
from detectron2.modeling._cuda_graph import CudaGraph, NotNowError
from detectron2.modeling._graph_lanes import GraphLane
from detectron2.modeling._module_watch import CannotWatchError, ModuleWatch
from detectron2.modeling._own_methods import has_own

logger = logging.getLogger(__name__)

# Of a batch. With more, the device takes longer than the launches.
MOST_PIXELS = 4 * 2**20

# Each holds its input and its outputs: for Mask R-CNN and 800 x 1216 pixels in float32, 96 MiB.
MOST_GRAPHS = 4

# Calls with inputs of one form that make it worth a graph. They choose algorithms, too.
EAGER_CALLS = 3

# A graph that was not used for so many calls makes place for another. With fewer, more forms of
# inputs than graphs would have them recorded over and over.
IDLE_CALLS = 100

_MOST_COUNTED = 64
_MOST_FAILURES = 2
_LONGEST_PAUSE = 1024


# The modules that compute, those that consume, and settings.
_Watched = tuple[Sequence[nn.Module], Sequence[nn.Module], dict[str, Any]]


class _Recorded:
    """A graph, and what tells whether it still does what it should."""

    def __init__(self, graph: Any, watch: ModuleWatch, call: int) -> None:
        self.graph = graph
        self.watch = watch
        self.last_call = call
        self._versions = [x._version for x in graph.read]

    def holds(self, watched: _Watched) -> bool:
        versions = [x._version for x in self.graph.read]
        return self.watch.holds(*watched) and versions == self._versions


class GraphReplay:
    """Calls functions of a model by CUDA graphs, as soon as that is worth it, and is safe.

    It is, on CUDA and without gradients, for small inputs of a form that recurs, as long as the
    modules are the library's or PyTorch's, nobody listens to them (hooks, modes, transforms,
    tracers), and neither their attributes nor the place of their tensors change. The numbers in
    the tensors may: they are read at each replay. Otherwise nothing is recorded, or what was is
    dropped.

    A model has one of its own; copies of the model, also pickled ones, start with a new one.

    Attributes:
        enabled: whether to record and replay; can be set.
    """

    def __init__(
        self, enabled: bool = True, record: Any = CudaGraph, lane: Any = GraphLane
    ) -> None:
        """
        Args:
            enabled: as the attribute.
            record: makes a graph; as `CudaGraph`.
            lane: makes what graphs share; as `GraphLane`.
        """
        self.enabled = enabled
        self._record = record
        self._make_lane = lane
        self._lock = threading.RLock()
        self.release()

    def __reduce__(self) -> tuple[Any, ...]:
        return GraphReplay, (self.enabled,)

    def release(self) -> None:
        """Drop all graphs, and the memory that they hold."""
        with self._lock:
            self._watch: ModuleWatch | None = None
            self._graphs: dict[Any, _Recorded] = {}
            self._lanes: dict[Any, Any] = {}
            self._counts: OrderedDict[Any, int] = OrderedDict()
            self._calls = self._failures = self._paused = self._pause = 0

    def give_up(self) -> None:
        """Release, and record nothing until the next release."""
        with self._lock:
            self.release()
            self._failures = _MOST_FAILURES

    def __len__(self) -> int:
        """How many graphs there are."""
        return len(self._graphs)

    def accepts(self, batch: torch.Tensor) -> bool:
        """Whether a model may be called by a graph here and now.

        Args:
            batch: its input, ``(N, C, H, W)``.
        """
        return (
            self.enabled
            and type(batch) is torch.Tensor
            and batch.is_cuda
            and not torch.is_grad_enabled()
            and is_plain_eager()
            and batch.size(0) * batch.size(2) * batch.size(3) <= MOST_PIXELS
            and not torch.cuda.is_current_stream_capturing()
        )

    def __call__(
        self,
        function: Callable[..., Any],
        inputs: Sequence[torch.Tensor],
        computing: Sequence[nn.Module],
        consuming: Sequence[nn.Module] = (),
        settings: dict[str, Any] | None = None,
    ) -> Any:
        """What ``function`` computes; None if the caller has to compute it in another way.

        It must be used up before the next call in this thread: it lies in memory that that writes
        to.

        Args:
            function: called with ``inputs``; gives what it computes, and a list of tensors that it
                read and that are none of the modules'. It depends on nothing but ``inputs``, the
                modules and ``settings``, and does not wait for the device.
            inputs: on one device, the first a batch that :meth:`accepts` accepts.
            computing: the modules that ``function`` calls.
            consuming: the modules that what it returns is given to.
            settings: other numbers that it depends on, by name.
        """
        watched = (computing, consuming, {} if settings is None else settings)
        key = self._key(function, inputs)
        with self._lock:
            self._calls += 1
            if self._paused > 0:
                self._paused -= 1
                return None
            recorded = self._graphs.get(key)
        if recorded is None:
            return self._call_new(key, function, inputs, watched)
        # While the device computes, there is time to look whether it should have.
        try:
            recorded.graph.replay(inputs)
        except Exception as error:
            self._note_failure(key, error)
            return None
        if not recorded.holds(watched):
            self._forget(recorded.watch)
            return None
        with self._lock:
            recorded.last_call = self._calls
            self._pause = 0
        return recorded.graph.outputs

    def _call_new(
        self,
        key: Any,
        function: Callable[..., Any],
        inputs: Sequence[torch.Tensor],
        watched: _Watched,
    ) -> Any:
        with self._lock:
            watch = self._watch
            if watch is None or not watch.holds(*watched):
                watch = self._look_anew(watch, watched, inputs[0].device)
                if watch is None:
                    return None
            is_due = self._is_due(key)
        # Also before it is recorded: what the library keeps, such as anchors, is then there.
        outputs = function(*inputs)[0]
        if is_due:
            self._record_as(key, function, inputs, watch)
        return outputs

    def _record_as(
        self,
        key: Any,
        function: Callable[..., Any],
        inputs: Sequence[torch.Tensor],
        watch: ModuleWatch,
    ) -> None:
        try:
            lane = self._take_lane(key)
            graph = self._record(_with_joint_norms(function, watch), inputs, lane)
            recorded = _Recorded(graph, watch, self._calls)
        except NotNowError:
            recorded = None
        except Exception as error:
            self._note_failure(key, error)
            return
        with self._lock:
            if watch is self._watch:
                self._lanes[key[:3]] = lane
                if recorded is None:
                    self._counts[key] = 0
                else:
                    self._graphs[key] = recorded

    def _look_anew(
        self,
        old: ModuleWatch | None,
        watched: _Watched,
        device: torch.device,
    ) -> ModuleWatch | None:
        if old is not None:
            self._forget(old)
        try:
            self._watch = ModuleWatch(*watched, device)
        except CannotWatchError as error:
            logger.debug(f"not replayed as a CUDA graph: {error}")
            self._take_a_break()
            return None
        return self._watch

    def _forget(self, watch: ModuleWatch) -> None:
        """Drop what was recorded while ``watch`` held."""
        with self._lock:
            if watch is not self._watch:
                return
            pause, calls = self._pause, self._calls
            self.release()
            self._pause, self._calls = pause, calls
            self._take_a_break()

    def _take_a_break(self) -> None:
        """Longer each time, until something is replayed: looking at all modules takes a while."""
        self._paused = self._pause
        self._pause = min(2 * self._pause + 1, _LONGEST_PAUSE)

    def _is_due(self, key: Any) -> bool:
        """Count a call, and tell whether it is to be recorded."""
        count = self._counts.pop(key, 0) + 1
        self._counts[key] = count
        if len(self._counts) > _MOST_COUNTED:
            self._counts.popitem(last=False)
        if count < EAGER_CALLS or self._failures >= _MOST_FAILURES:
            return False
        if len(self._graphs) < MOST_GRAPHS:
            return True
        oldest = min(self._graphs, key=lambda x: self._graphs[x].last_call)
        if self._calls - self._graphs[oldest].last_call < IDLE_CALLS:
            return False
        del self._graphs[oldest]
        self._counts.pop(oldest, None)
        return True

    def _take_lane(self, key: Any) -> Any:
        """One to record in, to be put back unless that fails."""
        with self._lock:
            # Of one whose graphs have all gone, PyTorch does not take the memory again.
            used = {x[:3] for x in self._graphs}
            self._lanes = {x: lane for x, lane in self._lanes.items() if x in used}
            lane = self._lanes.pop(key[:3], None)
        return self._make_lane(key[0]) if lane is None else lane

    def _note_failure(self, key: Any, error: Exception) -> None:
        with self._lock:
            self._failures += 1
            self._graphs.pop(key, None)
            # As if it had never been seen.
            self._counts[key] = -(2**62)
            is_first = self._failures == 1
        if is_first:
            logger.warning(f"a CUDA graph failed, inference goes on without: {error}")

    def _key(self, function: Callable[..., Any], inputs: Sequence[torch.Tensor]) -> Any:
        device = inputs[0].device
        is_cuda = device.type == "cuda"
        stream = torch.cuda.current_stream(device).cuda_stream if is_cuda else None
        forms = tuple((x.shape, x.stride(), x.dtype, x.device) for x in inputs)
        thread = threading.get_ident()
        return device, thread, stream, function.__qualname__, forms, numerics(device.type)


def _with_joint_norms(function: Callable[..., Any], watch: ModuleWatch) -> Callable[..., Any]:
    def compute(*inputs: torch.Tensor) -> Any:
        with joint_affine_maps(watch.frozen_norms):
            return function(*inputs)

    return compute


def is_plain_eager() -> bool:
    """Whether nobody compiles, traces, transforms or watches what is computed."""
    return not (
        torch.compiler.is_compiling()
        or torch.jit.is_tracing()
        or torch._C._len_torch_dispatch_stack() > 0
        or torch._C._len_torch_function_stack() > 0
        or torch._C._are_functorch_transforms_active()
    )


def numerics(device_type: str) -> tuple[Any, ...]:
    """What PyTorch lets one choose that decides how something is computed."""
    backends = torch.backends
    return (
        torch.is_inference_mode_enabled(),
        torch.is_autocast_enabled(device_type),
        torch.get_autocast_dtype(device_type),
        torch.is_autocast_cache_enabled(),
        torch.get_default_dtype(),
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        backends.fp32_precision,
        backends.cudnn.fp32_precision,
        backends.cudnn.conv.fp32_precision,
        backends.cudnn.enabled,
        backends.cudnn.benchmark,
        backends.cudnn.deterministic,
        backends.cuda.matmul.fp32_precision,
        backends.cuda.matmul.allow_fp16_reduced_precision_reduction,
        backends.cuda.matmul.allow_bf16_reduced_precision_reduction,
        backends.cuda.matmul.allow_fp16_accumulation,
        backends.cuda.preferred_blas_library(),
        backends.cuda.flash_sdp_enabled(),
        backends.cuda.mem_efficient_sdp_enabled(),
        backends.cuda.math_sdp_enabled(),
        backends.cuda.cudnn_sdp_enabled(),
        backends.cuda.fp16_bf16_reduction_math_sdp_allowed(),
    )


class ReplayedModel(nn.Module):
    """A model that has a `GraphReplay`."""

    _graph_replay = None

    @property
    @torch.jit.unused
    def graph_replay(self) -> GraphReplay:
        """What replays inference as CUDA graphs. ``graph_replay.enabled = False`` switches it off,
        and ``graph_replay.release()`` frees its memory, as training and moving the model do."""
        if self._graph_replay is None:
            self._graph_replay = GraphReplay()
        return self._graph_replay

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """As of any module. Where memory runs out, it is tried again without graphs."""
        if torch.compiler.is_compiling() or not self._graph_replay:
            return super().__call__(*args, **kwargs)
        try:
            return super().__call__(*args, **kwargs)
        except torch.OutOfMemoryError:
            logger.warning("CUDA graphs are given up: memory ran out")
        # Here nothing holds the tensors of the call that failed.
        self._graph_replay.give_up()
        return super().__call__(*args, **kwargs)

    def train(self, mode: bool = True) -> Self:
        """As of any module."""
        if mode:
            self.graph_replay.release()
        return super().train(mode)

    def _apply(self, *args: Any, **kwargs: Any) -> Self:
        self.graph_replay.release()
        return super()._apply(*args, **kwargs)

    @torch.jit.unused
    def _may_replay(self, batch: torch.Tensor) -> bool:
        # The compiler does not look into what follows.
        return not torch.compiler.is_compiling() and self.graph_replay.accepts(batch)

    @torch.jit.unused
    def _has_own(self, cls: type, *names: str) -> bool:
        """As :func:`has_own`, where TorchScript does not look."""
        return has_own(self, cls, *names)
