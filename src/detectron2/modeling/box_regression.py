"""Boxes as offsets (deltas) from other boxes, and the losses of such offsets.

Deltas are what the regression branches of the models predict: from anchors, proposals or points to
the boxes of objects.
"""

import math
from typing import Any

import torch
from torch.nn import functional as F  # noqa: N812

# Code written for upstream imports the losses from here.
from detectron2.layers import cat, ciou_loss, diou_loss  # noqa: F401
from detectron2.layers._dtypes import at_least_float32
from detectron2.layers.losses import ciou_losses, diou_losses
from detectron2.structures import Boxes

__all__ = ["Box2BoxTransform", "Box2BoxTransformLinear", "Box2BoxTransformRotated"]

# Deltas of sides above it are cut, so that exp() stays finite: from 16 pixels to 1,000 and no more.
_DEFAULT_SCALE_CLAMP = math.log(1000.0 / 16)


def _check_pair(src_boxes: torch.Tensor, target_boxes: torch.Tensor) -> None:
    if src_boxes.shape[-1] != target_boxes.shape[-1]:
        raise ValueError(
            f"boxes must agree in their form, got {list(src_boxes.shape)} and "
            f"{list(target_boxes.shape)}"
        )


def _check_widths(widths: torch.Tensor) -> None:
    """On the CPU only. Elsewhere it would wait for the device; the deltas, and with them the loss,
    are not finite then, which the trainer reports."""
    if widths.device.type == "cpu":
        assert bool((widths > 0).all()), (
            f"boxes to be offset from must have a width above 0, got {widths.min().item()}"
        )


