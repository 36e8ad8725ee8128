"""Pooling of the features of regions from the level of a pyramid that fits their size."""

import functools
import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812
from torchvision.ops import roi_pool

from detectron2.layers import (
    ROIAlign,
    ROIAlignRotated,
    cat,
    nonzero_tuple,
    shapes_to_tensor,
)
from detectron2.layers._fused_conv import has_hooks
from detectron2.layers.roi_align import can_pool_natively, multilevel_roi_align
from detectron2.modeling._constants import constant
from detectron2.structures import Boxes
from detectron2.utils._host_values import to_device

# Code written for upstream imports these names from here.
from detectron2.utils.tracing import assert_fx_safe, is_fx_tracing

__all__ = [
    "ROIPooler",
    "assert_fx_safe",
    "assign_boxes_to_levels",
    "cat",
    "convert_boxes_to_pooler_format",
    "is_fx_tracing",
    "nonzero_tuple",
    "shapes_to_tensor",
]


def assign_boxes_to_levels(
    box_lists: list[Boxes],
    min_level: int,
    max_level: int,
    canonical_box_size: int,
    canonical_level: int,
) -> torch.Tensor:
    """The level of the pyramid that each box is to be pooled from, by its size.

    Lin et al., "Feature Pyramid Networks", CVPR 2017, equation 1.

    Args:
        box_lists: boxes of each image, R in all.
        min_level: the finest level, log2 of its stride.
        max_level: the coarsest level.
        canonical_box_size: square root of the area, in pixels, of boxes of ``canonical_level``.
        canonical_level: log2 of the stride.

    Returns:
        ``(R,)`` int64: 0 for ``min_level`` and so on. A box without a size, or with a NaN, is put
        on the finest level.
    """
    areas = cat([boxes.area() for boxes in box_lists])
    return _assign_areas_to_levels(areas, min_level, max_level, canonical_box_size, canonical_level)


def _assign_areas_to_levels(
    areas: torch.Tensor,
    min_level: int,
    max_level: int,
    canonical_box_size: int,
    canonical_level: int,
) -> torch.Tensor:
    sizes = torch.sqrt(areas)
    levels = torch.floor(canonical_level + torch.log2(sizes / canonical_box_size + 1e-8))
    levels = torch.clamp(levels, min=min_level, max=max_level)
    return torch.nan_to_num(levels - min_level, nan=0.0).to(torch.int64)


@functools.lru_cache
def _level_boundaries(
    min_level: int, max_level: int, canonical_box_size: int, canonical_level: int
) -> tuple[float, ...]:
    """The least areas, in float32, that are assigned to each level but the finest."""
    boundaries = []
    for level in range(min_level + 1, max_level + 1):
        exact = np.float32((canonical_box_size * 2.0 ** (level - canonical_level)) ** 2)
        # The formula rounds: the boundary is some floats below the exact one.
        nearby = (exact.view(np.int32) + np.arange(-64, 65, dtype=np.int32)).view(np.float32)
        levels = _assign_areas_to_levels(
            torch.from_numpy(nearby), min_level, max_level, canonical_box_size, canonical_level
        )
        boundaries.append(float(nearby[int((levels >= level - min_level).nonzero()[0])]))
    return tuple(boundaries)


def convert_boxes_to_pooler_format(box_lists: list[Boxes]) -> torch.Tensor:
    """Put the boxes of several images into one tensor, beside the index of their image.

    Args:
        box_lists: boxes of each image, all of them `Boxes` or all `RotatedBoxes`.

    Returns:
        ``(R, 5)`` or ``(R, 6)``, rows ``(index, *box)``, in the order of the list.
    """
    if len(box_lists) > 1 and not torch.jit.is_scripting() and not _is_making_graph():
        return _with_indices([boxes.tensor for boxes in box_lists])
    rows = [F.pad(boxes.tensor, [1, 0], value=float(i)) for i, boxes in enumerate(box_lists)]
    return cat(rows)


@torch.jit.unused
def _with_indices(boxes: list[torch.Tensor]) -> torch.Tensor:
    """Boxes beside the index of their list, in as few kernels for many lists as for one."""
    together = torch.cat(boxes)
    counts = torch.tensor([len(of_list) for of_list in boxes])
    indices = torch.arange(len(boxes), dtype=together.dtype)
    indices = indices.repeat_interleave(counts, output_size=len(together))[:, None]
    return torch.cat([to_device(indices, together.device), together], dim=1)


