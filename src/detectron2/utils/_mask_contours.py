"""The borders of a mask as polygons."""

import numpy as np

# Directions along the edges of pixels: right, down, left, up. Adding one turns right.
_STEPS_YX = np.array([[0, 1], [1, 0], [0, -1], [-1, 0]])


def mask_contours(mask: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Follow the borders of a mask.

    Pixels that touch at a corner are connected. A border goes through the pixels of the mask that
    have a side on it, each step to one of the eight neighbours; where the mask is one pixel wide,
    it goes there and back.

    Args:
        mask: ``(H, W)``; what is not 0 is set.

    Returns:
        The outer borders, clockwise as seen, then those around holes, the other way round. Each is
        int64 ``(K, 2)``, indices ``(x, y)`` of pixels, the first not repeated at the end.
    """
    mask = np.asarray(mask) != 0
    if mask.ndim != 2:
        raise ValueError(f"a mask must have the shape (H, W), got {list(mask.shape)}")
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if len(rows) == 0:
        return [], []
    top, left = rows[0], columns[0]
    padded = np.pad(mask[top : rows[-1] + 1, left : columns[-1] + 1], 1)
    pixels_yx, starts_yx, directions = _directed_edges(padded)
    successors = _successors(starts_yx, directions, padded.shape)
    # In the padded crop a pixel's index is one more than in the crop.
    pixels_xy = pixels_yx[:, ::-1] + [left - 1, top - 1]
    order, firsts = _loops(successors.tolist())
    # Twice the area inside each loop, as the sum of x dy; sides that go up and down have dy = ±1.
    areas = np.add.reduceat(starts_yx[order, 1] * _STEPS_YX[directions[order], 0], firsts)
    # A pixel counts once for all of its sides that follow each other.
    points = pixels_xy[order]
    nexts = np.arange(len(order)) + 1
    nexts[np.append(firsts[1:], len(order)) - 1] = firsts
    is_last = (points != points[nexts]).any(axis=1)
    is_last[firsts] |= np.add.reduceat(is_last, firsts, dtype=np.int64) == 0  # a single pixel
    lengths = np.add.reduceat(is_last, firsts, dtype=np.int64)
    borders = np.split(points[is_last], np.cumsum(lengths)[:-1])
    outer = [border for border, area in zip(borders, areas, strict=True) if area > 0]
    return outer, [border for border, area in zip(borders, areas, strict=True) if area < 0]


def _directed_edges(padded: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The sides between pixels of the mask and others, directed so that the mask is to the right:
    the pixel of each ``(E, 2)``, the corner it starts at ``(E, 2)``, and its direction ``(E,)``.
    Corner (y, x) is the upper left one of pixel (y, x)."""
    inner = padded[1:-1, 1:-1]
    neighbours = (padded[:-2, 1:-1], padded[1:-1, 2:], padded[2:, 1:-1], padded[1:-1, :-2])
    corners = np.array([[0, 0], [0, 1], [1, 1], [1, 0]])
    pixels, directions = [], []
    for direction, neighbour in enumerate(neighbours):
        found = np.argwhere(inner & ~neighbour) + 1
        pixels.append(found)
        directions.append(np.full(len(found), direction))
    pixels_yx, directions = np.concatenate(pixels), np.concatenate(directions)
    return pixels_yx, pixels_yx + corners[directions], directions


def _successors(
    starts_yx: np.ndarray, directions: np.ndarray, shape: tuple[int, ...]
) -> np.ndarray:
    """The edge that follows each edge: ``(E,)``."""
    edge_at = np.full((shape[0] + 1, shape[1] + 1, 4), -1, np.int32)
    edge_at[starts_yx[:, 0], starts_yx[:, 1], directions] = np.arange(len(directions))
    ends_y, ends_x = (starts_yx + _STEPS_YX[directions]).T
    # Where two pixels touch at a corner, there is a left and a right turn; the left one connects
    # them.
    left = edge_at[ends_y, ends_x, (directions - 1) % 4]
    straight = edge_at[ends_y, ends_x, directions]
    right = edge_at[ends_y, ends_x, (directions + 1) % 4]
    return np.where(left >= 0, left, np.where(straight >= 0, straight, right))


def _loops(successors: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """The cycles of a permutation, one after the other, and where each starts."""
    seen = bytearray(len(successors))
    order: list[int] = []
    firsts: list[int] = []
    for first in range(len(successors)):
        if seen[first]:
            continue
        firsts.append(len(order))
        edge = first
        while not seen[edge]:
            seen[edge] = 1
            order.append(edge)
            edge = successors[edge]
    return np.array(order), np.array(firsts)
