"""Overrides of lazy configs. `LazyConfig` adds keys that are not there; here ``+`` has to ask for
it."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from detectron2.cli._errors import UsageError
from detectron2.config import LazyConfig
from detectron2.config._overrides import parse_override
from detectron2.config.lazy import _parents

if TYPE_CHECKING:
    from omegaconf import DictConfig

# What a training reads if it is there.
_OPTIONAL = (
    "train",
    *("train.cudnn_benchmark", "train.device", "train.float32_precision", "train.init_checkpoint"),
    *("train.output_dir", "train.seed"),
)


def apply_override(cfg: DictConfig, override: str) -> None:
    """Change a config as ``KEY=VALUE`` says; ``+KEY=VALUE`` may add a key.

    Raises:
        UsageError: the key is not there, and no argument of a call either; or a number would become
            text.
        Exception: what ``LazyConfig.apply_overrides`` raises.
    """
    sign, key, value = parse_override(override)
    if not sign:
        _check_key(cfg, key, override)
        _check_kind(cfg, key, value, override)
    LazyConfig.apply_overrides(cfg, [override])


def _check_key(cfg: DictConfig, key: str, override: str) -> None:
    from omegaconf import DictConfig, OmegaConf

    section = cfg
    for path in [*_parents(key), key]:
        found = OmegaConf.select(cfg, path, default=None)
        if OmegaConf.is_config(found):
            section = found
            continue
        # A call may have arguments that are not written down; it knows them itself.
        if isinstance(section, DictConfig) and "_target_" not in section:
            name = path.rpartition(".")[2]
            if name not in section and path not in _OPTIONAL:
                similar = get_close_matches(name, map(str, section), n=1)
                hint = f"did you mean {path.removesuffix(name)}{similar[0]}? " if similar else ""
                raise UsageError(f"{override}: there is no {path}; {hint}+{override} would add it")
        return


def _check_kind(cfg: DictConfig, key: str, value: Any, override: str) -> None:
    from omegaconf import OmegaConf

    old = OmegaConf.select(cfg, key, default=None)
    is_text = isinstance(value, str) and not value.startswith("${")
    if isinstance(old, int | float) and is_text:
        raise UsageError(f"{override}: {key} is {old!r} and cannot become text")
