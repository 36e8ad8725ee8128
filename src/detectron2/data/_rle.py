"""Masks from run-length encodings of COCO's kind."""

from typing import Any

import numpy as np

# Characters of a compressed encoding carry six bits, from "0" on: five of the number, and one that
# says that it goes on.
_FIRST_CHARACTER, _BITS, _GOES_ON, _NEGATIVE = 48, 5, 0x20, 0x10


def _decompress(text: str | bytes) -> np.ndarray:
    """The run lengths in a compressed encoding.

    Each number has its lowest five bits first, in two's complement, and from the fourth on is the
    difference from the number two before it.
    """
    raw = text.encode("ascii") if isinstance(text, str) else bytes(text)
    codes = np.frombuffer(raw, np.uint8).astype(np.int64) - _FIRST_CHARACTER
    if codes.size == 0:
        return codes
    if codes.min() < 0 or codes.max() > 63:
        raise ValueError(f"characters of an encoding are '0' to 'o', got {raw[:40]!r}")
    last = (codes & _GOES_ON) == 0
    if not last[-1]:
        raise ValueError(f"the encoding is cut off after {raw[-40:]!r}")
    ends = np.flatnonzero(last)
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.max() > 8:
        raise ValueError(f"a run length of {lengths.max()} characters is out of range")
    place = np.arange(len(codes)) - np.repeat(starts, lengths)
    numbers = np.add.reduceat((codes & (_GOES_ON - 1)) << (place * _BITS), starts)
    negative = (codes[ends] & _NEGATIVE) != 0
    numbers = np.where(negative, numbers - (np.int64(1) << (lengths * _BITS)), numbers)
    numbers[1::2] = np.cumsum(numbers[1::2])
    numbers[2::2] = np.cumsum(numbers[2::2])
    return numbers


def decode_rle(rle: dict[str, Any]) -> np.ndarray:
    """Decode a mask.

    Args:
        rle: "size", (height, width), and "counts": the lengths of runs of 0 and 1 in turn, down
            the columns, from a run of 0 on; as a list, or compressed as str or bytes.

    Returns:
        uint8 ``(height, width)``.

    Raises:
        ValueError: it is no such encoding, or its runs do not make up the mask.
    """
    try:
        height, width = (int(side) for side in rle["size"])
        counts = rle["counts"]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"an RLE has size (height, width) and counts, got {rle!r:.200}") from error
    if isinstance(counts, (str, bytes)):
        runs = _decompress(counts)
    else:
        runs = np.asarray(counts)
        if runs.ndim != 1 or (runs.size and not np.issubdtype(runs.dtype, np.integer)):
            raise ValueError(f"counts of an RLE are integers, got {counts!r:.200}")
        runs = runs.astype(np.int64)
    if height < 0 or width < 0 or (runs < 0).any() or runs.sum() != height * width:
        raise ValueError(
            f"the runs of an RLE are not negative and add up to its {height} x {width} pixels, got "
            f"a sum of {runs.sum()}, the least {runs.min(initial=0)}"
        )
    values = (np.arange(len(runs)) % 2).astype(np.uint8)
    return np.ascontiguousarray(np.repeat(values, runs).reshape(width, height).T)
