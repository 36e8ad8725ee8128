"""Whether methods that the library works around are still its own."""

from typing import Any


def has_own(instance: Any, cls: type, *names: str) -> bool:
    """Whether a subclass, or this very object, has methods of its own for those of ``cls``."""
    own = vars(instance)
    return any(
        name in own or getattr(type(instance), name) is not getattr(cls, name) for name in names
    )
