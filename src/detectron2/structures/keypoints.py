"""Keypoints, and the heatmaps that models learn and predict in their place.

Coordinates are continuous, as everywhere: the centre of a pixel is at a half. Heatmaps cover their
RoI, so that an S x S heatmap has cells of 1/S of the RoI's sides.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F  # noqa: N812

import detectron2._ops  # noqa: F401  (registers torch.ops.detectron2)

__all__ = ["Keypoints", "heatmaps_to_keypoints"]


class Keypoints:
    """The keypoints of N instances, K each: float32 ``tensor`` ``(N, K, 3)``.

    Rows are ``(x, y, visibility)`` in pixels of the image; the visibility is 0 for a keypoint that
    is not labelled, 1 for one that is labelled but hidden, 2 for one that is seen.
    """

    def __init__(self, keypoints: torch.Tensor | np.ndarray | list[list[float]]) -> None:
        """Args:
            keypoints: ``(N, K, 3)``; what is not a tensor goes to the CPU. A float32 tensor is
                kept, not copied.

        Raises:
            ValueError: another shape.
        """
        device = keypoints.device if isinstance(keypoints, torch.Tensor) else "cpu"
        if isinstance(keypoints, (list, tuple)):
            keypoints = np.asarray(keypoints, dtype=np.float32)
        tensor = torch.as_tensor(keypoints, dtype=torch.float32, device=device)
        if tensor.dim() != 3 or tensor.shape[2] != 3:
            raise ValueError(f"keypoints must have the shape (N, K, 3), got {list(tensor.shape)}")
        self.tensor = tensor

    @property
    def device(self) -> torch.device:
        """Where the keypoints lie."""
        return self.tensor.device

    def __len__(self) -> int:
        return self.tensor.size(0)

    def __getitem__(self, item: int | slice | torch.Tensor) -> "Keypoints":
        """Select instances.

        Args:
            item: an index, of which a slice of length 1 comes back; or a slice, a bool mask or
                int64 indices.
        """
        if isinstance(item, int):
            return type(self)(self.tensor[item][None])
        return type(self)(self.tensor[item])

    def __repr__(self) -> str:
        return f"{type(self).__name__}(num_instances={len(self)})"

    def to(self, *args: Any, **kwargs: Any) -> "Keypoints":
        """A copy where ``torch.Tensor.to(*args, **kwargs)`` says."""
        return type(self)(self.tensor.to(*args, **kwargs))

    def to_heatmap(
        self, boxes: torch.Tensor, heatmap_size: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Where each keypoint lies in the heatmap of its box, the target of a classification.

        A keypoint on the right or the bottom edge of its box counts as inside.

        Args:
            boxes: ``(N, 4)``, rows ``(x0, y0, x1, y1)``, one an instance.
            heatmap_size: S, the length of the heatmap's sides.

        Returns:
            ``(N, K)`` int64 indices into the flattened S x S heatmap, and ``(N, K)`` int64 which
            is 1 where the keypoint is labelled and inside its box, 0 elsewhere, where the index
            is 0, too. Without instances both are of the shape ``(0,)``.
        """
        return _keypoints_to_heatmap(self.tensor, boxes, heatmap_size)

    @staticmethod
    def cat(keypoints_list: "Sequence[Keypoints]") -> "Keypoints":
        """Concatenate; all must have the same K.

        Raises:
            TypeError: not a list or tuple of Keypoints.
            ValueError: an empty list, of which K is not known.
        """
        if not isinstance(keypoints_list, (list, tuple)):
            raise TypeError(f"expected a list of Keypoints, got {keypoints_list!r}")
        for keypoints in keypoints_list:
            if not isinstance(keypoints, Keypoints):
                raise TypeError(f"expected a list of Keypoints, got one with {keypoints!r}")
        if not keypoints_list:
            raise ValueError("there must be at least one Keypoints to concatenate, got []")
        cls = type(keypoints_list[0])
        return cls(torch.cat([keypoints.tensor for keypoints in keypoints_list], dim=0))