class _ROIPool(nn.Module):
    """RoI max pooling, of features in half precision in float32, so that boxes are not rounded."""

    def __init__(self, output_size: tuple[int, int], spatial_scale: float) -> None:
        super().__init__()
        self.output_size = output_size
        self.spatial_scale = spatial_scale

    def forward(self, input: torch.Tensor, rois: torch.Tensor) -> torch.Tensor:
        features = input
        if input.dtype == torch.float16 or input.dtype == torch.bfloat16:
            features = input.float()
        rois = rois.to(features.dtype)
        pooled = roi_pool(features, rois, self.output_size, self.spatial_scale)
        return pooled.to(input.dtype)


def _make_pooler(
    pooler_type: str, output_size: tuple[int, int], scale: float, sampling_ratio: int
) -> nn.Module:
    if pooler_type == "ROIAlign":
        return ROIAlign(output_size, scale, sampling_ratio, aligned=False)
    if pooler_type == "ROIAlignV2":
        return ROIAlign(output_size, scale, sampling_ratio, aligned=True)
    if pooler_type == "ROIPool":
        return _ROIPool(output_size, scale)
    if pooler_type == "ROIAlignRotated":
        return ROIAlignRotated(output_size, scale, sampling_ratio)
    raise ValueError(
        f"the pooler must be 'ROIAlign', 'ROIAlignV2', 'ROIPool' or 'ROIAlignRotated', "
        f"got {pooler_type!r}"
    )


def _level_of(scale: float) -> int:
    level = round(-math.log2(scale))
    assert math.isclose(2.0**-level, scale), f"scales must be powers of 2, got {scale}"
    return level


@torch.jit.unused
def _is_making_graph() -> bool:
    return torch.jit.is_tracing() or torch.compiler.is_compiling() or is_fx_tracing()


