"""What models do with their input before the backbone sees it."""

from typing import Any

import torch

from detectron2.layers.wrappers import move_device_like
from detectron2.structures.image_list import ImageList
from detectron2.structures.instances import Instances


def move_like(x: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """``x`` where ``like`` lies, without waiting for the device; a trace follows its input."""
    if torch.jit.is_scripting() or torch.jit.is_tracing():
        return move_device_like(x, like)
    return x.to(like.device, non_blocking=True)


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


def pixel_statistic(values: Any) -> torch.Tensor:
    """``(C, 1, 1)`` of C numbers, for a buffer."""
    return torch.tensor(values).view(-1, 1, 1)


def ground_truth(
    batched_inputs: list[dict[str, Any]], device: torch.device
) -> list[Instances] | None:
    """The ``"instances"`` of a batch on ``device``, without waiting for it; None if there are
    none."""
    if "instances" not in batched_inputs[0]:
        return None
    return [x["instances"].to(device, non_blocking=True) for x in batched_inputs]


def output_size(sample: dict[str, Any], image_size: tuple[int, int]) -> tuple[int, int]:
    """(height, width) that the results of a sample are wanted in: its own, or the image's."""
    return sample.get("height", image_size[0]), sample.get("width", image_size[1])
