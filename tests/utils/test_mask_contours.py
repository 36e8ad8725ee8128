"""Borders and connected components of masks, beside slow searches pixel by pixel."""

import numpy as np
import pytest

from detectron2.utils._mask_components import MaskRuns
from detectron2.utils._mask_contours import mask_contours

NEIGHBOURS_4 = [(0, 1), (1, 0), (0, -1), (-1, 0)]
NEIGHBOURS_8 = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if (y, x) != (0, 0)]


def parse(*rows: str) -> np.ndarray:
    return np.array([[letter == "#" for letter in row] for row in rows])


def flood(mask: np.ndarray, neighbours: list[tuple[int, int]]) -> list[set[tuple[int, int]]]:
    """The components of a mask as sets of (y, x)."""
    left = set(map(tuple, np.argwhere(mask).tolist()))
    components = []
    while left:
        front = [left.pop()]
        component = set(front)
        while front:
            y, x = front.pop()
            near = {(y + dy, x + dx) for dy, dx in neighbours} & left
            left -= near
            component |= near
            front += near
        components.append(component)
    return components


def expected_borders(mask: np.ndarray) -> tuple[list, list]:
    """The pixels of the borders: those of each component that have a side on the outside, and
    those that have a side on each hole."""
    padded = np.pad(mask, 1)
    backgrounds = flood(~padded, NEIGHBOURS_4)
    foregrounds = flood(padded, NEIGHBOURS_8)
    # What surrounds a component is the background above its first pixel.
    outer = []
    for component in foregrounds:
        y, x = min(component)
        around = next(background for background in backgrounds if (y - 1, x) in background)
        outer.append(beside(component, around))
    everything = set().union(*foregrounds)
    holes = [beside(everything, hole) for hole in backgrounds if (0, 0) not in hole]
    return sorted(outer), sorted(holes)


def beside(pixels: set, others: set) -> list[tuple[int, int]]:
    """The pixels with a side on the others, as (x, y) without the padding."""
    found = [
        (y, x) for y, x in pixels if any((y + dy, x + dx) in others for dy, dx in NEIGHBOURS_4)
    ]
    return sorted((x - 1, y - 1) for y, x in found)


def pixel_sets(borders: list[np.ndarray]) -> list:
    return sorted(sorted(set(map(tuple, border.tolist()))) for border in borders)


def random_masks():
    rng = np.random.default_rng(0)
    for index in range(60):
        height, width = rng.integers(1, 16, 2)
        mask = rng.random((height, width)) < rng.uniform(0.1, 0.9)
        yield np.kron(mask, np.ones((2, 3), bool)) if index % 3 == 0 else mask


def test_square() -> None:
    outer, holes = mask_contours(np.pad(np.ones((3, 4), bool), 2))
    assert holes == []
    x, y = outer[0].T
    assert len(outer[0]) == 10
    assert (x.min(), x.max(), y.min(), y.max()) == (2, 5, 2, 4)
    # Clockwise as seen, and each step to a neighbour.
    assert np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1)) == 2 * 3 * 2
    assert np.abs(np.diff(outer[0], axis=0, append=outer[0][:1])).max() == 1


def test_line_goes_there_and_back() -> None:
    outer, _ = mask_contours(parse("....", ".##."))
    assert outer[0].tolist() == [[1, 1], [2, 1]]
    outer, _ = mask_contours(parse("###"))
    assert outer[0].tolist() == [[0, 0], [1, 0], [2, 0], [1, 0]]


def test_single_pixel() -> None:
    outer, holes = mask_contours(parse("..", ".#"))
    assert [border.tolist() for border in outer] == [[[1, 1]]]
    assert holes == []


def test_corners_connect() -> None:
    outer, holes = mask_contours(parse("#.", ".#"))
    assert len(outer) == 1
    assert holes == []
    # A hole that only touches the outside at corners is a hole.
    outer, holes = mask_contours(parse(".#.", "#.#", ".#."))
    assert (len(outer), len(holes)) == (1, 1)


def test_ring_with_an_island() -> None:
    ring = np.ones((7, 7), bool)
    ring[1:-1, 1:-1] = False
    ring[3, 3] = True
    outer, holes = mask_contours(ring)
    assert sorted(len(border) for border in outer) == [1, 24]
    # The four corners of the ring have no side on the hole.
    assert [len(border) for border in holes] == [20]


@pytest.mark.parametrize("shape", [(0, 0), (0, 4), (5, 5)])
def test_empty(shape: tuple[int, int]) -> None:
    assert mask_contours(np.zeros(shape, bool)) == ([], [])
    assert MaskRuns.of_mask(np.zeros(shape, bool)).components() == []


def test_random_borders() -> None:
    for mask in random_masks():
        outer, holes = mask_contours(mask)
        expected_outer, expected_holes = expected_borders(mask) if mask.any() else ([], [])
        assert pixel_sets(outer) == expected_outer
        assert pixel_sets(holes) == expected_holes
        for border in [*outer, *holes]:
            assert np.abs(border - np.roll(border, 1, axis=0)).max() <= 1


def test_rejects_other_shapes() -> None:
    with pytest.raises(ValueError, match=r"\[1, 2, 3\]"):
        mask_contours(np.zeros((1, 2, 3)))


def test_random_components() -> None:
    for mask in random_masks():
        components = MaskRuns.of_mask(mask).components()
        found = []
        for component in components:
            drawn = np.zeros_like(mask)
            component.fill(drawn, True)
            assert drawn.sum() == component.area()
            found.append(sorted(map(tuple, np.argwhere(drawn).tolist())))
        assert sorted(found) == sorted(sorted(part) for part in flood(mask, NEIGHBOURS_8))
        areas = [component.area() for component in components]
        assert areas == sorted(areas, reverse=True)


def test_medians() -> None:
    for mask in random_masks():
        if not mask.any():
            continue
        x, y = MaskRuns.of_mask(mask).median()
        rows, columns = np.nonzero(mask)
        # Of an even number of pixels, the lower one of the two in the middle.
        middle = (len(rows) - 1) // 2
        assert (x, y) == (np.sort(columns)[middle] + 0.5, np.sort(rows)[middle] + 0.5)
