"""Objects by name: registries and dotted paths."""

import builtins
import importlib
import sys
from types import ModuleType
from typing import Any

from fvcore.common.registry import Registry

__all__ = ["Registry", "locate"]


def _lookup(root: Any, qualified_name: str) -> Any:
    """What a chain of attributes leads to; None where one is missing."""
    for attribute in qualified_name.split("."):
        root = getattr(root, attribute, None)
    return root


def _convert_target_to_string(t: Any) -> str:
    """Give the dotted path of a class or function: the inverse of :func:`locate`.

    A package that exports the object stands for the module that defines it, the outermost first:
    ``detectron2.structures.Boxes``, not ``detectron2.structures.boxes.Boxes``.
    """
    packages = t.__module__.split(".")
    for depth in range(1, len(packages)):
        package = ".".join(packages[:depth])
        if _lookup(sys.modules.get(package), t.__qualname__) is t:
            return f"{package}.{t.__qualname__}"
    return f"{t.__module__}.{t.__qualname__}"


def _import(path: str) -> ModuleType | None:
    """The module of this name; None where there is none. What fails inside of it is raised."""
    try:
        return importlib.import_module(path)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{path}.".startswith(f"{error.name}."):
            raise
        return None


def locate(name: str) -> Any:
    """Find an object by its dotted path, importing the modules on the way.

    Args:
        name: such as ``"detectron2.structures.Boxes"``; builtins go without a module.

    Raises:
        ImportError: there is no such object.
    """
    first, *rest = name.split(".")
    path = first
    found = _import(first) if first else None
    if found is None:
        found = getattr(builtins, first, None)
    for attribute in rest:
        parent, path = found, f"{path}.{attribute}"
        found = getattr(parent, attribute, None)
        if found is None and isinstance(parent, ModuleType):
            found = _import(path)
        if found is None:
            break
    if found is None:
        raise ImportError(f"cannot locate {name!r}: there is no {path!r}")
    return found
