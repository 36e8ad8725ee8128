"""Unpacks one wheel into the folder layout of `pip install --target`, without pip."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import zipfile
from pathlib import Path, PurePosixPath

# Where the parts of a `<name>-<version>.data` folder go, under the root of the tree.
_DATA_SCHEMES = {"purelib": "", "platlib": "", "data": "", "scripts": "bin", "headers": "include"}


class WheelError(Exception):
    """A wheel that cannot be unpacked, as one line."""


def unpack_wheel(wheel: Path, tree: Path) -> None:
    """Extracts `wheel` into the new folder `tree`.

    Files come out read-only, since hard links share them. Executable are: what the archive marks
    so, and every program (ELF or `#!`) in a `bin` folder; NVIDIA's wheels lack the mark there.
    Raises WheelError for a file that is not a sound wheel.
    """
    tree.mkdir(parents=True)
    try:
        with zipfile.ZipFile(wheel) as archive:
            for member in archive.infolist():
                if member.is_dir():
                    continue
                destination = tree / _destination(member.filename)
                if destination.exists():
                    raise WheelError(f"{wheel.name} has {member.filename} twice")
                _extract(archive, member, destination)
    except (zipfile.BadZipFile, EOFError, NotImplementedError) as error:
        raise WheelError(f"{wheel.name} is not a sound wheel: {error}") from None


def compile_bytecode(tree: Path) -> None:
    """Writes `__pycache__` for this interpreter beside every module of `tree`.

    Unchecked hashes make the .pyc files independent of the sources' times. Modules that do not
    compile (templates, other Pythons' syntax) are left without.
    """
    subprocess.run(
        [
            sys.executable,
            *("-m", "compileall", "-qq", "-j", "2"),
            *("--invalidation-mode", "unchecked-hash"),
            *("-s", str(tree), str(tree)),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=False,
    )


def _destination(member: str) -> PurePosixPath:
    """Where `member` of the archive lies in the tree."""
    path = PurePosixPath(member)
    if path.is_absolute() or ".." in path.parts or "\\" in member or not path.parts:
        raise WheelError(f"the wheel has a member outside of its root: {member!r}")
    if not path.parts[0].endswith(".data"):
        return path
    if len(path.parts) < 3 or path.parts[1] not in _DATA_SCHEMES:
        raise WheelError(f"the wheel has a member of an unknown installation scheme: {member!r}")
    return PurePosixPath(_DATA_SCHEMES[path.parts[1]], *path.parts[2:])


def _extract(archive: zipfile.ZipFile, member: zipfile.ZipInfo, destination: Path) -> None:
    destination.parent.mkdir(parents=True, exist_ok=True)
    is_script = PurePosixPath(member.filename).match("*.data/scripts/*")
    with archive.open(member) as source, destination.open("xb") as target:
        start = source.read(8)
        if is_script and start == b"#!python":
            # The tree belongs to no one interpreter.
            start = b"#!/usr/bin/env python3"
        target.write(start)
        shutil.copyfileobj(source, target, 1 << 20)
    is_program = start.startswith((b"\x7fELF", b"#!")) and "bin" in destination.parts[:-1]
    marked = member.external_attr >> 16 & (stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
    os.chmod(destination, 0o555 if marked or is_program else 0o444)
