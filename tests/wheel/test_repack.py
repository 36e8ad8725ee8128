"""bazel/wheel/repack.py: the same bytes, whichever rule set assembled the wheel."""

from __future__ import annotations

import stat
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

NAME = "some_name-1.0-cp311-abi3-manylinux_2_28_x86_64.whl"
PACKAGE = {"pkg/__init__.py": b"", "pkg/_C.abi3.so": b"\x7fELF", "pkg/z.py": b"Z = 1\n"}

# The same facts in the manners of two rule sets.
ONE = PACKAGE | {
    "some_name-1.0.dist-info/METADATA": b"""Metadata-Version: 2.1
Name: some_name
License: Apache-2.0
Classifier: Topic :: B
Classifier: Topic :: A
Requires-Python: >=3.11
Requires-Dist: torch (<3, >= 2.10)
Requires-Dist: numpy
Provides-Extra: x
Requires-Dist: scipy; extra == 'x'
Version: 1.0

# Title

Text: not a header.
""",
    "some_name-1.0.dist-info/WHEEL": b"""Wheel-Version: 1.0
Generator: bazel-wheelmaker 1.0
Root-Is-Purelib: False
Tag: cp311-abi3-manylinux_2_28_x86_64
""",
    "some_name-1.0.dist-info/entry_points.txt": b"[b]\ny=m:g\nx = m:f\n[a]\nz = m:h",
    "some_name-1.0.dist-info/LICENSE": b"terms",
    "some_name-1.0.dist-info/RECORD": b"anything",
}
TWO = PACKAGE | {
    "some_name-1.0.dist-info/LICENSE": b"terms",
    "some_name-1.0.dist-info/WHEEL": b"""Wheel-Version: 1.0
Generator: another 2.3
Root-Is-Purelib: false
Tag: cp311-abi3-manylinux_2_28_x86_64

""",
    "some_name-1.0.dist-info/entry_points.txt": b"[a]\nz = m:h\n\n[b]\nx = m:f\ny = m:g\n",
    "some_name-1.0.dist-info/METADATA": b"""Metadata-Version: 2.4\r
Name: some_name\r
Version: 1.0\r
Summary: Overridden\r
Description-Content-Type: text/x-rst\r
License-File: LICENSE\r
Requires-Dist: torch<3,>=2.10\r
Requires-Dist: numpy\r
Requires-Dist: scipy; extra=="x"\r
Provides-Extra: x\r
Requires-Python: >=3.11\r
Classifier: Topic :: A\r
Classifier: Topic :: B\r
License: Apache-2.0\r
\r
# Title\r
\r
Text: not a header.""",
}
CANONICAL_METADATA = """Metadata-Version: 2.1
Name: some_name
Version: 1.0
Summary: In a line
License: Apache-2.0
Classifier: Topic :: A
Classifier: Topic :: B
Requires-Python: >=3.11
Requires-Dist: torch<3,>=2.10
Requires-Dist: numpy
Requires-Dist: scipy; extra == "x"
Provides-Extra: x
Description-Content-Type: text/markdown

# Title

Text: not a header.
"""


@pytest.fixture(scope="module")
def repack(program: Callable[[str], ModuleType]) -> ModuleType:
    return program("bazel/wheel/repack.py")


