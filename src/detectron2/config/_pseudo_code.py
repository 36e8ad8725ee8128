"""Configs of lazy calls as text that reads like Python."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from detectron2.config._targets import name_of
from detectron2.config.instantiate import dump_dataclass

_COLUMNS = 88
_INDENT = 4


def to_pseudo_code(container: Any, prefix: str) -> str:
    """Write a config as assignments, a line each unless it would get too long.

    Args:
        container: nested dicts and lists, with lazy calls as dicts that have ``_target_``.
        prefix: goes before every key, such as ``"cfg."``.
    """
    name = prefix.removesuffix(".")
    return "".join(f"{line}\n" for line in _assignments(container, name))


def _assignments(value: Any, name: str) -> Iterator[str]:
    if isinstance(value, Mapping) and value and "_target_" not in value:
        for key in sorted(value, key=str):
            yield from _assignments(value[key], _member(name, key))
    else:
        yield f"{name} = " + _text(value, column=len(name) + 3, indent=0)


def _member(name: str, key: Any) -> str:
    if isinstance(key, str) and key.isidentifier():
        return f"{name}.{key}" if name else key
    return f"{name}[{_atom(key)}]"


def _text(value: Any, column: int, indent: int) -> str:
    """Write a value that begins at a column, breaking it where the line would be too long."""
    line, parts = _line(value), _parts(value)
    # Within brackets a comma follows.
    if parts is None or not parts[1] or column + len(line) + (indent > 0) <= _COLUMNS:
        return line
    opening, items, closing = parts
    inner = indent + _INDENT
    together = ", ".join(label + _line(item) for label, item in items)
    # As Black does it: arguments may share a line, items may not.
    call = opening not in ("(", "[", "{")
    if call and inner + len(together) <= _COLUMNS:
        lines = [" " * inner + together]
    else:
        lines = [
            f"{' ' * inner}{label}{_text(item, inner + len(label), inner)},"
            for label, item in items
        ]
    return "\n".join([opening, *lines, " " * indent + closing])


def _line(value: Any) -> str:
    parts = _parts(value)
    if parts is None:
        return _atom(value)
    opening, items, closing = parts
    if type(value) is tuple and len(items) == 1:
        closing = ",)"
    return opening + ", ".join(label + _line(item) for label, item in items) + closing


def _parts(value: Any) -> tuple[str, list[tuple[str, Any]], str] | None:
    """Opening, labelled items and closing of what holds other values; None for anything else."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = dump_dataclass(value)
    if isinstance(value, Mapping) and "_target_" in value:
        target = value["_target_"]
        function = target if isinstance(target, str) else _line(target)
        arguments = [(key, item) for key, item in value.items() if key != "_target_"]
        if all(isinstance(key, str) and key.isidentifier() for key, _ in arguments):
            return f"{function}(", [(f"{key}=", item) for key, item in arguments], ")"
        return f"{function}(", [("**", dict(arguments))], ")"
    if isinstance(value, Mapping):
        return "{", [(f"{_atom(key)}: ", item) for key, item in value.items()], "}"
    if isinstance(value, list):
        return "[", [("", item) for item in value], "]"
    if type(value) is tuple:
        return "(", [("", item) for item in value], ")"
    return None


def _atom(value: Any) -> str:
    if isinstance(value, str):
        quoted = repr(value)
        return f'"{quoted[1:-1]}"' if '"' not in quoted else quoted
    return name_of(value) if callable(value) else repr(value)
