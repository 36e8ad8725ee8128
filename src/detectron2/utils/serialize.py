"""Objects that are to reach another process."""

import pickle
from collections.abc import Callable
from typing import Any

from detectron2.utils import _pickle_by_value

__all__ = ["PicklableWrapper"]


def _dumps(obj: Any) -> bytes:
    try:
        return _pickle_by_value.dumps(obj)
    except (pickle.PicklingError, AttributeError, TypeError, ValueError) as error:
        # Classes that are defined in functions, among others.
        try:
            import cloudpickle
        except ImportError:
            raise pickle.PicklingError(
                f"cannot pickle {obj!r}: {error} (the package cloudpickle may be able to)"
            ) from error
        return cloudpickle.dumps(obj)


class PicklableWrapper:
    """Lets a callable be pickled that ``pickle`` does not take, such as a lambda or a closure.

    It is called, and its attributes are read, as if it were the wrapped object; unpickling gives
    that object itself. The process that unpickles it must run the same Python. What is neither
    such a function nor picklable needs the package ``cloudpickle``.
    """

    def __init__(self, obj: Any) -> None:
        """Wrap ``obj``, or what it wraps."""
        self._obj = obj._obj if isinstance(obj, PicklableWrapper) else obj

    def __reduce__(self) -> tuple[Callable[[bytes], Any], tuple[bytes]]:
        return pickle.loads, (_dumps(self._obj),)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._obj(*args, **kwargs)

    def __getattr__(self, attr: str) -> Any:
        # Without this, a copy that has no __dict__ yet would look for _obj for ever.
        if attr == "_obj":
            raise AttributeError(attr)
        return getattr(self._obj, attr)
