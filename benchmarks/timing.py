"""What the benchmarks share: timing on either device, side by side, and how results are printed.

    timing.add_arguments(parser)  # --device, --threads, --repeats
    args = timing.parse_arguments(parser)
    report = timing.Report("box_iou_rotated", args.device)
    timings = timing.compare({"native": f, "pytorch": g}, args.device, repeats=args.repeats)
    report.add("1000x1000", timings, boxes=1000)
    report.print()

Functions are called in turn, f g f g ..., so that all see the same clock rates and the same
neighbours, and medians are given.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import time
from collections.abc import Callable, Iterable
from typing import Any

import torch

MIB = 2**20


@dataclasses.dataclass(frozen=True)
class Timing:
    """What one call costs."""

    milliseconds: float
    """The median."""
    least_milliseconds: float
    cpu_milliseconds: float | None = None
    """CPU time of all threads, the median; other processes disturb it less. None for CUDA."""
    peak_mib: float | None = None
    """CUDA memory beyond what was allocated before the call, its results included. None for the
    CPU."""


def compare(
    functions: dict[str, Callable[[], Any]],
    device: torch.device | str,
    *,
    warmup: int = 5,
    repeats: int = 20,
    calls: int = 1,
    hide_launch: bool = False,
) -> dict[str, Timing]:
    """Time functions without arguments against each other.

    Args:
        functions: by the names that they shall have in the results.
        device: where they work. On CUDA a call's time is that between two events around it.
        warmup: calls of each beforehand, which are not counted.
        repeats: measurements of each.
        calls: calls to a measurement, for what is too short for the clock.
        hide_launch: CUDA only: keep the device busy until all is launched, so that what Python
            and the launches cost does not count.
    """
    measure = _measure_cpu
    if torch.device(device).type == "cuda":
        measure = _measure_cuda_queued if hide_launch else _measure_cuda
    for function in functions.values():
        for _ in range(warmup):
            function()
    samples: dict[str, list[tuple[float, ...]]] = {name: [] for name in functions}
    for _ in range(repeats):
        for name, function in functions.items():
            samples[name].append(measure(function, calls))
    peaks = {}
    if measure is not _measure_cpu:
        peaks = {name: peak_mib(function) for name, function in functions.items()}
    return {name: _summarize(samples[name], peaks.get(name)) for name in functions}


def time_call(function: Callable[[], Any], device: torch.device | str, **options: Any) -> Timing:
    """Time one function, with the options of `compare`."""
    return compare({"": function}, device, **options)[""]


def peak_mib(function: Callable[[], Any]) -> float:
    """CUDA memory in MiB that a call takes beyond what is allocated before it."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    function()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / MIB


def _summarize(samples: Iterable[tuple[float, ...]], peak: float | None) -> Timing:
    wall, *cpu = zip(*samples, strict=True)
    return Timing(
        milliseconds=statistics.median(wall),
        least_milliseconds=min(wall),
        cpu_milliseconds=statistics.median(cpu[0]) if cpu else None,
        peak_mib=peak,
    )


def _measure_cpu(function: Callable[[], Any], calls: int) -> tuple[float, ...]:
    cpu, wall = time.process_time(), time.perf_counter()
    for _ in range(calls):
        function()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return wall / calls * 1e3, cpu / calls * 1e3


def _measure_cuda(function: Callable[[], Any], calls: int) -> tuple[float, ...]:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(calls):
        function()
    end.record()
    end.synchronize()
    return (start.elapsed_time(end) / calls,)


def _measure_cuda_queued(function: Callable[[], Any], calls: int) -> tuple[float, ...]:
    torch.cuda._sleep(2_000_000)  # about a millisecond
    return _measure_cuda(function, calls)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add ``--device``, ``--threads`` and ``--repeats``."""
    default = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", default=default)
    parser.add_argument("--threads", type=int, default=2, help="of the CPU")
    parser.add_argument("--repeats", type=int, default=20, help="of which the median counts")


def parse_arguments(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Parse the command line, and set the threads that it asks for."""
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    return args


class Report:
    """Results by case: a table for the reader, then one JSON line for each measurement."""

    def __init__(self, benchmark: str, device: torch.device | str) -> None:
        self.benchmark = benchmark
        self.device = torch.device(device)
        self._rows: list[tuple[str, dict[str, Timing], dict[str, Any]]] = []

    def add(self, case: str, timings: dict[str, Timing], **facts: Any) -> None:
        """Add the timings of one case; ``facts`` go into its JSON lines."""
        self._rows.append((case, timings, facts))

    def print(self) -> None:
        """Print all cases. The ratio is that of the last function's time to the first one's."""
        print(f"{self.benchmark} on {self._describe_device()}, PyTorch {torch.__version__}")
        width = max(len(case) for case, *_ in self._rows)
        for case, timings, _ in self._rows:
            cells = [self._describe(name, timing) for name, timing in timings.items()]
            times = [timing.milliseconds for timing in timings.values()]
            ratio = f"  ratio {times[-1] / times[0]:.1f}" if len(times) > 1 else ""
            print(f"{case:<{width}}  " + "  ".join(cells) + ratio)
        for case, timings, facts in self._rows:
            for name, timing in timings.items():
                line = {"benchmark": self.benchmark, "case": case, "function": name} | facts
                print(json.dumps(line | _without_none(dataclasses.asdict(timing))))

    def _describe_device(self) -> str:
        if self.device.type == "cuda":
            return torch.cuda.get_device_name(self.device)
        return f"the CPU with {torch.get_num_threads()} threads"

    def _describe(self, name: str, timing: Timing) -> str:
        memory = "" if timing.peak_mib is None else f"{timing.peak_mib:9.1f} MiB"
        return f"{name} {timing.milliseconds:10.4f} ms{memory}"


def _without_none(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}
