"""Pickles functions that another process cannot import: lambdas, closures, those of a script."""

import importlib
import io
import marshal
import pickle
import sys
from collections.abc import Iterator
from types import CellType, CodeType, FunctionType, ModuleType
from typing import Any

_FUNCTION_ATTRIBUTES = ("__kwdefaults__", "__annotations__", "__doc__", "__module__", "__dict__")


def _is_importable(function: FunctionType) -> bool:
    # A process may run another script as its __main__, or none.
    if function.__module__ == "__main__":
        return False
    found: Any = sys.modules.get(function.__module__)
    for attribute in function.__qualname__.split("."):
        found = getattr(found, attribute, None)
    return found is function


def _names(code: CodeType) -> Iterator[str]:
    """Names that the code, or a function defined in it, may look up among the globals."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


def _new_function(
    code: bytes, module: str, name: str, qualname: str, closure: tuple[CellType, ...] | None
) -> FunctionType:
    namespace = {"__name__": module}
    function = FunctionType(marshal.loads(code), namespace, name, None, closure)
    function.__qualname__ = qualname
    return function


def _fill_function(function: FunctionType, state: dict[str, Any]) -> None:
    function.__globals__.update(state["globals"])
    function.__defaults__ = state["defaults"]
    for name, value in state["attributes"].items():
        setattr(function, name, value)


def _new_cell() -> CellType:
    return CellType()


def _fill_cell(cell: CellType, state: tuple[Any]) -> None:
    (cell.cell_contents,) = state


class _ByValuePickler(pickle.Pickler):
    """Takes functions apart; whatever else is pickled as usual."""

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, FunctionType) and not _is_importable(obj):
            return self._reduce_function(obj)
        if isinstance(obj, CellType):
            return self._reduce_cell(obj)
        if isinstance(obj, ModuleType):
            return importlib.import_module, (obj.__name__,)
        return NotImplemented

    @staticmethod
    def _reduce_function(function: FunctionType) -> tuple:
        code = function.__code__
        arguments = (
            marshal.dumps(code),
            function.__module__,
            function.__name__,
            function.__qualname__,
            function.__closure__,
        )
        # The state is pickled once the function has its place in the stream, so that it may refer
        # to the function.
        state = {
            "globals": {
                name: function.__globals__[name]
                for name in sorted(set(_names(code)))
                if name in function.__globals__
            },
            "defaults": function.__defaults__,
            "attributes": {name: getattr(function, name) for name in _FUNCTION_ATTRIBUTES},
        }
        return _new_function, arguments, state, None, None, _fill_function

    @staticmethod
    def _reduce_cell(cell: CellType) -> tuple:
        try:
            contents = cell.cell_contents
        except ValueError:  # it is empty
            return _new_cell, ()
        return _new_cell, (), (contents,), None, None, _fill_cell


def dumps(obj: Any) -> bytes:
    """Pickle an object for a process that runs the same Python; ``pickle.loads`` reads it."""
    buffer = io.BytesIO()
    _ByValuePickler(buffer, pickle.HIGHEST_PROTOCOL).dump(obj)
    return buffer.getvalue()
