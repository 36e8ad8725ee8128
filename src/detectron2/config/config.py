"""Configs made of YAML files and typed defaults."""

import copy
import logging
from collections.abc import Iterator, Sequence
from typing import IO, Any

from fvcore.common.config import CfgNode as _CfgNode

from detectron2.config import _yaml_files
from detectron2.config._configurable import configurable
from detectron2.utils.file_io import PathManager

__all__ = ["CfgNode", "configurable", "get_cfg", "global_cfg", "set_global_cfg"]

_OPTIONAL = "__optional_keys__"


class CfgNode(_CfgNode):
    """A section of a config: a dict whose keys are attributes, too.

    Merging changes keys that exist, and keeps their types: another type is a ``ValueError``, an
    unknown key a ``KeyError``. Lists become tuples, and tuples lists, as the value that they
    replace has them, at every level. ``None`` may replace anything and be replaced by anything. An
    int does not replace a float. Strings are read as Python literals, unless it is a string that
    they replace. A key that begins with ``COMPUTED_`` cannot change its value once it is set.

    ``freeze`` makes attributes read-only, ``defrost`` ends that, ``clone`` copies.
    """

    @classmethod
    def _open_cfg(cls, filename: str) -> IO[Any]:
        return PathManager.open(filename, "r")

    @classmethod
    def load_yaml_with_base(cls, filename: str, allow_unsafe: bool = False) -> dict[str, Any]:
        """Read a YAML file, and below its values those of the file, or files, of its ``_BASE_``.

        A base is a URL, an absolute path (``~`` is the home folder), or relative to the file.

        Args:
            filename: path or URL.
            allow_unsafe: let tags such as ``!!python/object`` make Python objects, with a warning.
                A file with such tags can run any code.

        Returns:
            Nested dicts, without ``_BASE_``.
        """
        return _yaml_files.load_with_base(filename, cls._open_cfg, allow_unsafe)

    def merge_from_file(self, cfg_filename: str, allow_unsafe: bool = True) -> None:
        """Merge a YAML file with its bases, converting it if it is of an older version.

        Args:
            cfg_filename: path or URL of a file that may leave out any key. Without the key
                ``VERSION`` its version is guessed from the names in it.
            allow_unsafe: see :meth:`load_yaml_with_base`.

        Raises:
            ValueError: if this config is not of the latest version, or the file of a later one.
        """
        from detectron2.config.compat import downgrade_config, guess_version, upgrade_config
        from detectron2.config.defaults import _C

        loaded = type(self)(self.load_yaml_with_base(cfg_filename, allow_unsafe=allow_unsafe))
        if "VERSION" not in self:
            # A node of the user's own, not a tree that grew from get_cfg().
            self.merge_from_other_cfg(loaded)
            return
        if self.VERSION != _C.VERSION:
            raise ValueError(
                f"Files merge into configs of version {_C.VERSION}, not {self.VERSION}: use "
                "upgrade_config"
            )
        version = loaded.get("VERSION")
        if version is None:
            version = guess_version(loaded, cfg_filename)
        if version > self.VERSION:
            raise ValueError(
                f"{cfg_filename} has version {version}, but the latest one here is {self.VERSION}"
            )
        if version == self.VERSION:
            self.merge_from_other_cfg(loaded)
            return
        logging.getLogger(__name__).warning(
            f"{cfg_filename} is of version {version}: converting it to version {self.VERSION}"
        )
        # The file is partial, and conversion needs whole configs.
        old = downgrade_config(self, to_version=version)
        old.merge_from_other_cfg(loaded)
        merged = upgrade_config(old)
        self.clear()
        self.update(merged)

    def merge_from_other_cfg(self, cfg_other: _CfgNode) -> None:
        """Merge all keys of another config; see the class for what is allowed."""
        if isinstance(cfg_other, _CfgNode):
            cfg_other = cfg_other.clone()
            _fit_values(cfg_other, self)
        super().merge_from_other_cfg(cfg_other)

    def merge_from_list(self, cfg_list: Sequence[Any]) -> None:
        """Merge ``[key, value, key, value, ...]``, such as a command line's arguments.

        Args:
            cfg_list: dotted keys, each with its value, which may be a string to be read as a
                literal: ``["SOLVER.BASE_LR", "0.1", "MODEL.MASK_ON", True]``.
        """
        fitted = list(cfg_list)
        for i in range(0, len(fitted) - 1, 2):
            node = self
            *sections, key = str(fitted[i]).split(".")
            for section in sections:
                node = node.get(section) if isinstance(node, CfgNode) else None
            if isinstance(node, CfgNode):
                fitted[i + 1] = _fit_value(fitted[i + 1], key, node)
        super().merge_from_list(fitted)

    def dump(self, *args: Any, **kwargs: Any) -> str:
        """The config as YAML, with keys in alphabetical order and tuples written as lists.

        Merging it into a config that has the same keys gives the same values and types again.

        Args:
            *args: none are taken.
            **kwargs: options of ``yaml.safe_dump``.
        """
        return super().dump(*args, **kwargs)

    def register_optional_key(self, name: str, default: Any) -> None:
        """Admit a key that is no part of the tree until it is set or merged.

        Read as an attribute it has its default before; ``in``, iteration and :meth:`dump` do not
        know of it.

        Args:
            name: dotted, below sections that exist.
            default: decides on the key's type, too.
        """
        node = self
        *sections, key = name.split(".")
        for section in sections:
            node = node[section]
        node.__dict__.setdefault(_OPTIONAL, {})[key] = default

    def __getattr__(self, name: str) -> Any:
        if name in self:
            return self[name]
        optional = self.__dict__.get(_OPTIONAL, {})
        if name in optional:
            return copy.deepcopy(optional[name])
        raise AttributeError(f"The config has no key {name!r} here")


