"""Colours as users write them, and changes to them; values are RGB in [0, 1]."""

import colorsys
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import ImageColor

RGB = tuple[float, float, float]

# A contrast of 7 to 1 with black, that of WCAG 2's level AAA: (0.3 + 0.05) / (0 + 0.05).
_READABLE_LUMINANCE = 0.3

# The one-letter names of the plotting world; the rest are those of CSS.
_LETTERS: dict[str, RGB] = {
    "r": (1.0, 0.0, 0.0),
    "g": (0.0, 0.5, 0.0),
    "b": (0.0, 0.0, 1.0),
    "c": (0.0, 0.75, 0.75),
    "m": (0.75, 0.0, 0.75),
    "y": (0.75, 0.75, 0.0),
    "k": (0.0, 0.0, 0.0),
    "w": (1.0, 1.0, 1.0),
}


def to_rgba(color: str | Sequence[float] | np.ndarray) -> tuple[float, float, float, float]:
    """Read a colour.

    Args:
        color: three or four numbers in [0, 1]; one of the letters r g b c m y k w; a CSS name;
            ``"#rrggbb"``, also with an alpha or shortened; or a grey level as in ``"0.5"``.

    Returns:
        Red, green, blue and alpha (1 where ``color`` has none).

    Raises:
        ValueError: anything else.
    """
    if isinstance(color, str):
        return _named(color)
    try:
        values = tuple(float(value) for value in color)
    except (TypeError, ValueError):
        values = ()
    if len(values) not in (3, 4) or not all(-1e-4 <= value <= 1 + 1e-4 for value in values):
        raise ValueError(
            f"a colour is a name, '#rrggbb', or 3 or 4 numbers from 0 to 1, got {color!r}"
        )
    red, green, blue, *alpha = (min(max(value, 0.0), 1.0) for value in values)
    return red, green, blue, alpha[0] if alpha else 1.0


def to_rgb(color: str | Sequence[float] | np.ndarray) -> RGB:
    """Read a colour as :func:`to_rgba` does, and leave its alpha out."""
    return to_rgba(color)[:3]


def to_ink(color: Sequence[float]) -> tuple[int, int, int]:
    """The colour in 8 bits a channel."""
    red, green, blue = (round(value * 255) for value in color[:3])
    return red, green, blue


def _named(name: str) -> tuple[float, float, float, float]:
    if name in _LETTERS:
        return (*_LETTERS[name], 1.0)
    try:
        grey = float(name)
    except ValueError:
        grey = -1.0
    if 0 <= grey <= 1:
        return grey, grey, grey, 1.0
    try:
        red, green, blue, alpha = ImageColor.getcolor(name, "RGBA")
    except ValueError as error:
        raise ValueError(f"unknown colour {name!r}") from error
    return red / 255, green / 255, blue / 255, alpha / 255


def change_brightness(color: Any, factor: float) -> RGB:
    """Change the lightness of a colour (that of HLS) by a share of it.

    Args:
        color: as in :func:`to_rgba`.
        factor: in [-1, 1]; 0.7 makes it 1.7 times as light, -1 black.
    """
    if not -1 <= factor <= 1:
        raise ValueError(f"the brightness factor must be in [-1, 1], got {factor}")
    hue, lightness, saturation = colorsys.rgb_to_hls(*to_rgb(color))
    lightness = min(max(lightness * (1 + factor), 0.0), 1.0)
    return colorsys.hls_to_rgb(hue, lightness, saturation)


def jitter(color: Any) -> RGB:
    """Move a colour by 0.5 in a random direction of the RGB cube, and clip it."""
    direction = np.random.uniform(-1, 1, 3)
    direction *= 0.5 / max(float(np.linalg.norm(direction)), 1e-6)
    red, green, blue = np.clip(np.array(to_rgb(color)) + direction, 0, 1).tolist()
    return red, green, blue


def readable_on_black(color: Any) -> RGB:
    """The colour, mixed with as much white as it takes to read it on black."""
    values = np.array(to_rgb(color))
    # Shares of white from 0 on; the last is white itself, which is always bright enough.
    mixtures = values + (1 - values) * np.linspace(0, 1, 21)[:, None]
    is_readable = _luminance(mixtures) >= _READABLE_LUMINANCE
    red, green, blue = mixtures[int(is_readable.argmax())].tolist()
    return red, green, blue


def _luminance(colors: np.ndarray) -> np.ndarray:
    """Relative luminance of sRGB colours ``(N, 3)``, as WCAG 2 defines it."""
    linear = np.where(colors <= 0.04045, colors / 12.92, ((colors + 0.055) / 1.055) ** 2.4)
    return linear @ np.array([0.2126, 0.7152, 0.0722])
