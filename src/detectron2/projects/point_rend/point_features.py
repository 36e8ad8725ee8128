"""Points: where they lie, what is uncertain there, and features and labels sampled there.

Coordinates are (x, y). Relative ones are in [0, 1], from the left or top edge of a box, or of an
image, to its right or bottom one.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional as F  # noqa: N812
from torch.nn.utils.rnn import pad_sequence

# Code written for upstream imports some of these names from here.
from detectron2.layers.wrappers import cat, shapes_to_tensor
from detectron2.structures.boxes import Boxes
from detectron2.structures.instances import Instances
from detectron2.structures.masks import BitMasks

__all__ = [
    "BitMasks",
    "Boxes",
    "cat",
    "generate_regular_grid_point_coords",
    "get_point_coords_wrt_image",
    "get_uncertain_point_coords_on_grid",
    "get_uncertain_point_coords_with_randomness",
    "point_sample",
    "point_sample_fine_grained_features",
    "sample_point_labels",
    "shapes_to_tensor",
]


def point_sample(input: torch.Tensor, point_coords: torch.Tensor, **kwargs: Any) -> torch.Tensor:
    """``torch.nn.functional.grid_sample`` with relative coordinates, of points in any number.

    Args:
        input: ``(N, C, H, W)``.
        point_coords: relative, ``(N, P, 2)`` or ``(N, H_grid, W_grid, 2)``.
        **kwargs: of ``grid_sample``.

    Returns:
        ``(N, C, P)`` or ``(N, C, H_grid, W_grid)``, in the dtype of ``input``.

    Raises:
        ValueError: the coordinates have another shape.
    """
    if point_coords.dim() not in (3, 4) or point_coords.size(-1) != 2:
        raise ValueError(
            "point_coords must have the shape (N, P, 2) or (N, H, W, 2), got "
            f"{list(point_coords.shape)}"
        )
    # As precisely as the coordinates are: half precision cannot tell pixels apart.
    dtype = torch.promote_types(input.dtype, point_coords.dtype)
    grid = 2.0 * point_coords.to(dtype) - 1.0
    has_points_in_rows = grid.dim() == 3
    if has_points_in_rows:
        grid = grid.unsqueeze(2)
    output = F.grid_sample(input.to(dtype), grid, **kwargs).to(input.dtype)
    return output.squeeze(3) if has_points_in_rows else output


def generate_regular_grid_point_coords(
    R: int,  # noqa: N803
    side_size: int,
    device: torch.device,
) -> torch.Tensor:
    """The centres of the cells of a square grid, row by row: relative, ``(R, side_size², 2)``.

    Args:
        R: how many times the same points are wanted.
        side_size: cells of a side.
        device: where they are made.
    """
    centers = (torch.arange(side_size, device=device, dtype=torch.float32) + 0.5) / side_size
    y, x = torch.meshgrid(centers, centers, indexing="ij")
    return torch.stack([x, y], dim=2).view(1, -1, 2).expand(R, -1, -1)


def get_uncertain_point_coords_with_randomness(
    coarse_logits: torch.Tensor,
    uncertainty_func: Callable[[torch.Tensor], torch.Tensor],
    num_points: int,
    oversample_ratio: float,
    importance_sample_ratio: float,
) -> torch.Tensor:
    """Draw points for training, preferably uncertain ones (PointRend, section 3.1).

    Args:
        coarse_logits: ``(N, C, H, W)``, or ``(N, 1, H, W)`` of one class.
        uncertainty_func: maps logits at points, ``(N, C, P)``, to ``(N, 1, P)``, the larger the
            more uncertain.
        num_points: P, how many are wanted.
        oversample_ratio: so many times P are drawn uniformly; at least 1.
        importance_sample_ratio: such a fraction of P, in [0, 1], are the most uncertain ones of
            them. The others are drawn uniformly anew.

    Returns:
        Relative coordinates ``(N, P, 2)``.

    Raises:
        ValueError: a ratio is out of range.
    """
    if oversample_ratio < 1 or not 0 <= importance_sample_ratio <= 1:
        raise ValueError(
            "oversample_ratio must be at least 1 and importance_sample_ratio in [0, 1], got "
            f"{oversample_ratio} and {importance_sample_ratio}"
        )
    count, device = coarse_logits.size(0), coarse_logits.device
    drawn = torch.rand(count, int(num_points * oversample_ratio), 2, device=device)
    # At the points themselves: of logits between two cells that differ in sign the uncertainty is
    # high, and that of both cells may be low.
    logits = point_sample(coarse_logits, drawn, align_corners=False)
    num_uncertain = int(importance_sample_ratio * num_points)
    index = uncertainty_func(logits)[:, 0].topk(num_uncertain, dim=1).indices
    uncertain = drawn.gather(1, index.unsqueeze(2).expand(-1, -1, 2))
    anywhere = torch.rand(count, num_points - num_uncertain, 2, device=device)
    return torch.cat([uncertain, anywhere], dim=1)


def get_uncertain_point_coords_on_grid(
    uncertainty_map: torch.Tensor, num_points: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Find the most uncertain cells of a grid.

    Args:
        uncertainty_map: ``(R, 1, H, W)``.
        num_points: how many are wanted; all if there are fewer.

    Returns:
        Indices ``(R, P)`` into the ``H * W`` cells, and the relative coordinates of the cells'
        centres, float32 ``(R, P, 2)``; P = min(num_points, H * W).
    """
    height, width = uncertainty_map.shape[-2:]
    count = min(height * width, num_points)
    index = uncertainty_map.flatten(1).topk(count, dim=1).indices
    x = (index % width).to(torch.float32)
    y = index.div(width, rounding_mode="floor").to(torch.float32)
    return index, torch.stack([(x + 0.5) / width, (y + 0.5) / height], dim=2)


