"""Stand-ins for classes and functions whose optional dependency is not installed."""

from collections.abc import Callable, Sequence
from typing import Any, NoReturn


def _missing(name: str, dependency: str | Sequence[str], message: str) -> str:
    packages = dependency if isinstance(dependency, str) else ", ".join(dependency)
    text = f"{name} needs {packages}, which cannot be imported."
    return f"{text} {message}" if message else text


def create_dummy_class(klass: str, dependency: str | Sequence[str], message: str = "") -> type:
    """Make a class that raises ``ImportError`` when it is called or an attribute of it is read.

    Args:
        klass: name of the class that is stood in for.
        dependency: the missing package, or several.
        message: text that is added to the error.
    """
    error = _missing(klass, dependency, message)

    class _DummyMeta(type):
        def __getattr__(cls, name: str) -> NoReturn:
            # Introspection (inspect, doctest) probes for dunders and expects AttributeError.
            if name.startswith("__"):
                raise AttributeError(name)
            raise ImportError(error)

        def __call__(cls, *args: Any, **kwargs: Any) -> NoReturn:
            raise ImportError(error)

    return _DummyMeta(klass, (), {})


def create_dummy_func(
    func: str, dependency: str | Sequence[str], message: str = ""
) -> Callable[..., NoReturn]:
    """Make a function that raises ``ImportError`` when it is called.

    Args:
        func: name of the function that is stood in for.
        dependency: the missing package, or several.
        message: text that is added to the error.
    """
    error = _missing(func, dependency, message)

    def dummy(*args: Any, **kwargs: Any) -> NoReturn:
        raise ImportError(error)

    dummy.__name__ = dummy.__qualname__ = func
    return dummy
