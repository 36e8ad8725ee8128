"""A picture that is painted on in parts: each shape touches only the pixels that it covers.

Coordinates are pixels of the picture, continuous: the first pixel goes from 0 to 1.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from detectron2.utils._colors import to_ink

# Polygons are drawn this much larger, and reduced, for smooth edges.
_OVERSAMPLING = 4
# A long line is worked out piece by piece, so that the work grows with its length, not with the
# area that it crosses.
_PIECE = 48


class Coverage(NamedTuple):
    """How much of each pixel of a rectangle a shape covers."""

    left: int
    top: int
    values: np.ndarray
    """uint8 ``(h, w)``; 255 is all."""


class Canvas:
    """An RGB image with shapes painted on it."""

    def __init__(self, image: Image.Image) -> None:
        """Args:
        image: in the mode RGB; painted on.
        """
        self.image = image

    @property
    def size(self) -> tuple[int, int]:
        """(width, height)."""
        return self.image.size

    def paint(self, coverage: Coverage | None, color: Sequence[float], alpha: float = 1) -> None:
        """Blend a colour into what a shape covers; None covers nothing."""
        if coverage is None or coverage.values.size == 0 or alpha <= 0:
            return
        mask = Image.fromarray(np.ascontiguousarray(coverage.values))
        if alpha < 1:
            mask = mask.point([round(value * alpha) for value in range(256)])
        self.paint_mask(mask, coverage.left, coverage.top, color)

    def paint_mask(self, mask: Image.Image, left: int, top: int, color: Sequence[float]) -> None:
        """Blend a colour by the opacities of a mask, an image in the mode L."""
        box = (left, top, left + mask.width, top + mask.height)
        self.image.paste(to_ink(color), box, mask)

    def paint_rectangle(
        self, left: int, top: int, right: int, bottom: int, color: Sequence[float], alpha: float
    ) -> None:
        """Blend a colour into whole pixels."""
        width, height = self.size
        left, right = max(left, 0), min(right, width)
        top, bottom = max(top, 0), min(bottom, height)
        if right > left and bottom > top:
            mask = Image.new("L", (right - left, bottom - top), round(255 * min(max(alpha, 0), 1)))
            self.paint_mask(mask, left, top, color)

    def paint_frame(
        self, box: Sequence[float], thickness: int, color: Sequence[float], alpha: float
    ) -> None:
        """Blend a colour into the frame of a box ``(x0, y0, x1, y1)``, moved to whole pixels so
        that it is crisp."""
        width, height = self.size
        # What lies far outside must not make large numbers.
        x0, x1 = (min(max(x, -2 * thickness), width + 2 * thickness) for x in box[0::2])
        y0, y1 = (min(max(y, -2 * thickness), height + 2 * thickness) for y in box[1::2])
        left, top, right, bottom = (math.floor(v - thickness / 2 + 0.5) for v in (x0, y0, x1, y1))
        inner_top, inner_bottom = top + thickness, max(bottom, top + thickness)
        inner_right = max(right, left + thickness)
        outer_right, outer_bottom = right + thickness, bottom + thickness
        self.paint_rectangle(left, top, outer_right, inner_top, color, alpha)
        self.paint_rectangle(left, inner_bottom, outer_right, outer_bottom, color, alpha)
        self.paint_rectangle(left, inner_top, left + thickness, inner_bottom, color, alpha)
        self.paint_rectangle(inner_right, inner_top, outer_right, inner_bottom, color, alpha)

    def polygon_coverage(self, points: np.ndarray) -> Coverage | None:
        """What a polygon ``(K, 2)`` covers."""
        return self._oversample(points, 0, lambda draw, xy: draw.polygon(xy, fill=255))

    def outline_coverage(self, points: np.ndarray, line_width: float) -> Coverage | None:
        """What a line along the sides of a polygon ``(K, 2)`` covers."""
        thickness = max(round(line_width * _OVERSAMPLING), 1)

        def draw_outline(draw: ImageDraw.ImageDraw, xy: list[tuple[float, float]]) -> None:
            # Once more over the second vertex, for the joint at the first.
            draw.line([*xy, *xy[:2]], fill=255, width=thickness, joint="curve")

        return self._oversample(points, line_width, draw_outline)

    def disc_coverage(self, x: float, y: float, radius: float) -> Coverage | None:
        """What a disc covers."""
        # A line without length, with round ends.
        return self.line_coverage(np.array([[x, y], [x, y]]), 2 * radius)

    def line_coverage(
        self, points: np.ndarray, line_width: float, *, is_round: bool = True
    ) -> Coverage | None:
        """What lines from each point to the next ``(K, 2)`` cover, their ends round or cut off."""
        bounds = self._bounds(points, line_width / 2 + 1)
        if bounds is None:
            return None
        left, top, right, bottom = bounds
        covered = np.zeros((bottom - top, right - left), np.float32)
        origin = np.array([left, top])
        for start, end in self.visible_segments(points, line_width):
            _cover_segment(covered, start - origin, end - origin, line_width / 2, is_round)
        return Coverage(left, top, np.rint(covered * 255).astype(np.uint8))

    def visible_segments(
        self, points: np.ndarray, line_width: float
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield start and end of the lines from each point to the next, without what is outside of
        the picture by more than the lines' width."""
        low, high = np.full(2, -line_width - 1), np.array(self.size) + line_width + 1
        for start, end in itertools.pairwise(points):
            step = end - start
            with np.errstate(divide="ignore", invalid="ignore"):
                enter, leave = (low - start) / step, (high - start) / step
            # Where a line runs along an axis, it is always within the limits of the other, or
            # never.
            is_within = (start >= low) & (start <= high)
            first = np.where(step != 0, np.minimum(enter, leave), np.where(is_within, 0, np.inf))
            last = np.where(step != 0, np.maximum(enter, leave), np.where(is_within, 1, -np.inf))
            begin, stop = max(first.max(), 0.0), min(last.min(), 1.0)
            if begin <= stop:
                yield start + step * begin, start + step * stop

    def _bounds(self, points: np.ndarray, reach: float) -> tuple[int, int, int, int] | None:
        """The part of the picture within ``reach`` of the points' bounding box."""
        if len(points) == 0 or not np.isfinite(points).all():
            return None
        x0, y0 = np.floor(points.min(axis=0) - reach).clip(min=0).tolist()
        x1, y1 = np.minimum(np.ceil(points.max(axis=0) + reach), self.size).tolist()
        return (int(x0), int(y0), int(x1), int(y1)) if x1 > x0 and y1 > y0 else None

    def _oversample(
        self,
        points: np.ndarray,
        reach: float,
        draw_shape: Callable[[ImageDraw.ImageDraw, list[tuple[float, float]]], None],
    ) -> Coverage | None:
        bounds = self._bounds(points, reach)
        if bounds is None:
            return None
        left, top, right, bottom = bounds
        size = ((right - left) * _OVERSAMPLING, (bottom - top) * _OVERSAMPLING)
        large = Image.new("L", size)
        # Pillow counts in integers; what is that far outside looks the same from here.
        points = points.clip(-8 * max(self.size), 8 * max(self.size))
        # To Pillow, whole numbers are the centres of pixels; it cuts fractions off. It fills both
        # ends of a row, so of two pixels as near, the one further inside is right.
        moved = (points - [left, top]) * _OVERSAMPLING - 0.5
        inwards = np.sign((moved.min(axis=0) + moved.max(axis=0)) / 2 - moved)
        moved = np.rint(moved + 1e-3 * inwards)
        draw_shape(ImageDraw.Draw(large), [(x, y) for x, y in moved.tolist()])
        return Coverage(left, top, np.asarray(large.reduce(_OVERSAMPLING)))


