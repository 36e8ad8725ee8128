"""What a config says, in a form that two libraries can be compared by."""

import dataclasses
import functools
import hashlib
from collections.abc import Mapping
from types import FunctionType
from typing import Any

from omegaconf import DictConfig, OmegaConf

from detectron2.config import CfgNode, get_cfg
from detectron2.config._python_files import MODULE_PREFIX
from detectron2.utils.registry import locate


def values(cfg: CfgNode | DictConfig) -> dict[str, Any]:
    """Values by dotted key: of YAML configs those that differ from the defaults, of lazy configs
    all. Tuples are lists, callables are named by package and qualified name."""
    if isinstance(cfg, CfgNode):
        defaults = flat(get_cfg())
        return {key: value for key, value in flat(cfg).items() if value != defaults[key]}
    return flat(cfg)


def flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Values by dotted key; dicts in lists have numbers for keys."""
    value = _plain(value)
    items: Any = None
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        items = enumerate(value)
    if not items:
        return {prefix: value}
    dot = f"{prefix}." if prefix else ""
    return {k: v for key, item in items for k, v in flat(item, f"{dot}{key}").items()}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        plain = dict(value.items())
        if isinstance(plain.get("_target_"), str):
            plain["_target_"] = locate(plain["_target_"])
        return plain
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, functools.partial):
        return {"_partial_": _name(value.func), "args": value.args, "kwargs": value.keywords}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if hasattr(value, "_asdict"):
        return value._asdict()
    if isinstance(value, list | tuple) or OmegaConf.is_config(value):
        return [_plain(item) for item in value]
    return _name(value) if callable(value) and hasattr(value, "__qualname__") else _kind(value)


def _kind(value: Any) -> dict[str, str]:
    return {"_object_": _name(type(value))}


def _name(target: Any) -> str:
    """``torch:SGD``: modules within a package may move."""
    if target.__module__.startswith(MODULE_PREFIX):
        # A function of a config file may have any name.
        is_private = isinstance(target, FunctionType) and target.__name__[0] in "_<"
        return "config file:" + ("function" if is_private else target.__qualname__)
    return f"{target.__module__.partition('.')[0]}:{target.__qualname__}"


def interpolations(cfg: DictConfig) -> dict[str, str]:
    """What refers to other values, by dotted key."""
    raw = OmegaConf.to_container(cfg, resolve=False)
    return {key: v for key, v in flat(raw).items() if isinstance(v, str) and v.startswith("${")}


def digests(found: dict[str, Any]) -> dict[str, str]:
    """A digest of the values of each section, such as ``MODEL`` or ``dataloader``."""
    sections: dict[str, list[str]] = {}
    for key in sorted(found):
        sections.setdefault(key.partition(".")[0], []).append(f"{key} = {found[key]!r}")
    return {
        name: hashlib.sha256("\n".join(lines).encode()).hexdigest()[:8]
        for name, lines in sections.items()
    }
