"""Objects that are built from explicit arguments or from a config."""

import functools
import inspect
import sys
from collections.abc import Callable
from typing import Any

from fvcore.common.config import CfgNode


def configurable(
    init_func: Callable[..., Any] | None = None,
    *,
    from_config: Callable[..., dict[str, Any]] | None = None,
) -> Callable[..., Any]:
    """Let a class or function be called with a config instead of its own arguments.

    On a class it decorates ``__init__``, and the class has a classmethod ``from_config``, whose
    first parameter is ``cfg``, that turns a config into the arguments of ``__init__``. Subclasses
    may override only that one. On a function it takes the same as ``from_config``, which the
    decorated function has as an attribute::

        class Head:
            @configurable
            def __init__(self, channels, depth=2): ...

            @classmethod
            def from_config(cls, cfg, channels):
                return {"channels": channels, "depth": cfg.MODEL.DEPTH}

        Head(channels=8, depth=3)
        Head(cfg, channels=8)
        Head(cfg, channels=8, depth=3)  # in place of cfg's

    A call is one with a config if the first argument, or the one named ``cfg``, is a ``CfgNode``
    or an omegaconf ``DictConfig``. ``from_config`` is given the arguments that it knows; those that
    it does not know replace its results. If it has ``*args`` or ``**kwargs`` it is given them all.

    Args:
        init_func: the ``__init__`` or function.
        from_config: for functions only: makes their arguments from ``cfg``.

    Raises:
        TypeError: if what is decorated, or ``from_config``, is of the wrong kind.
        AttributeError: when an object is made whose class has no ``from_config``.
    """
    if from_config is not None:
        return _of_function(init_func, from_config)
    if init_func is None:
        return configurable
    if not inspect.isfunction(init_func) or init_func.__name__ != "__init__":
        raise TypeError(
            f"configurable decorates __init__, or a function when given from_config: {init_func!r}"
        )

    @functools.wraps(init_func)
    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        kind = type(self)
        to_arguments = getattr(kind, "from_config", None)
        if to_arguments is None:
            raise AttributeError(f"{kind.__name__} is configurable, but has no from_config")
        if not inspect.ismethod(to_arguments):
            raise TypeError(f"{kind.__name__}.from_config should be a classmethod")
        if _has_config(args, kwargs):
            args, kwargs = (), _arguments(to_arguments, args, kwargs)
        init_func(self, *args, **kwargs)

    return init


def _of_function(
    function: Callable[..., Any] | None, from_config: Callable[..., dict[str, Any]]
) -> Callable[..., Any]:
    if not inspect.isfunction(from_config):
        raise TypeError(f"from_config should be a function: {from_config!r}")
    if function is None:
        return functools.partial(_of_function, from_config=from_config)

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if _has_config(args, kwargs):
            args, kwargs = (), _arguments(from_config, args, kwargs)
        return function(*args, **kwargs)

    call.from_config = from_config
    return call


def _has_config(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    config = args[0] if args else kwargs.get("cfg")
    if isinstance(config, CfgNode):
        return True
    # Whoever has a DictConfig has imported omegaconf.
    omegaconf = sys.modules.get("omegaconf")
    return omegaconf is not None and isinstance(config, omegaconf.DictConfig)


def _arguments(
    from_config: Callable[..., dict[str, Any]], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> dict[str, Any]:
    parameters = inspect.signature(from_config).parameters
    if next(iter(parameters), None) != "cfg":
        raise TypeError(
            f"The first parameter of {from_config.__qualname__} should be cfg: "
            f"({', '.join(parameters)})"
        )
    kinds = {parameter.kind for parameter in parameters.values()}
    if kinds & {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}:
        return from_config(*args, **kwargs)
    known = {name: value for name, value in kwargs.items() if name in parameters}
    others = {name: value for name, value in kwargs.items() if name not in parameters}
    return {**from_config(*args, **known), **others}
