"""Configs that are Python files of lazy calls, or YAML."""

import dataclasses
import functools
import logging
import os
import pickle
import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
import yaml

from detectron2.config import _overrides, _pseudo_code, _python_files, _yaml_files
from detectron2.config._pseudo_code import unwrap
from detectron2.config.instantiate import dump_dataclass
from detectron2.utils.file_io import PathManager
from detectron2.utils.registry import _convert_target_to_string, locate

if TYPE_CHECKING:
    from omegaconf import DictConfig

__all__ = ["LazyCall", "LazyConfig"]


class LazyCall:
    """A call that is written down instead of made: ``LazyCall(Conv2d)(in_channels=3)``.

    The result is a ``DictConfig`` of the arguments, and of the callable under ``_target_``; it can
    be read and changed like any config, until :func:`~detectron2.config.instantiate` makes the
    call. Arguments have names, and may be lazy calls themselves.

    Args:
        target: a callable, its dotted path, or a lazy call that will return it.

    Raises:
        TypeError: if ``target`` is anything else.
    """

    def __init__(self, target: Any) -> None:
        if not (callable(target) or isinstance(target, str | Mapping)):
            raise TypeError(
                f"LazyCall takes a callable, its dotted path or another lazy call, not {target!r}"
            )
        self._target = target

    def __call__(self, **kwargs: Any) -> "DictConfig":
        """Write the call down.

        Args:
            **kwargs: the arguments.
        """
        from omegaconf import DictConfig

        target = self._target
        if isinstance(target, type) and _is_made_a_config(target):
            path = _convert_target_to_string(target)
            # Classes of config files and functions have no path that leads to them.
            target = path if _located(path) is target else functools.partial(target)
        return DictConfig({"_target_": target, **kwargs}, flags={"allow_objects": True})


def _is_made_a_config(kind: type) -> bool:
    # omegaconf takes such classes for schemas, or not at all.
    schema = dataclasses.is_dataclass(kind) or hasattr(kind, "__attrs_attrs__")
    return schema or issubclass(kind, dict)


def _located(path: str) -> Any:
    if path.startswith(_python_files.MODULE_PREFIX):
        return None
    try:
        return locate(path)
    except ImportError:
        return None