def point_sample_fine_grained_features(
    features_list: list[torch.Tensor],
    feature_scales: list[float],
    boxes: list[Boxes],
    point_coords: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Sample feature maps at points of boxes.

    Args:
        features_list: feature maps ``(N, C_i, H_i, W_i)`` of N images.
        feature_scales: of each map, what coordinates of the image are multiplied by: 1 / stride.
        boxes: for each image its boxes, R in all.
        point_coords: relative to the boxes, ``(R, P, 2)``.

    Returns:
        The features ``(R, C, P)``, C the sum of the channels, and the points' coordinates in pixels
        of the image, ``(R, P, 2)``.

    Raises:
        ValueError: there are other numbers of images or boxes.
    """
    counts = [len(boxes_of_image) for boxes_of_image in boxes]
    if sum(counts) != len(point_coords) or any(len(f) != len(counts) for f in features_list):
        raise ValueError(
            f"got features of {[len(f) for f in features_list]} images, boxes of {len(counts)}, "
            f"and points of {len(point_coords)} boxes for {sum(counts)} boxes"
        )
    in_image = get_point_coords_wrt_image(
        torch.cat([boxes_of_image.tensor for boxes_of_image in boxes]), point_coords
    )
    # All images at once: those with fewer boxes than others get points that are not used.
    padded = pad_sequence(list(in_image.split(counts)), batch_first=True)
    sampled = []
    for features, scale in zip(features_list, feature_scales, strict=True):
        height, width = features.shape[-2:]
        relative = _divided(padded, width / scale, height / scale)
        of_images = point_sample(features, relative, align_corners=False).transpose(1, 2)
        if len(counts) == 1:
            sampled.append(of_images[0])
        else:
            rows = [x[:count] for x, count in zip(of_images, counts, strict=True)]
            sampled.append(torch.cat(rows))
    return cat(sampled, dim=1), in_image


def _divided(coords: torch.Tensor, width: float, height: float) -> torch.Tensor:
    """``coords / (width, height)``, which need not be copied to the device."""
    return torch.stack([coords[..., 0] / width, coords[..., 1] / height], dim=-1)


def get_point_coords_wrt_image(
    boxes_coords: torch.Tensor, point_coords: torch.Tensor
) -> torch.Tensor:
    """Map coordinates relative to boxes to the image.

    Args:
        boxes_coords: ``(R, 4)``, XYXY.
        point_coords: ``(R, P, 2)``.

    Returns:
        ``(R, P, 2)``, in the units of the boxes. No gradient flows to the boxes.
    """
    corners = boxes_coords.detach()[:, None]
    return point_coords * (corners[..., 2:] - corners[..., :2]) + corners[..., :2]


def sample_point_labels(instances: list[Instances], point_coords: torch.Tensor) -> torch.Tensor:
    """Sample ground-truth masks at points, bilinearly.

    Args:
        instances: for each image its instances, R in all, with ``gt_masks`` that are
            :class:`BitMasks`.
        point_coords: in pixels of the images, ``(R, P, 2)``.

    Returns:
        float32 ``(R, P)`` in [0, 1]; beyond the image there is no mask.

    Raises:
        TypeError: masks of another class.
    """
    labels = [point_coords.new_zeros(0, point_coords.size(1), dtype=torch.float32)]
    with torch.no_grad():
        coords_of_images = point_coords.split([len(x) for x in instances])
        for x, coords in zip(instances, coords_of_images, strict=True):
            if len(x) == 0:
                continue
            if not isinstance(x.gt_masks, BitMasks):
                raise TypeError(
                    "labels of points need BitMasks (INPUT.MASK_FORMAT 'bitmask'), got "
                    f"{type(x.gt_masks).__name__}"
                )
            labels.append(_sample_bitmaps(x.gt_masks.tensor, coords))
    return torch.cat(labels)


def _sample_bitmaps(masks: torch.Tensor, coords: torch.Tensor) -> torch.Tensor:
    """Of bool masks ``(R, H, W)`` the values at ``(R, P, 2)``.

    ``grid_sample`` would take the whole masks in float32.
    """
    height, width = masks.shape[-2:]
    flat = masks.flatten(1)
    # A pixel's value is that of its centre.
    x, y = (coords.to(torch.float32) - 0.5).unbind(2)
    left, top = x.floor(), y.floor()
    labels = torch.zeros_like(x)
    for column, x_share in ((left, left + 1 - x), (left + 1, x - left)):
        for row, y_share in ((top, top + 1 - y), (top + 1, y - top)):
            is_inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
            column_index = column.clamp(0, width - 1).to(torch.int64)
            index = row.clamp(0, height - 1).to(torch.int64) * width + column_index
            labels += x_share * y_share * (flat.gather(1, index) & is_inside)
    return labels
