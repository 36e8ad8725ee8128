"""third_party/libtorch/dynamic_symbols.py: which symbols of the stable interface torch exports."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(os.environ.get("DETECTRON2_NEO_ROOT", Path(__file__).absolute().parents[2]))
PROGRAM = ROOT / "third_party" / "libtorch" / "dynamic_symbols.py"

# A library of torch's, and what it exports.
SOURCES = {
    "libtorch_cpu": "void aoti_torch_b(void) {} void torch_a(void) {} void other(void) {}",
    "libtorch_cuda": "extern void torch_a(void); void aoti_torch_c(void) { torch_a(); }",
    "libtorch_python": "void torch_python_only(void) {}",
}


@pytest.fixture(scope="module")
def torch_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    gcc = shutil.which("gcc")
    if gcc is None:
        pytest.skip("no gcc here to build samples with")
    folder = tmp_path_factory.mktemp("site-packages")
    libraries = folder / "torch" / "lib"
    libraries.mkdir(parents=True)
    (folder / "torch" / "version.py").write_text("__version__ = '2.99.0+cpu'\ndebug = False\n")
    for name, source in SOURCES.items():
        (folder / f"{name}.c").write_text(source)
        command = [gcc, "-shared", "-fPIC", "-o", libraries / f"{name}.so", folder / f"{name}.c"]
        subprocess.run(command, check=True)
    return folder


def run(torch: Path, out: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, PROGRAM, "--out", out, torch]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_lists_a_folder_and_a_wheel(torch_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "symbols.txt"
    assert run(torch_folder, out).returncode == 0
    expected = ["# torch 2.99.0+cpu", "aoti_torch_b", "aoti_torch_c", "torch_a"]
    assert out.read_text().splitlines() == expected

    wheel = tmp_path / "torch-2.99.0+cpu-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path in sorted((torch_folder / "torch").rglob("*")):
            archive.write(path, path.relative_to(torch_folder))
    assert run(wheel, out).returncode == 0
    assert out.read_text().splitlines() == expected


def test_says_what_is_wrong(torch_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "torch").mkdir()
    for version, complaint in (
        ("", "states no version"),
        ("__version__ = '2.99.0'\n", "exports none of"),
    ):
        (tmp_path / "torch" / "version.py").write_text(version)
        result = run(tmp_path, tmp_path / "symbols.txt")
        assert result.returncode == 1
        assert complaint in result.stderr
        assert "Traceback" not in result.stderr
    assert not (tmp_path / "symbols.txt").exists()
