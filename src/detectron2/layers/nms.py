"""Non-maximum suppression (NMS), plain and rotated, of one class and of several at once.

All functions return the int64 indices of the boxes that are kept, by descending score, equal
scores by ascending index. A box goes if its IoU with a kept one is greater than the threshold.
"""

import math

import torch
from torch.nn import functional as F  # noqa: N812
from torchvision.ops import nms

import detectron2._ops  # noqa: F401  (registers torch.ops.detectron2)

# Code written for upstream imports this name from here.
from detectron2.layers.wrappers import disable_torch_compiler
from detectron2.utils.tracing import first_rows, is_exporting

__all__ = [
    "batched_nms",
    "batched_nms_rotated",
    "disable_torch_compiler",
    "nms",
    "nms_rotated",
]


def _within_reach(coordinates: torch.Tensor) -> torch.Tensor:
    """The same in float64, with what is farther than 2**24 pixels, or infinite, put there.

    A stray box would drive classes so far apart that nothing is left of the others' coordinates.
    """
    return coordinates.to(torch.float64).clamp(-(2.0**24), 2.0**24)


def _class_offsets(ends: torch.Tensor, idxs: torch.Tensor) -> torch.Tensor:
    """Offsets ``(N,)``, float64, that part boxes of different classes along any one axis.

    ``ends`` are the coordinates between which the boxes lie, of any shape. NaN, which overlaps
    nothing, must not spread to the others, so it is left out. The zero that is appended keeps the
    reduction defined where there is no box.
    """
    lowest, highest = torch.aminmax(F.pad(torch.nan_to_num(ends.reshape(-1), nan=0.0), (0, 1)))
    # A whole number, so that adding it does not round a coordinate.
    return idxs * (torch.ceil(highest - lowest) + 1)


def _members_of_classes(idxs: torch.Tensor) -> list[torch.Tensor]:
    """The indices of each class's boxes, ascending; one tensor a class that occurs."""
    sorted_idxs, order = torch.sort(idxs, stable=True)
    starts = torch.nonzero(sorted_idxs[1:] != sorted_idxs[:-1]).squeeze(1) + 1
    return torch.tensor_split(order, starts.cpu())


def _by_score(keep: list[torch.Tensor], scores: torch.Tensor) -> torch.Tensor:
    kept = torch.sort(torch.cat(keep))[0]
    return kept[torch.sort(scores[kept], stable=True, descending=True)[1]]


def _is_many(boxes: torch.Tensor) -> bool:
    """Whether to go class by class, and not through all pairs at once.

    Measured on a CPU, that is faster from 2,000 boxes on with 5 or 80 classes, and from between
    5,000 and 10,000 on with 1,203. Elsewhere it is for memory: torchvision's NMS holds a bit for
    each pair of boxes on CUDA.
    """
    if not torch.jit.is_scripting() and torch.compiler.is_compiling():
        return False
    return boxes.size(0) > (2000 if boxes.device.type == "cpu" else 25000)


def _upright_nms_on_cuda(
    boxes: torch.Tensor, offsets: torch.Tensor, scores: torch.Tensor, iou_threshold: float
) -> torch.Tensor:
    """``nms`` of float64 boxes by the operator for rotated ones, with the angle 0.

    ``offsets``, ``(N,)``, are added to all coordinates. On an H100 this takes two thirds of the
    time of torchvision's NMS for 1,000 boxes, a quarter for 4,000 and a twelfth for 10,000, and
    its memory does not grow with the pairs. Its IoU of upright boxes is right to 2**-40 by far; so
    much is added to the threshold that an IoU which equals it is not above.
    """
    centres = torch.add(offsets[:, None], boxes[:, :2] + boxes[:, 2:], alpha=0.5)
    sides = boxes[:, 2:] - boxes[:, :2]
    upright = torch.cat([centres, sides, boxes.new_zeros((boxes.size(0), 1))], dim=1)
    return nms_rotated(upright, scores, iou_threshold + 2.0**-40)


