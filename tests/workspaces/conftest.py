"""Runs this project's Bazel from within a test, in another workspace."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

# Runfiles are links into the checkout.
CHECKOUT = Path(os.path.realpath(__file__)).parents[2]


@pytest.fixture
def checkout() -> Path:
    """The folder of this project's sources."""
    if "TEST_SRCDIR" not in os.environ:
        pytest.skip("builds with Bazel: a test for `bazelw test` only")
    return CHECKOUT


@pytest.fixture
def copied_checkout(checkout: Path, tmp_path: Path) -> Path:
    """A copy of the sources in another folder, without what builds and tools left among them."""
    leave_out = shutil.ignore_patterns(".git", "bazel-*", "__pycache__", "*.so", ".*_cache")
    return shutil.copytree(checkout, tmp_path / "elsewhere", symlinks=True, ignore=leave_out)


@pytest.fixture
def run_bazel(checkout: Path, tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Runs bazelw with arguments in a workspace, and returns the output base, a new one.

    Where Bazel fails, so does the test, with what Bazel printed. A test's environment is bare:
    what bazelw asks of its user (a home folder for caches, python3.11 on PATH) is put back.
    """
    output_base = tmp_path / "output"
    environment = {
        "HOME": pwd.getpwuid(os.getuid()).pw_dir,
        "PATH": f"{Path(sys.base_prefix, 'bin')}{os.pathsep}{os.environ['PATH']}",
    }
    bazel = [str(checkout / "bazelw"), f"--output_base={output_base}"]
    workspaces = []

    def run(workspace: Path, *arguments: str) -> Path:
        workspaces.append(workspace)
        done = subprocess.run(
            [*bazel, *arguments, "--experimental_convenience_symlinks=ignore", "--curses=no"],
            cwd=workspace,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"bazel {' '.join(arguments)} failed:\n{done.stdout[-8000:]}"
        return output_base

    yield run
    for workspace in workspaces:
        # Removes what it made read-only, too, and ends the server.
        subprocess.run([*bazel, "clean", "--expunge"], cwd=workspace, env=environment, check=False)
