"""Targets of mask heads."""

import torch

from detectron2.structures.instances import Instances
from detectron2.structures.masks import PolygonMasks
from detectron2.utils._host_values import on_host, to_device


def crop_gt_masks(instances: list[Instances], side: int, device: torch.device) -> torch.Tensor:
    """Crop the masks of all images to the boxes of the proposals.

    Polygons are rasterised on the CPU, those of all images at once; no device is waited for if the
    values of the boxes are known there.

    Args:
        instances: for each image, with the fields ``proposal_boxes`` and ``gt_masks``.
        side: rows and columns of a target.
        device: where the targets are to be.

    Returns:
        bool ``(R, side, side)``, R instances over all images.
    """
    masks = [x.gt_masks for x in instances]
    boxes = [x.proposal_boxes.tensor.detach() for x in instances]
    if all(type(m) is PolygonMasks for m in masks):
        boxes_on_host = torch.cat(on_host([x.proposal_boxes.tensor for x in instances]))
        targets = PolygonMasks.cat(masks).crop_and_resize(boxes_on_host, side)
        return to_device(targets, device)
    cropped = [m.crop_and_resize(b, side) for m, b in zip(masks, boxes, strict=True)]
    return torch.cat([c.to(device) for c in cropped])
