"""Proposals matched with the ground truth of their image, for all images at once."""

from collections.abc import Callable

import torch
from torch.nn.utils.rnn import pad_sequence

from detectron2.modeling.matcher import Matcher
from detectron2.structures.boxes import Boxes
from detectron2.utils._host_values import to_device

# IoUs that are held at a time: 256 MiB.
_MOST_PAIRS = 2**26

_PairwiseIoU = Callable[[Boxes, Boxes], torch.Tensor]


def match_proposals(
    pairwise_iou: _PairwiseIoU, matcher: Matcher, gt_boxes: list[Boxes], proposals: list[Boxes]
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Match the proposals of each image with its ground truth, without waiting for the device.

    Args:
        pairwise_iou: IoUs of two sets of boxes.
        matcher: a :class:`Matcher`, or anything that is called as one.
        gt_boxes: for each image.
        proposals: for each image, R_i.

    Returns:
        For each image what the matcher returns: int64 ``(R_i,)`` indices of ground truth, and
        ``(R_i,)`` labels.
    """
    most = max(len(boxes) for boxes in gt_boxes)
    pairs = len(gt_boxes) * most * sum(len(boxes) for boxes in proposals)
    # Together it is few kernels, of which most pairs are of different images: on the CPU, and for
    # rotated boxes, it is the pairs that take the time.
    if (
        0 < pairs <= _MOST_PAIRS
        and proposals[0].device.type != "cpu"
        and all(type(boxes) is Boxes for boxes in proposals)
        and type(matcher) is Matcher
        and not matcher.allow_low_quality_matches
    ):
        return _match_together(pairwise_iou, matcher, gt_boxes, proposals)
    results = [
        matcher(pairwise_iou(gt, of_image))
        for gt, of_image in zip(gt_boxes, proposals, strict=True)
    ]
    return [matches for matches, _ in results], [labels for _, labels in results]


def _match_together(
    pairwise_iou: _PairwiseIoU, matcher: Matcher, gt_boxes: list[Boxes], proposals: list[Boxes]
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    counts = [len(boxes) for boxes in proposals]
    all_proposals = torch.cat([boxes.tensor for boxes in proposals])
    device, total = all_proposals.device, len(all_proposals)
    images = torch.repeat_interleave(
        torch.arange(len(counts), device=device),
        to_device(torch.tensor(counts), device),
        output_size=total,
    )
    # Behind the boxes of an image come boxes of zeros, which overlap nothing: the matcher takes
    # the first of the best, so none of those where there is another.
    padded = pad_sequence([boxes.tensor for boxes in gt_boxes], batch_first=True)
    num_images, most, _ = padded.shape
    qualities = pairwise_iou(Boxes(padded.flatten(0, 1)), Boxes(all_proposals))
    qualities = qualities.view(num_images, most, total)
    own = qualities.gather(0, images.expand(1, most, -1))[0]
    matches, labels = matcher(own)
    return list(matches.split(counts)), list(labels.split(counts))
