"""Polygons of instances as packed arrays, and their rasterisation."""

from collections.abc import Sequence

import numpy as np
import torch

import detectron2._ops  # noqa: F401  (registers torch.ops.detectron2)


class PackedPolygons:
    """The polygons of several instances in one array, in which whole batches are computed.

    Attributes:
        vertices: ``(V, 2)``, float64.
        polygon_sizes: ``(P,)``, vertices of each polygon.
        instance_sizes: ``(N,)``, polygons of each instance.
    """

    def __init__(self, instances: Sequence[Sequence[np.ndarray]]) -> None:
        """Pack.

        Args:
            instances: for each instance its polygons, each ``[x0, y0, x1, y1, ...]``.

        Raises:
            ValueError: a polygon has an odd number of values, or fewer than three vertices.
        """
        polygons = [np.asarray(polygon) for instance in instances for polygon in instance]
        for polygon in polygons:
            check_polygon(polygon)
        flat = np.concatenate(polygons) if polygons else np.zeros(0)
        self.vertices = flat.astype(np.float64, copy=False).reshape(-1, 2)
        self.polygon_sizes = np.array([len(polygon) // 2 for polygon in polygons], np.int64)
        self.instance_sizes = np.array([len(instance) for instance in instances], np.int64)

    def vertex_instances(self) -> np.ndarray:
        """The instance that each vertex belongs to, ``(V,)``."""
        polygon_instances = np.repeat(np.arange(len(self.instance_sizes)), self.instance_sizes)
        return np.repeat(polygon_instances, self.polygon_sizes)

    def rasterize(self, height: int, width: int) -> torch.Tensor:
        """Masks of the instances, bool ``(N, height, width)``."""
        offsets = [
            torch.from_numpy(np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)]))
            for sizes in (self.polygon_sizes, self.instance_sizes)
        ]
        vertices = torch.from_numpy(self.vertices)
        return torch.ops.detectron2.rasterize_polygons(vertices, *offsets, height, width)

    def fit_boxes(self, boxes: np.ndarray, size: int) -> None:
        """Move and stretch the instances so that ``boxes`` ``(N, 4)`` become ``(0, 0, size,
        size)``; sides below 0.1 count as 0.1. ValueError for a box that is not finite."""
        boxes = boxes.astype(np.float64)
        is_finite = np.isfinite(boxes).all(axis=1)
        if not is_finite.all():
            raise ValueError(f"boxes must be finite, got {boxes[~is_finite][0].tolist()}")
        scales = size / np.maximum(boxes[:, 2:] - boxes[:, :2], 0.1)
        instances = self.vertex_instances()
        self.vertices = (self.vertices - boxes[instances, :2]) * scales[instances]


def check_polygon(polygon: np.ndarray) -> None:
    """Raise a ValueError unless ``polygon`` is ``[x0, y0, x1, y1, ...]`` of three vertices or
    more."""
    if polygon.ndim != 1 or polygon.size % 2 != 0 or polygon.size < 6:
        raise ValueError(
            "a polygon is [x0, y0, x1, y1, ...] with at least 6 values, an even number of them, "
            f"got the shape {list(polygon.shape)}"
        )


def polygon_area(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Area of a polygon by the shoelace formula.

    Args:
        x: ``(V,)``, of the vertices in order.
        y: ``(V,)``.
    """
    return np.abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) / 2


def polygons_to_bitmask(polygons: list[np.ndarray], height: int, width: int) -> np.ndarray:
    """Rasterise the union of polygons, with the pixels that COCO's API gives them.

    Args:
        polygons: each ``[x0, y0, x1, y1, ...]`` in pixels; none gives an empty mask.
        height: rows of the mask.
        width: columns of the mask.

    Returns:
        bool ``(height, width)``.
    """
    return PackedPolygons([polygons]).rasterize(height, width)[0].numpy()


def rasterize_polygons_within_box(
    polygons: list[np.ndarray], box: np.ndarray, mask_size: int
) -> torch.Tensor:
    """Rasterise the part of polygons that lies in a box, stretched to a square.

    Args:
        polygons: each ``[x0, y0, x1, y1, ...]`` in pixels.
        box: ``(4,)``, ``(x0, y0, x1, y1)``; sides below 0.1 count as 0.1.
        mask_size: rows and columns of the mask.

    Returns:
        bool ``(mask_size, mask_size)``.
    """
    packed = PackedPolygons([polygons])
    packed.fit_boxes(np.asarray(box)[None], mask_size)
    return packed.rasterize(mask_size, mask_size)[0]
