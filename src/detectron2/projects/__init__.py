"""Models beyond the core ones: DeepLab, Panoptic-DeepLab and PointRend.

Each subpackage registers its parts when it is imported, and has a function that adds its keys to a
configuration.
"""

import importlib
from types import ModuleType

__all__: list[str] = []

_SUBPACKAGES = ("deeplab", "panoptic_deeplab", "point_rend")


def __getattr__(name: str) -> ModuleType:
    if name not in _SUBPACKAGES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return importlib.import_module(f"{__name__}.{name}")
