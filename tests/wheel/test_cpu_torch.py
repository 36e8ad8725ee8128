"""The same wheel beside a torch that was built without CUDA.

DETECTRON2_CPU_TORCH names a site-packages folder with such a torch. The public package index has
none for Linux, so that there may be no such folder; then the test is skipped.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

# What belongs to the torch of the running environment, or was compiled against it.
LEFT_OUT = (
    *("torch", "torch-*", "torchgen", "functorch", "torchvision*"),
    *("nvidia*", "cuda*", "triton*"),
)

USE = """
import sys
import warnings

import torch

assert torch.version.cuda is None, torch.version.cuda

with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import detectron2._C as _C
    import detectron2._ops
assert not caught, [str(warning.message) for warning in caught]
assert "torchvision" not in sys.modules
assert "detectron2._C_cuda" not in sys.modules

assert _C.has_cuda() is False
assert _C.get_cuda_version() == "not available", _C.get_cuda_version()

squares = torch.tensor([[0.0, 0.0, 2.0, 2.0, 0.0], [1.0, 0.0, 2.0, 2.0, 0.0]])
iou = torch.ops.detectron2.box_iou_rotated(squares, squares)
torch.testing.assert_close(iou, torch.tensor([[1.0, 1 / 3], [1 / 3, 1.0]]), rtol=0, atol=1e-5)
kept = torch.ops.detectron2.nms_rotated(squares, torch.tensor([0.5, 0.9]), 0.3)
assert kept.tolist() == [1], kept
print(_C.__file__)
"""


@pytest.fixture
def cpu_torch() -> Path:
    """A site-packages folder with a CPU-only torch."""
    folder = Path(os.environ.get("DETECTRON2_CPU_TORCH", "unset"))
    if not (folder / "torch").is_dir():
        pytest.skip(f"DETECTRON2_CPU_TORCH is {folder}: no CPU-only torch there")
    return folder.absolute()


def test_works_beside_a_cpu_only_torch(
    cpu_torch: Path, unpacked: Path, link_site_packages: Callable[..., Path], tmp_path: Path
) -> None:
    paths = [unpacked, cpu_torch, link_site_packages(LEFT_OUT)]
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    # -S: nothing but `paths` and the standard library.
    done = subprocess.run(
        [sys.executable, "-S", "-c", USE],
        env=environment | {"PYTHONPATH": os.pathsep.join(map(str, paths))},
        cwd=elsewhere,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).is_relative_to(unpacked)
