"""What the tests of the wheel share: the wheel, and the programs that make it.

The wheel is the file that the environment variable DETECTRON2_WHEEL names; the tests that look at
it are skipped where it is not set.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

# What the wheel needs: distributions whose folders the tests of an installation draw on.
REQUIREMENTS = (
    "fvcore",
    "iopath",
    "numpy",
    "omegaconf",
    "pillow",
    "pycocotools",
    "torch",
    "torchvision",
)


@pytest.fixture(scope="session")
def program() -> Callable[[str], ModuleType]:
    """Loads a program of this project, by its path from the project's root, as a module."""
    root = Path(os.environ.get("DETECTRON2_NEO_ROOT", Path(__file__).absolute().parents[2]))

    def load(path: str) -> ModuleType:
        file = root / path
        assert file.exists(), f"no {path} under {root}; DETECTRON2_NEO_ROOT can name the root"
        name = f"detectron2_neo_{file.stem}"
        spec = importlib.util.spec_from_file_location(name, file)
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture(scope="session")
def elf(program: Callable[[str], ModuleType]) -> ModuleType:
    """The ELF reader."""
    return program("bazel/wheel/elf.py")


@pytest.fixture(scope="session")
def files_of() -> Callable[[str], list[Path]]:
    """Finds the files that an environment variable names, os.pathsep between them.

    They are relative to the current folder or to Bazel's runfiles. The test is skipped where the
    variable is not set, and fails where a file is not there.
    """

    def find(variable: str) -> list[Path]:
        value = os.environ.get(variable)
        if not value:
            pytest.skip(f"{variable} is not set")
        bases = [Path.cwd()]
        for runfiles in ("RUNFILES_DIR", "TEST_SRCDIR"):
            if runfiles in os.environ:
                base = Path(os.environ[runfiles])
                bases += [base, base / os.environ.get("TEST_WORKSPACE", "")]
        paths = []
        for name in value.split(os.pathsep):
            found = [base / name for base in bases if (base / name).exists()]
            assert found, f"{variable} names {name}, which is not in {', '.join(map(str, bases))}"
            paths.append(found[0].absolute())
        return paths

    return find


@pytest.fixture(scope="session")
def wheel(files_of: Callable[[str], list[Path]]) -> Path:
    """The wheel under test."""
    (path,) = files_of("DETECTRON2_WHEEL")
    return path


@pytest.fixture(scope="session")
def unpacked(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the wheel was unpacked into."""
    folder = tmp_path_factory.mktemp("unpacked")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


@pytest.fixture(scope="session", params=["_C_cpu", "_C_cuda"])
def extension(request: pytest.FixtureRequest, unpacked: Path) -> Path:
    """Each extension module of the wheel."""
    return unpacked / "detectron2" / f"{request.param}.abi3.so"


@pytest.fixture
def link_site_packages(tmp_path: Path) -> Callable[[tuple[str, ...]], Path]:
    """Makes a folder of links to the installed packages, all but those that match a pattern.

    The folders taken are those that hold torch and the wheel's other requirements. Packages of
    this project are always left out: the wheel is to be seen instead.
    """

    def link(left_out: tuple[str, ...] = ()) -> Path:
        folder = tmp_path / "linked_site_packages"
        folder.mkdir()
        for site_packages in {_site_packages_of(name): None for name in REQUIREMENTS}:
            for entry in site_packages.iterdir():
                target = folder / entry.name
                hidden = any(entry.match(pattern) for pattern in ("detectron2*", *left_out))
                if not hidden and not target.exists() and entry.suffix != ".pth":
                    target.symlink_to(entry)
        return folder

    return link


def _site_packages_of(distribution: str) -> Path:
    try:
        return Path(importlib.metadata.distribution(distribution).locate_file("")).absolute()
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"{distribution} is not installed")
