"""Whether methods that the library works around are still its own."""

from collections.abc import Callable
from typing import Any, TypeVar

_Class = TypeVar("_Class", bound=type)

_defined: dict[tuple[type, str], Any] = {}


def works_around(*names: str) -> Callable[[_Class], _Class]:
    """Decorate a class whose methods of these names are not called where :func:`has_own` says that
    they are the class's own, as something faster does the same."""

    def note(cls: _Class) -> _Class:
        _defined.update({(cls, name): getattr(cls, name) for name in names})
        return cls

    return note


def has_own(instance: Any, cls: type, *names: str) -> bool:
    """Whether ``instance`` has other methods of these names than those ``cls`` was defined with: by
    a subclass, as attributes, or because someone has replaced them in the class."""
    own, kind = vars(instance), type(instance)
    return any(name in own or getattr(kind, name) is not _defined[cls, name] for name in names)
