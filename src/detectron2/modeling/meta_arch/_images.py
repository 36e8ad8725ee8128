"""What models do with their input before the backbone sees it."""

from collections.abc import Sequence
from typing import Any

import torch

from detectron2.config.config import CfgNode
from detectron2.layers.wrappers import move_device_like
from detectron2.modeling._constants import box_limits
from detectron2.modeling._graph_replay import ReplayedModel
from detectron2.modeling.backbone.backbone import Backbone
from detectron2.modeling.backbone.build import build_backbone
from detectron2.structures.boxes import Boxes
from detectron2.structures.image_list import ImageList
from detectron2.structures.instances import Instances
from detectron2.structures.keypoints import Keypoints
from detectron2.structures.masks import BitMasks, PolygonMasks
from detectron2.structures.rotated_boxes import RotatedBoxes

# Whose to() takes non_blocking.
_FIELDS = (Boxes, RotatedBoxes, Keypoints, BitMasks, PolygonMasks)


def move_like(x: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """``x`` where ``like`` lies, without waiting for the device; a trace follows its input."""
    if torch.jit.is_scripting() or torch.jit.is_tracing():
        return move_device_like(x, like)
    return x.to(like.device, non_blocking=True)


def pixel_statistic(values: Sequence[float]) -> torch.Tensor:
    """``(C, 1, 1)`` of C numbers, for a buffer."""
    return torch.tensor(values, dtype=torch.get_default_dtype()).view(-1, 1, 1)


def normalized_batch(
    images: list[torch.Tensor],
    pixel_mean: torch.Tensor,
    pixel_std: torch.Tensor,
    size_divisibility: int,
    padding_constraints: dict[str, int],
) -> ImageList:
    """Normalise images, then pad them with 0, which is the mean, into a batch.

    Args:
        images: ``(C, H_i, W_i)``, of any dtype.
        pixel_mean: ``(C, 1, 1)``.
        pixel_std: ``(C, 1, 1)``.
        size_divisibility: as for ``ImageList.from_tensors``.
        padding_constraints: likewise.
    """
    return ImageList.from_tensors(
        [(image - pixel_mean) / pixel_std for image in images],
        size_divisibility,
        padding_constraints=padding_constraints,
    )


def _moved(instances: Instances, device: torch.device) -> Instances:
    """``instances`` on ``device``. What a downstream project has made may know ``to(device)``
    only."""
    if type(instances) is not Instances:
        return instances.to(device)
    result = Instances(instances.image_size)
    for name, value in instances.get_fields().items():
        if isinstance(value, torch.Tensor) or type(value) in _FIELDS:
            value = value.to(device, non_blocking=True)
        elif hasattr(value, "to"):
            value = value.to(device)
        result.set(name, value)
    return result


def instances_of_inputs(
    batched_inputs: list[dict[str, Any]], name: str, device: torch.device
) -> list[Instances] | None:
    """The instances under ``name``, on ``device``, without waiting for it; None if the first input
    has none."""
    if name not in batched_inputs[0]:
        return None
    return [_moved(x[name], device) for x in batched_inputs]


def ground_truth(
    batched_inputs: list[dict[str, Any]], device: torch.device
) -> list[Instances] | None:
    """The ``"instances"`` of a batch, as of :func:`instances_of_inputs`."""
    return instances_of_inputs(batched_inputs, "instances", device)


def output_size(sample: dict[str, Any], image_size: tuple[int, int]) -> tuple[int, int]:
    """(height, width) that the results of a sample are wanted in: its own, or the image's."""
    return sample.get("height", image_size[0]), sample.get("width", image_size[1])


def image_inputs(images: ImageList) -> list[torch.Tensor]:
    """The batch and, ``(N, 1, 4)``, width and height of each image, twice: what a CUDA graph is
    given."""
    return [images.tensor, box_limits(images.image_sizes, torch.float32, images.tensor.device)]


class ImageModel(ReplayedModel):
    """A model with a backbone that takes normalised images, padded into a batch."""

    def __init__(
        self,
        backbone: Backbone | None = None,
        pixel_mean: Sequence[float] = (),
        pixel_std: Sequence[float] = (),
    ) -> None:
        """
        Args:
            backbone: makes feature maps of a batch of images. None leaves all three to a subclass
                of a model, which may call this as if it were that of ``nn.Module``.
            pixel_mean: of each channel, what is subtracted.
            pixel_std: of each channel, what is divided by.

        Raises:
            ValueError: they are not as many.
        """
        super().__init__()
        if backbone is None:
            return
        if len(pixel_mean) != len(pixel_std):
            raise ValueError(
                f"pixel_mean and pixel_std need as many numbers, got {pixel_mean} and {pixel_std}"
            )
        self.backbone = backbone
        for name, values in (("pixel_mean", pixel_mean), ("pixel_std", pixel_std)):
            self.register_buffer(name, pixel_statistic(values), persistent=False)

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
        size_divisibility, constraints = self._padding()
        return normalized_batch(
            [self._move_to_current_device(sample["image"]) for sample in batched_inputs],
            self.pixel_mean,
            self.pixel_std,
            size_divisibility,
            constraints,
        )

    def _padding(self) -> tuple[int, dict[str, int]]:
        """What the sizes of images are divisible by, and further constraints of them."""
        return self.backbone.size_divisibility, self.backbone.padding_constraints

    @torch.jit.unused
    def _padded_maps(
        self, batched_inputs: list[dict[str, torch.Tensor]], name: str, padding: float
    ) -> torch.Tensor:
        """Maps of the images ``(..., H_i, W_i)``, padded as those are, in a batch."""
        maps = [self._move_to_current_device(sample[name]) for sample in batched_inputs]
        size_divisibility, constraints = self._padding()
        return ImageList.from_tensors(maps, size_divisibility, padding, constraints).tensor

    @torch.jit.unused
    def _of_inputs(
        self, batched_inputs: list[dict[str, torch.Tensor]], name: str
    ) -> list[Instances] | None:
        return instances_of_inputs(batched_inputs, name, self.device)

    @torch.jit.unused
    def _output_sizes(
        self, batched_inputs: list[dict[str, torch.Tensor]], images: ImageList
    ) -> list[tuple[int, int]]:
        return [
            output_size(x, size) for x, size in zip(batched_inputs, images.image_sizes, strict=True)
        ]