def _nms_of_any_size(
    boxes: torch.Tensor, scores: torch.Tensor, iou_threshold: float
) -> torch.Tensor:
    """``nms`` for ``torch.compile``, under which torchvision's insists on keeping two boxes.

    Two boxes of NaN, which overlap nothing and rank last, make sure of that.
    """
    boxes = F.pad(boxes, (0, 0, 0, 2), value=math.nan)
    scores = F.pad(scores, (0, 2), value=-math.inf)
    return nms(boxes, scores, iou_threshold)[:-2]


# Of boxes in exported programs. CUDA needs a bit for each pair: 512 MiB.
_MOST_IN_PROGRAM = 2**16

# Boxes up to which comparing all pairs is faster, measured on a CPU and on an H100. There it takes
# 0.16 ms for 50 boxes, the other way 0.24.
_FEW = 1000


@torch.jit.unused
def _has_operator(boxes: torch.Tensor) -> bool:
    """Whether `_nms_of_pairs` is the way to go: for few boxes, and in exported programs."""
    if boxes.device.type not in ("cpu", "cuda"):
        return False
    if torch.compiler.is_compiling():
        return is_exporting()
    return boxes.size(0) <= _FEW


@torch.jit.unused
def _nms_of_pairs(
    boxes: torch.Tensor, scores: torch.Tensor, idxs: torch.Tensor, threshold: float
) -> torch.Tensor:
    """:func:`batched_nms` by an operator that knows of classes and compares all pairs; of the best
    boxes, where there are more than fit."""
    if not is_exporting():  # ONNX has no NMS in float64.
        boxes = _within_reach(boxes)
    order = first_rows(scores.sort(descending=True, stable=True).indices, _MOST_IN_PROGRAM)
    sorted_boxes = boxes[order][None]
    kept = torch.ops.detectron2.nms_groups(
        sorted_boxes,
        sorted_boxes.new_ones(sorted_boxes.shape[:2], dtype=torch.bool),
        idxs[order][None].long(),
        threshold,
    )
    return order[kept[0]]


@torch.jit.unused
def _check_each_has_one(boxes: torch.Tensor, scores: torch.Tensor, idxs: torch.Tensor) -> None:
    """Raise unless there are a score and a class for each box. A graph may not know how many."""
    if torch.compiler.is_compiling():
        return
    shape = boxes.shape[:1]
    if scores.shape != shape or idxs.shape != shape:
        raise ValueError(
            f"{boxes.size(0)} boxes need scores and idxs of the shape ({boxes.size(0)},), got "
            f"{list(scores.shape)} and {list(idxs.shape)}"
        )


def _float32_at_least(value: float) -> float:
    """The least float32 that is not below ``value``.

    torchvision compares with a float32 threshold on CUDA and with a float64 one on the CPU.
    Rounded up here, an IoU that equals the threshold is not above it on either.
    """
    if not math.isfinite(value):
        return value
    fraction, exponent = math.frexp(value)
    return math.ldexp(float(math.ceil(fraction * 2.0**24)), exponent - 24)


