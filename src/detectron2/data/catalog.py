"""The data sets that have a name: how each is loaded, and what is known about it."""

import functools
import logging
import types
from collections import UserDict
from collections.abc import Callable
from typing import Any, Self

import numpy as np

from detectron2.utils.logger import log_first_n

__all__ = ["DatasetCatalog", "Metadata", "MetadataCatalog"]

_Loader = Callable[[], Any]


class _DatasetCatalog(UserDict):
    """Names of data sets → the functions that load them.

    A function takes no arguments and returns the data set's records, a list of dicts in the
    standard format, or a ``torch.utils.data.Dataset``. It should return the same, in the same
    order, at every call and in every process.
    """

    def register(self, name: str, func: _Loader, *, overwrite: bool = False) -> None:
        """Give a data set a name.

        Args:
            name: of the data set, such as ``"coco_2017_train"``.
            func: loads it.
            overwrite: take the place of what has the name already.

        Raises:
            AssertionError: ``func`` is not callable, or the name is taken.
        """
        if not callable(func):
            raise AssertionError(
                f"{name!r} must be registered with a function that loads it, got {func!r}"
            )
        if name in self and not overwrite:
            raise AssertionError(
                f"the data set {name!r} is registered already, with {_describe(self[name])}; "
                f"got {_describe(func)}. Pass overwrite=True to replace it, or remove() it before"
            )
        self[name] = func

    def get(self, name: str) -> Any:
        """Load a data set, by calling its function.

        Raises:
            KeyError: there is none of this name.
        """
        return self._existing(name)()

    def list(self) -> list[str]:
        """The names of all data sets, in the order of their registration."""
        return list(self)

    def remove(self, name: str) -> None:
        """Forget a data set.

        Raises:
            KeyError: there is none of this name.
        """
        self._existing(name)
        del self[name]

    def _existing(self, name: str) -> _Loader:
        if name not in self:
            raise KeyError(
                f"the data set {name!r} is not registered; there are: {', '.join(self) or 'none'}"
            )
        return self[name]

    def __str__(self) -> str:
        return f"DatasetCatalog(registered datasets: {', '.join(self)})"

    __repr__ = __str__


def _describe(func: _Loader) -> str:
    """What a function is called, and where it was defined."""
    if isinstance(func, functools.partial):
        arguments = [repr(argument) for argument in func.args]
        arguments += [f"{key}={value!r}" for key, value in func.keywords.items()]
        return f"{_describe(func.func)} with {_shortened(', '.join(arguments))}"
    name = getattr(func, "__qualname__", repr(func))
    code = getattr(func, "__code__", None)
    if code is None:
        return f"{name} of {getattr(func, '__module__', None)}"
    return f"{name} of {code.co_filename}:{code.co_firstlineno}"


class Metadata(types.SimpleNamespace):
    """What is known about a data set without loading it, as attributes.

    An attribute is set once: setting it again to another value is an error, since what has read it
    before would be wrong then. :meth:`overwrite` changes it nevertheless.
    """

    name: str = "N/A"
    """The data set's name in :data:`MetadataCatalog`."""

    # Names of before the separation of things and stuff.
    _RENAMED = types.MappingProxyType(
        {
            "class_names": "thing_classes",
            "dataset_id_to_contiguous_id": "thing_dataset_id_to_contiguous_id",
            "stuff_class_names": "stuff_classes",
        }
    )

    def __getattr__(self, key: str) -> Any:
        # Only called for what is not there.
        renamed = Metadata._RENAMED.get(key)
        if renamed is not None:
            _warn_of_old_name(key, renamed)
            return getattr(self, renamed)
        if key.startswith("__"):
            raise AttributeError(key)
        known = ", ".join(sorted(vars(self).keys() - {"name"}))
        raise AttributeError(
            f"the metadata of {self.name!r} has no {key!r}; "
            + (f"it has {known}" if known else "it is empty: is the data set registered?")
        )

    def __setattr__(self, key: str, val: Any) -> None:
        if key in Metadata._RENAMED:
            _warn_of_old_name(key, Metadata._RENAMED[key])
            key = Metadata._RENAMED[key]
        if key in vars(self) and not _equal(vars(self)[key], val):
            raise AssertionError(
                f"the metadata of {self.name!r} has another {key!r} already: "
                f"{_shortened(repr(vars(self)[key]))}; got {_shortened(repr(val))}. "
                "Use overwrite() to replace it"
            )
        super().__setattr__(key, val)

    def as_dict(self) -> dict[str, Any]:
        """All attributes, in a new dict; the values are not copied."""
        return dict(vars(self))

    def set(self, **kwargs: Any) -> Self:
        """Set several attributes; returns the object itself.

        Raises:
            AssertionError: one is there, with another value.
        """
        for key, value in kwargs.items():
            setattr(self, key, value)
        return self

    def overwrite(self, **kwargs: Any) -> Self:
        """Set several attributes, whether they are there or not; returns the object itself."""
        for key, value in kwargs.items():
            key = Metadata._RENAMED.get(key, key)
            vars(self).pop(key, None)
            setattr(self, key, value)
        return self

    def get(self, key: str, default: Any = None) -> Any:
        """An attribute, ``default`` if it is not there."""
        return getattr(self, key, default)


def _warn_of_old_name(key: str, renamed: str) -> None:
    log_first_n(logging.WARNING, f"the metadata's {key!r} is now called {renamed!r}", key="message")


def _equal(old: Any, new: Any) -> bool:
    if isinstance(old, np.ndarray) or isinstance(new, np.ndarray):
        return type(old) is type(new) and np.array_equal(old, new)
    return bool(old == new)


def _shortened(text: str, length: int = 300) -> str:
    return text if len(text) <= length else f"{text[:length]}… ({len(text)} characters)"


class _MetadataCatalog(UserDict):
    """Names of data sets → their :class:`Metadata`."""

    def get(self, name: str) -> Metadata:
        """The metadata of a data set, the same object at every call.

        A name that is not known yet gets an empty one, whether it is registered or not.

        Raises:
            AssertionError: the name is empty.
        """
        if not name:
            raise AssertionError(f"a data set's name must not be empty, got {name!r}")
        if name not in self:
            self[name] = Metadata(name=name)
        return self[name]

    def list(self) -> list[str]:
        """The names of all data sets that have metadata."""
        return list(self)

    def remove(self, name: str) -> None:
        """Forget the metadata of a data set.

        Raises:
            KeyError: there are none of this name.
        """
        if name not in self:
            raise KeyError(f"there are no metadata of {name!r}; there are of: {', '.join(self)}")
        del self[name]

    def __str__(self) -> str:
        return f"MetadataCatalog(registered metadata: {', '.join(self)})"

    __repr__ = __str__


DatasetCatalog = _DatasetCatalog()
"""The data sets that are registered in this process."""

MetadataCatalog = _MetadataCatalog()
"""What is known about data sets in this process."""
