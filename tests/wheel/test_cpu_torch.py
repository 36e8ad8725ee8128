"""The same wheel beside a torch that was built without CUDA.

DETECTRON2_CPU_TORCH may name a site-packages folder with such a torch. Without it, pip is asked for
one as the machine has it configured; the public index has none for Linux.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

CPU_TORCH = "torch==2.13.0+cpu"
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
def cpu_torch(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A site-packages folder with a CPU-only torch."""
    if os.environ.get("DETECTRON2_CPU_TORCH"):
        (folder,) = request.getfixturevalue("files_of")("DETECTRON2_CPU_TORCH")
        return folder
    if importlib.util.find_spec("pip") is None:
        pytest.skip("DETECTRON2_CPU_TORCH is not set, and this Python has no pip to fetch one")
    downloads = tmp_path / "downloads"
    done = subprocess.run(
        [
            sys.executable,
            importlib.util.find_spec("pip").submodule_search_locations[0],
            *("download", "--no-deps", "--progress-bar=off", f"--dest={downloads}", CPU_TORCH),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    wheels = list(downloads.glob("torch-*.whl"))
    if done.returncode != 0 or not wheels:
        pytest.skip(f"DETECTRON2_CPU_TORCH is not set, and the machine's indexes lack {CPU_TORCH}")
    folder = tmp_path / "cpu_torch"
    with zipfile.ZipFile(wheels[0]) as archive:
        archive.extractall(folder)
    wheels[0].unlink()
    return folder


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
