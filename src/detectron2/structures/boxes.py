"""Axis-aligned boxes, and conversions between the forms that boxes come in.

Coordinates are continuous: pixel ``(column, row)`` covers ``[column, column + 1] x
[row, row + 1]``, and a width is ``x1 - x0`` without a "+ 1".
"""

from enum import IntEnum, unique
from typing import Any

import numpy as np
import torch

from detectron2._ops.eager import is_forward_mode, is_transformed
from detectron2._ops.pairwise_iou import intersection, ioa, iou
from detectron2._ops.pairwise_iou import pairwise_ioa as native_ioa
from detectron2._ops.pairwise_iou import pairwise_iou as native_iou

_ArrayLike = list[float] | tuple[float, ...] | torch.Tensor | np.ndarray


@unique
class BoxMode(IntEnum):
    """How the numbers of a box are to be read."""

    XYXY_ABS = 0
    """``(x0, y0, x1, y1)`` in absolute pixels."""
    XYWH_ABS = 1
    """``(x0, y0, w, h)`` in absolute pixels."""
    XYXY_REL = 2
    """``(x0, y0, x1, y1)`` as shares of the image's width and height; not convertible."""
    XYWH_REL = 3
    """``(x0, y0, w, h)`` as shares of the image's width and height; not convertible."""
    XYWHA_ABS = 4
    """``(cx, cy, w, h, angle)`` in absolute pixels, the angle in degrees, counter-clockwise."""

    @staticmethod
    def convert(box: _ArrayLike, from_mode: "BoxMode", to_mode: "BoxMode") -> _ArrayLike:
        """Convert one box or an array of boxes.

        XYXY_ABS and XYWH_ABS convert into each other, XYWH_ABS into XYWHA_ABS (angle 0), and
        XYWHA_ABS into XYXY_ABS (the axis-aligned hull).

        Args:
            box: a list or tuple of 4 or 5 numbers, or an array or tensor ``(..., 4 or 5)``.
            from_mode: what ``box`` is.
            to_mode: what is wanted.

        Returns:
            A new object of the same type, and ``box`` itself where the modes are equal. Integers
            stay integers between XYXY_ABS and XYWH_ABS and become float32 otherwise; a list's or
            tuple's floats go through float32.

        Raises:
            NotImplementedError: there is no such conversion.
        """
        if from_mode == to_mode:
            return box
        from_mode, to_mode = BoxMode(from_mode), BoxMode(to_mode)
        assert not {from_mode, to_mode} & {BoxMode.XYXY_REL, BoxMode.XYWH_REL}, (
            f"relative boxes cannot be converted, got {from_mode.name} to {to_mode.name}"
        )
        convert_array = _CONVERSIONS.get((from_mode, to_mode))
        if convert_array is None:
            raise NotImplementedError(
                f"there is no conversion from {from_mode.name} to {to_mode.name}"
            )
        is_sequence = isinstance(box, (list, tuple))
        array = _to_float32_array(box) if is_sequence else box
        columns = 5 if from_mode == BoxMode.XYWHA_ABS else 4
        if array.ndim == 0 or array.shape[-1] != columns or (is_sequence and array.ndim != 1):
            raise ValueError(
                f"a {from_mode.name} box has {columns} numbers, got the shape {list(array.shape)}"
            )
        converted = convert_array(array)
        return type(box)(converted.tolist()) if is_sequence else converted


def _to_float32_array(box: list[float] | tuple[float, ...]) -> np.ndarray:
    array = np.asarray(box)
    return array if np.issubdtype(array.dtype, np.integer) else array.astype(np.float32)


def _copy(array: Any) -> Any:
    return array.clone() if isinstance(array, torch.Tensor) else array.copy()


def _to_float64(array: Any) -> Any:
    return array.double() if isinstance(array, torch.Tensor) else array.astype(np.float64)


def _stack_like(columns: list[Any], array: Any) -> Any:
    """Stack float64 columns into boxes of the dtype of ``array``, or of float32 for integers."""
    if isinstance(array, torch.Tensor):
        dtype = array.dtype if array.is_floating_point() else torch.float32
        return torch.stack(columns, dim=-1).to(dtype)
    dtype = array.dtype if np.issubdtype(array.dtype, np.floating) else np.float32
    return np.stack(columns, axis=-1).astype(dtype)


def _xyxy_to_xywh(array: Any) -> Any:
    boxes = _copy(array)
    boxes[..., 2:] -= array[..., :2]
    return boxes


def _xywh_to_xyxy(array: Any) -> Any:
    boxes = _copy(array)
    boxes[..., 2:] += array[..., :2]
    return boxes


def _xywh_to_xywha(array: Any) -> Any:
    boxes = _to_float64(array)
    x0, y0, w, h = (boxes[..., i] for i in range(4))
    return _stack_like([x0 + w / 2, y0 + h / 2, w, h, w * 0], array)


