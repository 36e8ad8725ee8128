"""Reads what the dynamic linker sees of a 64-bit little-endian ELF file, without binutils.

    elf.py FILE...

Everything comes from the program headers and the dynamic segment, so a stripped file without
section headers reads the same. Format: System V ABI, chapters 4 and 5; symbol versions and the GNU
hash table as in the Linux Standard Base, Core 5.0, chapter 10.
"""

from __future__ import annotations

import argparse
import mmap
import struct
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

PT_LOAD, PT_DYNAMIC, PT_GNU_STACK = 1, 2, 0x6474E551
PF_X, PF_W = 1, 2
DT_NULL, DT_NEEDED, DT_HASH, DT_STRTAB, DT_SYMTAB, DT_SONAME = 0, 1, 4, 5, 6, 14
DT_RPATH, DT_RUNPATH, DT_GNU_HASH = 15, 29, 0x6FFFFEF5
DT_VERSYM, DT_VERDEF, DT_VERDEFNUM = 0x6FFFFFF0, 0x6FFFFFFC, 0x6FFFFFFD
DT_VERNEED, DT_VERNEEDNUM = 0x6FFFFFFE, 0x6FFFFFFF
BINDINGS = {0: "local", 1: "global", 2: "weak", 10: "unique"}
VISIBILITIES = ("default", "internal", "hidden", "protected")


class ElfError(ValueError):
    """The file is not one that this module reads."""


@dataclass(frozen=True)
class Segment:
    """A program header: `kind` is its p_type, `flags` its PF_* bits."""

    kind: int
    flags: int
    offset: int
    address: int
    size: int


@dataclass(frozen=True)
class Symbol:
    """A dynamic symbol. `library` is the file that an undefined symbol's `version` comes from."""

    name: str
    is_defined: bool
    binding: str
    visibility: str
    version: str | None = None
    library: str | None = None

    @property
    def is_exported(self) -> bool:
        """Whether other libraries can bind to it."""
        return (
            self.is_defined
            and self.binding != "local"
            and self.visibility in ("default", "protected")
        )


@dataclass(frozen=True)
class ElfFile:
    """The dynamic section of a file; `version_needs` maps each library to its versions."""

    soname: str | None
    needed: tuple[str, ...]
    rpath: str | None
    runpath: str | None
    segments: tuple[Segment, ...]
    symbols: tuple[Symbol, ...]
    version_needs: dict[str, tuple[str, ...]]


def read_elf(path: Path | str) -> ElfFile:
    """Reads the ELF file at `path`. Raises ElfError where it is none, or a malformed one."""
    with Path(path).open("rb") as handle:
        if handle.read(6) != b"\x7fELF\x02\x01":
            raise ElfError(f"{path} is not a 64-bit little-endian ELF file")
        with mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as data:
            try:
                return _Reader(data).read()
            except (struct.error, IndexError, ValueError) as error:
                raise ElfError(f"{path} is malformed: {error}") from None


