"""Backbones by name."""

from typing import Any

from detectron2.layers.shape_spec import ShapeSpec
from detectron2.modeling.backbone.backbone import Backbone
from detectron2.utils.registry import Registry

__all__ = ["BACKBONE_REGISTRY", "build_backbone"]

BACKBONE_REGISTRY = Registry("BACKBONE")
BACKBONE_REGISTRY.__doc__ = """
Functions and classes that make a backbone: called with a configuration and the
:class:`~detectron2.layers.ShapeSpec` of the input, they return a :class:`Backbone`.
"""


def build_backbone(cfg: Any, input_shape: ShapeSpec | None = None) -> Backbone:
    """Make the backbone that ``cfg.MODEL.BACKBONE.NAME`` names.

    Args:
        cfg: a configuration.
        input_shape: of the images. None: they have as many channels as ``cfg.MODEL.PIXEL_MEAN``.

    Raises:
        KeyError: no backbone is registered under that name.
        TypeError: what is registered returns no backbone.
    """
    if input_shape is None:
        input_shape = ShapeSpec(channels=len(cfg.MODEL.PIXEL_MEAN))
    name = cfg.MODEL.BACKBONE.NAME
    backbone = BACKBONE_REGISTRY.get(name)(cfg, input_shape)
    if not isinstance(backbone, Backbone):
        raise TypeError(f"{name} must make a Backbone, got {type(backbone).__name__}")
    return backbone
