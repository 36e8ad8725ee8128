"""From the size of a model's input to the size that results are wanted in."""

from typing import Any

import torch
from torch.nn import functional as F  # noqa: N812

from detectron2.layers import cat
from detectron2.structures import Boxes, Instances, ROIMasks
from detectron2.utils._host_values import to_device

__all__ = ["detector_postprocess", "detector_postprocess_batch", "sem_seg_postprocess"]


def detector_postprocess(
    results: Instances, output_height: int, output_width: int, mask_threshold: float = 0.5
) -> Instances:
    """Scale the detections in a model's input to an image of another size.

    Waits for the device once, to know whether a box is left without an area.

    Args:
        results: detections, with boxes ``pred_boxes`` (or ``proposal_boxes``) and, where there
            are, ``pred_masks``, ``(N, 1, M, M)`` or `ROIMasks`, each relative to its box, and
            ``pred_keypoints`` ``(N, K, 3)``. Its boxes and keypoints are scaled in place.
        output_height: height of the image.
        output_width: width of the image.
        mask_threshold: the value from which on a pixel counts as the object's.

    Returns:
        Instances of that size: boxes clipped to it, those left without an area dropped, masks bool
        ``(N, output_height, output_width)``.
    """
    return detector_postprocess_batch([results], [(output_height, output_width)], mask_threshold)[0]


def boxes_of_one(boxes: torch.Tensor) -> Boxes:
    """Boxes that are to be scaled in place, of one image out of several in one tensor: that must
    not touch what the gradients of the others need."""
    return Boxes(boxes.clone() if boxes.requires_grad else boxes)


def detector_postprocess_batch(
    results: list[Instances], output_sizes: list[tuple[int, int]], mask_threshold: float = 0.5
) -> list[Instances]:
    """:func:`detector_postprocess` of several images, which waits for the device once for all.

    Args:
        results: detections of each image.
        output_sizes: (height, width) that they are wanted in, each.
        mask_threshold: as there.
    """
    scaled = []
    are_nonempty = []
    for of_image, size in zip(results, output_sizes, strict=True):
        instances = _scaled(of_image, *size)
        scaled.append(instances)
        are_nonempty.append(_boxes(instances).nonempty())
    if not scaled:
        return []
    rows = _rows(are_nonempty)
    return [
        _paste_masks(x if chosen is None else x[chosen], mask_threshold)
        for x, chosen in zip(scaled, rows, strict=True)
    ]


def _rows(masks: list[torch.Tensor]) -> list[torch.Tensor | None]:
    """Indices of what masks ``(N_i,)`` choose, on their device; None for everything."""
    if torch.jit.is_tracing() or torch.compiler.is_compiling():
        return [mask.nonzero().squeeze(1) for mask in masks]
    lengths = [len(mask) for mask in masks]
    on_cpu = cat(masks).cpu().split(lengths)
    rows = [mask.nonzero().squeeze(1) for mask in on_cpu]
    return [
        None if len(chosen) == length else to_device(chosen, masks[0].device)
        for chosen, length in zip(rows, lengths, strict=True)
    ]


def _boxes(instances: Instances) -> Boxes:
    for name in ("pred_boxes", "proposal_boxes"):
        if instances.has(name):
            return instances.get(name)
    raise AttributeError(
        f"detections need pred_boxes or proposal_boxes, got {sorted(instances.get_fields())}"
    )


def _scaled(results: Instances, height: Any, width: Any) -> Instances:
    """Boxes and keypoints in an image of another size; sizes are tensors while tracing."""
    input_height, input_width = results.image_size
    if torch.jit.is_tracing():
        size = tuple(
            side if isinstance(side, torch.Tensor) else torch.tensor(side)
            for side in (height, width)
        )
        scale_x, scale_y = size[1].float() / input_width, size[0].float() / input_height
    else:
        size = (height, width)
        scale_x, scale_y = width / input_width, height / input_height
    instances = Instances((height, width), **results.get_fields())
    boxes = _boxes(instances)
    boxes.scale(scale_x, scale_y)
    _clip(boxes, size)
    if instances.has("pred_keypoints"):
        keypoints = instances.pred_keypoints
        keypoints[:, :, 0].mul_(scale_x)
        keypoints[:, :, 1].mul_(scale_y)
    return instances


def _clip(boxes: Boxes, size: tuple[Any, Any]) -> None:
    if type(boxes) is not Boxes or torch.jit.is_tracing():
        boxes.clip(size)
        return
    # Boxes.clip waits for the device, to check that the boxes are finite.
    height, width = size
    x, y = boxes.tensor[:, 0::2], boxes.tensor[:, 1::2]
    clipped = [x.clamp(min=0, max=width), y.clamp(min=0, max=height)]
    boxes.tensor = torch.stack(clipped, dim=2).flatten(1)


def _paste_masks(instances: Instances, threshold: float) -> Instances:
    if instances.has("pred_masks"):
        masks = instances.pred_masks
        if not isinstance(masks, ROIMasks):
            masks = ROIMasks(masks[:, 0])
        height, width = instances.image_size
        boxes = instances.pred_boxes
        instances.pred_masks = masks.to_bitmasks(boxes, height, width, threshold).tensor
    return instances


def sem_seg_postprocess(
    result: torch.Tensor, img_size: tuple[int, int], output_height: int, output_width: int
) -> torch.Tensor:
    """Scale a semantic prediction on a model's input to an image of another size.

    Args:
        result: logits or scores, ``(C, H, W)``, on the padded input.
        img_size: (height, width) of the input without its padding.
        output_height: height of the image.
        output_width: width of the image.

    Returns:
        ``(C, output_height, output_width)``, interpolated bilinearly.
    """
    result = result[None, :, : img_size[0], : img_size[1]]
    size = (output_height, output_width)
    return F.interpolate(result, size=size, mode="bilinear", align_corners=False)[0]
