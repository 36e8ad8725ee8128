"""A folder of commands for the documentation: ``python`` and ``detectron2``.

With a wheel to test (DETECTRON2_WHEEL) they are those of a new environment that it is installed in,
else this interpreter's.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest


def _beside(path: str) -> ModuleType:
    """A module of the tests of the wheel."""
    file = Path(__file__).parents[1] / path
    name = f"wheel_{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


_wheel = _beside("wheel/conftest.py")
files_of, wheel, link_site_packages = _wheel.files_of, _wheel.wheel, _wheel.link_site_packages


@pytest.fixture
def commands(
    tmp_path: Path, request: pytest.FixtureRequest, link_site_packages: Callable[..., Path]
) -> Path:
    """The folder of the commands."""
    if os.environ.get("DETECTRON2_WHEEL"):
        if importlib.util.find_spec("pip") is None:
            pytest.skip("this Python has no pip")
        venv = _beside("wheel/test_install.py").Venv(tmp_path / "venv", link_site_packages())
        venv.pip("install", "--no-index", str(request.getfixturevalue("wheel")))
        return venv.python.parent
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    (folder / "detectron2").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m detectron2 "$@"\n')
    for command in folder.iterdir():
        command.chmod(0o755)
    return folder
