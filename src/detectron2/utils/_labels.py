"""Texts over a picture, placed so that they do not cover each other.

Fixed texts stay where they are put; others may move a little. All are laid out when the picture is
read, so that they lie over every shape, and those whose owner was drawn first choose first.
"""

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from detectron2.utils._canvas import Canvas

# Smaller letters cannot be read, however small the picture is.
_MINIMUM_SIZE = 11
_BACKGROUND_OPACITY = 0.8
# Pixels between the boxes of two texts.
_GAP = 2
_ALIGNMENTS = {"left": 0.0, "center": 0.5, "right": 1.0}


class Anchor(NamedTuple):
    """A place for a text: a point, and the part of the text's box that comes to it."""

    x: float
    y: float
    horizontal: float = 0.0
    """0 is the left side of the box, 1 the right one."""
    vertical: float = 0.0
    """0 is the top, 1 the bottom."""


class Text(NamedTuple):
    """A text and where it may stand."""

    text: str
    size: float
    """Of the letters, in pixels."""
    color: Sequence[float]
    anchors: Sequence[Anchor]
    """The first is the preferred one."""
    rotation: float = 0.0
    """Degrees, counter-clockwise; the text turns about its anchor."""
    is_fixed: bool = False
    """Whether it stands at the first anchor, whatever is there."""


class LabelLayer:
    """The texts over a picture."""

    def __init__(self) -> None:
        self._texts: list[Text] = []

    def add(self, text: Text) -> None:
        """Add a text; nothing happens for an empty one, or for a place that is not finite."""
        if text.text and np.isfinite([anchor[:2] for anchor in text.anchors]).all():
            self._texts.append(text)

    def paint(self, canvas: Canvas) -> None:
        """Place all texts and paint them."""
        texts = self._in_order()
        for text, box in zip(texts, self.boxes(canvas.size), strict=True):
            left, top = (int(value) for value in box[:2])
            background, letters, _ = _render(text.text, text.size, text.rotation)
            canvas.paint_mask(background, left, top, (0, 0, 0))
            canvas.paint_mask(letters, left, top, text.color)

    def boxes(self, limits: tuple[int, int]) -> np.ndarray:
        """Place all texts in a picture of (width, height): boxes ``(N, 4)``, rows ``(x0, y0, x1,
        y1)`` of whole pixels, first those of fixed texts."""
        boxes, margins = np.zeros((0, 4)), np.array([-_GAP, -_GAP, _GAP, _GAP])
        for text in self._in_order():
            background, _, size = _render(text.text, text.size, text.rotation)
            candidates = _candidates(text, size, background.size, limits)
            chosen = _least_covered(candidates, boxes + margins)
            boxes = np.concatenate([boxes, candidates[chosen : chosen + 1]])
        return boxes

    def _in_order(self) -> list[Text]:
        # Fixed ones first: the others must keep out of their way.
        return sorted(self._texts, key=lambda text: not text.is_fixed)


def alignment(name: str) -> float:
    """The share of a text's width that lies to the left of its anchor."""
    if name not in _ALIGNMENTS:
        raise ValueError(f"horizontal_alignment must be one of {list(_ALIGNMENTS)}, got {name!r}")
    return _ALIGNMENTS[name]


def alignment_of(share: float) -> str:
    """The inverse of :func:`alignment`."""
    return {value: name for name, value in _ALIGNMENTS.items()}[share]


@functools.lru_cache(maxsize=64)
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


@functools.lru_cache(maxsize=128)
def _render(
    text: str, size: float, rotation: float
) -> tuple[Image.Image, Image.Image, tuple[int, int]]:
    """Opacities of a text's background and of its letters, as images of one size; and the size
    before the rotation."""
    pixels = max(round(size), _MINIMUM_SIZE)
    font = _font(pixels)
    padding = max(pixels // 8, 1)
    left, top, right, bottom = ImageDraw.Draw(Image.new("L", (1, 1))).textbbox((0, 0), text, font)
    # All texts of a size are as high, whether a letter goes below the line or not.
    _, line_top, _, line_bottom = font.getbbox("Ag|")
    top, bottom = min(top, line_top), max(bottom, line_bottom)
    box = (int(right - left) + 2 * padding, int(bottom - top) + 2 * padding)
    letters = Image.new("L", box)
    ImageDraw.Draw(letters).text((padding - left, padding - top), text, fill=255, font=font)
    background = Image.new("L", box, round(255 * _BACKGROUND_OPACITY))
    if rotation % 360 == 0:
        return background, letters, box
    turn = functools.partial(
        Image.Image.rotate, angle=rotation, resample=Image.Resampling.BICUBIC, expand=True
    )
    return turn(background), turn(letters), box


def _candidates(
    text: Text, text_size: tuple[int, int], size: tuple[int, int], limits: tuple[int, int]
) -> np.ndarray:
    """Boxes ``(C, 4)`` of a size where a text may stand: its anchors, then places above and below
    the first one, and beside it; inside of the picture, as far as it fits."""
    width, height = text_size
    cosine, sine = math.cos(math.radians(text.rotation)), math.sin(math.radians(text.rotation))
    origins = []
    for anchor in text.anchors[: 1 if text.is_fixed else None]:
        # From the middle, which the turned text keeps, to the anchored point.
        x, y = (anchor.horizontal - 0.5) * width, (anchor.vertical - 0.5) * height
        x, y = x * cosine + y * sine, y * cosine - x * sine
        origins.append((anchor.x - x - size[0] / 2, anchor.y - y - size[1] / 2))
    origins = np.array(origins)
    if not text.is_fixed:
        steps = [(0, k * sign) for k in range(1, 7) for sign in (1, -1)]
        steps += [(side, k) for side in (1, -1) for k in (0, 1, -1, 2, -2)]
        origins = np.concatenate(
            [origins, origins[0] + np.array(steps) * (size[0] + _GAP, size[1] + _GAP)]
        )
    limit = np.maximum(np.array(limits) - size, 0)
    origins = np.rint(origins).clip(0, limit)
    return np.concatenate([origins, origins + size], axis=1)


def _least_covered(boxes: np.ndarray, placed: np.ndarray) -> int:
    """The first of the boxes that overlaps least with those that are placed."""
    low = np.maximum(boxes[:, None, :2], placed[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], placed[None, :, 2:])
    return int((high - low).clip(min=0).prod(axis=2).sum(axis=1).argmin())