def _keypoints_to_heatmap(
    keypoints: torch.Tensor, boxes: torch.Tensor, heatmap_size: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """`Keypoints.to_heatmap` of ``(N, K, 3)`` keypoints."""
    if boxes.dim() != 2 or boxes.shape[1] != 4 or len(boxes) != len(keypoints):
        raise ValueError(
            f"there must be a box (x0, y0, x1, y1) for each of the {len(keypoints)} instances, got "
            f"boxes of the shape {list(boxes.shape)}"
        )
    if len(boxes) == 0:
        empty = torch.empty(0, dtype=torch.int64, device=keypoints.device)
        return empty, empty.clone()
    low, high = boxes[:, None, :2], boxes[:, None, 2:]
    points = keypoints[..., :2]
    cells = torch.floor((points - low) * (heatmap_size / (high - low)))
    # Points just left of the right edge round up to it, and it belongs to the last cell.
    cells = torch.where(points == high, heatmap_size - 1.0, cells.clamp(max=heatmap_size - 1))
    # Decided by the edges themselves, not by cells, which are rounded or not even finite.
    inside = (low <= points) & (points <= high) & torch.isfinite(cells)
    valid = inside.all(dim=2) & (keypoints[..., 2] > 0)
    columns, rows = torch.where(valid[..., None], cells, 0.0).long().unbind(2)
    return rows * heatmap_size + columns, valid.long()


@torch.jit.script_if_tracing
def heatmaps_to_keypoints(maps: torch.Tensor, rois: torch.Tensor) -> torch.Tensor:
    """Find the peak of each heatmap after resizing it to its RoI.

    The heatmaps of a RoI of size (w, h), at least 1 each, are resized to ceil(w) x ceil(h) points
    by bicubic interpolation, and the highest of these points is the keypoint; of points as high,
    the first in row-major order. There are at most 512 points to a pixel of the heatmap.

    On the CPU and CUDA the resized maps are never made, and nothing waits for the device. While
    tracing or scripting, and on other devices, it goes RoI by RoI through PyTorch's interpolation.

    Args:
        maps: logits, ``(R, K, H, W)``, K heatmaps a RoI.
        rois: ``(R, 4)``, rows ``(x0, y0, x1, y1)``.

    Returns:
        ``(R, K, 4)``, rows ``(x, y, logit, score)``: the position in the image; the resized
        heatmap there; and the exponential of that over the sum of the exponentials of the (not
        resized) heatmap, which is near the softmax. All four are NaN where a value of the heatmap
        or the RoI is not finite. float64 for float64 maps, else float32. No gradients.
    """
    maps = maps.detach()
    rois = rois.detach()
    if not torch.jit.is_scripting() and maps.device.type in ("cpu", "cuda", "meta"):
        return torch.ops.detectron2.heatmaps_to_keypoints(maps, rois)
    return _heatmaps_to_keypoints_by_roi(maps, rois)


def _heatmaps_to_keypoints_by_roi(maps: torch.Tensor, rois: torch.Tensor) -> torch.Tensor:
    """`heatmaps_to_keypoints` of PyTorch's operators, for any device and for TorchScript."""
    if maps.dtype != torch.float64:
        maps = maps.float()
    rois = rois.to(maps.dtype)
    num_rois, num_keypoints, map_height, map_width = maps.shape
    sizes = (rois[:, 2:] - rois[:, :2]).clamp(min=1)
    finite = torch.isfinite(rois).all(dim=1) & torch.isfinite(sizes).all(dim=1)
    sizes = torch.where(finite[:, None], sizes, torch.ones_like(sizes))
    limits = torch.tensor([512 * map_width, 512 * map_height], device=rois.device)
    points = torch.minimum(sizes.ceil(), limits).long()
    steps = sizes / points
    points_on_cpu = points.cpu()

    keypoints = maps.new_zeros(num_rois, num_keypoints, 4)
    for i in range(num_rois):
        width, height = int(points_on_cpu[i, 0]), int(points_on_cpu[i, 1])
        resized = F.interpolate(
            maps[i : i + 1], size=(height, width), mode="bicubic", align_corners=False
        )
        logits, peaks = resized.reshape(num_keypoints, height * width).max(dim=1)
        columns = peaks % width
        rows = torch.div(peaks, width, rounding_mode="floor")
        keypoints[i, :, 0] = (columns.to(maps.dtype) + 0.5) * steps[i, 0] + rois[i, 0]
        keypoints[i, :, 1] = (rows.to(maps.dtype) + 0.5) * steps[i, 1] + rois[i, 1]
        keypoints[i, :, 2] = logits
        exponentials = torch.exp(maps[i] - logits[:, None, None])
        keypoints[i, :, 3] = 1 / exponentials.reshape(num_keypoints, -1).sum(dim=1)
    defined = finite[:, None] & torch.isfinite(maps).flatten(2).all(dim=2)
    return torch.where(defined[:, :, None], keypoints, torch.full_like(keypoints, float("nan")))
