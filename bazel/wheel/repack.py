"""Rewrites a wheel in one canonical form, the same bytes whichever rule set assembled it.

    repack.py --in RAW.whl --out OUT.whl [--summary TEXT]

The package's files are kept as they are. What a rule set chooses for itself is made uniform: the
order and spelling of METADATA, WHEEL and entry_points.txt, RECORD, the order of the archive, times
and permissions. Compression is zlib's, so equal bytes need an equal zlib.
"""

from __future__ import annotations

import argparse
import base64
import configparser
import email
import hashlib
import itertools
import re
import stat
import sys
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

# The earliest time that a zip archive can hold.
EPOCH = (1980, 1, 1, 0, 0, 0)
GENERATOR = "detectron2-neo"
METADATA_VERSION = "2.1"
# In the order of the output. Values of SORTED_HEADERS are sorted, the others keep their order.
HEADERS = (
    "Metadata-Version",
    "Name",
    "Version",
    "Summary",
    "Home-page",
    "Project-URL",
    "Author",
    "Author-email",
    "License",
    "Classifier",
    "Requires-Python",
    "Requires-Dist",
    "Provides-Extra",
    "Description-Content-Type",
)
REPEATED_HEADERS = {"Project-URL", "Classifier", "Requires-Dist", "Provides-Extra"}
SORTED_HEADERS = {"Project-URL", "Classifier", "Provides-Extra"}
# Of later metadata versions; the licence files themselves stay in the wheel.
DROPPED_HEADERS = {"license-file"}
RENAMED_HEADERS = {"license-expression": "License"}


class RepackError(Exception):
    """Why a wheel has no canonical form, as one line."""


def read_wheel(path: Path) -> dict[str, bytes]:
    """Returns the contents of the archive's files by path.

    Raises RepackError for duplicates, links, and paths that leave the wheel.
    """
    files: dict[str, bytes] = {}
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            name = entry.filename
            parts = name.removesuffix("/").split("/")
            if name.startswith("/") or "\\" in name or {"", ".", ".."} & set(parts):
                raise RepackError(f"a path that is absolute or not normal: {name!r}")
            if entry.is_dir():
                continue
            if stat.S_ISLNK(entry.external_attr >> 16):
                raise RepackError(f"a symbolic link: {name!r}")
            if name in files:
                raise RepackError(f"{name!r} is there twice")
            files[name] = archive.read(entry)
    return files


def canonical_requirement(requirement: str) -> str:
    """`Name [extra] (>= 1, <2) ; marker` in the spelling `Name[extra]<2,>=1; marker`."""
    specification, separator, marker = requirement.partition(";")
    match = re.fullmatch(r"\s*([\w.-]+)\s*(\[[^\]]*\])?\s*\(?([^()@]*)\)?\s*", specification)
    if match is None:
        raise RepackError(f"not a requirement: {requirement!r}")
    name, extras, versions = match[1], match[2] or "", match[3]
    specifiers = sorted("".join(part.split()) for part in versions.split(",") if part.strip())
    extras = ",".join(sorted("".join(extras.strip("[]").split()).split(",")))
    text = name + (f"[{extras}]" if extras else "") + ",".join(specifiers)
    if separator:
        text += "; " + re.sub(r"\s*(==|!=|<=|>=|~=|<|>)\s*", r" \1 ", marker.strip())
    return text.replace("'", '"')


def canonical_metadata(raw: bytes, summary: str | None) -> tuple[str, str, bytes]:
    """Returns the distribution's name, its version, and METADATA in the order of HEADERS."""
    message = email.message_from_string(raw.decode("utf-8").replace("\r\n", "\n"))
    known = {header.lower(): header for header in HEADERS} | RENAMED_HEADERS
    values: dict[str, list[str]] = {header: [] for header in HEADERS}
    for header, value in message.items():
        if header.lower() in DROPPED_HEADERS:
            continue
        if header.lower() not in known:
            raise RepackError(f"METADATA has the header {header!r}, which has no canonical place")
        values[known[header.lower()]].append(" ".join(value.split()))
    values["Metadata-Version"] = [METADATA_VERSION]
    values["Description-Content-Type"] = ["text/markdown"]
    if summary is not None:
        values["Summary"] = [" ".join(summary.split())]
    values["Requires-Dist"] = [canonical_requirement(value) for value in values["Requires-Dist"]]
    lines = []
    for header in HEADERS:
        if len(values[header]) > 1 and header not in REPEATED_HEADERS:
            raise RepackError(f"METADATA has {header} {len(values[header])} times")
        ordered = sorted(values[header]) if header in SORTED_HEADERS else values[header]
        lines += [f"{header}: {value}" for value in ordered]
    if not values["Name"] or not values["Version"]:
        raise RepackError("METADATA lacks Name or Version")
    body = message.get_payload().strip("\n")
    text = "\n".join(lines) + "\n" + (f"\n{body}\n" if body else "")
    return values["Name"][0], values["Version"][0], text.encode()


