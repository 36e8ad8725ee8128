"""Assembles a wheel; the program that rules_python 0.22's `py_wheel` expects as its wheelmaker.

Distribution packages of that rule set leave the original out. The command line is the rule's:
what it passes is read here, and nothing else. Given the same inputs the wheel is the same, byte
for byte, as long as zlib is the same: entries are sorted, and times and permissions are fixed.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import itertools
import re
import sys
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

# The earliest time that a zip archive can hold.
EPOCH = (1980, 1, 1, 0, 0, 0)


class WheelMakerError(Exception):
    """An input that the wheel cannot be made of, as one line."""


def escape_segment(segment: str) -> str:
    """Escapes a part of a wheel's file name in the way of the `py_wheel` rule.

    Each run of characters other than letters, digits and `.` becomes one underscore.
    """
    return re.sub(r"[^a-zA-Z0-9.]+", "_", segment)


def stamp(text: str, status_files: Sequence[Path]) -> str:
    """Replaces `{KEY}` by the value in Bazel's workspace status files, lines of `KEY value`."""
    for status_file in status_files:
        for line in status_file.read_text(encoding="utf-8").splitlines():
            key, _, value = line.partition(" ")
            text = text.replace(f"{{{key}}}", value)
    return text


def strip_prefix(path: str, prefixes: Sequence[str]) -> str:
    """Removes the first of `prefixes` that `path` starts with."""
    for prefix in prefixes:
        if path.startswith(prefix):
            return path.removeprefix(prefix).lstrip("/")
    return path


def wheel_file(python_tag: str, abi: str, platform: str) -> str:
    """The WHEEL file; compressed tags (`cp311.cp312`) are spelled out."""
    tags = itertools.product(*(part.split(".") for part in (python_tag, abi, platform)))
    is_pure = abi == "none" and platform == "any"
    lines = [
        "Wheel-Version: 1.0",
        "Generator: detectron2-neo wheelmaker",
        f"Root-Is-Purelib: {str(is_pure).lower()}",
        *(f"Tag: {'-'.join(tag)}" for tag in tags),
    ]
    return "\n".join(lines) + "\n"


def metadata_file(headers: str, version: str, description: str) -> str:
    """The METADATA file. `headers` are the rule's, which leave the version to the wheelmaker."""
    text = f"{headers.rstrip()}\nVersion: {version}\n"
    return f"{text}\n{description}" if description else text


def write_wheel(path: Path, files: Mapping[str, bytes], dist_info: str) -> None:
    """Writes `files` (archive path to contents) sorted, with `dist_info` and its RECORD last."""
    record_path = f"{dist_info}/RECORD"
    order = sorted(files, key=lambda name: (name.startswith(f"{dist_info}/"), name))
    record = "".join(f"{_record_line(name, files[name])}\n" for name in order)
    record += f"{record_path},,\n"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in [*((name, files[name]) for name in order), (record_path, record)]:
            entry = zipfile.ZipInfo(name, EPOCH)
            entry.create_system = 3  # Unix, so that the permissions count.
            entry.external_attr = (0o100755 if name.endswith(".so") else 0o100644) << 16
            archive.writestr(entry, content, zipfile.ZIP_DEFLATED, compresslevel=9)


def _record_line(name: str, content: bytes) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
    quoted = f'"{name}"' if "," in name else name
    return f"{quoted},sha256={digest},{len(content)}"


def _pairs(lines: Sequence[str]) -> Iterator[tuple[str, Path]]:
    """Splits the rule's `path in the wheel;path of the file`."""
    for line in lines:
        name, separator, path = line.partition(";")
        if not separator:
            raise WheelMakerError(f"not of the form 'path in wheel;file': {line!r}")
        yield name, Path(path)


def _collect(options: argparse.Namespace, version: str, dist_info: str) -> dict[str, bytes]:
    files: dict[str, bytes] = {}

    def add(name: str, content: bytes) -> None:
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts or not name:
            raise WheelMakerError(f"a path outside of the wheel: {name!r}")
        if files.setdefault(name, content) != content:
            raise WheelMakerError(f"two different files for {name}")

    listed = options.input_file_list.read_text(encoding="utf-8").splitlines()
    for name, path in _pairs(listed):
        add(strip_prefix(name, options.strip_path_prefix), path.read_bytes())
    for name, path in _pairs(options.extra_distinfo_file):
        add(f"{dist_info}/{name}", path.read_bytes())
    if options.entry_points_file:
        add(f"{dist_info}/entry_points.txt", options.entry_points_file.read_bytes())
    description = ""
    if options.description_file:
        description = options.description_file.read_text(encoding="utf-8")
    headers = options.metadata_file.read_text(encoding="utf-8")
    add(f"{dist_info}/METADATA", metadata_file(headers, version, description).encode())
    tags = wheel_file(options.python_tag, options.abi, options.platform)
    add(f"{dist_info}/WHEEL", tags.encode())
    return files


def _parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    for name in ("name", "version", "python_tag", "abi", "platform"):
        parser.add_argument(f"--{name}", required=True)
    for name in ("out", "name_file", "input_file_list", "metadata_file"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    for name in ("description_file", "entry_points_file"):
        parser.add_argument(f"--{name}", type=Path)
    for name in ("strip_path_prefix", "extra_distinfo_file"):
        parser.add_argument(f"--{name}", action="append", default=[])
    for name in ("volatile_status_file", "stable_status_file"):
        parser.add_argument(f"--{name}", type=Path, action="append", default=[])
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parse_arguments(arguments)
    status_files = options.volatile_status_file + options.stable_status_file
    name, version = stamp(options.name, status_files), stamp(options.version, status_files)
    stem = f"{escape_segment(name)}-{escape_segment(version)}"
    dist_info = f"{stem}.dist-info"
    tags = "-".join(map(escape_segment, (options.python_tag, options.abi, options.platform)))
    try:
        write_wheel(options.out, _collect(options, version, dist_info), dist_info)
        # Bazel fixes the output's name before it knows the stamps; this is the wheel's own.
        options.name_file.write_text(f"{stem}-{tags}.whl", encoding="utf-8")
    except (OSError, WheelMakerError) as error:
        options.out.unlink(missing_ok=True)
        print(f"wheelmaker: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
