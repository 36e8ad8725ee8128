"""Configurations that come with the library, by their path, and the weights trained with them.

A path is relative to the folder of all configurations, such as
``COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x.yaml``. A ``.yaml`` file makes a ``CfgNode``, a
``.py`` file a lazy config.
"""

import difflib
import importlib.resources
import os

import torch
from omegaconf import DictConfig
from torch import nn

from detectron2.checkpoint.detection_checkpoint import DetectionCheckpointer
from detectron2.config import CfgNode, LazyConfig, get_cfg, instantiate
from detectron2.model_zoo._checkpoints import CHECKPOINT_URL, CHECKPOINTS
from detectron2.modeling.meta_arch.build import build_model

__all__ = ["get", "get_checkpoint_url", "get_config", "get_config_file"]


def get_checkpoint_url(config_path: str) -> str:
    """The URL of the weights that were trained with a configuration.

    Without a network, load it through ``detectron2.utils.file_io.PathManager`` from a copy of the
    file: ``$FVCORE_CACHE`` (default ``~/.torch/iopath_cache``) holds files below the path of their
    URL.

    Args:
        config_path: for example ``COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml``.

    Raises:
        RuntimeError: if no weights are published for this configuration.
    """
    name = os.path.splitext(config_path)[0]
    folder, _, rest = name.partition("/")
    path = CHECKPOINTS.get(folder, {}).get(rest)
    if path is None:
        raise RuntimeError(
            f"No weights are published for {config_path!r}{_suggestion(config_path)}"
        )
    return f"{CHECKPOINT_URL}{name}/{path}"


def get_config_file(config_path: str) -> str:
    """The file of a configuration.

    Args:
        config_path: for example ``COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml``.

    Raises:
        RuntimeError: if there is no such file.
    """
    file = os.path.join(_folder(), config_path)
    if not os.path.isfile(file):
        raise RuntimeError(f"{config_path!r} is not in the model zoo{_suggestion(config_path)}")
    return file


def get_config(config_path: str, trained: bool = False) -> CfgNode | DictConfig:
    """A configuration: a ``CfgNode`` from a ``.yaml`` file, a lazy config from a ``.py`` file.

    Args:
        config_path: for example ``COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml``.
        trained: let ``MODEL.WEIGHTS`` or ``train.init_checkpoint`` name the trained weights; or
            else it is what training starts from, usually a backbone.

    Raises:
        RuntimeError: if there is no such configuration, no weights for it, or no place in it for
            their name.
    """
    file = get_config_file(config_path)
    url = get_checkpoint_url(config_path) if trained else None
    if file.endswith(".yaml"):
        cfg = get_cfg()
        cfg.merge_from_file(file)
        if url is not None:
            cfg.MODEL.WEIGHTS = url
        return cfg
    if file.endswith(".py"):
        lazy = LazyConfig.load(file)
        if url is not None:
            if "train" not in lazy or "init_checkpoint" not in lazy.train:
                raise RuntimeError(f"{config_path!r} has no train.init_checkpoint for the weights")
            lazy.train.init_checkpoint = url
        return lazy
    raise RuntimeError(f"{config_path!r} is neither a .yaml nor a .py file")


def get(config_path: str, trained: bool = False, device: str | None = None) -> nn.Module:
    """Build the model of a configuration, in training mode.

    Args:
        config_path: for example ``COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml``.
        trained: load the trained weights; or else those that training starts from, where there
            are any.
        device: where to build it; default: what the configuration says, or the CPU where PyTorch
            finds no CUDA device.

    Raises:
        RuntimeError: if there is no such configuration, or no weights for it.
        OSError: if the weights cannot be downloaded; it tells where to put a copy of the file.
    """
    cfg = get_config(config_path, trained)
    if device is None and not torch.cuda.is_available():
        device = "cpu"
    if isinstance(cfg, CfgNode):
        if device is not None:
            cfg.MODEL.DEVICE = device
        model = build_model(cfg)
        weights = cfg.MODEL.WEIGHTS
    else:
        model = instantiate(cfg.model)
        if device is not None:
            model = model.to(device)
        elif "train" in cfg and "device" in cfg.train:
            model = model.to(cfg.train.device)
        weights = cfg.train.init_checkpoint if "train" in cfg else ""
    DetectionCheckpointer(model).load(weights)
    return model


def _folder() -> str:
    # The wheel is always unpacked: LazyConfig and _BASE_ need files with their neighbours.
    return str(importlib.resources.files("detectron2.model_zoo").joinpath("configs"))


def _suggestion(config_path: str) -> str:
    """The nearest names, for messages."""
    folder = _folder()
    names = [
        os.path.relpath(os.path.join(parent, file), folder)
        for parent, _, files in os.walk(folder)
        for file in files
        if file.endswith((".yaml", ".py"))
    ]
    near = difflib.get_close_matches(config_path, names, n=3, cutoff=0.75)
    near = [name for name in near if name != config_path]
    return f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
