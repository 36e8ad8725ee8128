"""Whole models by name."""

import torch
from torch import nn

from detectron2.config import CfgNode
from detectron2.utils.logger import _log_api_usage
from detectron2.utils.registry import Registry

__all__ = ["META_ARCH_REGISTRY", "build_model"]

META_ARCH_REGISTRY = Registry("META_ARCH")
META_ARCH_REGISTRY.__doc__ = """
Whole models, called with ``cfg``. They take a list of dicts, one an image, and give a dict of
losses in training and a list of dicts with predictions otherwise.
"""


def build_model(cfg: CfgNode) -> nn.Module:
    """Build the model that ``cfg.MODEL.META_ARCHITECTURE`` names, on ``cfg.MODEL.DEVICE``.

    Its weights are random: ``cfg.MODEL.WEIGHTS`` is not loaded.
    """
    name = cfg.MODEL.META_ARCHITECTURE
    model = META_ARCH_REGISTRY.get(name)(cfg)
    _log_api_usage(f"modeling.meta_arch.{name}")
    return model.to(torch.device(cfg.MODEL.DEVICE))
