"""Overlaps of two segmentations of one image."""

import numpy as np

_ID_BITS = 24


def joint_areas(first: np.ndarray, second: np.ndarray) -> dict[tuple[int, int], int]:
    """Count the pixels of each pair of ids in two maps of one size, with ids in [0, 2^24)."""
    pairs = (first.astype(np.int64) << _ID_BITS | second).ravel()
    # Neighbours mostly are of the same segments: there are far fewer runs than pixels to sort.
    starts = np.append(0, np.flatnonzero(pairs[1:] != pairs[:-1]) + 1)[: pairs.size]
    lengths = np.diff(starts, append=pairs.size)
    keys, inverse = np.unique(pairs[starts], return_inverse=True)
    areas = np.bincount(inverse, weights=lengths).astype(np.int64)
    mask = (1 << _ID_BITS) - 1
    return {
        (key >> _ID_BITS, key & mask): area
        for key, area in zip(keys.tolist(), areas.tolist(), strict=True)
    }