@torch.jit.script_if_tracing
def batched_nms(
    boxes: torch.Tensor, scores: torch.Tensor, idxs: torch.Tensor, iou_threshold: float
) -> torch.Tensor:
    """NMS within each class.

    The boxes of each class are moved to a place of their own, in float64, and go through NMS
    together: every coordinate above 2**-6 keeps all its float32 digits while
    ``classes x extent`` is below 2**24, 1,203 classes on 8,000 pixels included. Coordinates
    beyond 2**24 pixels count as 2**24. A box with a NaN overlaps nothing.

    Args:
        boxes: ``(N, 4)`` in XYXY format, of any floating dtype; N may be 0.
        scores: ``(N,)``, of any floating dtype.
        idxs: ``(N,)``, the class of each box; any integers.
        iou_threshold: in [0, 1].

    Returns:
        Indices of the kept boxes over all classes, ``(K,)``.

    Raises:
        ValueError: there is not a score and a class for each box.
    """
    if boxes.dim() != 2 or boxes.size(1) != 4:
        raise ValueError(f"boxes must have the shape (N, 4), got {list(boxes.shape)}")
    if not torch.jit.is_scripting():
        _check_each_has_one(boxes, scores, idxs)
    threshold = _float32_at_least(iou_threshold)
    if not torch.jit.is_scripting() and _has_operator(boxes):
        return _nms_of_pairs(boxes, scores, idxs, threshold)
    boxes = _within_reach(boxes)
    scores = scores.to(torch.float64)
    offsets = _class_offsets(boxes, idxs)
    # Scripts keep torchvision's operator, which ONNX knows.
    if not torch.jit.is_scripting() and boxes.is_cuda:
        return _upright_nms_on_cuda(boxes, offsets, scores, threshold)
    if _is_many(boxes):
        keep = [
            members[nms(boxes[members], scores[members], threshold)]
            for members in _members_of_classes(idxs)
        ]
        return _by_score(keep, scores)
    moved = boxes + offsets[:, None]
    if not torch.jit.is_scripting() and torch.compiler.is_compiling():
        return _nms_of_any_size(moved, scores, threshold)
    return nms(moved, scores, threshold)


def nms_rotated(boxes: torch.Tensor, scores: torch.Tensor, iou_threshold: float) -> torch.Tensor:
    """NMS of rotated boxes, regardless of class.

    The angle counts only through the region that a box covers: two boxes half a turn apart are
    the same region, and the lower-scoring one goes.

    Args:
        boxes: ``(N, 5)``, rows ``(cx, cy, w, h, angle)`` in absolute pixels, the angle in
            degrees, counter-clockwise on screen; N may be 0.
        scores: ``(N,)``.
        iou_threshold: in [0, 1].

    Returns:
        Indices of the kept boxes, ``(K,)``.
    """
    return torch.ops.detectron2.nms_rotated(boxes, scores, iou_threshold)


@torch.jit.script_if_tracing
def batched_nms_rotated(
    boxes: torch.Tensor, scores: torch.Tensor, idxs: torch.Tensor, iou_threshold: float
) -> torch.Tensor:
    """NMS of rotated boxes within each class; see :func:`batched_nms` and :func:`nms_rotated`.

    Centres and sides beyond 2**24 pixels count as 2**24. A box with a NaN overlaps nothing.

    Args:
        boxes: ``(N, 5)``, rows ``(cx, cy, w, h, angle)``, of any floating dtype; N may be 0.
        scores: ``(N,)``, of any floating dtype.
        idxs: ``(N,)``, the class of each box; any integers.
        iou_threshold: in [0, 1].

    Returns:
        Indices of the kept boxes over all classes, ``(K,)``.

    Raises:
        ValueError: there is not a score and a class for each box.
    """
    if boxes.dim() != 2 or boxes.size(1) != 5:
        raise ValueError(f"boxes must have the shape (N, 5), got {list(boxes.shape)}")
    if not torch.jit.is_scripting():
        _check_each_has_one(boxes, scores, idxs)
    boxes = torch.cat([_within_reach(boxes[:, :4]), boxes[:, 4:].to(torch.float64)], dim=1)
    scores = scores.to(torch.float64)
    if boxes.device.type == "cpu" and _is_many(boxes):
        keep = [
            members[nms_rotated(boxes[members], scores[members], iou_threshold)]
            for members in _members_of_classes(idxs)
        ]
        return _by_score(keep, scores)
    # No corner is farther from the centre than half the diagonal.
    radius = torch.hypot(boxes[:, 2], boxes[:, 3])[:, None] / 2
    offsets = _class_offsets(torch.cat([boxes[:, :2] - radius, boxes[:, :2] + radius]), idxs)
    moved = torch.cat([boxes[:, :2] + offsets[:, None], boxes[:, 2:]], dim=1)
    return nms_rotated(moved, scores, iou_threshold)
