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
    padded = pad_boxes(gt_boxes, anchors)
    num_images, most, box_dim = padded.shape
    counts = [len(boxes) for boxes in gt_boxes]

    @retry_if_cuda_oom
    def match_single(boxes: Boxes, anchors: Boxes) -> tuple[torch.Tensor, torch.Tensor]:
        matches, labels = matcher(pairwise_iou(boxes, anchors))
        return matches[None], labels[None]

    @retry_if_cuda_oom
    def match_some(boxes: Boxes, anchors: Boxes, start: int) -> tuple[torch.Tensor, torch.Tensor]:
        some = counts[start : start + step]
        qualities = pairwise_iou(boxes, anchors).view(len(some), most, len(anchors))
        numbers = torch.arange(most, device=qualities.device)
        is_gt = numbers < to_device(some, torch.int64, qualities.device)[:, None]
        return matcher.match_padded(qualities, is_gt)

    results = []
    # A subclass may match in a way of its own.
    if type(matcher) is not Matcher:
        results = [match_single(boxes, anchors) for boxes in gt_boxes]
    else:
        step = max(_MOST_PAIRS // max(most * len(anchors), 1), 1)
        for start in range(0, num_images, step):
            boxes = type(anchors)(padded[start : start + step].flatten(0, 1))
            results.append(match_some(boxes, anchors, start))
    if most == 0:
        padded = padded.new_zeros((num_images, 1, box_dim))
    if not results:
        matches = torch.zeros((0, len(anchors)), dtype=torch.int64, device=anchors.device)
        return matches.to(torch.int8), matches, padded
    # Not on the CPU, where memory may have made them be.
    matches, labels = (
        torch.cat([x.to(anchors.device) for x in parts]) for parts in zip(*results, strict=True)
    )
    return labels, matches, padded
