"""What every backbone has in common."""

from abc import ABCMeta, abstractmethod
from typing import Any

import torch
from torch import nn

from detectron2.layers.shape_spec import ShapeSpec

__all__ = ["Backbone"]


class Backbone(nn.Module, metaclass=ABCMeta):
    """A network that turns images into feature maps.

    A subclass defines :meth:`forward`, and either :meth:`output_shape` or what that one reads:
    ``_out_features``, a sequence of names, and ``_out_feature_channels`` and
    ``_out_feature_strides``, dicts by name.
    """

    def __init__(self) -> None:
        super().__init__()

    @abstractmethod
    def forward(self, *args: Any) -> dict[str, torch.Tensor]:
        """Map images ``(N, C, H, W)`` to feature maps ``(N, C_i, H_i, W_i)`` by name."""

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Channels and stride of every feature map, by name."""
        channels, strides = self._out_feature_channels, self._out_feature_strides
        return {
            name: ShapeSpec(channels=channels[name], stride=strides[name])
            for name in self._out_features
        }

    @property
    def padding_constraints(self) -> dict[str, int]:
        """What images must be padded to, as for ``ImageList.from_tensors``.

        ``"square_size"`` is a height and width; ``"size_divisibility"`` goes before the property
        of that name. Either may be missing.
        """
        return {}

    @property
    def size_divisibility(self) -> int:
        """What height and width of the input must be divisible by; 0 where any size will do."""
        return 0
