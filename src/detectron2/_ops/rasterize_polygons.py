"""``rasterize_polygons(vertices (V, 2), polygon_offsets (P + 1,), instance_offsets (N + 1,),
height, width) -> (N, height, width)``: bool masks of polygons, on the CPU.

Polygon ``p`` has the vertices ``polygon_offsets[p]`` up to ``polygon_offsets[p + 1]``, three at
least, rows ``(x, y)`` in pixels, float64 and finite; instance ``n`` has the polygons
``instance_offsets[n]`` up to ``instance_offsets[n + 1]``, and is their union; offsets are int64.
Pixels are those of ``pycocotools.mask.frPyObjects``. Not differentiable.
"""

import torch
from torch import Tensor

from detectron2 import _C  # noqa: F401  (loads the operators)
from detectron2._ops.gradients import register_not_differentiable


@torch.library.register_fake("detectron2::rasterize_polygons")
def _fake_rasterize_polygons(
    vertices: Tensor, polygon_offsets: Tensor, instance_offsets: Tensor, height: int, width: int
) -> Tensor:
    shape = (instance_offsets.shape[0] - 1, height, width)
    return vertices.new_empty(shape, dtype=torch.bool)


register_not_differentiable("detectron2::rasterize_polygons")
