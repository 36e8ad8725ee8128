"""Where CUDA graphs are recorded: memory, and streams of their own."""

import importlib
import threading
import weakref
from collections import defaultdict
from typing import Any

import torch

from detectron2.modeling._cuda_graph import CudaGraph, NotNowError


class GraphLane:
    """What the graphs of one stream and one thread share: the memory that they compute in, which
    is theirs one after the other."""

    def __init__(self, device: torch.device) -> None:
        self.pool = torch.cuda.graph_pool_handle()
        with _lock:
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
    the pool of a lane, which goes with its graphs, it would be left behind.
    """

    def __init__(self, side_stream: torch.cuda.Stream) -> None:
        self.pool = torch.cuda.graph_pool_handle()
        self.side_stream = side_stream
        # A pool stays as long as a graph of it does.
        self._kept: dict[Any, CudaGraph] = {}

    def prepare(self) -> None:
        """Nothing; it is a lane, too."""

    def make(self) -> None:
        """If this thread has none."""
        x = torch.zeros(16, 16, device=self.side_stream.device)
        _multiply(x)
        try:
            graph = CudaGraph(_multiply, [x], self)
        except NotNowError:
            raise
        except Exception:
            self.pool = torch.cuda.graph_pool_handle()
            raise
        self._kept.setdefault(self.pool, graph)


def _multiply(x: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
    return torch.addmm(x[0], x, x) @ x, []


_lock = threading.Lock()

# Of lanes that are gone: stream, workspace, and the pool that they had.
_unused: dict[torch.device, list[tuple[torch.cuda.Stream, _Workspace | None, Any]]]
_unused = defaultdict(list)


def _unused_stream(device: torch.device) -> tuple[torch.cuda.Stream, _Workspace | None]:
    """One that nobody else launches anything on, and that PyTorch keeps no memory of a lane for."""
    unused, used_pools = _unused[device], _used_pools()
    free = [entry for entry in unused if entry[2] not in used_pools]
    # A workspace costs memory, and is for those who multiply matrices only.
    is_left_behind = len(free) < len(unused)
    if free:
        entry = max(free, key=lambda x: x[1] is not None)
        unused.remove(entry)
        stream, workspace, _ = entry
    else:
        stream, workspace = _new_stream(device), None
    return stream, _Workspace(stream) if workspace is None and is_left_behind else workspace


def _used_pools() -> set[Any]:
    segments = torch.cuda.memory_snapshot()
    return {x["segment_pool_id"] for x in segments if x["allocated_size"] > 0}


def _new_stream(device: torch.device) -> torch.cuda.Stream:
    """One that nobody else has, unlike PyTorch's: what anybody launches there is recorded."""
    with torch.cuda.device(device):
        stream = importlib.import_module("detectron2._C_cuda").create_stream()
    return torch.cuda.ExternalStream(stream, device)
