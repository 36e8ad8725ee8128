"""Whether modules would still do what they did when they were last looked at."""

import sys
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from operator import attrgetter, is_
from types import BuiltinFunctionType, FunctionType
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.modules.module import _has_any_global_hook

from detectron2.layers.batch_norm import FrozenBatchNorm2d
from detectron2.modeling.box_regression import (
    Box2BoxTransform,
    Box2BoxTransformLinear,
    Box2BoxTransformRotated,
)

# Where modules are defined whose way of computing is known.
_KNOWN_PACKAGES = ("torch.nn.modules.", "detectron2.layers.", "detectron2.modeling.")

# Objects that modules hold numbers in.
_HOLDERS = (Box2BoxTransform, Box2BoxTransformLinear, Box2BoxTransformRotated)

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")

_ATTRIBUTES_OF_ALL = frozenset(vars(nn.Module()))

# Values of attributes that do nothing by themselves.
_PLAIN = (
    *(type(None), bool, int, float, str, np.generic, BuiltinFunctionType),
    *(nn.Module, torch.Tensor, torch.dtype, torch.device),
)
_CONTAINERS = (list, tuple, set, frozenset, dict)
_MOST_NESTED = 4


class CannotWatchError(Exception):
    """It is not known what the modules do."""


class ModuleWatch:
    """What modules compute, but for the numbers in their tensors.

    That is the tensors' identity, memory and form, the attributes and children of all modules, and
    that nobody listens to them.

    It holds the tensors' memory, so that what reads it never reads another's.

    Attributes:
        frozen_norms: those of the modules that compute.
    """

    def __init__(
        self,
        computing: Sequence[nn.Module],
        consuming: Sequence[nn.Module],
        settings: dict[str, Any],
        device: torch.device,
    ) -> None:
        """
        Args:
            computing: the modules, with their children, that are looked at.
            consuming: those that take what is computed. Of them, it counts only that they are
                known, and listened to by nobody.
            settings: other numbers that it depends on, by name.
            device: where all tensors must lie.

        Raises:
            CannotWatchError: a module is of a class that is not known, is in training, has hooks
                or methods of its own, or a tensor is not a plain one on ``device``.
        """
        self._roots = [*computing, None, *consuming]
        computing, consuming = _with_children(computing), _with_children(consuming)
        everything = computing + consuming
        for module in everything:
            _require_known(module)
        if any(module.training for module in computing):
            raise CannotWatchError("a module is in training")

        # The affine map that a frozen norm keeps comes and goes without a meaning.
        self.frozen_norms = [x for x in computing if type(x) is FrozenBatchNorm2d]
        others = [x for x in computing if type(x) is not FrozenBatchNorm2d]
        self._attributes = [vars(x) for x in others]
        for value in chain.from_iterable(map(dict.values, self._attributes.copy())):
            if type(value) in _HOLDERS:
                self._attributes.append(vars(value))
        self._dicts = [vars(x) for x in everything]
        self._children = [x._modules for x in everything]
        self._hooks = [getattr(x, name) for x in everything for name in _HOOKS]
        self._tensors = [x for module in computing for x in (module._parameters, module._buffers)]
        self._classes = list({type(x) for x in everything})
        self._containers = [
            value
            for attributes in self._attributes
            for name, value in attributes.items()
            if name not in _ATTRIBUTES_OF_ALL and isinstance(value, (list, dict, set))
        ]

        self._seen_tensors = self._get_tensors()
        values = [*self._own_attributes(), settings]
        for value in values:
            _require_known_value(value)
        loose = list(_tensors_in(values))
        self._plain_tensors = [x for x in self._seen_tensors if x is not None] + loose
        for x in self._plain_tensors:
            _require_plain(x, device)
        self._memory = [x.detach() for x in self._plain_tensors]
        self._seen_forms = self._get_forms()
        self._seen_attributes = self._get_attributes()
        self._seen_containers = _copied(self._containers)
        self._seen_children = self._get_children()
        self._seen_methods = self._get_methods()
        self._settings = _copied(settings)
        if not self._is_unheard():
            raise CannotWatchError("a module has hooks")

    def holds(
        self,
        computing: Sequence[nn.Module],
        consuming: Sequence[nn.Module],
        settings: dict[str, Any],
    ) -> bool:
        """Whether all is as it was.

        Args:
            computing: as in ``__init__``, as they are now.
            consuming: likewise.
            settings: likewise.
        """
        try:
            return (
                _are_same([*computing, None, *consuming], self._roots)
                and self._is_unheard()
                and _are_same(self._get_tensors(), self._seen_tensors)
                and self._get_forms() == self._seen_forms
                and _are_same(self._get_children(), self._seen_children)
                and self._get_methods() == self._seen_methods
                and self._get_attributes() == self._seen_attributes
                and self._containers == self._seen_containers
                and settings == self._settings
            )
        except Exception:
            # An attribute turned into something that does not compare, such as a tensor.
            return False

    def _is_unheard(self) -> bool:
        return not (_has_any_global_hook() or any(self._hooks))

    def _get_tensors(self) -> list[torch.Tensor | None]:
        return [*chain.from_iterable(map(dict.values, self._tensors))]

    def _get_forms(self) -> list[Any]:
        tensors = self._plain_tensors
        return [
            *map(torch.Tensor.data_ptr, tensors),
            *map(torch.Tensor.size, tensors),
            *map(torch.Tensor.stride, tensors),
        ]

    def _get_children(self) -> list[nn.Module | None]:
        return [*chain.from_iterable(map(dict.values, self._children))]

    def _get_methods(self) -> list[Callable[..., Any]]:
        has_own = any("forward" in x or "_compiled_call_impl" in x for x in self._dicts)
        return [has_own, *map(attrgetter("forward"), self._classes)]

    def _get_attributes(self) -> list[Any]:
        return [
            *chain.from_iterable(map(dict.values, self._attributes)),
            *map(attrgetter("eps"), self.frozen_norms),
            *map(attrgetter("training"), self.frozen_norms),
        ]

    def _own_attributes(self) -> list[Any]:
        return [
            value
            for attributes in self._attributes
            for name, value in attributes.items()
            if name not in _ATTRIBUTES_OF_ALL
        ]


