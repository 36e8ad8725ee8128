"""The palette, and how colours are read and changed."""

import numpy as np
import pytest

from detectron2.utils._colors import change_brightness, jitter, readable_on_black, to_rgba
from detectron2.utils.colormap import colormap, random_color, random_colors


def test_palette() -> None:
    palette = colormap(rgb=True)
    assert palette.shape == (74, 3)
    assert palette.dtype == np.float32
    np.testing.assert_allclose(palette[0], [0, 0.447 * 255, 0.741 * 255], rtol=1e-6)
    np.testing.assert_array_equal(colormap(), palette[:, ::-1])
    np.testing.assert_allclose(colormap(rgb=True, maximum=1) * 255, palette, rtol=1e-6)


def test_palette_is_not_shared() -> None:
    colormap(rgb=True, maximum=1)[:] = 7
    assert colormap(rgb=True, maximum=1).max() == 1


@pytest.mark.parametrize("maximum", [0, 7, 256])
def test_other_maximum(maximum: int) -> None:
    with pytest.raises(ValueError, match=str(maximum)):
        colormap(maximum=maximum)


def test_random_colors() -> None:
    palette = {tuple(color) for color in colormap(rgb=True, maximum=1)}
    assert tuple(random_color(rgb=True, maximum=1)) in palette
    assert {tuple(color) for color in random_colors(74, rgb=True, maximum=1)} == palette
    with pytest.raises(ValueError, match="75"):
        random_colors(75)


def test_random_color_follows_numpy_seed() -> None:
    np.random.seed(5)
    first = [tuple(random_color()) for _ in range(5)]
    np.random.seed(5)
    assert [tuple(random_color()) for _ in range(5)] == first


@pytest.mark.parametrize(
    ("color", "expected"),
    [
        ("r", (1, 0, 0, 1)),
        ("g", (0, 0.5, 0, 1)),
        ("Orange", (1, 165 / 255, 0, 1)),
        ("#3366cc", (0.2, 0.4, 0.8, 1)),
        ("#3366cc80", (0.2, 0.4, 0.8, 128 / 255)),
        ("0.25", (0.25, 0.25, 0.25, 1)),
        ((0.1, 0.2, 0.3), (0.1, 0.2, 0.3, 1)),
        (np.array([0.1, 0.2, 0.3, 0.4]), (0.1, 0.2, 0.3, 0.4)),
    ],
)
def test_reads_colors(color, expected: tuple[float, ...]) -> None:
    assert to_rgba(color) == pytest.approx(expected)


@pytest.mark.parametrize(
    "color", ["no colour", (0, 128, 255), (0.1, 0.2), None, (float("nan"),) * 3]
)
def test_other_colors(color) -> None:
    with pytest.raises(ValueError, match="colour"):
        to_rgba(color)


def test_brightness() -> None:
    assert change_brightness("r", 0) == pytest.approx((1, 0, 0))
    # Lightness 0.5 grows to 0.85.
    assert change_brightness("r", 0.7) == pytest.approx((1, 0.7, 0.7))
    assert change_brightness("r", -1) == pytest.approx((0, 0, 0))
    with pytest.raises(ValueError, match="2"):
        change_brightness("r", 2)


def test_jitter_moves_by_a_half() -> None:
    moved = np.array(jitter((0.5, 0.5, 0.5)))
    assert np.linalg.norm(moved - 0.5) == pytest.approx(0.5)
    assert all(0 <= value <= 1 for _ in range(20) for value in jitter((0, 1, 0.9)))


@pytest.mark.parametrize("color", ["k", "b", (0, 0, 0.5), "r", "y", "w"])
def test_texts_have_contrast(color) -> None:
    linear = [
        v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4
        for v in readable_on_black(color)
    ]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    assert (luminance + 0.05) / 0.05 >= 7
