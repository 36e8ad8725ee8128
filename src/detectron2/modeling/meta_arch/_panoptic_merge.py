"""Instances and semantic labels made into one panoptic segmentation."""

from typing import Any

import torch

from detectron2.structures.instances import Instances


def _place_instances(
    masks: torch.Tensor, order: list[int], overlap_threshold: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Lay masks into a map, one after the other, each where nothing is yet.

    A mask of which too much is covered is left out, as is one without pixels. Which ones that
    are, only the device knows: nothing here waits for it.

    Args:
        masks: bool ``(N, H, W)``.
        order: indices of the masks to lay.
        overlap_threshold: the share of a mask that may be covered.

    Returns:
        int32 ``(H, W)``, one more than the position in ``order`` or 0, and bool ``(len(order),)``,
        which ones were laid.
    """
    device = masks.device
    placed = torch.zeros(masks.shape[1:], dtype=torch.int32, device=device)
    occupied = torch.zeros(masks.shape[1:], dtype=torch.bool, device=device)
    are_placed = []
    for position, i in enumerate(order):
        mask = masks[i]
        area = mask.count_nonzero()
        # Python's own division is in float64, too.
        covered = (mask & occupied).count_nonzero() / area.double()
        is_placed = covered <= overlap_threshold  # Not without pixels, where it is NaN.
        added = (mask & is_placed) & ~occupied
        occupied |= added
        placed.masked_fill_(added, position + 1)
        are_placed.append(is_placed)
    if not are_placed:
        return placed, torch.zeros(0, dtype=torch.bool, device=device)
    return placed, torch.stack(are_placed)


def _label_areas(labels: torch.Tensor, count: int) -> torch.Tensor:
    """Pixels of each label in [0, count), ``(count,)``."""
    # Unlike bincount, it does not wait for the device; float64 counts without end.
    return torch.histc(labels.double(), bins=count, min=-0.5, max=count - 0.5).long()


def combine_semantic_and_instance_outputs(
    instance_results: Instances,
    semantic_results: torch.Tensor,
    overlap_threshold: float,
    stuff_area_thresh: float,
    instances_score_thresh: float,
) -> tuple[torch.Tensor, list[dict[str, Any]]]:
    """Merge instances, by descending score, and then stuff, where they left room.

    Kirillov et al., "Panoptic Segmentation", CVPR 2019, section 5.3.

    The device is waited for twice, however many instances there are.

    Args:
        instance_results: ``scores``, ``pred_classes`` and ``pred_masks``, bool ``(N, H, W)``.
        semantic_results: ``(H, W)``, the label of each pixel; 0 stands for all things together.
        overlap_threshold: an instance is left out if a larger share of it is covered by better
            ones.
        stuff_area_thresh: stuff of fewer pixels is left out.
        instances_score_thresh: instances with a lower score are left out.

    Returns:
        int32 ``(H, W)``, the segment's id or 0; and a dict for each segment: ``id``, from 1 on,
        ``isthing`` and ``category_id``; of a thing ``score`` and ``instance_id`` (its row), of
        stuff ``area``.
    """
    if semantic_results.numel() == 0:
        return torch.zeros_like(semantic_results, dtype=torch.int32), []
    scores, labels = instance_results.scores, semantic_results.long()
    *host_scores, lowest, highest = torch.cat(
        [scores.double(), torch.stack(labels.aminmax()).double()]
    ).tolist()
    if lowest < 0:
        raise ValueError(f"semantic labels are 0 or more, got {int(lowest)}")
    num_labels = int(highest) + 1
    order = sorted(range(len(host_scores)), key=lambda i: -host_scores[i])
    order = [i for i in order if host_scores[i] >= instances_score_thresh]
    masks = instance_results.pred_masks.to(dtype=torch.bool, device=labels.device)
    placed, are_placed = _place_instances(masks, order, overlap_threshold)

    areas = _label_areas(torch.where(placed == 0, labels, 0), num_labels)
    is_stuff = (areas >= stuff_area_thresh) & (areas > 0)
    is_stuff[:1].zero_()
    ids = torch.cat([are_placed, is_stuff]).cumsum(0) * torch.cat([are_placed, is_stuff])
    # Of no instance, of each instance, of each label.
    ids = torch.cat([ids.new_zeros(1), ids]).to(torch.int32)
    panoptic = ids[torch.where(placed > 0, placed.long(), labels + len(order) + 1)]

    # In one transfer, with what is told of the instances.
    classes = instance_results.pred_classes.long()
    told = torch.cat([ids[1:].long(), areas, classes.to(labels.device)]).tolist()
    host_ids, host_areas = told[: len(order) + num_labels], told[len(order) + num_labels :]
    host_classes = host_areas[num_labels:]
    segments: list[dict[str, Any]] = []
    for i, segment_id in zip(order, host_ids, strict=False):
        if segment_id:
            segments.append(
                {
                    "id": segment_id,
                    "isthing": True,
                    "score": host_scores[i],
                    "category_id": host_classes[i],
                    "instance_id": i,
                }
            )
    for label, segment_id in enumerate(host_ids[len(order) :]):
        if segment_id:
            segments.append(
                {
                    "id": segment_id,
                    "isthing": False,
                    "category_id": label,
                    "area": host_areas[label],
                }
            )
    return panoptic, segments