def _cover_segment(
    covered: np.ndarray, start: np.ndarray, end: np.ndarray, half_width: float, is_round: bool
) -> None:
    """Raise ``covered`` to what a segment covers of each pixel, by the pixel's distance to it."""
    length = float(np.hypot(*(end - start)))
    # A cut-off point covers nothing; a round one is a disc.
    if length == 0 and not is_round:
        return
    along = (end - start) / length if length > 0 else np.array([1.0, 0.0])
    pieces = max(math.ceil(length / _PIECE), 1)
    ends = start + (end - start) * np.linspace(0, 1, pieces + 1)[:, None]
    height, width = covered.shape
    for here, there in itertools.pairwise(ends):
        x0, y0 = np.floor(np.minimum(here, there) - half_width - 1).clip(min=0).astype(int)
        x1, y1 = np.ceil(np.maximum(here, there) + half_width + 1).astype(int)
        x1, y1 = min(x1, width), min(y1, height)
        if x1 <= x0 or y1 <= y0:
            continue
        dx = np.arange(x0, x1, dtype=np.float32) + np.float32(0.5 - start[0])
        dy = (np.arange(y0, y1, dtype=np.float32) + np.float32(0.5 - start[1]))[:, None]
        position = dx * np.float32(along[0]) + dy * np.float32(along[1])
        aside = dx * np.float32(along[1]) - dy * np.float32(along[0])
        if is_round:
            beyond = position - position.clip(0, length)
            distance = np.sqrt(aside * aside + beyond * beyond)
            share = (half_width + 0.5 - distance).clip(0, min(2 * half_width, 1))
        else:
            share = (half_width + 0.5 - np.abs(aside)).clip(0, min(2 * half_width, 1))
            share *= (position + 0.5).clip(0, 1) * (length + 0.5 - position).clip(0, 1)
        window = covered[y0:y1, x0:x1]
        np.maximum(window, share, out=window)
