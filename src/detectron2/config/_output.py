"""What configs of lazy calls are written as."""

import dataclasses
import pickle
from typing import Any

import torch
import yaml

from detectron2.config._targets import name_of, path_of
from detectron2.config.instantiate import dump_dataclass


def to_plain(cfg: Any, resolve: bool) -> Any:
    """Turn a config into nested dicts, lists and dataclasses."""
    from omegaconf import OmegaConf, SCMode

    if not OmegaConf.is_config(cfg):
        cfg = OmegaConf.create(cfg, flags={"allow_objects": True})
    try:
        return OmegaConf.to_container(
            cfg, resolve=resolve, structured_config_mode=SCMode.INSTANTIATE
        )
    except Exception:
        # A structured config that is incomplete, or that its class refuses: without its class.
        return OmegaConf.to_container(cfg, resolve=resolve)


def to_yaml(cfg: Any) -> tuple[str, list[str]]:
    """Write a config as YAML, with its targets as paths and its interpolations as they are.

    Returns:
        The YAML, and the keys of values that are only text there because it cannot bring them back.
    """
    lost: list[str] = []
    content = _writable(to_plain(cfg, resolve=False), "", lost)
    text = yaml.dump(
        content, Dumper=_Dumper, default_flow_style=None, allow_unicode=True, width=9999
    )
    return text, lost


def to_pickle(cfg: Any) -> bytes | None:
    """Pickle a config's nested dicts and lists, lambdas included; None if that is impossible."""
    from detectron2.utils.serialize import PicklableWrapper

    try:
        return pickle.dumps(PicklableWrapper(to_plain(cfg, resolve=False)))
    except Exception:
        return None


class _Dumper(yaml.Dumper):
    """PyYAML's, and dtypes by their names."""


_Dumper.add_representer(
    torch.dtype,
    lambda dumper, dtype: dumper.represent_scalar(f"tag:yaml.org,2002:python/name:{dtype}", ""),
)


def _writable(value: Any, name: str, lost: list[str]) -> Any:
    """Replace targets by their paths, and what YAML cannot bring back by text, noting its name."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = dump_dataclass(value)
    if isinstance(value, dict):
        return {
            key: _writable_target(item, f"{name}{key}", lost)
            if key == "_target_" and callable(item)
            else _writable(item, f"{name}{key}.", lost)
            for key, item in value.items()
        }
    if type(value) in (list, tuple):
        items = (_writable(item, f"{name}{i}.", lost) for i, item in enumerate(value))
        return type(value)(items)
    if value is None or type(value) in (bool, int, float, str, bytes):
        return value
    try:
        yaml.unsafe_load(yaml.dump(value, Dumper=_Dumper))
    except Exception:
        lost.append(name.removesuffix("."))
        return str(value)
    return value


def _writable_target(target: Any, name: str, lost: list[str]) -> str:
    path = path_of(target)
    if path is None:
        lost.append(name)
        return name_of(target)
    return path
