"""Runs this project's Bazel from within a test, in another workspace."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
from pathlib import Path

# Runfiles are links into the checkout.
CHECKOUT = Path(os.path.realpath(__file__)).parents[2]


def run_bazel(workspace: Path, output_base: Path, *arguments: str) -> None:
    """Runs bazelw in `workspace`, and fails the test with Bazel's output where Bazel fails.

    The server is ended afterwards. A test's environment is bare: what bazelw asks of its user (a
    home folder for caches, python3.11 on PATH) is put back.
    """
    environment = {
        "HOME": pwd.getpwuid(os.getuid()).pw_dir,
        "PATH": f"{Path(sys.base_prefix, 'bin')}{os.pathsep}{os.environ['PATH']}",
    }
    bazel = [str(CHECKOUT / "bazelw"), f"--output_base={output_base}"]
    try:
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
    finally:
        subprocess.run([*bazel, "shutdown"], cwd=workspace, env=environment, check=False)


def copy_checkout(target: Path) -> None:
    """Copies the sources, without what builds and tools left among them."""
    leave_out = shutil.ignore_patterns(".git", "bazel-*", "__pycache__", "*.so", ".*_cache")
    shutil.copytree(CHECKOUT, target, symlinks=True, ignore=leave_out)
