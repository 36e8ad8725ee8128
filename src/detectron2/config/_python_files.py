"""Python files that are configs: run afresh each time, with imports relative to their folder."""

import builtins
import contextvars
import functools
import itertools
import os
import posixpath
import sys
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

from detectron2.utils.file_io import PathManager

# Of the names of modules made of config files, which nothing can import.
MODULE_PREFIX = "detectron2_config_file_"

_counter = itertools.count()
_running: contextvars.ContextVar[tuple[str, ...]] = contextvars.ContextVar("_running", default=())


def run(filename: str) -> ModuleType:
    """Run a config file.

    Args:
        filename: path or URL of a Python file.

    Returns:
        A module with the file's names, which is not kept in ``sys.modules``.

    Raises:
        ImportError: if files import from each other in a circle.
    """
    running = _running.get()
    key = filename if "://" in filename else os.path.realpath(filename)
    if key in running:
        circle = " -> ".join([*running, key])
        raise ImportError(f"Config files import from each other in a circle: {circle}")
    with PathManager.open(filename, "r") as file:
        source = file.read()
    code = compile(source, filename, "exec", dont_inherit=True)
    stem = os.path.splitext(os.path.basename(filename))[0]
    module = ModuleType(f"{MODULE_PREFIX}{next(_counter)}_{stem}")
    module.__file__ = filename
    # The import statement calls what the module's own builtins have: other modules, and threads
    # that import meanwhile, see nothing of this.
    module.__builtins__ = {
        **vars(builtins),
        "__import__": functools.partial(_import, filename),
    }
    # A dataclass looks for its module while it is made.
    sys.modules[module.__name__] = module
    token = _running.set((*running, key))
    try:
        exec(code, vars(module))
    finally:
        _running.reset(token)
        del sys.modules[module.__name__]
    return module


def _import(
    importer: str,
    name: str,
    globals: Mapping[str, Any] | None = None,
    locals: Mapping[str, Any] | None = None,
    fromlist: Sequence[str] | None = (),
    level: int = 0,
) -> ModuleType:
    """The ``__import__`` of config files: a relative import runs another config file."""
    if level == 0:
        return builtins.__import__(name, globals, locals, fromlist or (), level)
    statement = f"from {'.' * level}{name} import {', '.join(fromlist or ())}"
    if not name:
        raise ImportError(
            f"{importer}: {statement!r} imports a whole file; configs import names from files"
        )
    scheme, separator, place = importer.rpartition("://")
    path = os.path.join(os.path.dirname(place), *[os.pardir] * (level - 1), *name.split("."))
    if scheme:
        # Servers do not resolve "..".
        path = scheme + separator + posixpath.normpath(path)
    elif not PathManager.isfile(f"{path}.py"):
        what = f"{path} is a folder" if PathManager.isdir(path) else f"there is no {path}.py"
        raise ImportError(f"{importer}: {statement!r} should name a config file, but {what}")
    module = run(f"{path}.py")
    _convert_dicts(module)
    return module


def _convert_dicts(module: ModuleType) -> None:
    from omegaconf import DictConfig

    for name, value in list(vars(module).items()):
        if isinstance(value, dict) and not name.startswith("__"):
            setattr(module, name, DictConfig(value, flags={"allow_objects": True}))