def canonical_wheel_file(raw: bytes) -> tuple[list[str], bytes]:
    """Returns the tags, spelled out and sorted, and the WHEEL file for them."""
    tags: set[str] = set()
    for value in email.message_from_string(raw.decode("utf-8")).get_all("Tag", []):
        parts = [part.split(".") for part in value.strip().split("-")]
        if len(parts) != 3:
            raise RepackError(f"WHEEL has the tag {value!r}, which is not python-abi-platform")
        tags.update("-".join(tag) for tag in itertools.product(*parts))
    if not tags:
        raise RepackError("WHEEL has no tag")
    is_pure = all(tag.endswith("-none-any") for tag in tags)
    lines = [
        "Wheel-Version: 1.0",
        f"Generator: {GENERATOR}",
        f"Root-Is-Purelib: {str(is_pure).lower()}",
        *(f"Tag: {tag}" for tag in sorted(tags)),
    ]
    return sorted(tags), ("\n".join(lines) + "\n").encode()


def canonical_entry_points(raw: bytes) -> bytes:
    """Groups and their entries sorted, each as `name = module:object`."""
    parser = configparser.ConfigParser(delimiters=("=",), interpolation=None)
    parser.optionxform = str  # Names are case-sensitive.
    parser.read_string(raw.decode("utf-8"))
    groups = [
        "\n".join([f"[{group}]", *(f"{name} = {value}" for name, value in sorted(entries.items()))])
        for group, entries in sorted(parser.items())
        if entries
    ]
    return ("\n\n".join(groups) + "\n").encode()


def canonical_files(raw: Mapping[str, bytes], summary: str | None) -> tuple[str, dict[str, bytes]]:
    """Returns the wheel's file name, and its files but RECORD in the archive's order."""
    folders = {name.partition("/")[0] for name in raw}
    dist_infos = [folder for folder in folders if folder.endswith(".dist-info")]
    if len(dist_infos) != 1:
        raise RepackError(f"{len(dist_infos)} dist-info folders: {sorted(dist_infos)}")
    prefix = dist_infos[0] + "/"
    for required in ("METADATA", "WHEEL"):
        if prefix + required not in raw:
            raise RepackError(f"no {prefix}{required}")
    name, version, metadata = canonical_metadata(raw[prefix + "METADATA"], summary)
    tags, wheel_file = canonical_wheel_file(raw[prefix + "WHEEL"])
    stem = f"{re.sub(r'[-_.]+', '_', name).lower()}-{version.replace('-', '_')}"
    made = {"METADATA": metadata, "WHEEL": wheel_file}
    if prefix + "entry_points.txt" in raw:
        made["entry_points.txt"] = canonical_entry_points(raw[prefix + "entry_points.txt"])
    info = {path.removeprefix(prefix): raw[path] for path in raw if path.startswith(prefix)}
    info.pop("RECORD", None)
    info |= made
    files = {path: raw[path] for path in sorted(raw) if not path.startswith(prefix)}
    files |= {f"{stem}.dist-info/{path}": info[path] for path in sorted(info)}
    return f"{stem}-{compress_tags(tags)}.whl", files


def compress_tags(tags: Sequence[str]) -> str:
    """The part of the file name that stands for all of `tags`: cp311.cp312-abi3-linux_x86_64."""
    columns = [sorted(set(column)) for column in zip(*(t.split("-") for t in tags), strict=True)]
    if len(tags) != len(list(itertools.product(*columns))):
        raise RepackError(f"no file name stands for exactly the tags {', '.join(tags)}")
    return "-".join(".".join(column) for column in columns)


def write_wheel(path: Path, files: Mapping[str, bytes]) -> None:
    """Writes `files` in their order, then RECORD beside the METADATA among them."""
    metadata = next(name for name in files if re.fullmatch(r"[^/]*\.dist-info/METADATA", name))
    record_path = str(PurePosixPath(metadata).with_name("RECORD"))
    record = "".join(_record_line(name, content) for name, content in files.items())
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in {**files, record_path: f"{record}{record_path},,\n"}.items():
            executable = name.endswith(".so") or re.match(r"[^/]*\.data/scripts/", name)
            entry = zipfile.ZipInfo(name, EPOCH)
            entry.create_system = 3  # Unix, so that the permissions count.
            entry.external_attr = (0o100755 if executable else 0o100644) << 16
            archive.writestr(entry, content, zipfile.ZIP_DEFLATED, compresslevel=9)


def _record_line(name: str, content: bytes) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
    quoted = f'"{name}"' if "," in name else name
    return f"{quoted},sha256={digest},{len(content)}\n"


def repack(raw: Path, out: Path, summary: str | None = None) -> None:
    """Writes the canonical form of the wheel `raw` to `out`, whose name has to be the wheel's."""
    name, files = canonical_files(read_wheel(raw), summary)
    if out.name != name:
        raise RepackError(f"the wheel's metadata give it the name {name}, not {out.name}")
    write_wheel(out, files)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--in", dest="raw", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--summary", help="what Summary says, for rule sets that cannot set it")
    options = parser.parse_args(arguments)
    try:
        repack(options.raw, options.out, options.summary)
    except (OSError, ValueError, RepackError, configparser.Error, zipfile.BadZipFile) as error:
        message = " ".join(str(error).split())
        print(f"repack: {options.raw.name}: {message}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