class _Reader:
    def __init__(self, data: mmap.mmap) -> None:
        self._data = data
        (table,) = struct.unpack_from("<Q", data, 32)
        entry_size, count = struct.unpack_from("<HH", data, 54)
        self._segments = tuple(self._segment(table + i * entry_size) for i in range(count))
        self._dynamic: dict[int, list[int]] = {}
        for segment in self._segments:
            if segment.kind == PT_DYNAMIC:
                self._read_dynamic(segment)

    def read(self) -> ElfFile:
        needs = dict(self._version_needs())
        libraries: dict[str, tuple[str, ...]] = {}
        for version, library in needs.values():
            libraries[library] = (*libraries.get(library, ()), version)
        return ElfFile(
            soname=self._text(DT_SONAME),
            needed=tuple(self._string(offset) for offset in self._dynamic.get(DT_NEEDED, [])),
            rpath=self._text(DT_RPATH),
            runpath=self._text(DT_RUNPATH),
            segments=self._segments,
            symbols=tuple(self._symbols(needs)),
            version_needs=libraries,
        )

    def _segment(self, offset: int) -> Segment:
        kind, flags, file_offset, address, _, size = struct.unpack_from(
            "<IIQQQQ", self._data, offset
        )
        return Segment(kind, flags, file_offset, address, size)

    def _read_dynamic(self, segment: Segment) -> None:
        for offset in range(segment.offset, segment.offset + segment.size, 16):
            tag, value = struct.unpack_from("<qQ", self._data, offset)
            if tag == DT_NULL:
                break
            self._dynamic.setdefault(tag, []).append(value)

    def _value(self, tag: int) -> int | None:
        return self._dynamic.get(tag, [None])[0]

    def _offset(self, tag: int) -> int | None:
        """Where in the file lies what the dynamic entry `tag` points to in memory."""
        address = self._value(tag)
        if address is None:
            return None
        for segment in self._segments:
            if segment.kind == PT_LOAD and 0 <= address - segment.address < segment.size:
                return segment.offset + address - segment.address
        raise ElfError(f"dynamic entry {tag:#x} points outside of the file: {address:#x}")

    def _string(self, index: int) -> str:
        start = self._offset(DT_STRTAB) + index
        end = self._data.find(b"\0", start)
        if end < 0:
            raise ElfError(f"a string without an end at {start:#x}")
        return self._data[start:end].decode()

    def _text(self, tag: int) -> str | None:
        index = self._value(tag)
        return None if index is None else self._string(index)

    def _symbol_count(self) -> int:
        """The dynamic symbol table has no size of its own; the hash tables tell it."""
        table = self._offset(DT_HASH)
        if table is not None:
            return struct.unpack_from("<I", self._data, table + 4)[0]
        table = self._offset(DT_GNU_HASH)
        if table is None:
            return 0
        bucket_count, first, bloom_words = struct.unpack_from("<III", self._data, table)
        buckets = table + 16 + 8 * bloom_words
        last = max(struct.unpack_from(f"<{bucket_count}I", self._data, buckets), default=0)
        if last < first:
            return first
        chains = buckets + 4 * bucket_count
        while not struct.unpack_from("<I", self._data, chains + 4 * (last - first))[0] & 1:
            last += 1
        return last + 1

    def _symbols(self, needs: dict[int, tuple[str, str]]) -> Iterator[Symbol]:
        count = self._symbol_count()
        table, versions = self._offset(DT_SYMTAB), self._offset(DT_VERSYM)
        definitions = dict(self._version_definitions())
        # Entry 0 is the null symbol.
        for i in range(1, count):
            name, info, other, section = struct.unpack_from("<IBBH", self._data, table + 24 * i)
            version = library = None
            if versions is not None:
                index = struct.unpack_from("<H", self._data, versions + 2 * i)[0] & 0x7FFF
                # 0 and 1 stand for "no version"; a definition with index 1 names the file itself.
                if index > 1:
                    version, library = needs.get(index, (definitions.get(index), None))
            yield Symbol(
                name=self._string(name),
                is_defined=section != 0,
                binding=BINDINGS.get(info >> 4, str(info >> 4)),
                visibility=VISIBILITIES[other & 3],
                version=version,
                library=library,
            )

    def _version_needs(self) -> Iterator[tuple[int, tuple[str, str]]]:
        """Yields (index in DT_VERSYM, (version, library))."""
        offset = self._offset(DT_VERNEED)
        for _ in range(self._value(DT_VERNEEDNUM) or 0):
            _, count, library, first, next_entry = struct.unpack_from("<HHIII", self._data, offset)
            auxiliary = offset + first
            for _ in range(count):
                _, _, index, version, step = struct.unpack_from("<IHHII", self._data, auxiliary)
                yield index & 0x7FFF, (self._string(version), self._string(library))
                auxiliary += step
            offset += next_entry

    def _version_definitions(self) -> Iterator[tuple[int, str]]:
        """Yields (index in DT_VERSYM, version)."""
        offset = self._offset(DT_VERDEF)
        for _ in range(self._value(DT_VERDEFNUM) or 0):
            _, _, index, _, _, first, step = struct.unpack_from("<HHHHIII", self._data, offset)
            (version,) = struct.unpack_from("<I", self._data, offset + first)
            yield index & 0x7FFF, self._string(version)
            offset += step


def describe(elf: ElfFile) -> Iterator[str]:
    """The lines that the command line prints."""
    for field in ("soname", "rpath", "runpath"):
        if getattr(elf, field) is not None:
            yield f"{field} {getattr(elf, field)}"
    yield from (f"needed {library}" for library in elf.needed)
    for library, versions in elf.version_needs.items():
        yield f"versions {library} {' '.join(versions)}"
    for symbol in elf.symbols:
        state = "defined" if symbol.is_defined else "undefined"
        line = f"symbol {symbol.name} {state} {symbol.binding} {symbol.visibility}"
        yield line + "".join(f" {part}" for part in (symbol.version, symbol.library) if part)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("files", type=Path, nargs="+")
    for path in parser.parse_args(arguments).files:
        try:
            print("\n".join([f"{path}:", *describe(read_elf(path))]))
        except (OSError, ElfError) as error:
            print(f"elf: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