def _fit_values(values: _CfgNode, node: _CfgNode) -> None:
    for key, value in values.items():
        if isinstance(value, dict) and isinstance(node.get(key), _CfgNode):
            _fit_values(value, node[key])
        else:
            values[key] = _fit_value(value, key, node)


def _fit_value(value: Any, key: str, node: _CfgNode) -> Any:
    """Bring a value into the form in which yacs, which looks at outer types only, takes it."""
    optional = node.__dict__.get(_OPTIONAL, {})
    if key not in node and key in optional:
        node[key] = copy.deepcopy(optional[key])
    if key not in node:
        return value
    decoded = node._decode_cfg_value(value)
    if isinstance(node[key], str) and isinstance(value, str):
        # yacs decodes once more. None stays: it may replace a string.
        return value if isinstance(decoded, str) or decoded is None else repr(value)
    return _nested_like(decoded, node[key]) if type(decoded) in (list, tuple) else value


def _nested_like(value: Any, model: Any) -> Any:
    """Turn the lists and tuples in ``value`` into what stands in their places in ``model``."""
    if type(value) not in (list, tuple) or type(model) not in (list, tuple):
        return value
    models: Iterator[Any] | Sequence[Any] = model
    if len(model) != len(value):
        # Of another length only what all items have in common can be told.
        alike = len({type(item) for item in model}) == 1
        models = [model[0] if alike else None] * len(value)
    return type(model)(_nested_like(item, like) for item, like in zip(value, models, strict=True))


global_cfg = CfgNode()
"""The config of a program that keeps only one, where code cannot be handed it otherwise."""


def get_cfg() -> CfgNode:
    """A new config with every default (detectron2/config/defaults.py)."""
    from detectron2.config.defaults import _C

    return _C.clone()


def set_global_cfg(cfg: CfgNode) -> None:
    """Let :data:`global_cfg` have the keys of ``cfg``, sharing its sections.

    Args:
        cfg: the config. Code reads it by ``from detectron2.config import global_cfg``.
    """
    global_cfg.clear()
    global_cfg.update(cfg)
