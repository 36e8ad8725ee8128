"""Configs that are Python files of lazy calls, or YAML."""

import dataclasses
import functools
import logging
import os
import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from detectron2.config import _output, _overrides, _pseudo_code, _python_files, _yaml_files
from detectron2.config._targets import path_of
from detectron2.utils.file_io import PathManager

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
            path = path_of(target)
            # Classes of config files and functions have no path that leads to them.
            target = functools.partial(target) if path is None else path
        return DictConfig({"_target_": target, **kwargs}, flags={"allow_objects": True})


def _is_made_a_config(kind: type) -> bool:
    # omegaconf takes such classes for schemas, or not at all.
    schema = dataclasses.is_dataclass(kind) or hasattr(kind, "__attrs_attrs__")
    return schema or issubclass(kind, dict)


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
            names = OmegaConf.create(
                {} if content is None else content, flags={"allow_objects": True}
            )
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
        text, lost = _output.to_yaml(cfg)
        with PathManager.open(filename, "w") as file:
            file.write(text)
        if not lost:
            return
        pickled = _output.to_pickle(cfg)
        if pickled is not None:
            with PathManager.open(f"{filename}.pkl", "wb") as file:
                file.write(pickled)
        logging.getLogger(__name__).warning(
            f"{filename} has as text only what cannot be loaded again: {', '.join(lost)}; "
            + ("pickle cannot save it, either" if pickled is None else f"{filename}.pkl has it all")
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
            content = _output.to_plain(cfg, resolve=True)
        except OmegaConfBaseException:
            content = _output.to_plain(cfg, resolve=False)
        return _pseudo_code.to_pseudo_code(content, prefix)


def _as_config(value: Any) -> Any:
    from omegaconf import DictConfig

    if type(value) is dict:
        return DictConfig(value, flags={"allow_objects": True})
    return value


def _parents(key: str) -> Iterator[str]:
    for i, character in enumerate(key):
        if i and character in ".[":
            yield key[:i]