def _xywha_to_xyxy(array: Any) -> Any:
    boxes = _to_float64(array)
    cx, cy, w, h, angle = (boxes[..., i] for i in range(5))
    radians = angle * (np.pi / 180)
    xp = torch if isinstance(array, torch.Tensor) else np
    cos, sin = abs(xp.cos(radians)), abs(xp.sin(radians))
    half_w, half_h = (cos * w + sin * h) / 2, (cos * h + sin * w) / 2
    return _stack_like([cx - half_w, cy - half_h, cx + half_w, cy + half_h], array)


_CONVERSIONS = {
    (BoxMode.XYXY_ABS, BoxMode.XYWH_ABS): _xyxy_to_xywh,
    (BoxMode.XYWH_ABS, BoxMode.XYXY_ABS): _xywh_to_xyxy,
    (BoxMode.XYWH_ABS, BoxMode.XYWHA_ABS): _xywh_to_xywha,
    (BoxMode.XYWHA_ABS, BoxMode.XYXY_ABS): _xywha_to_xyxy,
}


def _as_box_tensor(tensor: torch.Tensor, columns: int) -> torch.Tensor:
    if isinstance(tensor, torch.Tensor):
        boxes = tensor.to(torch.float32)
    else:
        boxes = torch.as_tensor(tensor, dtype=torch.float32, device="cpu")
    # First what does not depend on their number, which in a graph is not known.
    if boxes.dim() == 2 and boxes.size(1) == columns:
        return boxes
    if boxes.numel() == 0:
        return boxes.reshape(-1, columns)
    raise ValueError(f"boxes must have the shape (N, {columns}), got {list(boxes.shape)}")


class Boxes:
    """N boxes as one float32 tensor; a TorchScript class.

    Attributes:
        tensor: ``(N, 4)``, float32, rows ``(x0, y0, x1, y1)`` in absolute pixels.
    """

    def __init__(self, tensor: torch.Tensor) -> None:
        """Wrap boxes.

        Args:
            tensor: ``(N, 4)``, or anything that ``torch.as_tensor`` takes, which goes to the CPU.
                Empty input of any shape gives 0 boxes. A float32 tensor is shared, not copied.
        """
        self.tensor = _as_box_tensor(tensor, 4)

    def clone(self) -> "Boxes":
        """Copy the boxes, storage included."""
        return Boxes(self.tensor.clone())

    def to(self, device: torch.device, non_blocking: bool = False) -> "Boxes":
        """Return the boxes on ``device``; they share storage if they are there already."""
        return Boxes(self.tensor.to(device=device, non_blocking=non_blocking))

    def area(self) -> torch.Tensor:
        """Areas, ``(N,)``; negative for a box with one side inverted."""
        sides = self.tensor[:, 2:] - self.tensor[:, :2]
        return sides[:, 0] * sides[:, 1]

    def clip(self, box_size: tuple[int, int]) -> None:
        """Clip to an image, x to ``[0, width]`` and y to ``[0, height]``.

        ``tensor`` becomes a new tensor; the former one keeps its values.

        Args:
            box_size: (height, width) of the image.
        """
        assert torch.isfinite(self.tensor).all(), "cannot clip boxes that are infinite or NaN"
        height, width = box_size
        x0, y0, x1, y1 = self.tensor.unbind(1)
        self.tensor = torch.stack(
            [
                x0.clamp(min=0, max=width),
                y0.clamp(min=0, max=height),
                x1.clamp(min=0, max=width),
                y1.clamp(min=0, max=height),
            ],
            dim=1,
        )

    def nonempty(self, threshold: float = 0.0) -> torch.Tensor:
        """Tell which boxes have both sides longer than ``threshold``; bool, ``(N,)``."""
        sides = self.tensor[:, 2:] - self.tensor[:, :2]
        return (sides > threshold).all(dim=1)

    def __getitem__(self, item) -> "Boxes":
        """Select boxes.

        Args:
            item: an int (which gives one box), a slice, a bool tensor ``(N,)`` or an integer
                tensor ``(K,)``.
        """
        if isinstance(item, int):
            return Boxes(self.tensor[item].unsqueeze(0))
        selected = self.tensor[item]
        if selected.dim() != 2:
            raise IndexError(f"an index into {len(self)} boxes gave the shape {selected.shape}")
        return Boxes(selected)

    def __len__(self) -> int:
        return self.tensor.shape[0]

    def __repr__(self) -> str:
        return f"Boxes({self.tensor})"

    def inside_box(self, box_size: tuple[int, int], boundary_threshold: int = 0) -> torch.Tensor:
        """Tell which boxes lie in an image widened by ``boundary_threshold``; bool, ``(N,)``.

        The left and top borders belong to the image, the right and bottom ones do not.

        Args:
            box_size: (height, width) of the image.
            boundary_threshold: pixels by which a box may stick out.
        """
        return _inside(self.tensor, box_size, boundary_threshold)

    def get_centers(self) -> torch.Tensor:
        """Centres, ``(N, 2)``, rows ``(x, y)``."""
        return (self.tensor[:, :2] + self.tensor[:, 2:]) / 2

    def scale(self, scale_x: float, scale_y: float) -> None:
        """Multiply the coordinates, in place."""
        # Not "*=", which copies each slice onto itself afterwards.
        self.tensor[:, 0::2].mul_(scale_x)
        self.tensor[:, 1::2].mul_(scale_y)

    @classmethod
    @torch.jit.unused
    def cat(cls, boxes_list: "list[Boxes]") -> "Boxes":
        """Concatenate; the result shares storage with none of the inputs. An empty list gives 0
        boxes on the CPU."""
        if not isinstance(boxes_list, (list, tuple)):
            raise TypeError(f"expected a list of {cls.__name__}, got {boxes_list!r}")
        for boxes in boxes_list:
            if not isinstance(boxes, Boxes):
                raise TypeError(f"expected a list of {cls.__name__}, got one with {boxes!r}")
        if not boxes_list:
            return cls(torch.empty(0))
        return cls(torch.cat([boxes.tensor for boxes in boxes_list], dim=0))

    @property
    def device(self) -> torch.device:
        """Where the boxes lie."""
        return self.tensor.device

    # TorchScript reads the annotations of unused methods, too, and knows no Iterator.
    @torch.jit.unused
    def __iter__(self):
        """Yield each box as a tensor ``(4,)``."""
        yield from self.tensor


