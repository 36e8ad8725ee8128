"""What detectron2._C says of itself, and how it loads the CUDA kernels."""

import importlib
import re
import warnings

import pytest
import torch

from detectron2 import _C, _ops


def test_versions() -> None:
    assert re.fullmatch(r"(GCC \d+\.\d+|clang \d+\.\d+\.\d+)", _C.get_compiler_version())
    if _C.has_cuda():
        assert re.fullmatch(r"CUDA \d+\.\d+", _C.get_cuda_version())
    else:
        assert _C.get_cuda_version() == "not available"


@pytest.mark.gpu
def test_cuda_kernels_are_there() -> None:
    assert _C.has_cuda()


def import_raising(error: Exception) -> object:
    def import_module(name: str) -> None:
        raise error

    return import_module


def test_warns_of_cuda_kernels_that_do_not_load(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    error = ImportError("libtorch_cuda.so: undefined symbol: planted")
    monkeypatch.setattr(importlib, "import_module", import_raising(error))
    with pytest.warns(RuntimeWarning, match="undefined symbol: planted"):
        _C.load_cuda_kernels()


def test_silent_where_there_are_no_cuda_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    error = ModuleNotFoundError("not built", name="detectron2._C_cuda")
    monkeypatch.setattr(importlib, "import_module", import_raising(error))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        monkeypatch.setattr(torch.version, "cuda", "13.0")
        _C.load_cuda_kernels()
        # And where PyTorch itself has no CUDA, nothing is asked for.
        monkeypatch.setattr(importlib, "import_module", import_raising(ImportError("asked for")))
        monkeypatch.setattr(torch.version, "cuda", None)
        _C.load_cuda_kernels()


def test_alert_of_operations_that_are_not_deterministic() -> None:
    _ops.gradients.alert_not_deterministic("an operation")
    try:
        torch.use_deterministic_algorithms(True)
        with pytest.raises(RuntimeError, match="an operation does not have a deterministic"):
            _ops.gradients.alert_not_deterministic("an operation")
        torch.use_deterministic_algorithms(True, warn_only=True)
        with pytest.warns(UserWarning, match="an operation does not have a deterministic"):
            _ops.gradients.alert_not_deterministic("an operation")
    finally:
        torch.use_deterministic_algorithms(False)
