"""The pixels of a mask as a shape on a canvas."""

import math

import numpy as np
from PIL import Image

from detectron2.utils._canvas import Coverage


def mask_coverage(mask: np.ndarray, scale: float, size: tuple[int, int]) -> Coverage | None:
    """What a mask covers of a picture.

    Args:
        mask: ``(H, W)``: bool, or opacities in uint8.
        scale: pixels of the picture for each pixel of the mask.
        size: (width, height) of the picture.

    Returns:
        None where nothing is set.
    """
    rows = np.flatnonzero(mask.any(axis=1))
    if len(rows) == 0:
        return None
    top, bottom = int(rows[0]), int(rows[-1]) + 1
    columns = np.flatnonzero(mask[top:bottom].any(axis=0))
    left, right = int(columns[0]), int(columns[-1]) + 1
    values = mask[top:bottom, left:right]
    values = values.astype(np.uint8) * np.uint8(255) if values.dtype == np.bool_ else values
    if scale == 1:
        return Coverage(left, top, values)
    # Resizing keeps to the pixels of the picture: it starts and ends at parts of a mask's pixel.
    x0, y0 = math.floor(left * scale), math.floor(top * scale)
    x1, y1 = min(math.ceil(right * scale), size[0]), min(math.ceil(bottom * scale), size[1])
    if x1 <= x0 or y1 <= y0:
        return None
    # A margin of pixels that are not set, for the borders to fade into.
    margin = math.ceil(1 / scale) + 1
    padded = Image.fromarray(np.pad(values, margin))
    source = [
        min(max(at, 0), limit)
        for at, limit in (
            (x0 / scale - left + margin, padded.width),
            (y0 / scale - top + margin, padded.height),
            (x1 / scale - left + margin, padded.width),
            (y1 / scale - top + margin, padded.height),
        )
    ]
    resized = padded.resize((x1 - x0, y1 - y0), Image.Resampling.BILINEAR, box=tuple(source))
    return Coverage(x0, y0, np.asarray(resized))


def border_coverage(region: Coverage, line_width: float) -> Coverage:
    """What a line along all borders of a region covers, those of its holes included.

    The share of set pixels around a pixel says how near the border is: one half is on it.
    """
    radius = max(math.ceil(line_width / 2), 1)
    window = 2 * radius + 1
    # 255 times the window's pixels; 32 bits only where they are needed.
    dtype = np.uint16 if window**2 * 255 < 1 << 16 else np.uint32
    sums = np.pad(region.values, 2 * radius).astype(dtype)
    for axis in (0, 1):
        sums = _sliding_sums(sums, window, axis)
    full = window**2 * 255
    nearness = np.minimum(sums, full - sums)
    # At a straight border, the nearness rises from 0 to 1/2 of `full` over window / 2 pixels: the
    # line's middle is opaque, and its flanks reach half a pixel beyond its half width.
    slope = window / full
    opacity = nearness * np.float32(slope) + np.float32((line_width - window + 1) / 2)
    values = (opacity.clip(0, min(line_width / 2, 1)) * 255).astype(np.uint8)
    return Coverage(region.left - radius, region.top - radius, values)


def _sliding_sums(values: np.ndarray, window: int, axis: int) -> np.ndarray:
    """Sums over ``window`` neighbours along an axis, which gets ``window - 1`` shorter."""
    count = values.shape[axis] - window + 1
    parts = [
        values[offset : offset + count] if axis == 0 else values[:, offset : offset + count]
        for offset in range(window)
    ]
    sums = parts[0] + parts[1]
    for part in parts[2:]:
        sums += part
    return sums
