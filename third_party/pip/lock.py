"""Writes the lock files anew: the newest releases that requirements.in admits, with their hashes.

    ./bazelw run //third_party/pip:lock

pip resolves, as this machine has it configured, for this interpreter: the lock holds for CPython
3.11 on Linux x86-64, which is what the project builds with.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

LOCK_HEADER = """\
# Every package that the build and the tests use, with its file's hash. Made from requirements.in by
# `./bazelw run //third_party/pip:lock`; do not edit.
"""
CONSUMER_HEADER = (
    "# Made by `./bazelw run //third_party/pip:lock` of @detectron2_neo; do not edit.\n"
)
RELEASES_HEADER = """\
# Releases of torch that the extensions are checked against: the oldest that the wheel claims to run
# with, and the newest on the package index. Made by `./bazelw run //third_party/pip:lock`; do not
# edit.
"""
OLDEST_TORCH = "2.10.0"


def resolve(*requirements: str) -> dict[str, str]:
    """Returns the lock entry of each package that pip would install, by name."""
    with tempfile.TemporaryDirectory() as scratch:
        report = Path(scratch, "report.json")
        pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet")
        options = ("--dry-run", "--ignore-installed", "--report", report)
        subprocess.run([*pip, *options, *requirements], check=True)
        installed = json.loads(report.read_text())["install"]
    entries = {}
    for package in installed:
        metadata = package["metadata"]
        name = re.sub(r"[-_.]+", "-", metadata["name"]).lower()
        digest = package["download_info"]["archive_info"]["hashes"]["sha256"]
        entries[name] = f"{name}=={metadata['version']} \\\n    --hash=sha256:{digest}\n"
    return dict(sorted(entries.items()))


def main() -> None:
    workspace = Path(os.environ["BUILD_WORKSPACE_DIRECTORY"])
    for folder, header in (
        (workspace, LOCK_HEADER),
        (workspace / "tests/consumer", CONSUMER_HEADER),
    ):
        entries = resolve("-r", str(folder / "requirements.in"))
        (folder / "requirements_lock.txt").write_text(header + "".join(entries.values()))
    wanted = (f"torch=={OLDEST_TORCH}", "torch")
    releases = [resolve("--no-deps", release)["torch"] for release in wanted]
    (workspace / "third_party/libtorch/supported_releases.txt").write_text(
        RELEASES_HEADER + "".join(releases)
    )


if __name__ == "__main__":
    main()
