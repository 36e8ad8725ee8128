"""Lists the symbols of LibTorch's stable C interface that one release of torch exports.

    dynamic_symbols.py --out symbols.txt torch-2.10.0-....whl

The output's first line is `# torch X.Y.Z`, each further line one symbol. TORCH is a wheel or a
site-packages folder with torch in it.
"""

from __future__ import annotations

import argparse
import importlib.util
import re
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType

# What an extension may bind to. libtorch_python is none of them: the CPU extension does without it.
LIBRARIES = ("libc10", "libc10_cuda", "libtorch", "libtorch_cpu", "libtorch_cuda")
# The prefixes of the C shims; the C++ symbols beside them change from release to release.
STABLE_PREFIXES = ("aoti_torch_", "torch_")
DEFAULT_ELF_READER = Path(__file__).parents[2] / "bazel" / "wheel" / "elf.py"


class SymbolsError(Exception):
    """Why there is no list, as one line."""


def load_elf_reader(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("elf", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def torch_libraries(torch: Path) -> Iterator[Path]:
    """Yields the path of each of LIBRARIES that the wheel or folder has.

    A wheel's are extracted one at a time, since one alone may exceed a gigabyte; a path is good
    until the next is asked for.
    """
    members = [f"torch/lib/{library}.so" for library in LIBRARIES]
    if torch.is_dir():
        yield from (torch / member for member in members if (torch / member).exists())
        return
    with zipfile.ZipFile(torch) as archive:
        for member in sorted(set(members) & set(archive.namelist())):
            with tempfile.NamedTemporaryFile(suffix=".so") as extracted:
                with archive.open(member) as source:
                    shutil.copyfileobj(source, extracted, 1 << 20)
                extracted.flush()
                yield Path(extracted.name)


def torch_version(torch: Path) -> str:
    """The version that torch's own module states."""
    if torch.is_dir():
        text = (torch / "torch" / "version.py").read_text(encoding="utf-8")
    else:
        with zipfile.ZipFile(torch) as archive:
            text = archive.read("torch/version.py").decode()
    match = re.search(r"^__version__ = '([^']+)'", text, re.M)
    if match is None:
        raise SymbolsError(f"torch/version.py of {torch} states no version")
    return match[1]


def stable_symbols(torch: Path, elf: ModuleType) -> list[str]:
    """The exported names with one of STABLE_PREFIXES, sorted."""
    names: set[str] = set()
    for library in torch_libraries(torch):
        names.update(
            symbol.name
            for symbol in elf.read_elf(library).symbols
            if symbol.is_exported and symbol.name.startswith(STABLE_PREFIXES)
        )
    if not names:
        raise SymbolsError(f"{torch} exports none of {', '.join(STABLE_PREFIXES)}")
    return sorted(names)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("torch", type=Path, help="a torch wheel, or a site-packages folder")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--elf", type=Path, default=DEFAULT_ELF_READER, help="the ELF reader")
    options = parser.parse_args(arguments)
    try:
        version = torch_version(options.torch)
        symbols = stable_symbols(options.torch, load_elf_reader(options.elf))
    except (OSError, KeyError, ValueError, SymbolsError, zipfile.BadZipFile) as error:
        print(f"dynamic_symbols: {error}", file=sys.stderr)
        return 1
    options.out.write_text("\n".join([f"# torch {version}", *symbols]) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
