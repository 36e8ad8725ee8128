"""The shapes that a Visualizer draws."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from detectron2.utils._canvas import Coverage
from detectron2.utils._colors import (
    change_brightness,
    jitter,
    readable_on_black,
    to_rgb,
    to_rgba,
)
from detectron2.utils._labels import Anchor, Text, alignment, alignment_of
from detectron2.utils._mask_components import MaskRuns
from detectron2.utils._regions import border_coverage, mask_coverage
from detectron2.utils._vis_image import VisImage
from detectron2.utils.colormap import random_color

Color = str | Sequence[float] | np.ndarray

# Lengths of dashes and gaps, in widths of the line.
_DASHES: dict[str, tuple[float, ...]] = {
    "-": (),
    "solid": (),
    "--": (3.7, 1.6),
    "dashed": (3.7, 1.6),
    "-.": (6.4, 1.6, 1.0, 1.6),
    "dashdot": (6.4, 1.6, 1.0, 1.6),
    ":": (1.0, 1.65),
    "dotted": (1.0, 1.65),
}

# In pixels of the image. Components of a mask from here on get a label each.
_LARGE_COMPONENT = 120_000
_SMALL_OBJECT = 1_000
# Boxes that are less high have their label below them.
_LOW_OBJECT = 40


class Primitives:
    """Draws single shapes. Coordinates are pixels of the image, whatever the result's scale.

    Every method returns the picture. A shape with a coordinate that is not finite is left out.
    """

    output: VisImage
    _default_font_size: float

    def draw_text(
        self,
        text: str,
        position: Sequence[float],
        *,
        font_size: float | None = None,
        color: Color = "g",
        horizontal_alignment: str = "center",
        rotation: float = 0,
    ) -> VisImage:
        """Write a text on a dark background, over all shapes.

        Args:
            text: one line or several.
            position: (x, y) of the text's top.
            font_size: in points.
            color: lightened where it would be dark.
            horizontal_alignment: ``"left"``, ``"center"`` or ``"right"``: where x is.
            rotation: in degrees, counter-clockwise.
        """
        anchor = (*position, alignment(horizontal_alignment))
        return self._add_text(text, [anchor], font_size, color, rotation, is_fixed=True)

    def draw_box(
        self,
        box_coord: Sequence[float],
        alpha: float = 0.5,
        edge_color: Color = "g",
        line_style: str = "-",
    ) -> VisImage:
        """Draw the frame of a box.

        Args:
            box_coord: (x0, y0, x1, y1).
            alpha: opacity of the line.
            edge_color: of the line.
            line_style: ``"-"``, ``"--"``, ``"-."`` or ``":"``.
        """
        box = np.asarray(box_coord, np.float64)
        if box.shape != (4,):
            raise ValueError(f"a box is (x0, y0, x1, y1), got {box_coord!r}")
        if np.isnan(box).any():
            return self.output
        width = max(round(self.output.points(max(self._default_font_size / 4, 1))), 1)
        dashes, color = _dashes(line_style), to_rgb(edge_color)
        if not dashes:
            self.output.canvas.paint_frame(box * self.output.scale, width, color, alpha)
            return self.output
        x0, y0, x1, y1 = box
        corners = np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1], [x0, y0]])
        self._stroke(corners, width, color, alpha, dashes)
        return self.output

    def draw_rotated_box_with_label(
        self,
        rotated_box: Sequence[float],
        alpha: float = 0.5,
        edge_color: Color = "g",
        line_style: str = "-",
        label: str | None = None,
    ) -> VisImage:
        """Draw the sides of a rotated box, its left one dashed, and a label along its top.

        Args:
            rotated_box: (centre x, centre y, width, height, angle), the angle in degrees,
                counter-clockwise.
            alpha: opacity of the lines.
            edge_color: of the lines, and of the label, which is lighter.
            line_style: of the other three sides; see :meth:`draw_box`.
            label: written at the upper left corner.
        """
        if len(rotated_box) != 5:
            raise ValueError(f"a rotated box is (x, y, w, h, angle), got {rotated_box!r}")
        x, y, width, height, angle = (float(value) for value in rotated_box)
        if not np.isfinite([x, y, width, height, angle]).all():
            return self.output
        cosine, sine = math.cos(math.radians(angle)), math.sin(math.radians(angle))
        # From the lower left corner over the upper left one, as seen before the rotation.
        offsets = np.array([[-1, 1], [-1, -1], [1, -1], [1, 1], [-1, 1]]) * [width / 2, height / 2]
        corners = offsets @ np.array([[cosine, -sine], [sine, cosine]]) + [x, y]
        is_small = width * height < _SMALL_OBJECT * self.output.scale
        line_width = self.output.points(max(self._default_font_size / (6 if is_small else 3), 1))
        color = to_rgb(edge_color)
        self._stroke(corners[1:], line_width, color, alpha, _dashes(line_style))
        self._stroke(corners[:2], line_width, color, alpha, _DASHES["--"])
        if label is not None:
            self._add_text(
                label,
                [(*corners[1], 0.0)],
                self._font_size_beside(height),
                change_brightness(color, 0.7),
                angle,
            )
        return self.output

    def draw_circle(
        self, circle_coord: Sequence[float], color: Color, radius: float = 3
    ) -> VisImage:
        """Draw a disc.

        Args:
            circle_coord: (x, y) of the centre.
            color: of the disc.
            radius: in pixels of the image.
        """
        x, y = (float(value) * self.output.scale for value in circle_coord)
        canvas = self.output.canvas
        canvas.paint(canvas.disc_coverage(x, y, radius * self.output.scale), *_paint(color, 1))
        return self.output

    def draw_line(
        self,
        x_data: Sequence[float],
        y_data: Sequence[float],
        color: Color,
        linestyle: str = "-",
        linewidth: float | None = None,
    ) -> VisImage:
        """Draw lines from point to point.

        Args:
            x_data: of the points.
            y_data: of the points, as many.
            color: of the lines; a fourth component is the opacity.
            linestyle: see :meth:`draw_box`.
            linewidth: in points.
        """
        if len(x_data) != len(y_data):
            raise ValueError(f"got {len(x_data)} x and {len(y_data)} y of a line's points")
        points = np.stack([np.asarray(x_data, np.float64), np.asarray(y_data, np.float64)], axis=1)
        if linewidth is None:
            linewidth = self._default_font_size / 3
        width = self.output.points(max(linewidth, 1))
        self._stroke(points, width, *_paint(color, 1), _dashes(linestyle))
        return self.output

    def draw_binary_mask(
        self,
        binary_mask: np.ndarray | torch.Tensor,
        color: Color | None = None,
        *,
        edge_color: Color | None = None,
        text: str | None = None,
        alpha: float = 0.5,
        area_threshold: float | None = 10,
    ) -> VisImage:
        """Fill a mask, and draw its borders.

        Args:
            binary_mask: ``(H, W)``, of the image's size; what is not 0 is set.
            color: None for a random one.
            edge_color: of the borders, None for ``color``.
            text: written on the largest connected part, and on other large ones.
            alpha: opacity of the filling.
            area_threshold: connected parts of fewer pixels are left out.
        """
        mask = self._check_mask(binary_mask)
        mask = mask if mask.dtype == np.bool_ else mask != 0
        color = random_color(rgb=True, maximum=1) if color is None else color
        region = mask_coverage(mask, 1, mask.shape[::-1])
        if region is None:
            return self.output
        runs = MaskRuns.of_mask(region.values > 0)
        parts = runs.components() if area_threshold or text is not None else []
        small = [part for part in parts if part.area() < (area_threshold or 0)]
        if small:
            parts = parts[: len(parts) - len(small)]
            mask = mask.copy()
            for part in small:
                part.fill(mask[region.top :, region.left :], False)
        self._paint_region(mask, color, edge_color, alpha)
        if text is not None:
            self._write_on_parts(text, parts, (region.left, region.top), color)
        return self.output

    def draw_soft_mask(
        self,
        soft_mask: np.ndarray | torch.Tensor,
        color: Color | None = None,
        *,
        text: str | None = None,
        alpha: float = 0.5,
    ) -> VisImage:
        """Fill by the values of a mask.

        Args:
            soft_mask: ``(H, W)``, of the image's size, values in [0, 1].
            color: None for a random one.
            text: written where the mask exceeds 0.5.
            alpha: opacity where the mask is 1.
        """
        mask = self._check_mask(soft_mask)
        color = random_color(rgb=True, maximum=1) if color is None else color
        opacity = (np.nan_to_num(mask.astype(np.float32)).clip(0, 1) * 255 + 0.5).astype(np.uint8)
        canvas = self.output.canvas
        canvas.paint(mask_coverage(opacity, self.output.scale, canvas.size), *_paint(color, alpha))
        if text is not None:
            parts = MaskRuns.of_mask(opacity > 127).components()
            self._write_on_parts(text, parts, (0, 0), color)
        return self.output

    def draw_polygon(
        self,
        segment: np.ndarray,
        color: Color,
        edge_color: Color | None = None,
        alpha: float = 0.5,
    ) -> VisImage:
        """Fill a polygon, and draw its sides.

        Args:
            segment: ``(K, 2)``, the vertices.
            color: of the filling.
            edge_color: of the sides, which are opaque. None for ``color``, or, where ``alpha`` is
                above 0.8, for a darker one.
            alpha: opacity of the filling.
        """
        points = np.asarray(segment, np.float64)
        if points.ndim != 2 or points.shape[1] != 2:
            raise ValueError(f"a polygon must have the shape (K, 2), got {list(points.shape)}")
        points = points * self.output.scale
        canvas = self.output.canvas
        canvas.paint(canvas.polygon_coverage(points), *_paint(color, alpha))
        outline = canvas.outline_coverage(points, self._border_width())
        canvas.paint(outline, *_edge_paint(color, edge_color, alpha))
        return self.output

    def get_output(self) -> VisImage:
        """The picture with all that has been drawn."""
        return self.output

    def _jitter(self, color: Color) -> tuple[float, float, float]:
        """The colour, changed at random, to tell instances of a class apart."""
        return jitter(color)

    def _change_color_brightness(
        self, color: Color, brightness_factor: float
    ) -> tuple[float, float, float]:
        """The colour, lighter (up to a factor of 1) or darker (down to -1)."""
        return change_brightness(color, brightness_factor)

    def _border_width(self) -> float:
        return self.output.points(max(self._default_font_size // 15, 1 / self.output.scale))

    def _check_mask(self, mask: np.ndarray | torch.Tensor) -> np.ndarray:
        mask = mask.detach().cpu().numpy() if isinstance(mask, torch.Tensor) else np.asarray(mask)
        if mask.shape != (self.output.height, self.output.width):
            raise ValueError(
                f"the mask has the shape {list(mask.shape)}, "
                f"the image {[self.output.height, self.output.width]}"
            )
        return mask

    def _paint_region(
        self, mask: np.ndarray, color: Color, edge_color: Color | None, alpha: float
    ) -> None:
        """Fill a bool mask of the image's size, and draw all its borders."""
        canvas = self.output.canvas
        region = mask_coverage(mask, self.output.scale, canvas.size)
        if region is None:
            return
        canvas.paint(region, *_paint(color, alpha))
        edge, edge_alpha = _edge_paint(color, edge_color, alpha)
        canvas.paint(border_coverage(region, self._border_width()), edge, edge_alpha)

    def _stroke(
        self,
        points: np.ndarray,
        width: float,
        color: Sequence[float],
        alpha: float,
        dashes: Sequence[float],
    ) -> None:
        """Draw lines from point to point, of a width in pixels of the result."""
        points = points * self.output.scale
        if not np.isfinite(points).all():
            return
        canvas = self.output.canvas
        if not dashes:
            canvas.paint(canvas.line_coverage(points, width), color, alpha)
            return
        for start, end in canvas.visible_segments(points, width):
            for dash in _split_into_dashes(start, end, [length * width for length in dashes]):
                coverage: Coverage | None = canvas.line_coverage(dash, width, is_round=False)
                canvas.paint(coverage, color, alpha)

    def _write_on_parts(
        self, text: str, parts: Sequence[MaskRuns], offset: tuple[int, int], color: Color
    ) -> None:
        """Write a text at the medians of the largest part of a mask and of other large ones."""
        for index, part in enumerate(parts):
            if index > 0 and part.area() <= _LARGE_COMPONENT:
                break
            x, y = part.median()
            self._add_text(
                text,
                [(x + offset[0], y + offset[1], 0.5, 0.5)],
                None,
                change_brightness(color, 0.7),
            )

    def _font_size_beside(self, height: float) -> float:
        """The size of a label for an object of a height, in points: from 0.6 of the default's for
        small objects to all of it."""
        share = height / math.sqrt(self.output.height * self.output.width)
        growth = min(max((share - 0.02) / 0.08 + 1, 1.2), 2.0)
        return growth * 0.5 * self._default_font_size

    def _add_text(
        self,
        text: str,
        anchors: Sequence[tuple[Any, ...]],
        font_size: float | None,
        color: Color,
        rotation: float = 0,
        *,
        is_fixed: bool = False,
    ) -> VisImage:
        """Add a text; the anchors are in pixels of the image. A subclass that has its own
        :meth:`draw_text` gets it at the first one."""
        if not is_fixed and type(self).draw_text is not Primitives.draw_text:
            x, y, *share = anchors[0]
            side = alignment_of(share[0] if share else 0.0)
            options = {"rotation": rotation} if rotation else {}
            return self.draw_text(
                text, (x, y), font_size=font_size, color=color, horizontal_alignment=side, **options
            )
        scale = self.output.scale
        size = self.output.points(self._default_font_size if font_size is None else font_size)
        places = [Anchor(float(x) * scale, float(y) * scale, *share) for x, y, *share in anchors]
        self.output.labels.add(
            Text(str(text), size, readable_on_black(color), places, rotation, is_fixed)
        )
        return self.output

    def _is_small(self, box: Sequence[float]) -> bool:
        """Whether a label would hide what is in the box."""
        width, height = float(box[2] - box[0]), float(box[3] - box[1])
        scale = self.output.scale
        return width * height < _SMALL_OBJECT * scale or height < _LOW_OBJECT * scale

    def _label_anchors(self, box: Sequence[float]) -> list[tuple[float, ...]]:
        """Where the label of a box may stand, the best place first."""
        x0, y0, x1, y1 = (float(value) for value in box)
        inside = [(x0, y0), (x1, y0, 1.0), (x0, y1, 0.0, 1.0), (x1, y1, 1.0, 1.0)]
        outside = [(x0, y0, 0.0, 1.0), (x0, y1), (x1, y0), (x0, y0, 1.0)]
        if not self._is_small(box):
            return inside + outside
        # Below a small object, or, at the end of the picture, beside it.
        beside = [(x1, y0), (x0, y1)] if y1 >= self.output.height - 5 else [(x0, y1), (x1, y0)]
        return beside + outside + inside


