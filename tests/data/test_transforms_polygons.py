"""Clipping of polygons by `CropTransform`, against rasters and shapely."""

import numpy as np
import pycocotools.mask as mask_util
import pytest

from detectron2.data import transforms as T  # noqa: N812
from detectron2.data.transforms._polygon_clipping import clip_polygon

LOW, HIGH = (10, 15), (70, 60)


def area(polygon: np.ndarray) -> float:
    x, y = polygon.T
    return abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) / 2


def star(rng: np.random.Generator, vertices: int) -> np.ndarray:
    """A simple polygon with spikes, of which the window cuts some."""
    angles = np.sort(rng.uniform(0, 2 * np.pi, vertices))
    radii = rng.uniform(3, 50, vertices)
    center = rng.uniform((0, 0), (80, 80))
    return center + radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], 1)


def in_order(polygons: list[np.ndarray]) -> list[np.ndarray]:
    return sorted(polygons, key=lambda polygon: (area(polygon), *polygon.mean(0)))


def test_parts_of_stars_are_those_of_shapely():
    geometry = pytest.importorskip("shapely.geometry")
    rng = np.random.default_rng(0)
    window = geometry.box(*LOW, *HIGH)
    cut_into_several = 0
    for _ in range(600):
        polygon = star(rng, int(rng.integers(3, 14)))
        shape = geometry.Polygon(polygon)
        if not shape.is_valid:
            continue
        parts = shape.intersection(window)
        parts = [np.asarray(p.exterior.coords)[:-1] for p in getattr(parts, "geoms", [parts]) if p]
        got = in_order(clip_polygon(polygon, LOW, HIGH))
        cut_into_several += len(got) > 1
        assert len(got) == len(parts)
        for mine, theirs in zip(got, in_order(parts), strict=True):
            assert len(mine) == len(theirs)
            assert area(mine) == pytest.approx(area(theirs))
            np.testing.assert_allclose(mine.mean(0), theirs.mean(0))
            np.testing.assert_allclose(mine.min(0), theirs.min(0))
            np.testing.assert_allclose(mine.max(0), theirs.max(0))
    assert cut_into_several > 20


def raster(polygons: list[np.ndarray], h: int, w: int) -> np.ndarray:
    if not polygons:
        return np.zeros((h, w), bool)
    encoded = mask_util.frPyObjects([polygon.ravel().tolist() for polygon in polygons], h, w)
    return mask_util.decode(mask_util.merge(encoded)).astype(bool)


def test_clipping_and_drawing_is_drawing_and_cropping():
    rng = np.random.default_rng(1)
    crop = T.CropTransform(*LOW, HIGH[0] - LOW[0], HIGH[1] - LOW[1])
    for _ in range(50):
        # Any order of the vertices: most cross themselves.
        polygon = rng.uniform(-20, 100, (int(rng.integers(3, 8)), 2))
        expected = crop.apply_image(raster([polygon], 100, 100))
        got = raster(crop.apply_polygons([polygon]), *expected.shape)
        assert (got != expected).mean() < 0.06


def test_polygons_inside_keep_their_vertices():
    polygon = np.array([[20.0, 20], [40, 20], [40, 20], [30, 50]])
    (got,) = T.CropTransform(10, 15, 60, 45).apply_polygons([polygon])
    np.testing.assert_array_equal(got, polygon - (10, 15))
    np.testing.assert_array_equal(polygon[0], [20, 20])


def test_polygons_outside_are_dropped():
    crop = T.CropTransform(10, 15, 60, 45)
    left_of_it = np.array([[0.0, 20], [10, 20], [10, 40], [0, 40]])
    around_a_corner = np.array([[60.0, 0], [90, 0], [90, 30]])
    assert crop.apply_polygons([left_of_it, around_a_corner]) == []


def test_window_within_a_polygon():
    polygon = np.array([[-100.0, -100], [200, -100], [200, 200], [-100, 200]])
    (got,) = T.CropTransform(10, 15, 60, 45).apply_polygons([polygon])
    assert {tuple(p) for p in got.tolist()} == {(0, 0), (60, 0), (60, 45), (0, 45)}
    assert len(got) == 4


def test_a_shape_like_a_u_is_cut_into_its_two_arms():
    polygon = np.array([[0.0, 0], [3, 0], [3, 8], [7, 8], [7, 0], [10, 0], [10, 10], [0, 10]])
    parts = in_order(clip_polygon(polygon, (0, 0), (10, 5)))
    assert [area(part) for part in parts] == [15, 15]
    # No bridge along the border.
    assert [np.ptp(part[:, 0]) for part in parts] == [3, 3]


def test_vertices_on_the_border():
    diamond = np.array([[5.0, 0], [10, 5], [5, 10], [0, 5]])
    (same,) = clip_polygon(diamond, (0, 0), (10, 10))
    np.testing.assert_array_equal(same, diamond)
    (half,) = clip_polygon(diamond, (5, 0), (10, 10))
    assert area(half) == 25
    assert len(half) == 3
    assert clip_polygon(diamond, (10, 0), (20, 10)) == []
