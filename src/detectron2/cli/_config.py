"""The configuration that a command line asks for, whichever kind it is."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from detectron2.cli._datasets import config_functions, prepare
from detectron2.cli._errors import UsageError, one_line
from detectron2.cli._terminal import say

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from detectron2.config import CfgNode


# How overrides begin that name weights.
_WEIGHT_KEYS = ("MODEL.WEIGHTS=", "train.init_checkpoint=")


@dataclass(frozen=True)
class _Source:
    """Where a configuration is, and the weights that belong to it."""

    file: str
    weights: str | None
    in_zoo: bool = False


def load_config(args: argparse.Namespace, *, trained: bool) -> CfgNode | DictConfig:
    """Load the configuration, and register data sets before that.

    Args:
        args: with the arguments of ``add_config_arguments`` and, if the command has them, of
            ``add_dataset_arguments``.
        trained: use the weights of a finished training where none are named: the last checkpoint
            of an output folder, the published ones of the model zoo.

    Raises:
        UsageError: there is no such configuration, or it does not go together with the overrides.
    """
    modules = prepare(args)
    source = _find(args.config)
    cfg = _load(source, config_functions(modules))
    if trained:
        _set_weights(cfg, _trained_weights(source, args))
    _apply_overrides(cfg, args.overrides)
    if args.weights is not None:
        _set_weights(cfg, args.weights)
    _set_device(cfg, args)
    return cfg


def is_lazy(cfg: CfgNode | DictConfig) -> bool:
    """Whether a configuration is one of lazy calls."""
    from detectron2.config import CfgNode

    return not isinstance(cfg, CfgNode)


def _find(name: str) -> _Source:
    from detectron2 import model_zoo

    if os.path.isdir(name):
        file = os.path.join(name, "config.yaml")
        if not os.path.isfile(file):
            raise UsageError(f"--config {name}: the folder has no config.yaml")
        return _Source(file, last_checkpoint(name))
    if os.path.isfile(name):
        return _Source(name, None)
    endings = ("",) if name.endswith((".yaml", ".yml", ".py")) else (".yaml", ".py")
    for ending in endings:
        try:
            return _Source(model_zoo.get_config_file(name + ending), name + ending, in_zoo=True)
        except RuntimeError as error:
            problem = error
    raise UsageError(f"--config {name}: no such file, and {problem}")


def last_checkpoint(folder: str) -> str | None:
    """The last checkpoint in an output folder; None if there is none."""
    marker = os.path.join(folder, "last_checkpoint")
    if not os.path.isfile(marker):
        return None
    with open(marker) as file:
        return os.path.join(folder, file.read().strip())


def _load(source: _Source, add_keys: Sequence[Callable[[Any], None]]) -> CfgNode | DictConfig:
    from detectron2.config import LazyConfig, get_cfg

    if not source.file.endswith((".yaml", ".yml", ".py")):
        raise UsageError(f"--config {source.file}: the name must end in .yaml, .yml or .py")
    cfg = get_cfg()
    for add in add_keys:
        add(cfg)
    try:
        if source.file.endswith(".py") or _holds_lazy_calls(source.file):
            return LazyConfig.load(source.file)
        cfg.merge_from_file(source.file)
    except Exception as error:
        # Python files are free to raise anything.
        raise UsageError(f"--config {source.file}: {one_line(error)}") from error
    return cfg


def _holds_lazy_calls(file: str) -> bool:
    """Whether a YAML file is one that LazyConfig.save has written: its sections are in lower case,
    those of a CfgNode in upper case."""
    with open(file) as stream:
        return any(line.startswith(("model:", "train:", "dataloader:")) for line in stream)


def _trained_weights(source: _Source, args: argparse.Namespace) -> str | None:
    from detectron2 import model_zoo

    if args.weights is not None or not source.in_zoo:
        return source.weights
    try:
        return model_zoo.get_checkpoint_url(source.weights)
    except RuntimeError as error:
        if any(text.startswith(_WEIGHT_KEYS) for text in args.overrides):
            return None
        raise UsageError(f"{error}; --weights names some") from error


def _set_weights(cfg: CfgNode | DictConfig, weights: str | None) -> None:
    if weights is not None:
        _set(cfg, weights, model_key="WEIGHTS", train_key="init_checkpoint")


def _set(cfg: CfgNode | DictConfig, value: str, *, model_key: str, train_key: str) -> None:
    """Set what is in the section ``MODEL``, or ``train`` of a lazy configuration."""
    if not is_lazy(cfg):
        cfg.MODEL[model_key] = value
    elif "train" in cfg:
        cfg.train[train_key] = value
    else:
        cfg.train = {train_key: value}


def weights_of(cfg: CfgNode | DictConfig) -> str:
    """The checkpoint that the configuration names; "" if it names none."""
    if not is_lazy(cfg):
        return cfg.MODEL.WEIGHTS
    return cfg.get("train", {}).get("init_checkpoint", "")


def _apply_overrides(cfg: CfgNode | DictConfig, overrides: Sequence[str]) -> None:
    from omegaconf.errors import OmegaConfBaseException

    from detectron2.cli._lazy_overrides import apply_override

    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals:
            raise UsageError(f"{override!r} is not KEY=VALUE")
        try:
            if is_lazy(cfg):
                apply_override(cfg, override)
            else:
                cfg.merge_from_list([key, value])
        except (
            *(AssertionError, KeyError, NotImplementedError, ValueError),
            OmegaConfBaseException,
        ) as error:
            raise UsageError(f"{override}: {error.args[0] if error.args else error}") from error


def _set_device(cfg: CfgNode | DictConfig, args: argparse.Namespace) -> None:
    device = args.device
    if device is None and device_of(cfg).startswith("cuda"):
        import torch

        if not torch.cuda.is_available():
            device = "cpu"
            say("PyTorch finds no CUDA device: using the CPU")
    if device is not None:
        _check_device(device)
        _set(cfg, device, model_key="DEVICE", train_key="device")


def _check_device(name: str) -> None:
    import torch

    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(f"--device {name}: there is no such kind of device") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        found = torch.cuda.device_count() or "no"
        raise UsageError(f"--device {name}: PyTorch finds {found} CUDA device(s)")


def device_of(cfg: CfgNode | DictConfig) -> str:
    """The device that models and inputs belong on."""
    return str(cfg.get("train", {}).get("device", "cuda") if is_lazy(cfg) else cfg.MODEL.DEVICE)


def dataset_names(cfg: CfgNode | DictConfig, split: str) -> list[str]:
    """The data sets that a configuration names for ``split``, "train" or "test"."""
    if not is_lazy(cfg):
        return list(cfg.DATASETS[split.upper()])
    from omegaconf import OmegaConf

    names = OmegaConf.select(cfg, f"dataloader.{split}.dataset.names", default=None)
    return [names] if isinstance(names, str) else list(names or [])


def build_model(cfg: CfgNode | DictConfig) -> Any:
    """The model, on its device, with random weights."""
    if is_lazy(cfg):
        from detectron2.config import instantiate

        if "model" not in cfg:
            raise UsageError("the configuration has no 'model'")
        return instantiate(cfg.model).to(device_of(cfg))
    from detectron2.modeling import build_model as build

    return build(cfg)


def build_trained_model(cfg: CfgNode | DictConfig) -> Any:
    """The model in evaluation mode, with the weights that the configuration names."""
    from detectron2.cli._weights import load_trained

    weights = weights_of(cfg)
    if not weights:
        raise UsageError("no weights: --weights names a checkpoint")
    model = build_model(cfg)
    load_trained(model, weights)
    return model.eval()