def _dashes(line_style: str) -> tuple[float, ...]:
    if line_style not in _DASHES:
        raise ValueError(f"the line style must be one of {list(_DASHES)}, got {line_style!r}")
    return _DASHES[line_style]


def _split_into_dashes(
    start: np.ndarray, end: np.ndarray, lengths: Sequence[float]
) -> list[np.ndarray]:
    """The parts ``(2, 2)`` of a line that dashes and gaps of these lengths leave."""
    total = float(np.hypot(*(end - start)))
    dashes, position, index = [], 0.0, 0
    while position < total:
        stop = min(position + lengths[index % len(lengths)], total)
        if index % 2 == 0:
            shares = np.array([[position], [stop]]) / total
            dashes.append(start + (end - start) * shares)
        position, index = stop, index + 1
    return dashes


def _paint(color: Color, alpha: float) -> tuple[tuple[float, float, float], float]:
    """A colour and its opacity, which the colour's own alpha reduces."""
    red, green, blue, own = to_rgba(color)
    return (red, green, blue), own * alpha


def _edge_paint(
    color: Color, edge_color: Color | None, alpha: float
) -> tuple[tuple[float, float, float], float]:
    if edge_color is not None:
        return _paint(edge_color, 1)
    return (change_brightness(color, -0.7) if alpha > 0.8 else to_rgb(color)), 1.0
