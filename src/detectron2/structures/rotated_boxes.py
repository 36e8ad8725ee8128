"""Rotated boxes."""

import math
from collections.abc import Iterator

import torch

from detectron2.layers.rotated_boxes import pairwise_iou_rotated
from detectron2.structures.boxes import Boxes, _as_box_tensor, _inside

__all__ = ["Boxes", "RotatedBoxes", "pairwise_iou", "pairwise_iou_rotated"]


class RotatedBoxes(Boxes):
    """N rotated boxes as one float32 tensor.

    The angle is in degrees and turns counter-clockwise on screen, where y points down: a box's
    width axis points along ``(cos a, -sin a)``. A box turned by 360 degrees is the same box; by
    180 degrees it covers the same region with its top and bottom exchanged.

    Attributes:
        tensor: ``(N, 5)``, float32, rows ``(cx, cy, w, h, angle)`` in absolute pixels.
    """

    def __init__(self, tensor: torch.Tensor) -> None:
        """Wrap rotated boxes.

        Args:
            tensor: ``(N, 5)``, or anything that ``torch.as_tensor`` takes, which goes to the CPU.
                Empty input of any shape gives 0 boxes. A float32 tensor is shared, not copied.
        """
        self.tensor = _as_box_tensor(tensor, 5)

    def clone(self) -> "RotatedBoxes":
        """Copy the boxes, storage included."""
        return RotatedBoxes(self.tensor.clone())

    def to(self, device: torch.device, non_blocking: bool = False) -> "RotatedBoxes":
        """Return the boxes on ``device``; they share storage if they are there already."""
        return RotatedBoxes(self.tensor.to(device=device, non_blocking=non_blocking))

    def area(self) -> torch.Tensor:
        """Areas, ``(N,)``."""
        return self.tensor[:, 2] * self.tensor[:, 3]

    def normalize_angles(self) -> None:
        """Bring the angles into [-180, 180), in place."""
        self.tensor[:, 4] = _normalized(self.tensor[:, 4])

    def clip(self, box_size: tuple[int, int], clip_angle_threshold: float = 1.0) -> None:
        """Clip the boxes that are nearly upright to an image, as if their angle were 0.

        The others stay as they are: the part of a turned box that lies in the image is no
        rectangle in general, and cutting it down would move its other sides. Angles are
        normalised; that of a clipped box is kept, and neither of its sides grows.

        ``tensor`` becomes a new tensor; the former one keeps its values.

        Args:
            box_size: (height, width) of the image.
            clip_angle_threshold: greatest absolute angle, in degrees, of a box to be clipped.
        """
        height, width = box_size
        cx, cy, w, h, angle = self.tensor.unbind(1)
        angle = _normalized(angle)
        x0, x1 = ((cx + side * w / 2).clamp(min=0, max=width) for side in (-1, 1))
        y0, y1 = ((cy + side * h / 2).clamp(min=0, max=height) for side in (-1, 1))
        clipped = torch.stack(
            [(x0 + x1) / 2, (y0 + y1) / 2, torch.min(w, x1 - x0), torch.min(h, y1 - y0), angle],
            dim=1,
        )
        unclipped = torch.stack([cx, cy, w, h, angle], dim=1)
        is_upright = angle.abs() <= clip_angle_threshold
        self.tensor = torch.where(is_upright[:, None], clipped, unclipped)

    def nonempty(self, threshold: float = 0.0) -> torch.Tensor:
        """Tell which boxes have both sides longer than ``threshold``; bool, ``(N,)``."""
        return (self.tensor[:, 2:4] > threshold).all(dim=1)

    def __getitem__(self, item: int | slice | torch.Tensor) -> "RotatedBoxes":
        """Select boxes.

        Args:
            item: an int (which gives one box), a slice, a bool tensor ``(N,)`` or an integer
                tensor ``(K,)``.
        """
        if isinstance(item, int):
            return RotatedBoxes(self.tensor[item].unsqueeze(0))
        selected = self.tensor[item]
        if selected.dim() != 2:
            raise IndexError(f"index {item!r} into {len(self)} boxes gave {list(selected.shape)}")
        return RotatedBoxes(selected)

    def __repr__(self) -> str:
        return f"RotatedBoxes({self.tensor})"

    def inside_box(self, box_size: tuple[int, int], boundary_threshold: int = 0) -> torch.Tensor:
        """Tell which boxes lie in an image widened by ``boundary_threshold``; bool, ``(N,)``.

        The left and top borders belong to the image, the right and bottom ones do not.

        Args:
            box_size: (height, width) of the image.
            boundary_threshold: pixels by which a box may stick out.
        """
        cx, cy, w, h, angle = self.tensor.unbind(1)
        radians = torch.deg2rad(angle)
        cos, sin = radians.cos().abs(), radians.sin().abs()
        half_w, half_h = (cos * w + sin * h) / 2, (cos * h + sin * w) / 2
        hull = torch.stack([cx - half_w, cy - half_h, cx + half_w, cy + half_h], dim=1)
        return _inside(hull, box_size, boundary_threshold)

    def get_centers(self) -> torch.Tensor:
        """Centres, ``(N, 2)``, rows ``(x, y)``; a view."""
        return self.tensor[:, :2]

    def scale(self, scale_x: float, scale_y: float) -> None:
        """Scale about the origin, in place.

        With unequal factors a turned rectangle becomes a parallelogram; the box that is put in
        its place has its side lengths, and the angle that the h axis has after scaling.
        """
        cx, cy, w, h, angle = self.tensor.unbind(1)
        radians = torch.deg2rad(angle)
        cos, sin = radians.cos(), radians.sin()
        scaled = torch.stack(
            [
                cx * scale_x,
                cy * scale_y,
                w * torch.hypot(scale_x * cos, scale_y * sin),
                h * torch.hypot(scale_x * sin, scale_y * cos),
                torch.atan2(scale_x * sin, scale_y * cos) * (180 / math.pi),
            ],
            dim=1,
        )
        self.tensor.copy_(scaled)

    @classmethod
    def cat(cls, boxes_list: "list[RotatedBoxes]") -> "RotatedBoxes":
        """Concatenate; the result shares storage with none of the inputs. An empty list gives 0
        boxes on the CPU."""
        return super().cat(boxes_list)

    def __iter__(self) -> Iterator[torch.Tensor]:
        """Yield each box as a tensor ``(5,)``."""
        yield from self.tensor


def _normalized(angles: torch.Tensor) -> torch.Tensor:
    angles = torch.remainder(angles + 180, 360) - 180
    # The remainder of a tiny negative number rounds to 360 itself.
    return torch.where(angles >= 180, angles - 360, angles)


def pairwise_iou(boxes1: RotatedBoxes, boxes2: RotatedBoxes) -> torch.Tensor:
    """Intersection over union of N rotated boxes with M rotated boxes, ``(N, M)``."""
    return pairwise_iou_rotated(boxes1.tensor, boxes2.tensor)
