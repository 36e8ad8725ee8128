"""Images of different sizes, padded into one batch."""

from typing import Any

import torch
from torch import device  # TorchScript does not find "torch.device" as a property's type.
from torch.nn import functional as F  # noqa: N812

# Code written for upstream imports these names from here.
from detectron2.layers.wrappers import move_device_like, shapes_to_tensor
from detectron2.utils.torch_version_utils import min_torch_version

__all__ = ["ImageList", "min_torch_version", "move_device_like", "shapes_to_tensor"]


class ImageList:
    """A batch of images that were padded, on the right and at the bottom, to a common size.

    Attributes:
        tensor: ``(N, H, W)`` or ``(N, C_1, ..., C_K, H, W)``.
        image_sizes: (height, width) of each image without its padding; tensors ``(2,)`` while
            tracing.
    """

    def __init__(self, tensor: torch.Tensor, image_sizes: list[tuple[int, int]]) -> None:
        """Args:
        tensor: as the attribute.
        image_sizes: as the attribute.
        """
        self.tensor = tensor
        self.image_sizes = image_sizes

    @property
    def device(self) -> device:
        """Where the batch lies."""
        return self.tensor.device

    def __getitem__(self, idx: int) -> torch.Tensor:
        """Image ``idx`` without its padding, a view ``(C_1, ..., C_K, H, W)``."""
        size = self.image_sizes[idx]  # Not unpacked: a tensor while tracing.
        return self.tensor[idx, ..., : size[0], : size[1]]

    def __len__(self) -> int:
        return len(self.image_sizes)

    @torch.jit.unused
    def to(self, *args: Any, **kwargs: Any) -> "ImageList":
        """The list with its tensor where ``torch.Tensor.to(*args, **kwargs)`` says."""
        return ImageList(self.tensor.to(*args, **kwargs), self.image_sizes)

    @staticmethod
    def from_tensors(
        tensors: list[torch.Tensor],
        size_divisibility: int = 0,
        pad_value: float = 0.0,
        padding_constraints: dict[str, int] | None = None,
    ) -> "ImageList":
        """Pad images to the size of the highest and the widest of them.

        Args:
            tensors: one or more images ``(C_1, ..., C_K, H_i, W_i)``, K >= 0, that differ in
                height and width only.
            size_divisibility: where above 1, both sides are rounded up to a multiple of it.
            pad_value: what to pad with.
            padding_constraints: may hold ``"square_size"``, which, where above 0, is the height
                and width to pad to instead, and ``"size_divisibility"``, which goes before the
                argument of that name.

        Raises:
            TypeError: not a list of tensors.
            ValueError: no images, images that differ in something else, or that are larger than
                ``square_size``.
        """
        if not torch.jit.is_scripting():
            _check_type(tensors)
        square_size = 0
        if padding_constraints is not None:
            square_size = padding_constraints.get("square_size", 0)
            size_divisibility = padding_constraints.get("size_divisibility", size_divisibility)
        if not torch.jit.is_scripting() and torch.jit.is_tracing():
            return _from_traced_tensors(tensors, size_divisibility, pad_value, square_size)

        _check_alike(tensors)
        image_sizes = [(image.shape[-2], image.shape[-1]) for image in tensors]
        height = max([size[0] for size in image_sizes])
        width = max([size[1] for size in image_sizes])
        if square_size > 0:
            if height > square_size or width > square_size:
                raise ValueError(
                    f"images of up to {height} x {width} do not fit the square_size {square_size}"
                )
            height = square_size
            width = square_size
        if size_divisibility > 1:
            height = (height + size_divisibility - 1) // size_divisibility * size_divisibility
            width = (width + size_divisibility - 1) // size_divisibility * size_divisibility

        if len(tensors) == 1:
            image = tensors[0]
            padding = [0, width - image.shape[-1], 0, height - image.shape[-2]]
            return ImageList(F.pad(image, padding, value=pad_value)[None].contiguous(), image_sizes)
        if not torch.jit.is_scripting() and torch.compiler.is_compiling():
            # Out of place: a graph would only hold for sizes whose slices have the same layout.
            padded = [
                F.pad(image, [0, width - size[1], 0, height - size[0]], value=pad_value)
                for image, size in zip(tensors, image_sizes, strict=True)
            ]
            return ImageList(torch.stack(padded), image_sizes)
        shape = [len(tensors)]
        shape.extend(tensors[0].shape[:-2])
        shape.extend([height, width])
        batch = tensors[0].new_full(shape, pad_value)
        for i, image in enumerate(tensors):
            batch[i, ..., : image.shape[-2], : image.shape[-1]].copy_(image)
        return ImageList(batch, image_sizes)


def _check_type(tensors: Any) -> None:
    if not isinstance(tensors, (list, tuple)):
        raise TypeError(f"expected a list of tensors, got {type(tensors).__name__}")
    for image in tensors:
        if not isinstance(image, torch.Tensor):
            raise TypeError(f"expected a list of tensors, got one with {type(image).__name__}")


def _check_alike(tensors: list[torch.Tensor]) -> None:
    if len(tensors) == 0:
        raise ValueError("there must be at least one image, got []")
    first = tensors[0]
    for image in tensors:
        if image.dim() < 2 or image.shape[:-2] != first.shape[:-2]:
            raise ValueError(
                f"images must agree in all but height and width, got shapes "
                f"{list(first.shape)} and {list(image.shape)}"
            )
        if image.dtype != first.dtype or image.device != first.device:
            raise ValueError(
                f"images must agree in dtype and device, got {first.dtype} on {first.device} and "
                f"{image.dtype} on {image.device}"
            )


def _from_traced_tensors(
    tensors: list[torch.Tensor], size_divisibility: int, pad_value: float, square_size: int
) -> ImageList:
    """`ImageList.from_tensors` with sizes as tensors, which a trace does not fix.

    Out of place: a trace would take the copies of a loop to be of the sizes of this run.
    """
    image_sizes = [shapes_to_tensor([image.shape[-2], image.shape[-1]]) for image in tensors]
    size = torch.stack(image_sizes).amax(dim=0)
    if square_size > 0:
        size = torch.full_like(size, square_size)
    if size_divisibility > 1:
        size = torch.div(size + (size_divisibility - 1), size_divisibility, rounding_mode="floor")
        size = size * size_divisibility
    padded = []
    for image, image_size in zip(tensors, image_sizes, strict=True):
        below, right = (size - image_size).unbind()
        padded.append(F.pad(image, [0, right, 0, below], value=pad_value))
    return ImageList(torch.stack(padded), image_sizes)
