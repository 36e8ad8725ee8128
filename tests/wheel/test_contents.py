"""What is in the wheel, and what it says of itself."""

from __future__ import annotations

import base64
import csv
import email
import email.message
import hashlib
import re
import stat
import zipfile
from pathlib import Path, PurePosixPath

import pytest

TAG = "cp311-abi3-manylinux_2_28_x86_64"
DIST_INFO = "detectron2_neo-0.7.0.dist-info"
# The other requirements may or may not have a lower bound; these have this one.
LOWER_BOUNDS = {"torch": ">=2.10", "torchvision": ">=0.25"}
REQUIREMENTS = {"fvcore", "iopath", "numpy", "omegaconf", "pillow", "pycocotools", *LOWER_BOUNDS}
MAX_BYTES = 20_000_000


@pytest.fixture(scope="module")
def files(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {entry.filename: archive.read(entry) for entry in archive.infolist()}


@pytest.fixture(scope="module")
def metadata(files: dict[str, bytes]) -> email.message.Message:
    return email.message_from_bytes(files[f"{DIST_INFO}/METADATA"])


def test_file_name_and_tag(wheel: Path, files: dict[str, bytes]) -> None:
    assert wheel.name == f"detectron2_neo-0.7.0-{TAG}.whl"
    wheel_file = email.message_from_bytes(files[f"{DIST_INFO}/WHEEL"])
    assert wheel_file["Wheel-Version"] == "1.0"
    assert wheel_file["Root-Is-Purelib"] == "false"
    assert wheel_file.get_all("Tag") == [TAG]


def test_size(wheel: Path) -> None:
    assert wheel.stat().st_size <= MAX_BYTES


def test_holds_the_package_and_nothing_else(files: dict[str, bytes]) -> None:
    assert {name.partition("/")[0] for name in files} == {"detectron2", DIST_INFO}
    needed = {f"detectron2/{name}" for name in ("_C.py", "__init__.py", "py.typed")}
    needed |= {f"detectron2/{name}.abi3.so" for name in ("_C_cpu", "_C_cuda")}
    assert needed <= files.keys()
    misplaced = [
        name
        for name in files
        if {"tests", "__pycache__"} & set(PurePosixPath(name).parts)
        or re.search(r"(^|/)BUILD(\.bazel)?$|\.(pyc|pyo|c|cc|cpp|cu|cuh|h|o|a|bzl)$", name)
    ]
    assert not misplaced
    assert sorted(name for name in files if name.endswith(".so")) == sorted(
        f"detectron2/{name}.abi3.so" for name in ("_C_cpu", "_C_cuda")
    )


def test_metadata(metadata: email.message.Message) -> None:
    assert metadata["Name"] == "detectron2_neo"
    assert metadata["Version"] == "0.7.0"
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["Summary"]
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert metadata.get_payload().strip()


def test_requirements_are_lower_bounds(metadata: email.message.Message) -> None:
    requirements = {}
    for requirement in metadata.get_all("Requires-Dist"):
        if "extra ==" in requirement:
            continue
        match = re.fullmatch(r"([A-Za-z0-9_.-]+?)(>=[0-9.]+)?", requirement)
        assert match, requirement
        assert match[1] not in requirements
        requirements[match[1]] = match[2]
    assert requirements.keys() == REQUIREMENTS
    assert {name: requirements[name] for name in LOWER_BOUNDS} == LOWER_BOUNDS


def test_console_command(files: dict[str, bytes]) -> None:
    assert files[f"{DIST_INFO}/entry_points.txt"] == (
        b"[console_scripts]\ndetectron2 = detectron2.cli:main\n"
    )


def test_license(files: dict[str, bytes]) -> None:
    names = [
        name
        for name in files
        if name.startswith((f"{DIST_INFO}/LICENSE", f"{DIST_INFO}/licenses/"))
    ]
    assert any(b"Apache License" in files[name] for name in names), names


def test_record(files: dict[str, bytes]) -> None:
    rows = list(csv.reader(files[f"{DIST_INFO}/RECORD"].decode().splitlines()))
    assert sorted(path for path, _, _ in rows) == sorted(files)
    for path, digest, size in rows:
        if path == f"{DIST_INFO}/RECORD":
            assert (digest, size) == ("", "")
            continue
        sha256 = base64.urlsafe_b64encode(hashlib.sha256(files[path]).digest()).rstrip(b"=")
        assert (path, digest, size) == (path, f"sha256={sha256.decode()}", str(len(files[path])))


def test_times_and_permissions_are_fixed(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        entries = archive.infolist()
    assert len({entry.filename for entry in entries}) == len(entries)
    for entry in entries:
        assert entry.date_time == (1980, 1, 1, 0, 0, 0), entry.filename
        permissions = 0o755 if entry.filename.endswith(".so") else 0o644
        assert stat.S_IMODE(entry.external_attr >> 16) == permissions, entry.filename
