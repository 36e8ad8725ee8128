"""Run-length encoding of every label of a segmentation at once."""

import numpy as np
from pycocotools import mask as mask_util


def encode_labels(labels: np.ndarray) -> dict[int, dict[str, object]]:
    """Encode the mask of each label that occurs.

    Args:
        labels: ``(H, W)``, integers or bool.

    Returns:
        COCO's compressed RLE by label, rising, with ``counts`` as a str.
    """
    height, width = labels.shape
    by_columns = labels.ravel(order="F")
    if by_columns.size == 0:
        return {}
    starts = np.flatnonzero(by_columns[1:] != by_columns[:-1]) + 1
    starts = np.concatenate([[0], starts])
    ends = np.append(starts[1:], by_columns.size)
    run_labels = by_columns[starts]

    order = np.argsort(run_labels, kind="stable")
    sorted_labels = run_labels[order]
    first = np.flatnonzero(np.append(True, sorted_labels[1:] != sorted_labels[:-1]))
    last = np.append(first[1:], len(order))
    encoded = {}
    for begin, end in zip(first, last, strict=True):
        runs = order[begin:end]
        # 0, start, end, start, end, ..., H * W; the differences are the lengths of runs that
        # alternately are outside and inside of the mask.
        borders = np.stack([starts[runs], ends[runs]], axis=1).ravel()
        counts = np.diff(borders, prepend=0, append=by_columns.size)
        if counts[-1] == 0:
            counts = counts[:-1]
        rle = mask_util.frPyObjects(
            {"size": [height, width], "counts": counts.tolist()}, height, width
        )
        rle["counts"] = rle["counts"].decode("ascii")
        encoded[int(sorted_labels[begin])] = rle
    return encoded
