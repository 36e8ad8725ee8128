"""From pixel classes, centres and offsets to a panoptic segmentation.

Everything is done on the device. It is waited for where the number of centres, of instances or of
classes is needed.
"""

from collections.abc import Collection

import torch
from torch.nn import functional as F  # noqa: N812

from detectron2.utils._host_values import to_device

__all__ = [
    "find_instance_center",
    "get_instance_segmentation",
    "get_panoptic_segmentation",
    "group_pixels",
    "merge_semantic_and_instance",
]

# Distances of pixels to centres that are computed at a time: 256 MiB in float32.
_DISTANCES_AT_ONCE = 1 << 26


def _check_map(x: torch.Tensor, channels: int, name: str) -> None:
    if x.dim() != 3 or x.size(0) != channels:
        raise ValueError(f"{name} must have the shape ({channels}, H, W), got {list(x.shape)}")


def find_instance_center(
    center_heatmap: torch.Tensor,
    threshold: float = 0.1,
    nms_kernel: int = 3,
    top_k: int | None = None,
) -> torch.Tensor:
    """Find the local maxima of a heatmap.

    Args:
        center_heatmap: ``(1, H, W)``.
        threshold: maxima are larger than this.
        nms_kernel: side, odd, of the window in which a maximum is the largest.
        top_k: how many of the largest are taken; None: all.

    Returns:
        int64 ``(K, 2)``, (y, x), row by row.

    Raises:
        ValueError: a wrong shape, or an even ``nms_kernel``.
    """
    _check_map(center_heatmap, 1, "center_heatmap")
    if nms_kernel < 1 or nms_kernel % 2 == 0:
        raise ValueError(f"nms_kernel must be odd and positive, got {nms_kernel}")
    heat = center_heatmap
    # Along columns and then along rows: fewer comparisons than of all in the window.
    reach = nms_kernel // 2
    largest = F.max_pool2d(heat[None], (nms_kernel, 1), stride=1, padding=(reach, 0))
    largest = F.max_pool2d(largest, (1, nms_kernel), stride=1, padding=(0, reach))[0]
    centers = ((heat == largest) & (heat > max(threshold, 0)))[0].nonzero()
    if top_k is None or len(centers) <= top_k:
        return centers
    index = heat[0][centers.unbind(1)].topk(top_k).indices
    return centers[index.sort().values]


