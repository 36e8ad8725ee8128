"""Instances of a panoptic segmentation."""

from collections.abc import Collection

import torch

from detectron2.structures.boxes import Boxes
from detectron2.structures.instances import Instances
from detectron2.structures.masks import BitMasks
from detectron2.utils._host_values import to_device


def instances_of_panoptic(
    panoptic: torch.Tensor,
    sem_seg_logits: torch.Tensor,
    center_heatmap: torch.Tensor,
    thing_ids: Collection[int],
    label_divisor: int,
) -> Instances:
    """The things of an image, all at once.

    Args:
        panoptic: int64 ``(H, W)``; ``class * label_divisor + i``, or negative.
        sem_seg_logits: ``(K, H, W)``.
        center_heatmap: ``(1, H, W)``.
        thing_ids: classes of things.
        label_divisor: of ``panoptic``.

    Returns:
        With ``pred_classes``; ``scores``, the mean probability of the class in the mask times the
        heat at the mean of the mask's pixels; ``pred_masks``, bool ``(N, H, W)``; and
        ``pred_boxes`` around them.
    """
    labels, index, area = torch.unique(panoptic, return_inverse=True, return_counts=True)
    classes = labels.div(label_divisor, rounding_mode="floor")
    ids = to_device(torch.tensor(sorted(thing_ids), dtype=classes.dtype), classes.device)
    chosen = ((labels >= 0) & torch.isin(classes, ids)).nonzero().squeeze(1)
    class_of_label = classes.clamp(min=0)

    logits = sem_seg_logits.float()
    of_pixel = logits.gather(0, class_of_label[index][None])[0]
    probability = (of_pixel - logits.logsumexp(dim=0)).exp()
    height, width = panoptic.shape
    y = torch.arange(height, device=panoptic.device)[:, None].expand(height, width)
    x = torch.arange(width, device=panoptic.device).expand(height, width)
    class_scores, center_y, center_x = (
        (_sums(values, index, len(labels)) / area)[chosen] for values in (probability, y, x)
    )
    heat = center_heatmap[0, center_y.to(torch.int64), center_x.to(torch.int64)]

    result = Instances((height, width))
    result.pred_classes = classes[chosen]
    result.pred_masks = index == chosen[:, None, None]
    result.scores = class_scores.float() * heat.float()
    result.pred_boxes = (
        BitMasks(result.pred_masks).get_bounding_boxes()
        if len(chosen) > 0
        else Boxes(logits.new_zeros(0, 4))
    )
    return result


def _sums(values: torch.Tensor, index: torch.Tensor, count: int) -> torch.Tensor:
    """Sums of the values of each index, float64 ``(count,)``."""
    return torch.bincount(index.flatten(), values.flatten().double(), minlength=count)
