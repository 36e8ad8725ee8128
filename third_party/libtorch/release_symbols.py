"""Lists the symbols that releases of torch export, without keeping the releases.

    release_symbols.py --releases supported_releases.txt --out symbols --cache DIR

Each release of the list (`torch==X.Y.Z` with its hashes) is downloaded with pip, as the machine has
it configured, and leaves `symbols/torch-X.Y.Z.txt`; a wheel of torch is half a gigabyte or more,
its list a few kilobytes. The cache keeps the lists.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import dynamic_symbols


class ReleaseError(Exception):
    """Why a release has no list, as one line."""


def read_releases(path: Path) -> dict[str, str]:
    """Returns each release's version with its lines of the file, as pip's -r takes them."""
    text = re.sub(r"^#.*\n", "", path.read_text(), flags=re.MULTILINE)
    entries = re.split(r"^(?=torch==)", text, flags=re.MULTILINE)
    return {re.match(r"torch==(\S+)", entry).group(1): entry for entry in entries if entry.strip()}


def download(requirement: str, folder: Path) -> Path:
    """Downloads the one wheel that `requirement` locks."""
    lines = folder / "requirement.txt"
    lines.write_text(requirement)
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet")
    options = ("--require-hashes", "--no-deps", "--no-cache-dir", "--only-binary", ":all:")
    done = subprocess.run(
        [*pip, *options, "--dest", folder, "-r", lines], capture_output=True, text=True, check=False
    )
    wheels = list(folder.glob("*.whl"))
    if done.returncode or not wheels:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        name = requirement.split(" ")[0]
        raise ReleaseError(f"{name} can't be downloaded: {(errors or [done.stderr.strip()])[-1]}")
    return wheels[0]


def symbol_list(requirement: str, cache: Path) -> Path:
    """The list of a release, from the cache or made now."""
    source = Path(dynamic_symbols.__file__).read_text()
    key = hashlib.sha256(f"{requirement}\n{source}".encode()).hexdigest()
    cached = cache / "symbols" / f"{key}.txt"
    if not cached.exists():
        cached.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as scratch:
            made = Path(scratch, "symbols.txt")
            wheel = download(requirement, Path(scratch))
            if dynamic_symbols.main(["--out", str(made), str(wheel)]):
                raise ReleaseError(f"{wheel.name} can't be read")
            made.rename(cached)
    return cached


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--releases", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--cache", type=Path, required=True)
    options = parser.parse_args()
    options.cache.mkdir(parents=True, exist_ok=True)
    options.out.mkdir(parents=True)
    try:
        for version, requirement in read_releases(options.releases).items():
            shutil.copy(
                symbol_list(requirement, options.cache), options.out / f"torch-{version}.txt"
            )
    except ReleaseError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
