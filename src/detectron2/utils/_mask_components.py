"""Connected components of a mask, by the runs of its rows."""

import numpy as np


class MaskRuns:
    """The runs of set pixels in the rows of a mask.

    Attributes:
        rows: ``(R,)``, in ascending order.
        starts: ``(R,)``, the first column of each, ascending within a row.
        ends: ``(R,)``, one more than the last column.
    """

    def __init__(self, rows: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> None:
        self.rows, self.starts, self.ends = rows, starts, ends

    @staticmethod
    def of_mask(mask: np.ndarray) -> "MaskRuns":
        """Find the runs of a bool mask ``(H, W)``."""
        width = mask.shape[1] + 1
        flat = np.zeros((mask.shape[0], width + 1), np.int8)
        flat[:, 1:-1] = mask
        changes = np.diff(flat, axis=1).reshape(-1)
        starts, ends = np.flatnonzero(changes > 0), np.flatnonzero(changes < 0)
        return MaskRuns(starts // width, starts % width, ends % width)

    def __len__(self) -> int:
        return len(self.rows)

    def area(self) -> int:
        """Number of pixels."""
        return int((self.ends - self.starts).sum())

    def box(self) -> tuple[int, int, int, int]:
        """(x0, y0, x1, y1) around all pixels; there must be one."""
        rows = int(self.rows[0]), int(self.rows[-1]) + 1
        return int(self.starts.min()), rows[0], int(self.ends.max()), rows[1]

    def median(self) -> tuple[float, float]:
        """The medians of the columns and of the rows of all pixels, as the coordinates (x, y) of
        the pixel's centre; there must be a pixel."""
        counts = np.zeros(int(self.ends.max()) + 1, np.int64)
        np.add.at(counts, self.starts, 1)
        np.add.at(counts, self.ends, -1)
        in_columns = np.cumsum(np.cumsum(counts))
        in_rows = np.cumsum(self.ends - self.starts)
        x = np.searchsorted(in_columns, in_columns[-1] / 2)
        y = self.rows[np.searchsorted(in_rows, in_rows[-1] / 2)]
        return float(x) + 0.5, float(y) + 0.5

    def components(self) -> "list[MaskRuns]":
        """Split into connected components, the largest first; corners connect."""
        if len(self) == 0:
            return []
        labels = self._labels()
        order = np.argsort(labels, kind="stable")
        cuts = np.flatnonzero(np.diff(labels[order])) + 1
        parts = [
            MaskRuns(self.rows[part], self.starts[part], self.ends[part])
            for part in np.split(order, cuts)
        ]
        return sorted(parts, key=MaskRuns.area, reverse=True)

    def fill(self, mask: np.ndarray, value: bool) -> None:
        """Set the pixels of the runs in a mask that holds them."""
        for row, start, end in zip(self.rows, self.starts, self.ends, strict=True):
            mask[row, start:end] = value

    def _labels(self) -> np.ndarray:
        """For each run the index of the first run of its component."""
        above, below = self._touching()
        labels = np.arange(len(self))
        while True:
            lowest = np.minimum(labels[above], labels[below])
            if np.array_equal(labels[above], labels[below]):
                return labels
            # Hook the roots of both sides to the lower label, then shorten all paths.
            np.minimum.at(labels, labels[above], lowest)
            np.minimum.at(labels, labels[below], lowest)
            while not np.array_equal(labels, labels[labels]):
                labels = labels[labels]

    def _touching(self) -> tuple[np.ndarray, np.ndarray]:
        """The pairs of runs in neighbouring rows that touch, also at corners."""
        # With rows far enough apart on one axis, all runs of the row above that touch a run are
        # found by two searches.
        stride = int(self.ends.max()) + 2
        keys_start, keys_end = self.rows * stride + self.starts, self.rows * stride + self.ends
        first = np.searchsorted(keys_end, keys_start - stride, side="left")
        last = np.searchsorted(keys_start, keys_end - stride, side="right")
        counts = np.maximum(last - first, 0)
        below = np.repeat(np.arange(len(self)), counts)
        within = np.arange(len(below)) - np.repeat(np.cumsum(counts) - counts, counts)
        return first[below] + within, below
