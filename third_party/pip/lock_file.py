"""Reads a requirements lock in the form that pip-compile writes.

A requirement is `name==version`, optionally with `; marker`, followed by one or more
`--hash=sha256:<hex>` options; a backslash continues a line and `#` starts a comment. Any other
option line (`--index-url` and the like) is refused: where files come from is for the machine's
pip configuration to say, what they are is for the hashes.
"""

from __future__ import annotations

import ast
import operator
import os
import platform
import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

_REQUIREMENT = re.compile(
    r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)\s*(?:\[[^\]]*\])?\s*==\s*(?P<version>[^\s;]+)"
    r"\s*(?:;\s*(?P<marker>.*?))?\s*"
)
_HASH_OPTION = re.compile(r"\s--hash=(?P<algorithm>[a-z0-9]+):(?P<digest>[0-9a-f]+)(?=\s|$)")


class LockError(Exception):
    """What the user has to change, as one line."""


@dataclass(frozen=True)
class LockedPackage:
    """One requirement of the lock: `hashes` are the SHA-256 digests of the files it admits."""

    name: str
    version: str
    hashes: tuple[str, ...]

    @property
    def pin(self) -> str:
        return f"{self.name}=={self.version}"

    @property
    def requirement(self) -> str:
        """The line to give to `pip --require-hashes`."""
        return " ".join([self.pin, *(f"--hash=sha256:{digest}" for digest in self.hashes)])


def canonical_name(name: str) -> str:
    """The form under which PEP 503 compares distribution names."""
    return re.sub(r"[-_.]+", "-", name).lower()


def read_lock(path: Path) -> dict[str, LockedPackage]:
    """Returns the packages that apply to this interpreter, by canonical name, in file order.

    Raises LockError for anything that is not a pinned and hashed requirement.
    """
    packages: dict[str, LockedPackage] = {}
    for number, line in _logical_lines(path):
        where = f"{path}:{number}"
        first_hash = _HASH_OPTION.search(line)
        match = _REQUIREMENT.fullmatch(line[: first_hash.start()] if first_hash else line)
        if match is None:
            raise LockError(f"{where}: not of the form name==version --hash=sha256:...: {line!r}")
        name = canonical_name(match["name"])
        pin = f"{name}=={match['version']}"
        hashes = list(_HASH_OPTION.finditer(line))
        for option in hashes:
            if option["algorithm"] != "sha256" or len(option["digest"]) != 64:
                raise LockError(f"{where}: {pin} has a hash that is no sha256: {option[0].strip()}")
        if not hashes:
            raise LockError(f"{where}: {pin} has no --hash=sha256:...")
        if _HASH_OPTION.sub("", line[first_hash.start() :]).strip():
            raise LockError(f"{where}: options other than --hash after {pin}: {line!r}")
        if match["marker"] and not _marker_holds(match["marker"], where):
            continue
        if name in packages:
            raise LockError(f"{where}: {name} is locked twice")
        digests = tuple(sorted({option["digest"] for option in hashes}))
        packages[name] = LockedPackage(name, match["version"], digests)
    return packages


def _logical_lines(path: Path) -> Iterable[tuple[int, str]]:
    """Lines without comments, continuations joined, with the number of their first line."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise LockError(f"cannot read the lock {path}: {error.strerror}") from None
    joined, start = "", 0
    for number, raw in enumerate(text.splitlines(), start=1):
        line = re.sub(r"(^|\s)#.*$", "", raw).rstrip()
        start = start if joined else number
        joined += line.removesuffix("\\").strip() + " "
        if line.endswith("\\"):
            continue
        if joined.strip():
            yield start, joined.strip()
        joined = ""
    if joined.strip():
        yield start, joined.strip()


def _marker_environment() -> dict[str, str]:
    """The variables of PEP 508 for the running interpreter; no extra is ever asked for."""
    return {
        "extra": "",
        "implementation_name": sys.implementation.name,
        "implementation_version": platform.python_version(),
        "os_name": os.name,
        "platform_machine": platform.machine(),
        "platform_python_implementation": platform.python_implementation(),
        "platform_release": platform.release(),
        "platform_system": platform.system(),
        "platform_version": platform.version(),
        "python_full_version": platform.python_version(),
        "python_version": ".".join(platform.python_version_tuple()[:2]),
        "sys_platform": sys.platform,
    }


_COMPARISONS: dict[type[ast.cmpop], Callable[[object, object], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda left, right: left in right,
    ast.NotIn: lambda left, right: left not in right,
}


def _marker_holds(marker: str, where: str) -> bool:
    """Evaluates a marker; its grammar, but for `~=` and `===`, is a subset of Python's."""
    environment = _marker_environment()

    def operand(node: ast.expr) -> str:
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            return node.value
        if isinstance(node, ast.Name) and node.id in environment:
            return environment[node.id]
        raise ValueError(ast.unparse(node))

    def holds(node: ast.expr) -> bool:
        if isinstance(node, ast.BoolOp):
            values = [holds(value) for value in node.values]
            return all(values) if isinstance(node.op, ast.And) else any(values)
        if not isinstance(node, ast.Compare) or len(node.ops) != 1:
            raise ValueError(ast.unparse(node))
        comparison = type(node.ops[0])
        left, right = operand(node.left), operand(node.comparators[0])
        if comparison in (ast.In, ast.NotIn):
            return _COMPARISONS[comparison](left, right)
        if all(re.fullmatch(r"\d+(\.\d+)*", side) for side in (left, right)):
            return _COMPARISONS[comparison](_release(left), _release(right))
        return _COMPARISONS[comparison](left, right)

    try:
        return holds(ast.parse(marker, mode="eval").body)
    except (SyntaxError, ValueError, KeyError):
        raise LockError(f"{where}: cannot evaluate the marker {marker!r}") from None


def _release(version: str) -> tuple[int, ...]:
    """Trailing zeros do not count: 3.11 equals 3.11.0."""
    return tuple(int(part) for part in re.sub(r"(\.0+)+$", "", version).split("."))
