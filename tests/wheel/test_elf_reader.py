"""bazel/wheel/elf.py, on a library that is built here and on the interpreter's own files."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

SOURCE = r"""
#include <math.h>
#include <stdio.h>

extern int weak_reference(void) __attribute__((weak));
extern int outside(void);

int exported(double x) { return printf("%f", fmod(x, 2.0)) + outside(); }
__attribute__((weak)) int weakly(void) { return weak_reference ? 1 : 0; }
__attribute__((visibility("protected"))) int guarded(void) { return 2; }
__attribute__((visibility("hidden"))) int hidden(void) { return 3; }
"""


@pytest.fixture(scope="module", params=["both", "gnu", "sysv"])
def library(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stripped shared library, with either kind of hash table."""
    gcc = shutil.which("gcc")
    if gcc is None:
        pytest.skip("no gcc here to build a sample with")
    folder = tmp_path_factory.mktemp("library")
    (folder / "sample.c").write_text(SOURCE)
    (folder / "versions.map").write_text("SAMPLE_1.0 { global: exported; };\n")
    options = "-shared -fPIC -s -Wl,-soname,libsample.so.1 -Wl,-rpath,/nowhere -Wl,--no-as-needed"
    linker = f"-Wl,--version-script=versions.map -Wl,--hash-style={request.param} -lm"
    subprocess.run(
        [gcc, *options.split(), "-o", "libsample.so", "sample.c", *linker.split()],
        cwd=folder,
        check=True,
    )
    return folder / "libsample.so"


def test_dynamic_section(library: Path, elf: ModuleType) -> None:
    file = elf.read_elf(library)
    assert file.soname == "libsample.so.1"
    assert {"libm.so.6", "libc.so.6"} == set(file.needed)
    assert "/nowhere" in (file.rpath, file.runpath)
    assert all(version.startswith("GLIBC_") for version in file.version_needs["libc.so.6"])
    assert elf.PT_GNU_STACK in [segment.kind for segment in file.segments]
    code = [segment for segment in file.segments if segment.flags & elf.PF_X]
    assert code
    assert not [segment for segment in code if segment.flags & elf.PF_W]


def test_symbols(library: Path, elf: ModuleType) -> None:
    symbols = {symbol.name: symbol for symbol in elf.read_elf(library).symbols}
    assert symbols["exported"] == elf.Symbol(
        "exported", is_defined=True, binding="global", visibility="default", version="SAMPLE_1.0"
    )
    assert symbols["weakly"].binding == "weak"
    assert symbols["guarded"].visibility == "protected"
    assert "hidden" not in symbols
    exported = {name for name, symbol in symbols.items() if symbol.is_exported}
    assert exported - {"SAMPLE_1.0"} == {"exported", "weakly", "guarded"}

    assert (symbols["outside"].is_defined, symbols["outside"].version) == (False, None)
    assert symbols["weak_reference"].binding == "weak"
    assert symbols["printf"].library == "libc.so.6"
    assert symbols["fmod"].library == "libm.so.6"
    assert symbols["fmod"].version.startswith("GLIBC_2.")


def test_agrees_with_readelf(elf: ModuleType) -> None:
    """On a large library with versions of its own."""
    readelf = shutil.which("readelf")
    samples = sorted(Path("/usr/lib/x86_64-linux-gnu").glob("libstdc++.so.6"))
    if readelf is None or not samples:
        pytest.skip("no readelf, or no libstdc++ to read")
    table = subprocess.check_output([readelf, "--dyn-syms", "--wide", samples[0]], text=True)
    expected = set()
    for fields in map(str.split, table.splitlines()):
        # Number: value size type binding visibility section name@version (index)
        if len(fields) >= 8 and fields[0][:-1].isdigit() and fields[6] != "ABS":
            name, _, version = fields[7].partition("@")
            expected.add((name, fields[6] != "UND", fields[4].lower(), version.lstrip("@") or None))
    symbols = elf.read_elf(samples[0]).symbols
    found = {(s.name, s.is_defined, s.binding, s.version) for s in symbols if s.name != s.version}
    assert len(found) > 1000
    assert found == expected


def test_reads_the_interpreter(elf: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    file = elf.read_elf(Path(sys.executable).resolve())
    assert "libc.so.6" in file.needed
    assert elf.main([sys.executable]) == 0
    assert "needed libc.so.6" in capsys.readouterr().out


@pytest.mark.parametrize("content", [b"", b"#!/bin/sh\n", b"\x7fELF\x01\x01" + b"\0" * 60])
def test_refuses_other_files(elf: ModuleType, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(elf.ElfError, match="not a 64-bit little-endian ELF file"):
        elf.read_elf(path)


def test_refuses_a_truncated_file(library: Path, elf: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "truncated.so"
    content = library.read_bytes()
    for size in (20, 70, 300, 900):
        path.write_bytes(content[:size])
        with pytest.raises(elf.ElfError, match="malformed"):
            elf.read_elf(path)