def write_raw(
    path: Path, files: dict[str, bytes], year: int = 1980, mode: int = stat.S_IFREG | 0o644
) -> Path:
    path.parent.mkdir(exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, content in files.items():
            entry = zipfile.ZipInfo(name, (year, 2, 3, 4, 5, 6))
            entry.external_attr = mode << 16
            archive.writestr(entry, content)
    return path


def write_canonical(repack: ModuleType, raw: Path, folder: Path) -> Path:
    folder.mkdir()
    out = folder / NAME
    arguments = ["--in", str(raw), "--out", str(out), "--summary", "In a line"]
    assert repack.main(arguments) == 0
    return out


def refusal(repack: ModuleType, raw: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """Repacks in vain, returns the one line that says why."""
    out = raw.parent / "out" / NAME
    out.parent.mkdir()
    assert repack.main(["--in", str(raw), "--out", str(out)]) == 1
    assert not out.exists()
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_two_rule_sets_give_the_same_bytes(repack: ModuleType, tmp_path: Path) -> None:
    one = write_raw(tmp_path / "one" / NAME, ONE, year=2020, mode=stat.S_IFREG | 0o777)
    two = write_raw(tmp_path / "two" / NAME, dict(reversed(TWO.items())))
    first = write_canonical(repack, one, tmp_path / "a")
    second = write_canonical(repack, two, tmp_path / "b")
    assert first.read_bytes() == second.read_bytes()
    again = write_canonical(repack, first, tmp_path / "c")
    assert again.read_bytes() == first.read_bytes()


def test_contents(repack: ModuleType, tmp_path: Path) -> None:
    wheel = write_canonical(repack, write_raw(tmp_path / "raw" / NAME, ONE), tmp_path / "out")
    with zipfile.ZipFile(wheel) as archive:
        entries = archive.infolist()
        files = {entry.filename: archive.read(entry) for entry in entries}
    info = "some_name-1.0.dist-info"
    assert list(files) == [
        *sorted(PACKAGE),
        *(f"{info}/{name}" for name in ("LICENSE", "METADATA", "WHEEL", "entry_points.txt")),
        f"{info}/RECORD",
    ]
    assert PACKAGE.items() <= files.items()
    assert files[f"{info}/METADATA"].decode() == CANONICAL_METADATA
    assert files[f"{info}/WHEEL"].decode().splitlines() == [
        *("Wheel-Version: 1.0", "Generator: detectron2-neo", "Root-Is-Purelib: false"),
        "Tag: cp311-abi3-manylinux_2_28_x86_64",
    ]
    assert files[f"{info}/entry_points.txt"] == TWO[f"{info}/entry_points.txt"]
    record = files[f"{info}/RECORD"].decode().splitlines()
    assert [line.partition(",")[0] for line in record] == list(files)
    # SHA-256 of nothing.
    assert "pkg/__init__.py,sha256=47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU,0" in record
    assert {entry.date_time for entry in entries} == {(1980, 1, 1, 0, 0, 0)}
    modes = {entry.filename: stat.S_IMODE(entry.external_attr >> 16) for entry in entries}
    assert modes == {name: 0o755 if name.endswith(".so") else 0o644 for name in files}


@pytest.mark.parametrize(
    ("requirement", "expected"),
    [
        ("torch", "torch"),
        ("torch (>= 2.10)", "torch>=2.10"),
        ("a [z, y] >=1 , <2 ; python_version<'3.12'", 'a[y,z]<2,>=1; python_version < "3.12"'),
    ],
)
def test_requirements(repack: ModuleType, requirement: str, expected: str) -> None:
    assert repack.canonical_requirement(requirement) == expected


@pytest.mark.parametrize("name", ["/pkg/a.py", "pkg/../../a.py", "pkg/./a.py", "pkg//a.py"])
def test_refuses_paths_outside_of_the_wheel(
    repack: ModuleType, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = write_raw(tmp_path / NAME, ONE | {name: b""})
    assert "absolute or not normal" in refusal(repack, raw, capsys)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_refuses_duplicates(
    repack: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = write_raw(tmp_path / NAME, ONE)
    with zipfile.ZipFile(raw, "a") as archive:
        archive.writestr("pkg/z.py", b"Z = 2\n")
    assert "'pkg/z.py' is there twice" in refusal(repack, raw, capsys)


def test_refuses_links(
    repack: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = write_raw(tmp_path / NAME, ONE, mode=stat.S_IFLNK | 0o777)
    assert "a symbolic link" in refusal(repack, raw, capsys)


@pytest.mark.parametrize(
    ("file", "text", "complaint"),
    [
        ("METADATA", b"Name: some_name\nVersion: 1.0\nKeywords: a\n", "header 'Keywords'"),
        ("METADATA", b"Name: some_name\n", "lacks Name or Version"),
        ("METADATA", b"Name: some_name\nVersion: 1.0\nVersion: 2\n", "Version 2 times"),
        ("METADATA", b"Name: some_name\nVersion: 2\n", "the name some_name-2-cp311"),
        ("WHEEL", b"Wheel-Version: 1.0\n", "no tag"),
        ("WHEEL", b"Tag: py3-none\n", "not python-abi-platform"),
        ("WHEEL", b"Tag: py3-none-any\nTag: cp311-abi3-any\n", "no file name stands for"),
    ],
)
def test_refuses_what_it_cannot_state(
    repack: ModuleType,
    tmp_path: Path,
    file: str,
    text: bytes,
    complaint: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    raw = write_raw(tmp_path / NAME, ONE | {f"some_name-1.0.dist-info/{file}": text})
    assert complaint in refusal(repack, raw, capsys)