def _with_children(roots: Sequence[nn.Module]) -> list[nn.Module]:
    return list(dict.fromkeys(module for root in roots for module in root.modules()))


def _require_known(module: nn.Module) -> None:
    cls = type(module)
    # A class that was made on the fly, as by a parametrisation, is not found under its name.
    found = getattr(sys.modules.get(cls.__module__), cls.__name__, None)
    if not cls.__module__.startswith(_KNOWN_PACKAGES) or found is not cls:
        raise CannotWatchError(f"it is not known what a {cls.__module__}.{cls.__qualname__} does")
    for name in vars(module):
        if isinstance(getattr(cls, name, None), FunctionType):
            raise CannotWatchError(f"a {cls.__qualname__} has a method of its own: {name}")
    if vars(module).get("_compiled_call_impl") is not None:
        raise CannotWatchError(f"a {cls.__qualname__} is compiled")


def _require_known_value(value: Any, depth: int = 0) -> None:
    if isinstance(value, _PLAIN):
        return
    if isinstance(value, _CONTAINERS) and depth < _MOST_NESTED:
        for x in value.values() if isinstance(value, dict) else value:
            _require_known_value(x, depth + 1)
        return
    owner = value if isinstance(value, (type, FunctionType)) else type(value)
    if not owner.__module__.startswith(("torch.", "detectron2.")):
        raise CannotWatchError(f"it is not known what a {type(value).__qualname__} does: {value!r}")


def _require_plain(x: torch.Tensor, device: torch.device) -> None:
    if type(x) not in (torch.Tensor, nn.Parameter) or x.layout is not torch.strided:
        raise CannotWatchError(f"a tensor is a {type(x).__name__} of layout {x.layout}")
    # One on the CPU might be read while the graph is made, and never again.
    if x.device != device:
        raise CannotWatchError(f"a tensor is on {x.device}, not on {device}")


def _are_same(first: list[Any], second: list[Any]) -> bool:
    return len(first) == len(second) and all(map(is_, first, second))


def _copied(value: Any) -> Any:
    """``value``, with its lists, dicts and sets copied, but not what is in them."""
    if type(value) is dict:
        return {name: _copied(x) for name, x in value.items()}
    if isinstance(value, list):
        return [_copied(x) for x in value]
    if type(value) is tuple:
        return tuple(_copied(x) for x in value)
    return value.copy() if isinstance(value, (dict, set)) else value


def _tensors_in(value: Any, depth: int = 0) -> Iterable[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif depth < _MOST_NESTED and isinstance(value, _CONTAINERS):
        for x in value.values() if isinstance(value, dict) else value:
            yield from _tensors_in(x, depth + 1)
