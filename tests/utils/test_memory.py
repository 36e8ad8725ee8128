"""Retries when CUDA's memory runs out, which is simulated."""

import logging

import pytest
import torch

from detectron2.structures import Boxes
from detectron2.utils.memory import retry_if_cuda_oom

MESSAGE = "CUDA out of memory. Tried to allocate 20.00 GiB"


class Failing:
    """A function that fails as often as it is told, and remembers its calls."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.calls = []

    def __call__(self, *args, **kwargs):
        """What it was called with."""
        self.calls.append((args, kwargs))
        if self.errors:
            raise self.errors.pop(0)
        return args, kwargs


class OnCuda:
    """Looks like a tensor on CUDA."""

    device = torch.device("cuda")

    def to(self, device: str) -> str:
        return f"moved to {device}"


def test_calls_once_where_all_goes_well() -> None:
    function = Failing()
    assert retry_if_cuda_oom(function)(1, two=2) == ((1,), {"two": 2})
    assert len(function.calls) == 1


@pytest.mark.parametrize("error", [RuntimeError(MESSAGE), torch.cuda.OutOfMemoryError("no more")])
def test_second_call_with_the_same_arguments(
    error: RuntimeError, monkeypatch: pytest.MonkeyPatch
) -> None:
    emptied = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: emptied.append(True))
    function, value = Failing(error), OnCuda()
    assert retry_if_cuda_oom(function)(value) == ((value,), {})
    assert len(function.calls) == 2
    assert emptied == [True]


def test_third_call_on_the_cpu(caplog: pytest.LogCaptureFixture) -> None:
    function = Failing(RuntimeError(MESSAGE), RuntimeError(MESSAGE))
    with caplog.at_level(logging.INFO, logger="detectron2.utils.memory"):
        result = retry_if_cuda_oom(function)(OnCuda(), 5, boxes=OnCuda(), text="cuda")
    assert result == (("moved to cpu", 5), {"boxes": "moved to cpu", "text": "cuda"})
    assert "on the CPU" in caplog.text


def test_fails_where_the_cpu_fails_too() -> None:
    function = Failing(*[RuntimeError(MESSAGE)] * 3)
    with pytest.raises(RuntimeError, match="out of memory"):
        retry_if_cuda_oom(function)()
    assert len(function.calls) == 3


@pytest.mark.parametrize("error", [RuntimeError("shapes differ"), ValueError("no")])
def test_other_errors_pass(error: Exception) -> None:
    function = Failing(error)
    with pytest.raises(type(error)):
        retry_if_cuda_oom(function)()
    assert len(function.calls) == 1


def test_keeps_the_name_and_documentation() -> None:
    def paste(masks, boxes):
        """Paste."""

    wrapped = retry_if_cuda_oom(paste)
    assert wrapped.__name__ == "paste"
    assert wrapped.__doc__ == "Paste."


@pytest.mark.gpu
def test_moves_tensors_and_boxes() -> None:
    function = Failing(RuntimeError(MESSAGE), RuntimeError(MESSAGE))
    tensor, boxes = torch.ones(3).cuda(), Boxes(torch.ones(2, 4).cuda())
    (moved, moved_boxes), _ = retry_if_cuda_oom(function)(tensor, boxes)
    assert moved.device.type == moved_boxes.device.type == "cpu"


@pytest.mark.gpu
def test_real_exhaustion_gives_the_result_on_the_cpu() -> None:
    def allocate(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.is_cuda:
            return tensor.new_empty(1 << 45)
        return tensor + 1

    assert retry_if_cuda_oom(allocate)(torch.zeros(2, device="cuda")).tolist() == [1, 1]
