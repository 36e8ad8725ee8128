"""What operators compute, written out so that it can be read: slow, in float64, on the CPU."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Point = tuple[float, float]


def box_iou(a: Sequence[float], b: Sequence[float]) -> float:
    """Of two boxes (x0, y0, x1, y1)."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    common = max(width, 0) * max(height, 0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return common / (sum(areas) - common)


def rotated_iou(a: Sequence[float], b: Sequence[float]) -> float:
    """Of two boxes (x, y, w, h, degrees): one is cut by the sides of the other."""
    common = _area(_cut(_corners(a), _corners(b)))
    return common / (a[2] * a[3] + b[2] * b[3] - common)


def _corners(box: Sequence[float]) -> list[Point]:
    x, y, w, h, angle = box
    c, s = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    signs = ((-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5))
    return [(x + i * w * c + j * h * s, y - i * w * s + j * h * c) for i, j in signs]


def _cut(polygon: list[Point], window: list[Point]) -> list[Point]:
    for (ax, ay), (bx, by) in zip(window, window[1:] + window[:1], strict=True):
        sides = [(bx - ax) * (y - ay) - (by - ay) * (x - ax) for x, y in polygon]
        kept: list[Point] = []
        for i, point in enumerate(polygon):
            previous, side, before = polygon[i - 1], sides[i], sides[i - 1]
            if side * before < 0:
                t = before / (before - side)
                kept.append(
                    (
                        previous[0] + t * (point[0] - previous[0]),
                        previous[1] + t * (point[1] - previous[1]),
                    )
                )
            if side >= 0:
                kept.append(point)
        polygon = kept
    return polygon


def _area(polygon: list[Point]) -> float:
    return (
        abs(sum(polygon[i - 1][0] * y - x * polygon[i - 1][1] for i, (x, y) in enumerate(polygon)))
        / 2
    )


def pairwise(
    iou: Callable[[Sequence[float], Sequence[float]], float], boxes1: Tensor, boxes2: Tensor
) -> Tensor:
    """A matrix of IoUs."""
    rows = [[iou(a, b) for b in boxes2.tolist()] for a in boxes1.tolist()]
    return torch.tensor(rows, dtype=torch.float64)


def nms(ious: Tensor, threshold: float) -> list[int]:
    """Indices of the boxes kept; the boxes are in the order of their scores."""
    kept: list[int] = []
    for i in range(len(ious)):
        if all(ious[i, j] <= threshold for j in kept):
            kept.append(i)
    return kept


def bilinear(image: Tensor, y: float, x: float) -> Tensor:
    """A value (C,) between pixels of (C, H, W), whose centres are whole numbers; the border reaches
    one pixel further."""
    height, width = image.shape[1:]
    if not (-1 <= y <= height and -1 <= x <= width):
        return torch.zeros(image.shape[0], dtype=image.dtype)
    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    rows = (1 - (torch.arange(height) - y).abs()).clamp(min=0).to(image)
    columns = (1 - (torch.arange(width) - x).abs()).clamp(min=0).to(image)
    return torch.einsum("chw,h,w->c", image, rows, columns)


def roi_align_rotated(features: Tensor, rois: Tensor, size: int, samples: int) -> Tensor:
    """The mean of samples x samples points of each bin; RoIs are (image, x, y, w, h, degrees)."""
    pooled = torch.zeros(len(rois), features.shape[1], size, size, dtype=features.dtype)
    points = range(samples)
    for k, (index, cx, cy, w, h, angle) in enumerate(rois.tolist()):
        c, s = math.cos(math.radians(angle)), math.sin(math.radians(angle))
        for row, column, i, j in itertools.product(range(size), range(size), points, points):
            y = h * ((row + (i + 0.5) / samples) / size - 0.5)
            x = w * ((column + (j + 0.5) / samples) / size - 0.5)
            image_y, image_x = y * c - x * s + cy - 0.5, y * s + x * c + cx - 0.5
            value = bilinear(features[int(index)], image_y, image_x)
            pooled[k, :, row, column] += value / samples**2
    return pooled


def deform_conv(input: Tensor, offset: Tensor, mask: Tensor, weight: Tensor) -> Tensor:
    """A 3 x 3 convolution with padding 1, each of whose taps is moved by (dy, dx) and weighted by
    the mask."""
    batch, _, height, width = input.shape
    result = torch.zeros(batch, weight.shape[0], height, width, dtype=input.dtype)
    places = itertools.product(range(batch), range(height), range(width), range(9))
    for n, y, x, tap in places:
        dy, dx = offset[n, 2 * tap : 2 * tap + 2, y, x].tolist()
        point = y + tap // 3 - 1 + dy, x + tap % 3 - 1 + dx
        value = bilinear(
            torch.nn.functional.pad(input[n], (1, 1, 1, 1)), point[0] + 1, point[1] + 1
        )
        result[n, :, y, x] += weight[:, :, tap // 3, tap % 3] @ value * mask[n, tap, y, x]
    return result


def pasted_mask(mask: Tensor, box: Sequence[float], height: int, width: int) -> Tensor:
    """The values of a mask, stretched over its box, at the centres of an image's pixels."""
    x0, y0, x1, y1 = box
    padded = torch.nn.functional.pad(mask, (1, 1, 1, 1))[None]
    result = torch.zeros(height, width, dtype=mask.dtype)
    for row, column in itertools.product(range(height), range(width)):
        y = (row + 0.5 - y0) / (y1 - y0) * mask.shape[0] + 0.5
        x = (column + 0.5 - x0) / (x1 - x0) * mask.shape[1] + 0.5
        if 0 <= y < padded.shape[1] - 1 and 0 <= x < padded.shape[2] - 1:
            result[row, column] = bilinear(padded, y, x)
    return result


def mask_box(mask: Tensor) -> list[float]:
    """The box (x0, y0, x1, y1) of the pixels of a mask (H, W); zeros if there are none."""
    pixels = mask.nonzero().tolist()
    if not pixels:
        return [0.0] * 4
    rows, columns = zip(*pixels, strict=True)
    return [min(columns), min(rows), max(columns) + 1, max(rows) + 1]


def highest_point(heatmap: Tensor, roi: Sequence[float]) -> tuple[float, float]:
    """The place (x, y) in the image where a heatmap (H, W), resized to its RoI, is highest."""
    x0, y0, x1, y1 = roi
    size = math.ceil(y1 - y0), math.ceil(x1 - x0)
    resized = torch.nn.functional.interpolate(
        heatmap[None, None], size=size, mode="bicubic", align_corners=False
    )[0, 0]
    row, column = divmod(int(resized.argmax()), size[1])
    return x0 + (column + 0.5) * (x1 - x0) / size[1], y0 + (row + 0.5) * (y1 - y0) / size[0]


def focal_loss(logits: Tensor, labels: Tensor, alpha: float, gamma: float) -> Tensor:
    """The sum over rows (of which -1 is left out) and classes; Lin et al., equation 5."""
    total = torch.zeros((), dtype=logits.dtype)
    for row, label in zip(logits, labels.tolist(), strict=True):
        for column, x in enumerate(row):
            if label >= 0:
                is_class = column == label
                p = torch.sigmoid(x if is_class else -x)
                weight = alpha if is_class else 1 - alpha
                total = total - weight * (1 - p) ** gamma * torch.log(p)
    return total
