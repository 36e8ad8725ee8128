"""Reads from an ELF file which GPU architectures it holds CUDA code for, without the toolkit."""

import struct
from pathlib import Path

# Layout of a fat binary in the section .nv_fatbin: containers, each a header and then entries, one
# an architecture. NVIDIA does not document it; these fields were checked against libraries whose
# -gencode flags are known, built by nvcc 13.0.
_CONTAINER = struct.Struct("<IHHQ")  # magic, version, header size, size of all entries
_CONTAINER_MAGIC = 0xBA55ED50
_ENTRY = struct.Struct("<HHIQIIHHI")  # kind, -, header size, payload size, -, -, -, -, arch
_PTX, _MACHINE_CODE = 1, 2


def _section(data: bytes, name: bytes) -> bytes:
    """Contents of a section of a 64-bit little-endian ELF file; empty where there is none."""
    if data[:6] != b"\x7fELF\x02\x01":
        raise ValueError(f"not a 64-bit little-endian ELF file: it begins with {data[:6]!r}")
    (headers_offset,) = struct.unpack_from("<Q", data, 0x28)
    header_size, count, names_index = struct.unpack_from("<HHH", data, 0x3A)

    def header(index: int) -> tuple[int, int, int]:
        at = headers_offset + index * header_size
        (name_offset,) = struct.unpack_from("<I", data, at)
        return name_offset, *struct.unpack_from("<QQ", data, at + 0x18)

    _, names_offset, _ = header(names_index)
    for index in range(count):
        name_offset, offset, size = header(index)
        start = names_offset + name_offset
        if data[start : data.index(b"\0", start)] == name:
            return data[offset : offset + size]
    return b""


def cuda_architectures(path: str | Path) -> list[str]:
    """List what a shared library holds CUDA code for.

    Args:
        path: an ELF file.

    Returns:
        Names such as ``"sm_90"`` (machine code), ascending, then such as ``"compute_120"`` (PTX).

    Raises:
        ValueError: the file is no 64-bit ELF file, or its fat binary cannot be read.
    """
    fatbin = _section(Path(path).read_bytes(), b".nv_fatbin")
    found = set()
    at = 0
    while at + _CONTAINER.size <= len(fatbin):
        magic, _, header_size, size = _CONTAINER.unpack_from(fatbin, at)
        if magic == 0:  # padding between containers
            at += 8
            continue
        if magic != _CONTAINER_MAGIC:
            raise ValueError(f"unknown fat binary magic {magic:#x} at {at} in {path}")
        entry = at + header_size
        at = entry + size
        while entry < at:
            kind, _, entry_header_size, payload_size, *_, arch = _ENTRY.unpack_from(fatbin, entry)
            if kind in (_PTX, _MACHINE_CODE):
                found.add((kind == _PTX, arch))
            entry += entry_header_size + payload_size
    return [f"{'compute_' if is_ptx else 'sm_'}{arch}" for is_ptx, arch in sorted(found)]