class LazyConfig:
    """Reads, changes and writes configs of lazy calls.

    A config is a Python file that makes dicts and lazy calls, or a YAML file. A Python file may
    take names from other config files by relative imports, which go by the files' places and need
    no packages: ``from ..common.optim import SGD``. Each file is run each time that it is loaded
    or imported, so that no two configs share anything; dicts come out of imports as ``DictConfig``.
    """

    @staticmethod
    def load_rel(filename: str, keys: str | tuple[str, ...] | None = None) -> Any:
        """Load a file whose path is relative to the file of the caller.

        Args:
            filename: as for :meth:`load`.
            keys: as for :meth:`load`.

        Raises:
            ValueError: if the caller is not in a file.
        """
        caller = sys._getframe(1).f_code.co_filename
        if caller.startswith("<"):
            raise ValueError(f"load_rel({filename!r}) is called from {caller}, which is no file")
        return LazyConfig.load(os.path.join(os.path.dirname(caller), filename), keys)

    @staticmethod
    def load(filename: str, keys: str | tuple[str, ...] | None = None) -> Any:
        """Load a config file.

        Args:
            filename: path or URL, ending in ``.py``, ``.yaml`` or ``.yml``. YAML with tags that
                make Python objects is taken with a warning.
            keys: names to return.

        Returns:
            Without ``keys``, a ``DictConfig`` of all that is a dict or config and does not begin
            with an underscore. With a name, what has that name; with a tuple, a tuple of these.

        Raises:
            ValueError: for other file names.
            KeyError: if the file has no such name.
        """
        from omegaconf import OmegaConf

        filename = os.fspath(filename)
        extension = os.path.splitext(filename)[1]
        if extension not in (".py", ".yaml", ".yml"):
            raise ValueError(f"Configs end in .py, .yaml or .yml, not as {filename!r} does")
        names: Any
        if extension == ".py":
            names = vars(_python_files.run(filename))
        else:
            with PathManager.open(filename, "r") as file:
                content = _yaml_files.load_yaml(file, filename, allow_unsafe=True)
            names = OmegaConf.create(content, flags={"allow_objects": True})
            if keys is None:
                return names
        if keys is None:
            keep = {
                name: value
                for name, value in names.items()
                if not name.startswith("_")
                and (isinstance(value, dict) or OmegaConf.is_config(value))
            }
            return _as_config(keep)
        found = []
        for key in (keys,) if isinstance(keys, str) else keys:
            if key not in names:
                known = ", ".join(name for name in names if not name.startswith("_"))
                raise KeyError(f"{filename} has no {key!r}, only {known}")
            found.append(_as_config(names[key]))
        return found[0] if isinstance(keys, str) else tuple(found)

    @staticmethod
    def save(cfg: Any, filename: str) -> None:
        """Write a config as YAML, which :meth:`load` reads.

        Targets become dotted paths, interpolations stay. What YAML cannot bring back, such as a
        lambda or a class that no module has, is written as text; a warning names its keys, and the
        whole config goes into ``<filename>.pkl`` as well, for ``pickle.load``, if that is possible.

        Args:
            cfg: a config, or nested dicts and lists.
            filename: path, by custom ending in ``.yaml``.
        """
        lost: list[str] = []
        plain = _plain(cfg, resolve=False)
        content = _writable(plain, "", lost)
        text = yaml.dump(
            content, Dumper=_Dumper, default_flow_style=None, allow_unicode=True, width=9999
        )
        with PathManager.open(filename, "w") as file:
            file.write(text)
        if lost:
            pickled = _save_pickle(plain, f"{filename}.pkl")
            logging.getLogger(__name__).warning(
                f"{filename} has as text only what cannot be loaded again: {', '.join(lost)}; "
                + (f"{filename}.pkl has it all" if pickled else "pickle cannot save it, either")
            )

    @staticmethod
    def apply_overrides(cfg: "DictConfig", overrides: list[str]) -> "DictConfig":
        """Change a config in place, as a command line asks for.

        Args:
            cfg: the config.
            overrides: ``key=value`` each, in Hydra's grammar for single values:
                ``train.lr=0.1``, ``dataloader.sizes=[1,2]``, ``'model.name="a b"'``,
                ``optimizer.extra={a:1}``, ``x=null``. New keys are added, with or without ``+``
                or ``++`` before them. Dicts are merged, lists replaced.

        Returns:
            ``cfg``.

        Raises:
            ValueError: if an override cannot be read.
            KeyError: if a key goes through a value that is no config.
            NotImplementedError: for ``~key``, deletion.
        """
        from omegaconf import OmegaConf

        for override in overrides:
            sign, key, value = _overrides.parse_override(override)
            if sign == "~":
                raise NotImplementedError(f"{override!r}: deletion is not supported")
            for parent in _parents(key):
                found = OmegaConf.select(cfg, parent, default=None)
                if found is None:
                    break
                if not OmegaConf.is_config(found):
                    raise KeyError(
                        f"{override!r}: {parent} is {found!r}, a {type(found).__name__}, which has "
                        "no keys"
                    )
            OmegaConf.update(cfg, key, value, merge=True)
        return cfg

    @staticmethod
    def to_py(cfg: Any, prefix: str = "cfg.") -> str:
        """Write a config as Python-like text, for people to read and to compare.

        Args:
            cfg: a config, or nested dicts and lists.
            prefix: goes before every key.

        Returns:
            Lines such as ``cfg.model.backbone = detectron2.modeling.ResNet(depth=50)``, in
            alphabetical order of the keys, with interpolations resolved where all of them can be.
        """
        from omegaconf.errors import OmegaConfBaseException

        try:
            content = _plain(cfg, resolve=True)
        except OmegaConfBaseException:
            content = _plain(cfg, resolve=False)
        return _pseudo_code.to_pseudo_code(content, prefix)


class _Dumper(yaml.Dumper):
    """PyYAML's, and dtypes by their names."""


_Dumper.add_representer(
    torch.dtype,
    lambda dumper, dtype: dumper.represent_scalar(f"tag:yaml.org,2002:python/name:{dtype}", ""),
)


def _as_config(value: Any) -> Any:
    from omegaconf import DictConfig

    if type(value) is dict:
        return DictConfig(value, flags={"allow_objects": True})
    return value


def _plain(cfg: Any, resolve: bool) -> Any:
    """Nested dicts, lists and dataclasses."""
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


def _parents(key: str) -> Iterator[str]:
    for i, character in enumerate(key):
        if i and character in ".[":
            yield key[:i]


def _writable(value: Any, name: str, lost: list[str]) -> Any:
    """Replace targets by their paths, and what YAML cannot bring back by text, noting its name."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = dump_dataclass(value)
    if isinstance(value, dict):
        return {
            key: _target_path(item, f"{name}{key}", lost)
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


def _save_pickle(content: Any, filename: str) -> bool:
    from detectron2.utils.serialize import PicklableWrapper

    try:
        data = pickle.dumps(PicklableWrapper(content))
    except Exception:
        return False
    with PathManager.open(filename, "wb") as file:
        file.write(data)
    return True


def _target_path(target: Any, name: str, lost: list[str]) -> str:
    named = unwrap(target)
    path = _convert_target_to_string(named) if hasattr(named, "__qualname__") else str(named)
    if _located(path) is not target:
        lost.append(name)
    return path
