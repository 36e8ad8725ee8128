"""Operators that PyTorch's exporter does not know, of operators of ONNX."""

from collections.abc import Callable
from typing import Any

import torch
from onnxscript import opset18 as op

import detectron2._ops  # noqa: F401  (registers torch.ops.detectron2)

# Element types, as of onnx.TensorProto.
_FLOAT, _BOOL = 1, 9


def _nms_groups(boxes: Any, valid: Any, classes: Any, iou_threshold: float) -> Any:
    """``torch.ops.detectron2.nms_groups``. ONNX's NMS goes by batch, here the group, and class."""
    boxes = op.Cast(boxes, to=_FLOAT)
    size = op.Shape(boxes, start=1, end=2)
    count = op.Squeeze(size)
    # Boxes come by descending score; what is not valid, or of another class, has the score 0.
    ranks = op.Cast(op.Range(count, 0, -1), to=_FLOAT)
    zero = op.Constant(value_float=0.0)
    scores = op.Unsqueeze(op.Where(valid, ranks, zero), [1])
    if classes is not None:
        # One class at least: the greatest of nothing is none.
        last = op.ReduceMax(
            op.Concat(op.Reshape(classes, [-1]), op.Constant(value_ints=[0]), axis=0), keepdims=0
        )
        all_classes = op.Reshape(op.Range(0, op.Add(last, 1), 1), [1, -1, 1])
        scores = op.Where(op.Equal(op.Unsqueeze(classes, [1]), all_classes), scores, zero)
    kept = op.NonMaxSuppression(
        boxes, scores, size, op.Constant(value_floats=[iou_threshold]), [0.5]
    )
    # Of (group, class, box).
    positions = op.Gather(kept, [0, 2], axis=1)
    nothing = op.And(valid, op.Not(valid))
    return op.ScatterND(
        nothing, positions, op.Expand(op.Cast(1, to=_BOOL), op.Shape(kept, start=0, end=1))
    )


def _sort(values: Any, stable: bool | None = None, dim: int = -1, descending: bool = False) -> Any:
    """``aten.sort.stable``; the TopK of ONNX takes the first of equals first."""
    size = op.Gather(op.Shape(values), [dim], axis=0)
    return op.TopK(values, size, axis=dim, largest=int(descending), sorted=1)


def translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """For ``custom_translation_table`` of ``torch.onnx.export``."""
    return {
        torch.ops.aten.sort.stable: _sort,
        torch.ops.detectron2.nms_groups.default: _nms_groups,
    }
