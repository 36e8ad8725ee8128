"""Clipping polygons at an axis-aligned window."""

from collections.abc import Sequence

import numpy as np


def clip_polygon(
    polygon: np.ndarray, low: Sequence[float], high: Sequence[float]
) -> list[np.ndarray]:
    """The parts of a polygon within a window.

    Args:
        polygon: ``(n, 2)``, the vertices; where it crosses itself, it is filled by the even-odd
            rule.
        low, high: xy of two opposite corners of the window.

    Returns:
        Disjoint polygons ``(m, 2)`` of float64, without edges of no length, each with an area; a
        polygon wholly inside is returned as it is.
    """
    polygon = np.asarray(polygon, np.float64)
    if len(polygon) == 0:
        return []
    parts = [polygon]
    least, most = polygon.min(axis=0).tolist(), polygon.max(axis=0).tolist()
    for axis in (0, 1):
        if most[axis] <= low[axis] or least[axis] >= high[axis]:
            return []
        if least[axis] < low[axis]:
            parts = [piece for part in parts for piece in _cut(part, axis, low[axis], 1.0)]
        if most[axis] > high[axis]:
            parts = [piece for part in parts for piece in _cut(part, axis, high[axis], -1.0)]
    return parts


def _cut(polygon: np.ndarray, axis: int, bound: float, sign: float) -> list[np.ndarray]:
    """The parts of a polygon with ``sign * coordinate >= sign * bound`` on an axis.

    The runs of vertices inside are chains that begin and end on the cutting line. Along the line
    the polygon's border is crossed alternately into it and out of it, so the first crossing is
    joined to the second, the third to the fourth, and so on.
    """
    depth = sign * (polygon[:, axis] - bound)
    if (depth >= 0).all():
        return [polygon]
    inside = depth > 0
    if not inside.any():
        return []
    start = int(np.flatnonzero(~inside)[0])
    order = np.arange(start, start + len(polygon)) % len(polygon)
    polygon, depth, inside = polygon[order], depth[order], inside[order]
    begins = np.flatnonzero(inside & ~np.roll(inside, 1))
    ends = np.flatnonzero(inside & ~np.roll(inside, -1)) + 1
    chains = []
    for begin, end in zip(begins, ends, strict=True):
        first, last = begin - 1, end % len(polygon)
        entry = _crossing(polygon, depth, first, begin, axis, bound)
        exit_ = _crossing(polygon, depth, last, end - 1, axis, bound)
        chains.append(np.concatenate([entry[None], polygon[begin:end], exit_[None]]))

    # Ends are numbered 2 * chain for its first vertex and 2 * chain + 1 for its last.
    along = np.array([chain[i, 1 - axis] for chain in chains for i in (0, -1)])
    by_position = np.argsort(along, kind="stable").tolist()
    partner = dict(zip(by_position[::2], by_position[1::2], strict=True))
    partner |= {b: a for a, b in partner.items()}

    pieces = []
    unused = set(range(len(chains)))
    while unused:
        end = 2 * min(unused)
        loop = []
        while end // 2 in unused:
            unused.discard(end // 2)
            chain = chains[end // 2]
            loop.append(chain if end % 2 == 0 else chain[::-1])
            end = partner[end ^ 1]
        piece = _without_repeats(np.concatenate(loop))
        if len(piece) >= 3:
            pieces.append(piece)
    return pieces


def _crossing(
    polygon: np.ndarray, depth: np.ndarray, outer: int, inner: int, axis: int, bound: float
) -> np.ndarray:
    """Where the edge between a vertex outside and one inside meets the line."""
    share = depth[outer] / (depth[outer] - depth[inner])
    point = polygon[outer] + share * (polygon[inner] - polygon[outer])
    point[axis] = bound
    return point


def _without_repeats(polygon: np.ndarray) -> np.ndarray:
    return polygon[(polygon != np.roll(polygon, 1, axis=0)).any(axis=1)]
