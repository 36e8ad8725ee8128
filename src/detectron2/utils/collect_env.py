"""Report of the versions and devices that matter for a bug report.

Run it with ``python -m detectron2.utils.collect_env``.
"""

import importlib
import importlib.metadata
import importlib.util
import os
import platform
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

import detectron2
from detectron2.utils._fatbin import cuda_architectures

__all__ = ["collect_env_info"]

_REPORTED_VARIABLES = ("CUDA_HOME", "TORCH_CUDA_ARCH_LIST", "CXX")

_Rows = list[tuple[str, str]]


def collect_torch_env() -> str:
    """PyTorch's own account of how it was built, several lines."""
    return torch.__config__.show()


def get_env_module() -> tuple[str, str]:
    """The row that tells whether ``DETECTRON2_ENV_MODULE`` is set, and to what."""
    name = "DETECTRON2_ENV_MODULE"
    return name, os.environ.get(name, "<not set>")


def detect_compute_compatibility(CUDA_HOME: str | None, so_file: str) -> str:  # noqa: N803
    """Tell which GPU architectures a compiled extension holds code for.

    Args:
        CUDA_HOME: not used, the file is read without CUDA's tools; taken for compatibility.
        so_file: path of the shared library.

    Returns:
        Names such as ``"sm_90"`` and ``"compute_120"`` (PTX), separated by commas; or, in
        parentheses, why there are none.
    """
    try:
        return ", ".join(cuda_architectures(so_file)) or "(no CUDA code)"
    except (OSError, ValueError) as error:
        return f"({error})"


def _module_version(name: str) -> str:
    """Version of an importable module; "not installed", or the error that its import gives."""
    if importlib.util.find_spec(name) is None:
        return "not installed"
    try:
        module = importlib.import_module(name)
    except Exception as error:  # A broken installation is what the report is to show.
        return f"cannot be imported: {error}"
    return str(getattr(module, "__version__", "installed"))


def _distribution_version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _extension_rows() -> _Rows:
    rows = []
    try:
        _C = importlib.import_module("detectron2._C")  # noqa: N806
    except ImportError as error:
        rows.append(("detectron2._C", f"cannot be imported: {error}"))
    else:
        rows.append(("Compiler", _C.get_compiler_version()))
        rows.append(("CUDA compiler", _C.get_cuda_version()))
    spec = importlib.util.find_spec("detectron2._C_cuda")
    if spec is None or spec.origin is None:
        rows.append(("detectron2 arch flags", "no CUDA extension"))
    else:
        architectures = detect_compute_compatibility(None, spec.origin)
        rows.append(("detectron2 arch flags", architectures))
    return rows


def _gpu_rows() -> _Rows:
    if not torch.cuda.is_available():
        return [("GPU available", "No: torch.cuda.is_available() is False")]
    rows = [("GPU available", "Yes")]
    indices_of = defaultdict(list)
    for index in range(torch.cuda.device_count()):
        major, minor = torch.cuda.get_device_capability(index)
        indices_of[f"{torch.cuda.get_device_name(index)} (arch={major}.{minor})"].append(index)
    for name, indices in indices_of.items():
        rows.append((f"GPU {','.join(map(str, indices))}", name))
    return rows


def _environment_rows() -> _Rows:
    names = [name for name in _REPORTED_VARIABLES if name in os.environ]
    names += sorted(name for name in os.environ if name.startswith("NCCL_"))
    return [(name, os.environ[name]) for name in names]


def collect_env_info() -> str:
    """Make the report.

    Returns:
        A table of names and values, then PyTorch's build configuration; several lines.
    """
    from tabulate import tabulate

    rows = [
        ("sys.platform", f"{sys.platform} ({platform.platform()})"),
        ("Python", sys.version.replace("\n", "")),
        ("numpy", np.__version__),
        ("detectron2", f"{detectron2.__version__} @{Path(detectron2.__file__).parent}"),
        *_extension_rows(),
        get_env_module(),
        ("PyTorch", f"{torch.__version__} @{Path(torch.__file__).parent}"),
        ("PyTorch debug build", str(torch.version.debug)),
        ("PyTorch CUDA", str(torch.version.cuda)),
        *_gpu_rows(),
        *_environment_rows(),
        ("torchvision", _module_version("torchvision")),
        ("fvcore", _module_version("fvcore")),
        ("iopath", _distribution_version("iopath")),
        ("pycocotools", _distribution_version("pycocotools")),
        ("omegaconf", _module_version("omegaconf")),
        ("Pillow", _module_version("PIL")),
        ("cv2", _module_version("cv2")),
    ]
    table = tabulate(rows, disable_numparse=True)
    return f"{table}\n{collect_torch_env()}"


def _all_reduce_worker(rank: int, world_size: int, init_file: str) -> None:
    torch.cuda.set_device(rank)
    torch.distributed.init_process_group(
        "nccl", init_method=f"file://{init_file}", rank=rank, world_size=world_size
    )
    ones = torch.ones(1, device="cuda")
    torch.distributed.all_reduce(ones)
    torch.distributed.destroy_process_group()
    if ones.item() != world_size:
        raise RuntimeError(f"all_reduce over {world_size} GPUs gave {ones.item()}")


def test_nccl_ops() -> None:
    """Sum a tensor over all GPUs of this machine with NCCL, one process a GPU.

    Raises:
        Exception: whatever a process raised.
    """
    world_size = torch.cuda.device_count()
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(
            _all_reduce_worker, (world_size, os.path.join(folder, "init")), nprocs=world_size
        )


def _try(what: str, function: Callable[[], object]) -> None:
    try:
        function()
    except Exception as error:  # Each check is to be reported, whatever the one before gave.
        print(f"{what}: failed: {error}")
    else:
        print(f"{what}: OK")


def main() -> None:
    """Print the report, then try each GPU and, where there are several, NCCL."""
    print(collect_env_info())
    if not torch.cuda.is_available():
        return
    count = torch.cuda.device_count()
    for index in range(count):
        _try(
            f"A tensor on cuda:{index}",
            lambda index=index: torch.ones(1, device=index).sum().item(),
        )
    if count > 1:
        _try(f"NCCL all_reduce over {count} GPUs", test_nccl_ops)


if __name__ == "__main__":
    main()
