"""Names of what lazy calls call."""

import functools
import sys
from typing import Any

from detectron2.config._python_files import MODULE_PREFIX
from detectron2.utils.registry import _convert_target_to_string, locate


def name_of(target: Any) -> str:
    """A dotted path for people to read; of objects without one, what they show of themselves."""
    # What LazyCall makes of classes that have no path, too.
    if isinstance(target, functools.partial) and not target.args and not target.keywords:
        target = target.func
    if getattr(target, "__module__", None) and getattr(target, "__qualname__", None):
        module, name = target.__module__, target.__name__
        if name != target.__qualname__ and getattr(sys.modules.get(module), name, None) is target:
            # Such as torch.relu, which is torch._VariableFunctionsClass.relu by its own account.
            return f"{module}.{name}"
        return _convert_target_to_string(target)
    return repr(target)


def path_of(target: Any) -> str | None:
    """The dotted path from which the target can be located again; None if there is none."""
    path = name_of(target)
    if path.startswith(MODULE_PREFIX):
        return None
    try:
        # Methods of classes are equal, but made anew each time.
        return path if locate(path) == target else None
    except ImportError:
        return None
