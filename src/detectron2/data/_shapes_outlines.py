"""The outline of a mask, along the sides of its pixels."""

import numpy as np

# Steps along the sides of pixels: right, down, left, up. Adding one turns right.
_STEPS = ((1, 0), (0, 1), (-1, 0), (0, -1))


def trace_outlines(mask: np.ndarray) -> tuple[list[list[int]], bool]:
    """Polygons that cover just the pixels of a mask.

    Args:
        mask: bool ``(H, W)``.

    Returns:
        Polygons ``[x0, y0, x1, y1, ...]`` with corners of pixels as vertices, one a region of
        pixels that are connected by their sides; and whether a region has a hole, which the
        polygons then cover.
    """
    padded = np.pad(mask, 1)
    inside = padded[1:-1, 1:-1]
    neighbours = (padded[:-2, 1:-1], padded[1:-1, 2:], padded[2:, 1:-1], padded[1:-1, :-2])
    # A side is walked with its pixel to the right, and starts at that pixel's corner.
    corners = ((0, 0), (1, 0), (1, 1), (0, 1))
    sides: dict[tuple[int, int, int], None] = {}
    for direction, (neighbour, (dx, dy)) in enumerate(zip(neighbours, corners, strict=True)):
        rows, columns = np.nonzero(inside & ~neighbour)
        starts = zip((columns + dx).tolist(), (rows + dy).tolist(), strict=True)
        sides.update(((x, y, direction), None) for x, y in starts)

    polygons = []
    has_hole = False
    while sides:
        polygon, area = _walk(sides, next(iter(sides)))
        if area > 0:
            polygons.append(polygon)
        else:
            has_hole = True
    return polygons, has_hole


def _walk(
    sides: dict[tuple[int, int, int], None], first: tuple[int, int, int]
) -> tuple[list[int], int]:
    """Take a loop out of the sides: its vertices, and the area to its right."""
    x, y, direction = first
    polygon: list[int] = []
    area = 0
    while (x, y, direction) in sides:
        del sides[x, y, direction]
        dx, dy = _STEPS[direction]
        x, y = x + dx, y + dy
        area += x * dy
        # Where two pixels touch at a corner only, the right turn keeps them apart.
        for turn in (1, 0, 3):
            following = (direction + turn) % 4
            if (x, y, following) in sides or (x, y, following) == first:
                if turn:
                    polygon += (x, y)
                direction = following
                break
    return polygon, area
