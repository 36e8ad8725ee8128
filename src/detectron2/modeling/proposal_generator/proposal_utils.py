"""The choice of proposals among scored boxes, and ground truth as proposals."""

import math

import torch

# Code written for upstream imports these names from here.
from detectron2.layers import batched_nms, cat, move_device_like
from detectron2.modeling.proposal_generator._graph_proposals import find_proposals_in_graph
from detectron2.modeling.proposal_generator._top_proposals import (
    gather_boxes,
    select_proposals,
    top_candidates,
)
from detectron2.structures import Boxes, Instances

__all__ = [
    "add_ground_truth_to_proposals",
    "add_ground_truth_to_proposals_single_image",
    "batched_nms",
    "cat",
    "find_top_rpn_proposals",
    "move_device_like",
]


def find_top_rpn_proposals(
    proposals: list[torch.Tensor],
    pred_objectness_logits: list[torch.Tensor],
    image_sizes: list[tuple[int, int]],
    nms_thresh: float,
    pre_nms_topk: int,
    post_nms_topk: int,
    min_box_size: float,
    training: bool,
) -> list[Instances]:
    """Choose the best boxes of each image.

    On each level the ``pre_nms_topk`` of the highest scores go through NMS, and the
    ``post_nms_topk`` best of what is left of all levels are the image's proposals. Boxes are
    clipped to the image; those that are not finite, or too small then, are left out.

    Waits for the device twice at most, for all images and levels.

    Args:
        proposals: of each level, ``(N, R_i, 4)`` boxes of N images.
        pred_objectness_logits: of each level, ``(N, R_i)``.
        image_sizes: (height, width) of each image.
        nms_thresh: the IoU above which NMS, within a level, removes a box.
        pre_nms_topk: as above.
        post_nms_topk: as above.
        min_box_size: in pixels; both sides must exceed it.
        training: whether a candidate that is not finite is an error.

    Returns:
        For each image ``proposal_boxes`` and ``objectness_logits``, by descending logit.

    Raises:
        FloatingPointError: in training, a candidate is not finite.
    """
    if torch.jit.is_scripting() or torch.jit.is_tracing():
        return find_proposals_in_graph(
            proposals,
            pred_objectness_logits,
            image_sizes,
            nms_thresh,
            pre_nms_topk,
            post_nms_topk,
            min_box_size,
        )
    candidates = top_candidates(pred_objectness_logits, pre_nms_topk)
    return select_proposals(
        gather_boxes(proposals, candidates),
        candidates,
        image_sizes,
        nms_thresh,
        post_nms_topk,
        min_box_size,
        training,
    )


def add_ground_truth_to_proposals(
    gt: list[Instances] | list[Boxes], proposals: list[Instances]
) -> list[Instances]:
    """:func:`add_ground_truth_to_proposals_single_image` for each image."""
    if len(gt) != len(proposals):
        raise ValueError(f"got ground truth of {len(gt)} images, proposals of {len(proposals)}")
    return [
        add_ground_truth_to_proposals_single_image(of_image, its_proposals)
        for of_image, its_proposals in zip(gt, proposals, strict=True)
    ]


def add_ground_truth_to_proposals_single_image(
    gt: Instances | Boxes, proposals: Instances
) -> Instances:
    """Append an image's ground truth to its proposals, as proposals that are certain.

    Training needs positives also while the proposals are bad.

    Args:
        gt: boxes; or instances with ``gt_boxes`` and all fields of the proposals but
            ``proposal_boxes`` and ``objectness_logits``.
        proposals: with ``proposal_boxes`` and ``objectness_logits``.

    Returns:
        The proposals, then the ground truth, with the fields of the proposals.

    Raises:
        AssertionError: the ground truth lacks a field of the proposals.
    """
    if isinstance(gt, Boxes):
        gt = Instances(proposals.image_size, gt_boxes=gt)
    boxes = gt.gt_boxes
    # The logit of a probability of 1 - 1e-10.
    logit = math.log((1.0 - 1e-10) / (1 - (1.0 - 1e-10)))
    certain = Instances(proposals.image_size, **gt.get_fields())
    certain.proposal_boxes = boxes
    certain.objectness_logits = proposals.objectness_logits.new_full((len(boxes),), logit)
    for name in proposals.get_fields():
        assert certain.has(name), (
            f"the proposals' field {name!r} is missing from the ground truth, "
            f"which has {sorted(gt.get_fields())}"
        )
    return Instances.cat([proposals, certain])
