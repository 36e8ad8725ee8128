"""The outlines of the shapes that ``detectron2.data.shapes`` draws."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

KEYPOINT_NAMES = ("tip", "left", "right", "tail")
KEYPOINT_FLIP_MAP = (("left", "right"),)


@dataclass(frozen=True)
class ShapeClass:
    """A kind of shape, as it stands upright in a box of unit size around the origin.

    Attributes:
        vertices: ``(V, 2)``, (x, y), y downwards; they reach from -0.5 to 0.5 in both.
        aspect_ratios: the least and the greatest width / height.
        period: degrees after which a turned shape looks the same.
        keypoints: ``(K, 2)``, or None where an axis cannot be told from another one.
    """

    vertices: np.ndarray
    aspect_ratios: tuple[float, float]
    period: int
    keypoints: np.ndarray | None = None


@dataclass(frozen=True)
class Placement:
    """Where a shape lies: centre and sides in pixels, and a counter-clockwise angle in degrees.

    That is a rotated box: see :class:`~detectron2.structures.RotatedBoxes`.
    """

    center_x: float
    center_y: float
    width: float
    height: float
    angle: float

    def apply(self, points: np.ndarray) -> np.ndarray:
        """Points of the unit box ``(N, 2)`` → points of the image."""
        radians = math.radians(self.angle)
        cos, sin = math.cos(radians), math.sin(radians)
        x, y = points[:, 0] * self.width, points[:, 1] * self.height
        return np.stack(
            [self.center_x + x * cos + y * sin, self.center_y - x * sin + y * cos], axis=1
        )


def _around(num_points: int, radius: Callable[[int], float]) -> np.ndarray:
    """Points clockwise around the origin, the first above it, stretched to the unit box."""
    angles = np.arange(num_points) * (2 * math.pi / num_points)
    radii = np.array([radius(i) for i in range(num_points)])
    points = np.stack([np.sin(angles), -np.cos(angles)], axis=1) * radii[:, None]
    low, high = points.min(axis=0), points.max(axis=0)
    return (points - (low + high) / 2) / (high - low)


def _cross(arm: float) -> np.ndarray:
    a, e = arm / 2, 0.5
    quarter = np.array([[-a, -e], [a, -e], [a, -a]])
    turn = np.array([[0, 1], [-1, 0]])
    return np.concatenate([quarter @ np.linalg.matrix_power(turn, k) for k in range(4)])


# Of a regular five-pointed star: the inner radius, and width / height of its box.
_STAR_INNER = 0.382
_STAR_ASPECT = 2 * math.sin(math.radians(72)) / (1 + math.cos(math.radians(36)))

SHAPE_CLASSES: dict[str, ShapeClass] = {
    "ellipse": ShapeClass(_around(40, lambda _: 1.0), (1.2, 2.2), 180),
    "rectangle": ShapeClass(
        np.array([[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5]]), (1.2, 2.5), 180
    ),
    "triangle": ShapeClass(
        np.array([[0.0, -0.5], [0.5, 0.5], [-0.5, 0.5]]),
        (0.55, 0.85),
        360,
        np.array([[0.0, -0.5], [-0.5, 0.5], [0.5, 0.5], [0.0, 0.5]]),
    ),
    "arrow": ShapeClass(
        np.array(
            [
                [0.0, -0.5],
                [0.5, 0.0],
                [0.2, 0.0],
                [0.2, 0.5],
                [-0.2, 0.5],
                [-0.2, 0.0],
                [-0.5, 0.0],
            ]
        ),
        (0.55, 0.9),
        360,
        np.array([[0.0, -0.5], [-0.5, 0.0], [0.5, 0.0], [0.0, 0.5]]),
    ),
    "star": ShapeClass(
        _around(10, lambda i: _STAR_INNER if i % 2 else 1.0), (_STAR_ASPECT, _STAR_ASPECT), 72
    ),
    "cross": ShapeClass(_cross(0.36), (1.0, 1.0), 90),
}
