"""YAML files that inherit from others through the key ``_BASE_``."""

import logging
import os
from collections.abc import Callable
from typing import IO, Any

import yaml
from fvcore.common.config import BASE_KEY


class _Loader(yaml.SafeLoader):
    """The safe loader, and tuples, which are as safe as lists."""


_Loader.add_constructor(
    "tag:yaml.org,2002:python/tuple",
    lambda loader, node: tuple(loader.construct_sequence(node, deep=True)),
)


def load_with_base(
    filename: str,
    open_file: Callable[[str], IO[Any]],
    allow_unsafe: bool = False,
    _children: tuple[str, ...] = (),
) -> dict[str, Any]:
    """Read a YAML file, and below its values those of the file, or files, that ``_BASE_`` names.

    A base is a URL, an absolute path, one below the home folder (``~``), or one relative to the
    folder of the file that names it. Of several bases a later one overrides an earlier one.

    Args:
        filename: path or URL of the file.
        open_file: opens a path or URL for reading.
        allow_unsafe: let tags such as ``!!python/object`` make Python objects, with a warning.

    Raises:
        ValueError: if the file holds no mapping, if files inherit from each other in a circle, or
            if a section of a file is a plain value in its base.
        yaml.YAMLError: for bad syntax, and for Python's tags unless ``allow_unsafe``.
    """
    if filename in _children:
        circle = " -> ".join([*_children, filename])
        raise ValueError(f"Config files inherit from each other in a circle: {circle}")
    values = _load(filename, open_file, allow_unsafe)
    bases = values.pop(BASE_KEY, [])
    merged: dict[str, Any] = {}
    for base in [bases] if isinstance(bases, str) else bases:
        inherited = load_with_base(
            _resolve(base, filename), open_file, allow_unsafe, (*_children, filename)
        )
        _override(merged, inherited, filename)
    _override(merged, values, filename)
    return merged


def load_yaml(stream: IO[Any] | str, name: str, allow_unsafe: bool) -> Any:
    """Parse YAML by the safe loader, or, where its tags need it, by the unsafe one."""
    text = stream if isinstance(stream, str) else stream.read()
    try:
        return yaml.load(text, _Loader)
    except yaml.constructor.ConstructorError:
        if not allow_unsafe:
            raise
    logging.getLogger(__name__).warning(
        f"{name} has tags that make Python objects, and may so run any code: trust its source"
    )
    return yaml.unsafe_load(text)


def _load(filename: str, open_file: Callable[[str], IO[Any]], allow_unsafe: bool) -> dict[str, Any]:
    with open_file(filename) as stream:
        values = load_yaml(stream, filename, allow_unsafe)
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ValueError(f"{filename} should hold a mapping, not a {type(values).__name__}")
    return values


def _resolve(base: str, filename: str) -> str:
    base = os.path.expanduser(base)
    if os.path.isabs(base) or "://" in base:
        return base
    return os.path.join(os.path.dirname(filename), base)


def _override(values: dict[str, Any], by: dict[str, Any], filename: str) -> None:
    for key, value in by.items():
        if not isinstance(value, dict) or key not in values:
            values[key] = value
        elif isinstance(values[key], dict):
            _override(values[key], value, filename)
        else:
            raise ValueError(f"{key} is a section in {filename}, but {values[key]!r} in its base")