class Box2BoxTransform:
    """Offsets ``(dx, dy, dw, dh)`` of axis-aligned boxes.

    Girshick et al., "Rich feature hierarchies" (R-CNN), CVPR 2014, appendix C: the centre moves by
    ``(dx, dy)`` times the sides, and the sides are scaled by ``exp(dw)`` and ``exp(dh)``.

    A TorchScript class.
    """

    def __init__(
        self,
        weights: tuple[float, float, float, float],
        scale_clamp: float = _DEFAULT_SCALE_CLAMP,
    ) -> None:
        """Args:
        weights: what dx, dy, dw and dh are multiplied by, which brings them to about unit
            variance.
        scale_clamp: greatest dw and dh, without the weights, that is applied.
        """
        self.weights = weights
        self.scale_clamp = scale_clamp

    def get_deltas(self, src_boxes: torch.Tensor, target_boxes: torch.Tensor) -> torch.Tensor:
        """Deltas that lead from one box to another.

        Args:
            src_boxes: ``(..., 4)``, XYXY, such as anchors; with widths above 0.
            target_boxes: ``(..., 4)``; leading dimensions are broadcast.

        Returns:
            ``(..., 4)``.

        Raises:
            AssertionError: a width is not above 0; checked on the CPU only.
        """
        _check_pair(src_boxes, target_boxes)
        sides = src_boxes[..., 2:] - src_boxes[..., :2]
        target_sides = target_boxes[..., 2:] - target_boxes[..., :2]
        centres = torch.add(src_boxes[..., :2], sides, alpha=0.5)
        target_centres = torch.add(target_boxes[..., :2], target_sides, alpha=0.5)
        wx, wy, ww, wh = self.weights
        moves = _multiplied((target_centres - centres) / sides, wx, wy)
        scales = _multiplied(torch.log(target_sides / sides), ww, wh)
        _check_widths(sides[..., 0])
        return torch.cat([moves, scales], dim=-1)

    def apply_deltas(self, deltas: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
        """The boxes that deltas lead to, not clipped.

        Args:
            deltas: ``(..., 4 * K)``, K times (dx, dy, dw, dh) for each box; any floating dtype.
            boxes: ``(..., 4)``, XYXY.

        Returns:
            ``(..., 4 * K)``, float32 at least.
        """
        deltas, boxes = _by_class(deltas, boxes, 4)
        wx, wy, ww, wh = self.weights
        sides = boxes[..., 2:] - boxes[..., :2]
        centres = torch.add(boxes[..., :2], sides, alpha=0.5)
        moves = _divided(deltas[..., :2], wx, wy)
        scales = _divided(deltas[..., 2:], ww, wh).clamp(max=self.scale_clamp)
        new_centres = torch.addcmul(centres, moves, sides)
        new_sides = torch.exp(scales) * sides
        corners = [
            torch.sub(new_centres, new_sides, alpha=0.5),
            torch.add(new_centres, new_sides, alpha=0.5),
        ]
        return torch.cat(corners, dim=-1).flatten(-2)


class Box2BoxTransformRotated:
    """Offsets ``(dx, dy, dw, dh, da)`` of rotated boxes.

    The first four are those of :class:`Box2BoxTransform`, of centres and sides; da is the angle
    between the boxes, the short way around, in radians times its weight.

    A TorchScript class.
    """

    def __init__(
        self,
        weights: tuple[float, float, float, float, float],
        scale_clamp: float = _DEFAULT_SCALE_CLAMP,
    ) -> None:
        """Args:
        weights: what dx, dy, dw, dh and da are multiplied by.
        scale_clamp: greatest dw and dh, without the weights, that is applied.
        """
        self.weights = weights
        self.scale_clamp = scale_clamp

    def get_deltas(self, src_boxes: torch.Tensor, target_boxes: torch.Tensor) -> torch.Tensor:
        """Deltas that lead from one box to another.

        Args:
            src_boxes: ``(..., 5)``, rows ``(cx, cy, w, h, angle)``; with widths above 0.
            target_boxes: ``(..., 5)``; leading dimensions are broadcast.

        Returns:
            ``(..., 5)``.

        Raises:
            AssertionError: a width is not above 0; checked on the CPU only.
        """
        _check_pair(src_boxes, target_boxes)
        sides = src_boxes[..., 2:4]
        moves = (target_boxes[..., :2] - src_boxes[..., :2]) / sides
        scales = torch.log(target_boxes[..., 2:4] / sides)
        turns = _half_open(target_boxes[..., 4:] - src_boxes[..., 4:]) * (math.pi / 180)
        moves, scales, turns = torch.broadcast_tensors(moves, scales, turns.expand_as(moves))
        deltas = torch.cat([moves, scales, turns[..., :1]], dim=-1)
        _check_widths(sides[..., 0])
        return _weighted_rotated(deltas, self.weights)

    def apply_deltas(self, deltas: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
        """The boxes that deltas lead to, with angles in [-180, 180).

        Args:
            deltas: ``(..., 5 * K)``, K times (dx, dy, dw, dh, da) for each box.
            boxes: ``(..., 5)``, rows ``(cx, cy, w, h, angle)``.

        Returns:
            ``(..., 5 * K)``, float32 at least.
        """
        deltas, boxes = _by_class(deltas, boxes, 5)
        wx, wy, ww, wh, wa = self.weights
        sides = boxes[..., 2:4]
        moves = _divided(deltas[..., :2], wx, wy)
        scales = _divided(deltas[..., 2:4], ww, wh).clamp(max=self.scale_clamp)
        turns = deltas[..., 4:] * (180 / math.pi / wa)
        new_boxes = [
            torch.addcmul(boxes[..., :2], moves, sides),
            torch.exp(scales) * sides,
            _half_open(boxes[..., 4:] + turns),
        ]
        return torch.cat(new_boxes, dim=-1).flatten(-2)


class Box2BoxTransformLinear:
    """Distances ``(l, t, r, b)`` from a box's centre to the sides of another box.

    Tian et al., "FCOS", ICCV 2019, section 3.1.

    A TorchScript class.
    """

    def __init__(self, normalize_by_size: bool = True) -> None:
        """Args:
        normalize_by_size: divide the distances by the sides of the first box, which is as large
            as a stride.
        """
        self.normalize_by_size = normalize_by_size

    def get_deltas(self, src_boxes: torch.Tensor, target_boxes: torch.Tensor) -> torch.Tensor:
        """Distances from the centres of boxes to the sides of others, negative for an outer side.

        Args:
            src_boxes: ``(..., 4)``, XYXY; the centres of these are what counts.
            target_boxes: ``(..., 4)``; leading dimensions are broadcast.

        Returns:
            ``(..., 4)``.
        """
        _check_pair(src_boxes, target_boxes)
        centres = (src_boxes[..., :2] + src_boxes[..., 2:]) * 0.5
        deltas = torch.cat(
            [centres - target_boxes[..., :2], target_boxes[..., 2:] - centres], dim=-1
        )
        if self.normalize_by_size:
            sides = src_boxes[..., 2:] - src_boxes[..., :2]
            deltas = deltas / torch.cat([sides, sides], dim=-1)
        return deltas

    def apply_deltas(self, deltas: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
        """The boxes that distances lead to; negative distances count as 0.

        Args:
            deltas: ``(..., 4 * K)``, K times (l, t, r, b) for each box; any floating dtype.
            boxes: ``(..., 4)``, XYXY.

        Returns:
            ``(..., 4 * K)``, float32 at least.
        """
        deltas, boxes = _by_class(deltas, boxes, 4)
        deltas = torch.relu(deltas)
        if self.normalize_by_size:
            sides = boxes[..., 2:] - boxes[..., :2]
            deltas = deltas * torch.cat([sides, sides], dim=-1)
        centres = (boxes[..., :2] + boxes[..., 2:]) * 0.5
        return torch.cat([centres - deltas[..., :2], centres + deltas[..., 2:]], dim=-1).flatten(-2)


def _by_class(
    deltas: torch.Tensor, boxes: torch.Tensor, box_dim: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Deltas ``(..., K, box_dim)`` and boxes ``(..., 1, box_dim)``, float32 at least."""
    if boxes.shape[-1] != box_dim or deltas.shape[-1] % box_dim != 0:
        raise ValueError(
            f"boxes must have {box_dim} columns, and deltas a multiple of it, "
            f"got {list(boxes.shape)} and {list(deltas.shape)}"
        )
    deltas = at_least_float32(deltas)
    # Not -1, of which there is no saying for 0 boxes.
    num_classes = deltas.shape[-1] // box_dim
    return deltas.unflatten(-1, [num_classes, box_dim]), boxes.to(deltas.dtype).unsqueeze(-2)


def _multiplied(pairs: torch.Tensor, weight0: float, weight1: float) -> torch.Tensor:
    """``(..., 2)`` times the weights of its columns, in as few kernels as that takes."""
    if weight0 == weight1:
        return pairs if weight0 == 1 else pairs * weight0
    return torch.stack([pairs[..., 0] * weight0, pairs[..., 1] * weight1], dim=-1)


def _divided(pairs: torch.Tensor, weight0: float, weight1: float) -> torch.Tensor:
    """``(..., 2)`` divided by the weights of its columns, in as few kernels as that takes."""
    if weight0 == weight1:
        return pairs if weight0 == 1 else pairs / weight0
    return torch.stack([pairs[..., 0] / weight0, pairs[..., 1] / weight1], dim=-1)


def _weighted_rotated(
    deltas: torch.Tensor, weights: tuple[float, float, float, float, float]
) -> torch.Tensor:
    wx, wy, ww, wh, wa = weights
    if wx == 1 and wy == 1 and ww == 1 and wh == 1 and wa == 1:
        return deltas
    dx, dy, dw, dh, da = deltas.unbind(-1)
    return torch.stack([dx * wx, dy * wy, dw * ww, dh * wh, da * wa], dim=-1)


def _half_open(angles: torch.Tensor) -> torch.Tensor:
    """The same angles, in degrees, in [-180, 180)."""
    angles = torch.remainder(angles + 180, 360) - 180
    # The remainder of a tiny negative number rounds to 360 itself.
    return torch.where(angles >= 180, angles - 360, angles)


def _giou_loss(boxes1: torch.Tensor, boxes2: torch.Tensor, eps: float = 1e-7) -> torch.Tensor:
    """Generalised IoU loss of ordered pairs of boxes, ``(..., 4)`` XYXY: ``(...)``.

    Rezatofighi et al., "Generalized Intersection over Union", CVPR 2019, algorithm 1. Unlike
    fvcore's it does not check the corners, for which it would wait for the device.
    """
    sides1, sides2 = boxes1[..., 2:] - boxes1[..., :2], boxes2[..., 2:] - boxes2[..., :2]
    overlap = torch.min(boxes1[..., 2:], boxes2[..., 2:]) - torch.max(
        boxes1[..., :2], boxes2[..., :2]
    )
    hull = torch.max(boxes1[..., 2:], boxes2[..., 2:]) - torch.min(boxes1[..., :2], boxes2[..., :2])
    intersection = torch.where((overlap > 0).all(dim=-1), overlap[..., 0] * overlap[..., 1], 0.0)
    union = sides1[..., 0] * sides1[..., 1] + sides2[..., 0] * sides2[..., 1] - intersection
    area = hull[..., 0] * hull[..., 1]
    return 1 - intersection / (union + eps) + (area - union) / (area + eps)


def apply_deltas_by_row(
    box2box_transform: Any, deltas: torch.Tensor, boxes: torch.Tensor
) -> torch.Tensor:
    """``apply_deltas`` of ``(..., box_dim)``, by a transform that may know rows ``(N, box_dim)``
    only, as those of downstream projects do."""
    rows = box2box_transform.apply_deltas(deltas.flatten(0, -2), boxes.flatten(0, -2))
    return rows.reshape(deltas.shape)


def _box_losses(
    box2box_transform: Box2BoxTransform | Box2BoxTransformLinear | Box2BoxTransformRotated,
    anchors: torch.Tensor,
    deltas: torch.Tensor,
    gt_boxes: torch.Tensor,
    loss_type: str,
    smooth_l1_beta: float,
) -> torch.Tensor:
    """Regression losses of matched anchors, ``(N,)``, from ``(N, box_dim)``; float32 at
    least."""
    if loss_type == "smooth_l1":
        targets = box2box_transform.get_deltas(anchors, gt_boxes)
        deltas = at_least_float32(deltas)
        losses = F.smooth_l1_loss(
            deltas, targets.to(deltas.dtype), beta=smooth_l1_beta, reduction="none"
        )
        return losses.sum(dim=-1)
    boxes = box2box_transform.apply_deltas(deltas, anchors)
    if loss_type == "giou":
        return _giou_loss(boxes, gt_boxes)
    # Without the checks of the public losses: sides of decoded boxes are not negative.
    if loss_type == "diou":
        return diou_losses(boxes, gt_boxes)
    if loss_type == "ciou":
        return ciou_losses(boxes, gt_boxes)
    raise ValueError(
        f"the box regression loss must be 'smooth_l1', 'giou', 'diou' or 'ciou', got {loss_type!r}"
    )


def _counts_foreground(device: torch.device) -> bool:
    """Whether the foreground may be counted. Elsewhere that is to wait for the device."""
    return device.type == "cpu"


def _dense_box_regression_loss(
    anchors: list[Boxes] | list[torch.Tensor],
    box2box_transform: Box2BoxTransform | Box2BoxTransformLinear | Box2BoxTransformRotated,
    pred_anchor_deltas: list[torch.Tensor],
    gt_boxes: list[torch.Tensor] | torch.Tensor,
    fg_mask: torch.Tensor,
    box_reg_loss_type: str = "smooth_l1",
    smooth_l1_beta: float = 0.0,
    max_foreground: int | None = None,
) -> torch.Tensor:
    """Sum of the regression losses of the foreground anchors of a batch.

    Args:
        anchors: for each level, ``(H_i * W_i * A, box_dim)``.
        box2box_transform: between anchors and boxes.
        pred_anchor_deltas: for each level, ``(N, H_i * W_i * A, box_dim)``.
        gt_boxes: for each of N images, ``(R, box_dim)``: the boxes that the R anchors of all
            levels are matched with.
        fg_mask: ``(N, R)``, bool: the anchors that count.
        box_reg_loss_type: "smooth_l1", of deltas, or "giou", "diou" or "ciou", of boxes.
        smooth_l1_beta: where the loss turns from quadratic to linear; 0 is the L1 loss.
        max_foreground: a number that the foreground does not exceed, where one is known. The
            result is NaN where it does. Without it the loss of every anchor is computed, except
            on the CPU: to count the foreground would be to wait for the device.

    Raises:
        ValueError: there is no such loss.
    """
    anchors = cat([x.tensor if isinstance(x, Boxes) else x for x in anchors])
    deltas = cat(pred_anchor_deltas, dim=1)
    if not isinstance(gt_boxes, torch.Tensor):
        gt_boxes = torch.stack(gt_boxes)
    if fg_mask.numel() == 0:
        return at_least_float32(deltas).sum()
    num_foreground = None
    is_chosen = fg_mask
    if _counts_foreground(deltas.device):
        images, chosen = fg_mask.nonzero(as_tuple=True)
        anchors, deltas, gt_boxes = (
            anchors[chosen],
            deltas[images, chosen],
            gt_boxes[images, chosen],
        )
        is_chosen = torch.ones_like(chosen, dtype=torch.bool)
    elif max_foreground is not None:
        num_foreground = fg_mask.sum()
        size = min(max_foreground, fg_mask.numel())
        chosen = torch.nonzero_static(fg_mask.flatten(), size=size, fill_value=-1).squeeze(1)
        is_chosen = chosen >= 0
        chosen = chosen.clamp(min=0)
        anchors = anchors[chosen % len(anchors)]
        deltas = deltas.flatten(0, 1).index_select(0, chosen)
        gt_boxes = gt_boxes.flatten(0, 1)[chosen]
    # What does not count gets deltas of 0 to itself: its gradient must not be NaN.
    targets = torch.where(is_chosen[..., None], gt_boxes, anchors)
    deltas = torch.where(is_chosen[..., None], deltas, 0.0)
    losses = _box_losses(
        box2box_transform,
        anchors.expand_as(targets).flatten(0, -2),
        deltas.flatten(0, -2),
        targets.flatten(0, -2),
        box_reg_loss_type,
        smooth_l1_beta,
    )
    loss = torch.where(is_chosen.flatten(), losses, 0.0).sum()
    if num_foreground is not None:
        loss = torch.where(num_foreground <= max_foreground, loss, math.nan)
    return loss
