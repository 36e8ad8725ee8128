"""A cache of unpacked wheels, filled through the machine's own pip.

Layout of the folder:

    wheels/<key>/tree/               one unpacked wheel; <key> is the SHA-256 of the locked file,
                                     and the interpreter's tag where that file was an sdist
    wheels/<key>/bytecode-<tag>      there once `tree` holds the bytecode for <tag>
    index/<hash of requirement+tag>  the key that a requirement led to on such an interpreter
    tmp/                             work in progress of the process that holds `lock`
    lock

An entry appears by one rename and never changes afterwards (bytecode is added), so readers need
no lock. Whoever takes the lock finds in tmp/ only what killed processes left there.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from lock_file import LockedPackage
from wheel_unpack import compile_bytecode, unpack_wheel

# What builds an sdist. It is taken from the lock like all else, never from the machine.
_BUILD_TOOLS = ("setuptools", "wheel")

_CANNOT_REACH = re.compile(
    r"Retrying \(|NewConnectionError|Connection(Error| refused| reset| broken)|timed out"
    r"|ProxyError|SSLError|Temporary failure in name resolution|HTTP error|Max retries"
)


class CacheError(Exception):
    """Why the cache cannot supply what was asked for, as one line."""


class WheelCache:
    """The unpacked wheels of the packages of one lock; `lock` maps canonical names to packages."""

    def __init__(self, folder: Path, lock: Mapping[str, LockedPackage]) -> None:
        self._folder = folder.absolute()
        self._lock = lock
        self._tag = sys.implementation.cache_tag
        self._wheels = self._folder / "wheels"
        self._index = self._folder / "index"
        self._tmp = self._folder / "tmp"
        self._work = self._tmp

    def trees(
        self, packages: Sequence[LockedPackage], *, bytecode: bool = False
    ) -> dict[str, Path]:
        """Returns each package's unpacked tree by name, fetching what is not there yet."""
        if not self._complete(packages, bytecode):
            with self._locked():
                self._fill(packages)
                if bytecode:
                    self._compile(packages)
        return {package.name: self._entry(package) / "tree" for package in packages}

    def _complete(self, packages: Sequence[LockedPackage], bytecode: bool) -> bool:
        return not self._missing(packages) and not (bytecode and self._uncompiled(packages))

    def _missing(self, packages: Sequence[LockedPackage]) -> list[LockedPackage]:
        return [package for package in packages if self._entry(package) is None]

    def _uncompiled(self, packages: Sequence[LockedPackage]) -> list[LockedPackage]:
        marker = f"bytecode-{self._tag}"
        return [package for package in packages if not (self._entry(package) / marker).exists()]

    def _index_file(self, package: LockedPackage) -> Path:
        text = f"{package.requirement}\n{self._tag}\n{sysconfig.get_platform()}\n"
        return self._index / hashlib.sha256(text.encode()).hexdigest()

    def _entry(self, package: LockedPackage) -> Path | None:
        try:
            key = self._index_file(package).read_text(encoding="ascii").strip()
        except (OSError, ValueError):
            return None
        entry = self._wheels / key
        # The digest part keeps a damaged index from naming some other folder, or another package.
        known = key.partition("-")[0] in package.hashes
        return entry if known and (entry / "tree").is_dir() else None

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        for folder in (self._wheels, self._index):
            folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / "lock").open("w") as lock_handle:
            try:
                fcntl.flock(lock_handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                report(f"waiting for another run that fills {self._folder}")
                fcntl.flock(lock_handle, fcntl.LOCK_EX)
            shutil.rmtree(self._tmp, ignore_errors=True)
            self._tmp.mkdir(exist_ok=True)
            # A name of its own: the pip of a killed run may still be writing under the old one.
            self._work = Path(tempfile.mkdtemp(dir=self._tmp))
            try:
                yield
            finally:
                shutil.rmtree(self._tmp, ignore_errors=True)

    def _fill(self, packages: Sequence[LockedPackage]) -> None:
        missing = self._missing(packages)
        if not missing:
            return
        # pip asks an sdist for its metadata while it downloads, so the tools have to be there.
        tools = [self._lock[name] for name in _BUILD_TOOLS if name in self._lock]
        missing_tools = self._missing(tools)
        if missing_tools:
            self._fetch(missing_tools, [])
        tool_trees = [self._entry(tool) / "tree" for tool in tools]
        rest = self._missing(packages)
        if rest:
            self._fetch(rest, tool_trees)

    def _fetch(self, packages: Sequence[LockedPackage], tool_trees: Sequence[Path]) -> None:
        """Downloads the packages in one go of pip, then unpacks them into the cache."""
        downloads = self._work / "downloads"
        shutil.rmtree(downloads, ignore_errors=True)
        requirements = self._work / "requirements.txt"
        requirements.write_text("".join(f"{p.requirement}\n" for p in packages), encoding="utf-8")
        report(f"fetching {', '.join(package.pin for package in packages)}")
        _run_pip(
            [
                "download",
                "--require-hashes",
                "--no-deps",
                "--no-build-isolation",
                "--use-pep517",
                "--progress-bar=off",
                f"--dest={downloads}",
                f"--requirement={requirements}",
            ],
            tool_trees,
        )
        locked = {digest: package for package in packages for digest in package.hashes}
        waiting = {package.name for package in packages}
        for file in sorted(downloads.iterdir()):
            digest = _sha256(file)
            package = locked.get(digest)
            if package is None:
                raise CacheError(f"hash mismatch: {file.name} has sha256 {digest}, not locked")
            self._add(package, digest, file, tool_trees)
            waiting.discard(package.name)
            file.unlink()
        if waiting:
            raise CacheError(f"pip downloaded nothing for {', '.join(sorted(waiting))}")

    def _add(
        self, package: LockedPackage, digest: str, file: Path, tool_trees: Sequence[Path]
    ) -> None:
        key, wheel = digest, file
        if file.suffix != ".whl":
            key, wheel = f"{digest}-{self._tag}", self._build(package, file, tool_trees)
        entry = self._wheels / key
        if not entry.exists():
            report(f"unpacking {wheel.name}")
            unfinished = self._work / key
            unpack_wheel(wheel, unfinished / "tree")
            unfinished.rename(entry)
        unfinished_index = self._work / "index"
        unfinished_index.write_text(key + "\n", encoding="ascii")
        unfinished_index.rename(self._index_file(package))

    def _build(self, package: LockedPackage, sdist: Path, tool_trees: Sequence[Path]) -> Path:
        report(f"building {sdist.name}")
        built = self._work / f"built-{package.name}"
        _run_pip(
            [
                "wheel",
                "--no-deps",
                "--no-build-isolation",
                "--use-pep517",
                "--no-index",
                # Not one that pip built at another time, with other tools.
                "--no-cache-dir",
                f"--wheel-dir={built}",
                str(sdist),
            ],
            tool_trees,
        )
        wheels = list(built.glob("*.whl"))
        if len(wheels) != 1:
            raise CacheError(f"building {sdist.name} made {len(wheels)} wheels")
        return wheels[0]

    def _compile(self, packages: Sequence[LockedPackage]) -> None:
        for package in self._uncompiled(packages):
            report(f"compiling {package.pin}")
            entry = self._entry(package)
            compile_bytecode(entry / "tree")
            (entry / f"bytecode-{self._tag}").touch()


def report(line: str) -> None:
    """One line of progress."""
    print(line, file=sys.stderr, flush=True)


def _sha256(file: Path) -> str:
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _run_pip(arguments: Sequence[str], python_path: Sequence[Path]) -> None:
    """Runs pip as the machine has it configured; what it downloads is reported as it goes."""
    if importlib.util.find_spec("pip") is None:
        raise CacheError(
            f"{sys.executable} has no pip: install it (python3-pip on Debian, or "
            f"`{sys.executable} -m ensurepip`)"
        )
    environment = {
        **os.environ,
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_NO_INPUT": "1",
        "PYTHONPATH": os.pathsep.join(map(str, python_path)),
        # The earliest time a zip archive can hold: a built wheel does not depend on the day.
        "SOURCE_DATE_EPOCH": "315532800",
    }
    lines: list[str] = []
    with subprocess.Popen(
        [sys.executable, "-m", "pip", *arguments],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
    ) as process:
        try:
            for line in process.stdout:
                lines.append(line.rstrip())
                if line.strip().startswith("Downloading "):
                    report(line.strip())
        except BaseException:
            process.kill()
            raise
    if process.returncode != 0:
        raise CacheError(_explain(arguments[0], lines))


def _explain(verb: str, lines: Sequence[str]) -> str:
    """Condenses what a failed pip printed into one line that says what to look at."""
    text = "\n".join(lines)
    mismatch = re.search(r"DO NOT MATCH THE HASHES.*?\n\s*(\S+).*?Got\s+([0-9a-f]{64})", text, re.S)
    if mismatch:
        return (
            f"hash mismatch: the index's file for {mismatch[1]} has sha256 {mismatch[2]}, which "
            "the lock does not admit; the lock is out of date, or the file was tampered with"
        )
    absent = re.search(r"No matching distribution found for (\S+)", text)
    unreachable = _CANNOT_REACH.search(text)
    if absent or unreachable:
        collecting = re.findall(r"^Collecting (\S+)", text, re.M)
        wanted = absent[1] if absent else collecting[-1] if collecting else "a package"
        or_absent = "" if unreachable else ", or has no such file"
        return (
            f"cannot fetch {wanted}: the index cannot be reached{or_absent}; check the network, "
            "proxy and index that `pip config list` and the PIP_* variables name, and the version "
            "in the lock"
        )
    errors = [line.strip() for line in lines if re.search(r"\b(error|failed)\b", line, re.I)]
    last = errors or [line.strip() for line in lines if line.strip()] or ["no output"]
    return f"pip {verb} failed: {'; '.join(dict.fromkeys(last))}"