class ROIPooler(nn.Module):
    """Pools each region from the level of a feature pyramid that :func:`assign_boxes_to_levels`
    puts it on, into a grid of fixed size.

    RoIAlign of upright boxes pools from all levels at once. Of the other types, and where a level's
    module was changed or has hooks, each level is pooled by itself, which with several levels
    waits for the device once, to know how many regions are on each.
    """

    def __init__(
        self,
        output_size: int | Sequence[int],
        scales: Sequence[float],
        sampling_ratio: int,
        pooler_type: str,
        canonical_box_size: int = 224,
        canonical_level: int = 4,
    ) -> None:
        """Args:
        output_size: (rows, columns) of the grid, or one int for both.
        scales: 1 / stride of each level, powers of 2, from the finest to the coarsest without a
            gap.
        sampling_ratio: samples a bin along each side; 0 takes as many as fit.
        pooler_type: "ROIAlignV2", "ROIAlign" (the legacy form, off by half a pixel), "ROIPool"
            or, for rotated boxes, "ROIAlignRotated".
        canonical_box_size: square root of the area, in pixels, of boxes of ``canonical_level``.
        canonical_level: log2 of the stride.
        """
        super().__init__()
        if isinstance(output_size, int):
            output_size = (output_size, output_size)
        assert len(output_size) == 2, f"output_size must be an int or two, got {output_size}"
        self.output_size = (int(output_size[0]), int(output_size[1]))
        levels = [_level_of(scale) for scale in scales]
        assert levels == list(range(levels[0], levels[0] + len(levels))), (
            f"scales must be those of a pyramid, each half of the former, got {list(scales)}"
        )
        self.min_level = levels[0]
        self.max_level = levels[-1]
        assert canonical_box_size > 0, f"canonical_box_size must be above 0: {canonical_box_size}"
        self.canonical_level = canonical_level
        self.canonical_box_size = canonical_box_size
        self.level_poolers = nn.ModuleList(
            _make_pooler(pooler_type, self.output_size, scale, sampling_ratio) for scale in scales
        )

    def forward(self, x: list[torch.Tensor], box_lists: list[Boxes]) -> torch.Tensor:
        """Pool.

        Args:
            x: features of each level, ``(N, C, H_i, W_i)``.
            box_lists: boxes of each of the N images, in the pixels of the image; R in all.

        Returns:
            ``(R, C, rows, columns)``, in the order of the boxes.
        """
        assert len(x) == len(self.level_poolers), (
            f"there are poolers for {len(self.level_poolers)} levels, got features of {len(x)}"
        )
        assert len(box_lists) == x[0].size(0), (
            f"{x[0].size(0)} images need a list of boxes for each, got {len(box_lists)}"
        )
        if len(box_lists) == 0:
            return x[0].new_zeros([0, x[0].shape[1], self.output_size[0], self.output_size[1]])
        rois = convert_boxes_to_pooler_format(box_lists)
        if len(x) == 1:
            # TorchScript has no index into modules that is not a constant.
            for pooler in self.level_poolers:
                return pooler(x[0], rois)
        if not torch.jit.is_scripting() and self._can_pool_at_once(x):
            return self._pool_at_once(x, rois)
        levels = assign_boxes_to_levels(
            box_lists, self.min_level, self.max_level, self.canonical_box_size, self.canonical_level
        )
        if not torch.jit.is_scripting() and _is_making_graph():
            return self._pool_in_graph(x, rois, levels)
        return self._pool_by_level(x, rois, levels)

    @torch.jit.unused
    def _can_pool_at_once(self, x: list[torch.Tensor]) -> bool:
        """Unless a level is pooled in a way of its own, or somebody listens to its module."""
        first = self.level_poolers[0]
        for pooler in self.level_poolers:
            if type(pooler) is not ROIAlign or has_hooks(pooler):
                return False
            if (pooler.output_size, pooler.sampling_ratio, pooler.aligned) != (
                self.output_size,
                first.sampling_ratio,
                first.aligned,
            ):
                return False
        return can_pool_natively(x)

    @torch.jit.unused
    def _pool_at_once(self, x: list[torch.Tensor], rois: torch.Tensor) -> torch.Tensor:
        first = self.level_poolers[0]
        return multilevel_roi_align(
            x,
            rois,
            self._levels(rois),
            self.output_size,
            [pooler.spatial_scale for pooler in self.level_poolers],
            first.sampling_ratio,
            first.aligned,
        )

    @torch.jit.unused
    def _levels(self, rois: torch.Tensor) -> torch.Tensor:
        """What :func:`assign_boxes_to_levels` gives, of rows ``(index, *box)``, in few kernels."""
        pyramid = self.min_level, self.max_level, self.canonical_box_size, self.canonical_level
        areas = (rois[:, 3:] - rois[:, 1:3]).prod(dim=1)
        if torch.compiler.is_compiling():
            return _assign_areas_to_levels(areas, *pyramid)
        boundaries = constant(_level_boundaries(*pyramid), torch.float32, rois.device)
        return (areas[:, None] >= boundaries).sum(dim=1)

    def _pool_by_level(
        self, x: list[torch.Tensor], rois: torch.Tensor, levels: torch.Tensor
    ) -> torch.Tensor:
        order = torch.argsort(levels, stable=True)
        all_levels = torch.arange(len(x), device=levels.device)
        counts: list[int] = (levels == all_levels[:, None]).sum(dim=1).tolist()
        groups = rois[order].split(counts)
        pooled: list[torch.Tensor] = []
        for i, pooler in enumerate(self.level_poolers):
            pooled.append(pooler(x[i], groups[i]))
        by_level = torch.cat(pooled)
        # Unlike that of indexing, its backward pass adds up nothing.
        return torch.empty_like(by_level).index_copy(0, order, by_level)

    @torch.jit.unused
    def _pool_in_graph(
        self, x: list[torch.Tensor], rois: torch.Tensor, levels: torch.Tensor
    ) -> torch.Tensor:
        """The same in a graph that holds for any number of regions: every level pools them all,
        those of other levels from far outside of the features, where all is 0."""
        far = torch.full_like(rois[:, 1:], -1e8)
        if rois.size(1) == 6:
            far = F.pad(far[:, :2], [0, 3])
        elsewhere = torch.cat([rois[:, :1], far], dim=1)
        pooled = [
            pooler(features, torch.where((levels == i)[:, None], rois, elsewhere))
            for i, (pooler, features) in enumerate(zip(self.level_poolers, x, strict=True))
        ]
        return torch.stack(pooled).sum(dim=0)