def _inside(xyxy: torch.Tensor, box_size: tuple[int, int], margin: int) -> torch.Tensor:
    height, width = box_size
    x0, y0, x1, y1 = xyxy.unbind(1)
    return (x0 >= -margin) & (y0 >= -margin) & (x1 < width + margin) & (y1 < height + margin)


def pairwise_intersection(boxes1: Boxes, boxes2: Boxes) -> torch.Tensor:
    """Areas of the intersections of N boxes with M boxes, ``(N, M)``."""
    return intersection(boxes1.tensor, boxes2.tensor)


def pairwise_iou(boxes1: Boxes, boxes2: Boxes) -> torch.Tensor:
    """Intersection over union of N boxes with M boxes, ``(N, M)``; 0 where they do not overlap."""
    if not torch.jit.is_scripting() and _has_operators(boxes1.device):
        return native_iou(boxes1.tensor, boxes2.tensor)
    return iou(boxes1.tensor, boxes2.tensor)


def pairwise_ioa(boxes1: Boxes, boxes2: Boxes) -> torch.Tensor:
    """Intersection of N boxes with M boxes over the area of the latter, ``(N, M)``; 0 where they
    do not overlap."""
    if not torch.jit.is_scripting() and _has_operators(boxes1.device):
        return native_ioa(boxes1.tensor, boxes2.tensor)
    return ioa(boxes1.tensor, boxes2.tensor)


@torch.jit.unused
def _has_operators(device: torch.device) -> bool:
    """Whether the compiled operators apply. A trace holds PyTorch's own, so that it runs alone, and
    those are what the transforms of ``torch.func`` and forward-mode differentiation know."""
    if device.type not in ("cpu", "cuda"):
        return False
    return torch.compiler.is_compiling() or not (is_transformed() or is_forward_mode())


def pairwise_point_box_distance(points: torch.Tensor, boxes: Boxes) -> torch.Tensor:
    """Signed distances from points to the sides of boxes.

    Args:
        points: ``(N, 2)``, rows ``(x, y)``.
        boxes: M boxes.

    Returns:
        ``(N, M, 4)``: to the left, top, right and bottom side, each positive on its inner side.
    """
    points = points[:, None]
    return torch.cat([points - boxes.tensor[:, :2], boxes.tensor[:, 2:] - points], dim=2)


def matched_pairwise_iou(boxes1: Boxes, boxes2: Boxes) -> torch.Tensor:
    """Intersection over union of each box with its counterpart, ``(N,)``; NaN where both boxes of
    a pair have no area."""
    assert len(boxes1) == len(boxes2), (
        f"boxes are matched one to one, got {len(boxes1)} and {len(boxes2)}"
    )
    a, b = boxes1.tensor, boxes2.tensor
    sides = torch.min(a[:, 2:], b[:, 2:]) - torch.max(a[:, :2], b[:, :2])
    sides = sides.clamp(min=0)
    intersection = sides[:, 0] * sides[:, 1]
    return intersection / (boxes1.area() + boxes2.area() - intersection)
