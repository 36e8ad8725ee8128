"""What models do with their input before the backbone sees it."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from detectron2.config.config import CfgNode
from detectron2.layers.wrappers import move_device_like
from detectron2.modeling.backbone.backbone import Backbone
from detectron2.modeling.backbone.build import build_backbone
from detectron2.structures.image_list import ImageList
from detectron2.structures.instances import Instances


def move_like(x: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """``x`` where ``like`` lies, without waiting for the device; a trace follows its input."""
    if torch.jit.is_scripting() or torch.jit.is_tracing():
        return move_device_like(x, like)
    return x.to(like.device, non_blocking=True)


def output_size(sample: dict[str, Any], image_size: tuple[int, int]) -> tuple[int, int]:
    """(height, width) that the results of a sample are wanted in: its own, or the image's."""
    return sample.get("height", image_size[0]), sample.get("width", image_size[1])


class ImageModel(nn.Module):
    """A model with a backbone that takes normalised images, padded into a batch."""

    def __init__(
        self, backbone: Backbone, pixel_mean: Sequence[float], pixel_std: Sequence[float]
    ) -> None:
        """
        Args:
            backbone: makes feature maps of a batch of images.
            pixel_mean: of each channel, what is subtracted.
            pixel_std: of each channel, what is divided by.

        Raises:
            ValueError: they are not as many.
        """
        super().__init__()
        if len(pixel_mean) != len(pixel_std):
            raise ValueError(
                f"pixel_mean and pixel_std need as many numbers, got {pixel_mean} and {pixel_std}"
            )
        self.backbone = backbone
        for name, values in (("pixel_mean", pixel_mean), ("pixel_std", pixel_std)):
            of_channels = torch.tensor(values).view(-1, 1, 1)
            self.register_buffer(name, of_channels, persistent=False)

    @staticmethod
    def _image_arguments(cfg: CfgNode) -> dict[str, Any]:
        """The arguments of ``__init__``."""
        return {
            "backbone": build_backbone(cfg),
            "pixel_mean": cfg.MODEL.PIXEL_MEAN,
            "pixel_std": cfg.MODEL.PIXEL_STD,
        }

    @property
    def device(self):  # Without a type, which TorchScript would not find.
        """Where the model, and with it the input, is."""
        return self.pixel_mean.device

    def _move_to_current_device(self, x: torch.Tensor) -> torch.Tensor:
        return move_like(x, self.pixel_mean)

    def preprocess_image(self, batched_inputs: list[dict[str, torch.Tensor]]) -> ImageList:
        """Normalise the images of a batch, and pad them with 0, which is the mean."""
        normalized = []
        for sample in batched_inputs:
            image = self._move_to_current_device(sample["image"])
            normalized.append((image - self.pixel_mean) / self.pixel_std)
        return ImageList.from_tensors(
            normalized,
            self.backbone.size_divisibility,
            padding_constraints=self.backbone.padding_constraints,
        )

    @torch.jit.unused
    def _of_inputs(
        self, batched_inputs: list[dict[str, torch.Tensor]], name: str
    ) -> list[Instances] | None:
        """The instances under ``name``, on the device; None if the first input has none."""
        if name not in batched_inputs[0]:
            return None
        return [x[name].to(self.device, non_blocking=True) for x in batched_inputs]

    @torch.jit.unused
    def _output_sizes(
        self, batched_inputs: list[dict[str, torch.Tensor]], images: ImageList
    ) -> list[tuple[int, int]]:
        return [
            output_size(x, size) for x, size in zip(batched_inputs, images.image_sizes, strict=True)
        ]
