"""Anchors of many images matched with their ground truth at once."""

from collections.abc import Callable

import torch
from torch.nn.utils.rnn import pad_sequence

from detectron2.modeling._constants import to_device
from detectron2.modeling.matcher import Matcher
from detectron2.structures import Boxes
from detectron2.utils.memory import retry_if_cuda_oom

# Pairs of ground truth and anchors that are held at a time: 256 MiB of IoUs.
_MOST_PAIRS = 2**26


def pad_boxes(boxes: list[Boxes], like: Boxes) -> torch.Tensor:
    """Boxes of each image as ``(N, M, box_dim)``, with zeros behind those of fewer than M."""
    tensors = [x.tensor for x in boxes]
    if not tensors:
        return like.tensor.new_zeros((0, 0, like.tensor.size(1)))
    return pad_sequence(tensors, batch_first=True)


def match_batch(
    pairwise_iou: Callable[[Boxes, Boxes], torch.Tensor],
    matcher: Matcher,
    gt_boxes: list[Boxes],
    anchors: Boxes,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Match R anchors with the ground truth of each of N images.

    Where CUDA runs out of memory it is done on the CPU.

    Args:
        pairwise_iou: IoUs of two sets of boxes.
        matcher: a `Matcher`, or anything that is called as one, which then is once an image.
        gt_boxes: of each image; M is the largest number of them.
        anchors: the same for all images.

    Returns:
        Labels ``(N, R)`` int8; indices ``(N, R)`` of the boxes that the anchors are matched with;
        and those boxes, ``(N, M, box_dim)`` with zeros for the missing ones, M at least 1.
    """
    device = anchors.device
    padded = pad_boxes(gt_boxes, anchors)
    num_images, most, box_dim = padded.shape
    if most == 0:
        padded = padded.new_zeros((num_images, 1, box_dim))
    counts = [len(boxes) for boxes in gt_boxes]
    # A subclass may match in a way of its own.
    is_standard = type(matcher) is Matcher
    step = max(_MOST_PAIRS // max(most * len(anchors), 1), 1) if is_standard else 1

    @retry_if_cuda_oom
    def match(boxes: Boxes, anchors: Boxes, start: int) -> tuple[torch.Tensor, torch.Tensor]:
        qualities = pairwise_iou(boxes, anchors)
        if not is_standard:
            return matcher(qualities)
        some_counts = counts[start : start + step]
        qualities = qualities.view(len(some_counts), -1, len(anchors))
        numbers = torch.arange(qualities.size(1), device=qualities.device)
        is_gt = numbers < to_device(some_counts, torch.int64, qualities.device)[:, None]
        return matcher.match_padded(qualities, is_gt)

    matches, labels = [], []
    for start in range(0, num_images, step):
        if is_standard:
            boxes = type(anchors)(padded[start : start + step, :most].flatten(0, 1))
        else:
            boxes = gt_boxes[start]
        some_matches, some_labels = match(boxes, anchors, start)
        shape = (-1, len(anchors)) if len(anchors) else (min(step, num_images - start), 0)
        matches.append(some_matches.to(device).view(shape))
        labels.append(some_labels.to(device).view(shape))
    if num_images == 0:
        empty = torch.zeros((0, len(anchors)), dtype=torch.int64, device=device)
        return empty.to(torch.int8), empty, padded
    return torch.cat(labels), torch.cat(matches), padded
