"""Predictions of several processes, brought together in one of them."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.distributed as dist

from detectron2.evaluation._coco_predictions import COLUMNS, PackedPredictions
from detectron2.utils import comm

# What is in flight between two processes at a time.
_BYTES_PER_MESSAGE = 1 << 26


def gather_predictions(predictions: PackedPredictions) -> PackedPredictions | None:
    """Collect the predictions of all processes in rank 0, in the order of ranks.

    The arrays travel as they are, one process's after another's, each to its place in the whole:
    rank 0 never holds more than the whole, and a message. All processes call it.

    Returns:
        All predictions in rank 0, None in the others.

    Raises:
        ValueError: in all processes, if columns of theirs do not fit together.
    """
    if comm.get_world_size() == 1:
        return predictions
    columns = {name: predictions.column(name) for name in COLUMNS}
    own = {name: (v.shape, v.dtype.str) for name, v in columns.items() if v is not None}
    headers = comm.all_gather(own)
    types = _common_types(headers)
    parts = comm.gather((predictions.image_ids, predictions.shapes))

    whole: dict[str, np.ndarray] = {}
    for name, (row, dtype) in types.items():
        lengths = [header[name][0][0] if name in header else 0 for header in headers]
        part = columns[name]
        part = np.zeros((0, *row), dtype) if part is None else part.astype(dtype, copy=False)
        values = _gather_rows(part, lengths)
        if values is not None:
            whole[name] = values
    if not comm.is_main_process():
        return None
    image_ids = [image_id for ids, _ in parts for image_id in ids]
    return PackedPredictions.from_columns(image_ids, np.vstack([s for _, s in parts]), whole)


def _common_types(
    headers: list[dict[str, tuple[tuple[int, ...], str]]],
) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    """Shape of a row and dtype of each column that any process has."""
    types: dict[str, tuple[tuple[int, ...], np.dtype]] = {}
    for name in COLUMNS:
        present = [header[name] for header in headers if name in header]
        if not present:
            continue
        rows = {shape[1:] for shape, _ in present}
        if len(rows) > 1:
            raise ValueError(f"processes have {name} of different sizes: {sorted(rows)}")
        types[name] = rows.pop(), np.result_type(*(dtype for _, dtype in present))
    instance_columns = {
        frozenset(header) - {"proposal_boxes", "proposal_logits"}
        for header in headers
        if "scores" in header
    }
    if len(instance_columns) > 1:
        raise ValueError(
            f"processes have instances with different fields: {[*map(sorted, instance_columns)]}"
        )
    return types


def _gather_rows(part: np.ndarray, lengths: list[int]) -> np.ndarray | None:
    """Rank 0 gets the rows of all processes, which have the given ``lengths``; others None."""
    group = comm._group_for_objects()
    if not comm.is_main_process():
        for message in _messages(part):
            dist.send(message, dst=0, group=group)
        return None
    whole = np.empty((sum(lengths), *part.shape[1:]), part.dtype)
    ends = np.cumsum(lengths)
    whole[: ends[0]] = part
    for rank in range(1, len(lengths)):
        for message in _messages(whole[ends[rank - 1] : ends[rank]]):
            dist.recv(message, src=rank, group=group)
    return whole


def _messages(rows: np.ndarray) -> Sequence[torch.Tensor]:
    """The memory of contiguous rows as tensors of bytes; none for no rows."""
    if not rows.size:
        return ()
    rows = np.ascontiguousarray(rows)
    return torch.from_numpy(rows.reshape(-1).view(np.uint8)).split(_BYTES_PER_MESSAGE)
