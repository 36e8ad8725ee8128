"""The wheel installs into an empty environment, works from any folder, and goes away again."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

USE = """
import math

import torch

import detectron2
import detectron2._ops
from detectron2 import _C
from detectron2.structures.boxes import Boxes

assert detectron2.__version__ == "0.7.0", detectron2.__version__
assert Boxes(torch.tensor([[0.0, 0.0, 2.0, 3.0]])).area().tolist() == [6.0]

# (x center, y center, width, height, angle in degrees): a 2 x 2 square, the same moved by half its
# side, the same turned by 45 degrees, one far away.
square = torch.tensor([[0.0, 0.0, 2.0, 2.0, 0.0]])
others = torch.tensor(
    [[1.0, 0.0, 2.0, 2.0, 0.0], [0.0, 0.0, 2.0, 2.0, 45.0], [9.0, 9.0, 2.0, 2.0, 30.0]]
)
iou = torch.ops.detectron2.box_iou_rotated(square, others)
expected = torch.tensor([[1 / 3, math.sqrt(0.5), 0.0]])
torch.testing.assert_close(iou, expected, rtol=0, atol=1e-5)

boxes = torch.cat([square, others])
kept = torch.ops.detectron2.nms_rotated(boxes, torch.tensor([0.6, 0.7, 0.8, 0.9]), 0.5)
assert kept.tolist() == [3, 2, 1], kept

assert isinstance(_C.has_cuda(), bool)
assert _C.get_compiler_version().split()[0] in ("GCC", "clang"), _C.get_compiler_version()
assert _C.has_cuda() == (torch.version.cuda is not None)
assert (_C.get_cuda_version() == "not available") != _C.has_cuda(), _C.get_cuda_version()
print(detectron2.__file__, _C.__file__)
"""


class Venv:
    """A virtual environment without packages, which sees the folder `packages` beside its own."""

    def __init__(self, folder: Path, packages: Path) -> None:
        self.folder = folder
        self.python = folder / "bin" / "python"
        # Variables that would let the environment see packages of the machine's, or its settings.
        self.environment = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith(("PIP_", "PYTHON"))
        } | {"PIP_CONFIG_FILE": os.devnull, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
        self.run([sys.executable, "-m", "venv", "--without-pip", str(folder)])
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        self.site_packages = folder / "lib" / version / "site-packages"
        (self.site_packages / "packages.pth").write_text(f"{packages}\n")

    def run(self, command: list[str], **options) -> str:
        done = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, check=False, **options
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def pip(self, *arguments: str) -> str:
        # The folder of this interpreter's pip, run by the other: no pip is installed there.
        pip = importlib.util.find_spec("pip").submodule_search_locations[0]
        return self.run([sys.executable, pip, "--python", str(self.python), *arguments])

    def files(self) -> set[Path]:
        return {path for path in self.folder.rglob("*") if path.is_file() or path.is_symlink()}


@pytest.fixture
def venv(tmp_path: Path, link_site_packages: Callable[..., Path]) -> Venv:
    if importlib.util.find_spec("pip") is None:
        pytest.skip("this Python has no pip")
    return Venv(tmp_path / "venv", link_site_packages())


def test_installs_works_and_uninstalls(wheel: Path, venv: Venv, tmp_path: Path) -> None:
    before = venv.files()
    # Without --no-deps: pip itself finds the declared requirements met.
    venv.pip("install", "--no-index", str(wheel))
    assert "No broken requirements" in venv.pip("check")
    assert "Version: 0.7.0" in venv.pip("show", "detectron2_neo")

    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    output = venv.run([str(venv.python), "-c", USE], cwd=elsewhere)
    for file in output.split():
        assert Path(file).is_relative_to(venv.site_packages)
    report = venv.run([str(venv.python), "-m", "detectron2.utils.collect_env"], cwd=elsewhere)
    assert "detectron2" in report
    assert "0.7.0" in report

    command = str(venv.python.with_name("detectron2"))
    assert venv.run([command, "--version"], cwd=elsewhere) == "detectron2-neo 0.7.0\n"

    venv.pip("uninstall", "--yes", "detectron2_neo")
    assert venv.files() == before
    assert not (venv.site_packages / "detectron2").exists()


def test_pip_refuses_the_wheel_without_its_requirements(
    wheel: Path, tmp_path: Path, link_site_packages: Callable[..., Path]
) -> None:
    if importlib.util.find_spec("pip") is None:
        pytest.skip("this Python has no pip")
    venv = Venv(tmp_path / "venv", link_site_packages(("pycocotools*",)))
    with pytest.raises(AssertionError, match="No matching distribution found for pycocotools"):
        venv.pip("install", "--no-index", str(wheel))