def group_pixels(center_points: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
    """Give each pixel to the centre that is nearest to where its offset leads.

    Args:
        center_points: ``(K, 2)``, (y, x); at least one.
        offsets: ``(2, H, W)``, (dy, dx).

    Returns:
        int64 ``(1, H, W)``, 1 + the index of the centre.

    Raises:
        ValueError: a wrong shape, or no centre.
    """
    _check_map(offsets, 2, "offsets")
    offsets = _in_float32(offsets)
    height, width = offsets.shape[-2:]
    y = torch.arange(height, device=offsets.device, dtype=offsets.dtype)[:, None] + offsets[0]
    x = torch.arange(width, device=offsets.device, dtype=offsets.dtype) + offsets[1]
    targets = torch.stack([y, x], dim=2).view(-1, 2)
    return 1 + _nearest(center_points, targets).view(1, height, width)


def _in_float32(offsets: torch.Tensor) -> torch.Tensor:
    """At least: half precision cannot tell pixels apart."""
    return offsets.to(torch.promote_types(offsets.dtype, torch.float32))


def _nearest(center_points: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """The index of the centre, of ``(K, 2)``, that is nearest to each of ``(P, 2)``."""
    if center_points.dim() != 2 or center_points.size(1) != 2 or len(center_points) == 0:
        raise ValueError(
            f"center_points must have the shape (K, 2), K > 0, got {list(center_points.shape)}"
        )
    centers = center_points.to(targets.dtype)
    portions = targets.split(max(_DISTANCES_AT_ONCE // len(centers), 1))
    # Not by matrix multiplication, which cancels: a square of 2,000 pixels has a spacing of 0.25.
    mode = "donot_use_mm_for_euclid_dist"
    nearest = [torch.cdist(x, centers, compute_mode=mode).argmin(dim=1) for x in portions]
    return torch.cat(nearest)


def get_instance_segmentation(
    sem_seg: torch.Tensor,
    center_heatmap: torch.Tensor,
    offsets: torch.Tensor,
    thing_seg: torch.Tensor,
    thing_ids: Collection[int],
    threshold: float = 0.1,
    nms_kernel: int = 3,
    top_k: int | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Group the pixels of things, whatever their class.

    Args:
        sem_seg: int64 ``(1, H, W)``, classes.
        center_heatmap: ``(1, H, W)``.
        offsets: ``(2, H, W)``, (dy, dx).
        thing_seg: ``(1, H, W)``, not 0 where there is a thing; None: where ``sem_seg`` says so.
        thing_ids: classes of things.
        threshold: as for :func:`find_instance_center`, like ``nms_kernel`` and ``top_k``.

    Returns:
        int64 ``(1, H, W)``, instances from 1 on, 0 where there is none; and the centres
        ``(1, K, 2)``, (y, x), in that order.
    """
    _check_map(offsets, 2, "offsets")
    centers = find_instance_center(center_heatmap, threshold, nms_kernel, top_k)
    is_thing = _is_one_of(sem_seg, thing_ids) if thing_seg is None else thing_seg > 0
    instances = torch.zeros_like(sem_seg)
    if len(centers) > 0:
        # Of the pixels of things only, which are few as a rule.
        where = is_thing[0].nonzero()
        y, x = where.unbind(1)
        targets = where + _in_float32(offsets[:, y, x]).T
        instances[0, y, x] = (1 + _nearest(centers, targets)).to(instances.dtype)
    return instances, centers[None]


def _is_one_of(sem_seg: torch.Tensor, classes: Collection[int]) -> torch.Tensor:
    ids = torch.tensor(sorted(classes), dtype=sem_seg.dtype)
    return torch.isin(sem_seg, to_device(ids, sem_seg.device))


def merge_semantic_and_instance(
    sem_seg: torch.Tensor,
    ins_seg: torch.Tensor,
    semantic_thing_seg: torch.Tensor,
    label_divisor: int,
    thing_ids: Collection[int],
    stuff_area: int,
    void_label: int,
) -> torch.Tensor:
    """Merge classes and instances: an instance has the class of most of its pixels.

    Args:
        sem_seg: int64 ``(1, H, W)``, classes from 0 on.
        ins_seg: int64 ``(1, H, W)``, instances from 1 on; 0 where there is none.
        semantic_thing_seg: ``(1, H, W)``, not 0 where there is a thing; instances are cut to it.
        label_divisor: what classes are multiplied by.
        thing_ids: classes of things.
        stuff_area: stuff of fewer pixels is left out.
        void_label: label of what is left out.

    Returns:
        int64 ``(1, H, W)``: of an instance ``class * label_divisor + i``, i from 1 on in each
        class; of stuff ``class * label_divisor``.

    Raises:
        ValueError: a wrong shape.
    """
    for name, x in (("sem_seg", sem_seg), ("ins_seg", ins_seg)):
        _check_map(x, 1, name)
    num_classes, num_rows = (torch.stack([sem_seg.amax(), ins_seg.amax()]) + 1).tolist()
    device = sem_seg.device
    classes = torch.arange(num_classes, device=device)

    # Each pixel has a number for its instance, row 0 where there is none, and its class. Those of
    # an instance where there should be no thing have one number more.
    number = ins_seg * num_classes + sem_seg
    number = torch.where((ins_seg == 0) | (semantic_thing_seg > 0), number, num_rows * num_classes)
    areas = torch.bincount(number.flatten(), minlength=num_rows * num_classes + 1)[:-1]
    areas = areas.view(num_rows, num_classes)

    is_stuff = ~_is_one_of(classes, thing_ids)
    labels_of_stuff = torch.where(
        is_stuff & (areas[0] >= stuff_area), classes * label_divisor, void_label
    )
    # The first one of classes of as many pixels: argmax alone may take any.
    majority = (areas[1:] * num_classes + (num_classes - 1 - classes)).argmax(dim=1)
    is_there = areas[1:].sum(dim=1) > 0
    of_class = (majority[:, None] == classes) & is_there[:, None]
    rank = of_class.cumsum(dim=0).gather(1, majority[:, None])
    labels_of_instances = majority[:, None] * label_divisor + rank

    table = torch.cat(
        [
            labels_of_stuff,
            labels_of_instances.expand(-1, num_classes).flatten(),
            labels_of_stuff.new_full((1,), void_label),
        ]
    )
    return table[number]


def get_panoptic_segmentation(
    sem_seg: torch.Tensor,
    center_heatmap: torch.Tensor,
    offsets: torch.Tensor,
    thing_ids: Collection[int],
    label_divisor: int,
    stuff_area: int,
    void_label: int,
    threshold: float = 0.1,
    nms_kernel: int = 7,
    top_k: int | None = 200,
    foreground_mask: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Make a panoptic segmentation of an image.

    Args:
        sem_seg: int64 ``(1, H, W)``, classes from 0 on.
        center_heatmap: ``(1, H, W)``.
        offsets: ``(2, H, W)``, (dy, dx) in pixels.
        thing_ids: classes of things.
        label_divisor: as for :func:`merge_semantic_and_instance`, like ``stuff_area`` and
            ``void_label``.
        threshold: as for :func:`find_instance_center`, like ``nms_kernel`` and ``top_k``.
        foreground_mask: ``(1, H, W)``, not 0 where there is a thing; None: where ``sem_seg`` says
            so.

    Returns:
        As of :func:`merge_semantic_and_instance`, and the centres ``(1, K, 2)``, (y, x).

    Raises:
        ValueError: a wrong shape.
    """
    _check_map(sem_seg, 1, "sem_seg")
    is_thing = foreground_mask
    if is_thing is None:
        is_thing = _is_one_of(sem_seg, thing_ids)
    _check_map(is_thing, 1, "foreground_mask")
    instances, centers = get_instance_segmentation(
        sem_seg, center_heatmap, offsets, is_thing, thing_ids, threshold, nms_kernel, top_k
    )
    panoptic = merge_semantic_and_instance(
        sem_seg, instances, is_thing, label_divisor, thing_ids, stuff_area, void_label
    )
    return panoptic, centers
