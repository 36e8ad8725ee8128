"""Names that a module re-exports without importing their homes."""

import importlib
from collections.abc import Callable, Mapping
from typing import Any


def lazy_attributes(module: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """Make a module's ``__getattr__`` that imports what is asked for.

    Args:
        module: the re-exporting module's ``__name__``.
        homes: name → the module that it is imported from.
    """

    def __getattr__(name: str) -> Any:  # noqa: N807
        if name not in homes:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        try:
            return getattr(importlib.import_module(homes[name]), name)
        except ImportError as error:
            raise AttributeError(f"module {module!r} cannot import {name!r}: {error}") from error

    return __getattr__
