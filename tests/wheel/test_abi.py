"""Every symbol that the extensions take from torch is there in each release that we support.

DETECTRON2_TORCH_SYMBOLS names a folder with one file a release, as
third_party/libtorch/dynamic_symbols.py writes it: `# torch X.Y.Z`, then one symbol a line.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import ModuleType

# Their symbols carry the library they come from, in their version.
SYSTEM_LIBRARIES = re.compile(
    r"(ld-linux-x86-64|libc|libdl|libgcc_s|libm|libpthread|librt)\.so\.|libstdc\+\+"
)


def read_symbols(path: Path) -> tuple[str, set[str]]:
    """Returns the release and the symbols of a list."""
    title, *symbols = path.read_text().splitlines()
    match = re.fullmatch(r"# torch (\d+\.\d+\S*)", title)
    assert match, f"{path} begins with {title!r}"
    assert symbols, f"{path} is empty"
    return match[1], set(symbols)


def torch_symbols(file: object) -> set[str]:
    """The undefined symbols that neither Python nor the C and C++ runtimes are to define."""
    return {
        symbol.name
        for symbol in file.symbols
        if not symbol.is_defined
        # A weak reference may stay undefined: the loader leaves it null.
        and symbol.binding != "weak"
        and not re.match(r"_?Py", symbol.name)
        and not (symbol.library and SYSTEM_LIBRARIES.match(symbol.library))
    }


def missing_symbols(
    wanted: Iterable[str], releases: Mapping[str, set[str]]
) -> dict[str, list[str]]:
    """The wanted symbols that a release lacks, by release; releases that lack none left out."""
    lacking = {release: sorted(set(wanted) - there) for release, there in releases.items()}
    return {release: names for release, names in lacking.items() if names}


def test_symbols_are_there_in_every_release(
    extension: Path, elf: ModuleType, files_of: Callable[[str], list[Path]]
) -> None:
    (folder,) = files_of("DETECTRON2_TORCH_SYMBOLS")
    releases = dict(read_symbols(path) for path in folder.glob("*.txt"))
    # The oldest that the wheel claims to run with, and a newer one.
    assert any(release.startswith("2.10.") for release in releases), releases.keys()
    assert len(releases) >= 2, releases.keys()
    wanted = torch_symbols(elf.read_elf(extension))
    assert wanted, "an extension that uses nothing of torch"
    assert not missing_symbols(wanted, releases)
    made_up = "aoti_torch_no_such_function"
    assert missing_symbols({*wanted, made_up}, releases) == {
        release: [made_up] for release in releases
    }


def test_reports_what_is_missing_by_release() -> None:
    releases = {"2.10.0": {"aoti_torch_a"}, "2.14.1": {"aoti_torch_a", "torch_b"}}
    assert missing_symbols(["aoti_torch_a", "torch_b"], releases) == {"2.10.0": ["torch_b"]}
    assert missing_symbols(["aoti_torch_a"], releases) == {}
