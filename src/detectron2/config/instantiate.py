"""Calling what a config of lazy calls describes."""

import dataclasses
import logging
from collections.abc import Callable, Mapping
from typing import Any

from detectron2.config._targets import name_of
from detectron2.utils.registry import _convert_target_to_string, locate

__all__ = ["dump_dataclass", "instantiate"]


def instantiate(cfg: Any) -> Any:
    """Make the object that a lazy call describes, after those that its arguments describe.

    Args:
        cfg: a mapping with ``_target_``, which is a callable, its dotted path or a mapping that
            describes it, and with keyword arguments; or a list or tuple, whose items may be such
            mappings. Anything else, a mapping without ``_target_`` included, is returned as it is.

    Returns:
        The result of the call. A structured config gives its dataclass, a tuple a tuple, and a
        list a list; a ``ListConfig`` gives one again, unless that would change what it holds
        (dataclasses and dicts would become configs), and then a list.

    Raises:
        TypeError: if the target cannot be called, or not with these arguments; which target it
            is, is logged.
        ImportError: if no object has the target's path.
    """
    # Not at the top: much of the library needs this module's neighbours only.
    from omegaconf import DictConfig, ListConfig, OmegaConf

    if isinstance(cfg, ListConfig):
        results = [instantiate(item) for item in cfg]
        as_config = ListConfig(results, flags={"allow_objects": True})
        kept = all(type(a) is type(b) for a, b in zip(results, as_config, strict=True))
        return as_config if kept else results
    if isinstance(cfg, list):
        return [instantiate(item) for item in cfg]
    if type(cfg) is tuple or (OmegaConf.is_config(cfg) and not isinstance(cfg, DictConfig)):
        # The latter is a TupleConfig, which omegaconf has from 2.4 on.
        return tuple(instantiate(item) for item in cfg)
    if isinstance(cfg, DictConfig) and dataclasses.is_dataclass(OmegaConf.get_type(cfg)):
        return OmegaConf.to_object(cfg)
    if isinstance(cfg, Mapping) and "_target_" in cfg:
        arguments = {key: instantiate(value) for key, value in cfg.items()}
        return _call(arguments.pop("_target_"), arguments)
    return cfg


def _call(target: Any, arguments: dict[str, Any]) -> Any:
    function: Callable[..., Any] = locate(target) if isinstance(target, str) else target
    if not callable(function):
        raise TypeError(f"_target_ is {target!r}, which cannot be called")
    try:
        return function(**arguments)
    except TypeError:
        logging.getLogger(__name__).error(f"The call of {name_of(function)} failed")
        raise


def dump_dataclass(obj: Any) -> dict[str, Any]:
    """Describe a dataclass as a dict from which :func:`instantiate` makes an equal one.

    Args:
        obj: an instance of a dataclass, whose fields may hold others, also within lists and tuples.

    Raises:
        TypeError: if ``obj`` is not an instance of a dataclass.
    """
    if not dataclasses.is_dataclass(obj) or isinstance(obj, type):
        raise TypeError(f"dump_dataclass takes an instance of a dataclass, not {obj!r}")
    fields = [field.name for field in dataclasses.fields(obj) if field.init]
    return {
        "_target_": _convert_target_to_string(type(obj)),
        **{name: _dump_value(getattr(obj, name)) for name in fields},
    }


def _dump_value(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dump_dataclass(value)
    if type(value) in (list, tuple):
        return type(value)(_dump_value(item) for item in value)
    return value
