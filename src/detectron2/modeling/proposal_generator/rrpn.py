"""Region proposal network with rotated boxes."""

from typing import Any

import torch

from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec, batched_nms_rotated, cat
from detectron2.modeling.box_regression import Box2BoxTransformRotated
from detectron2.modeling.proposal_generator._top_proposals import (
    gather_boxes,
    select_proposals,
    top_candidates,
)
from detectron2.modeling.proposal_generator.build import PROPOSAL_GENERATOR_REGISTRY
from detectron2.modeling.proposal_generator.rpn import RPN

# Code written for upstream imports these names from here.
from detectron2.structures import Instances, RotatedBoxes, pairwise_iou_rotated
from detectron2.structures.rotated_boxes import pairwise_iou as pairwise_iou_of_boxes
from detectron2.utils.memory import retry_if_cuda_oom

__all__ = [
    "RRPN",
    "RotatedBoxes",
    "batched_nms_rotated",
    "cat",
    "find_top_rrpn_proposals",
    "pairwise_iou_rotated",
    "retry_if_cuda_oom",
]


def find_top_rrpn_proposals(
    proposals: list[torch.Tensor],
    pred_objectness_logits: list[torch.Tensor],
    image_sizes: list[tuple[int, int]],
    nms_thresh: float,
    pre_nms_topk: int,
    post_nms_topk: int,
    min_box_size: float,
    training: bool,
) -> list[Instances]:
    """``find_top_rpn_proposals`` of rotated boxes.

    Args:
        proposals: of each level, ``(N, R_i, 5)`` boxes of N images.
        pred_objectness_logits: of each level, ``(N, R_i)``.
        image_sizes: (height, width) of each image.
        nms_thresh: the IoU above which NMS, within a level, removes a box.
        pre_nms_topk: boxes of each level that go into NMS.
        post_nms_topk: boxes of an image that come out.
        min_box_size: in pixels; both sides must exceed it.
        training: whether a candidate that is not finite is an error.

    Returns:
        For each image ``proposal_boxes`` and ``objectness_logits``, by descending logit. Boxes
        that are nearly upright are clipped to the image.

    Raises:
        FloatingPointError: in training, a candidate is not finite.
    """
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


@PROPOSAL_GENERATOR_REGISTRY.register()
class RRPN(RPN):
    """Rotated region proposal network.

    Ma et al., "Arbitrary-Oriented Scene Text Detection via Rotation Proposals", 2018. It is
    `RPN` with rotated anchors, boxes, IoU and NMS.
    """

    _pairwise_iou = staticmethod(pairwise_iou_of_boxes)

    @configurable
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Args:
        *args: as for `RPN`.
        **kwargs: as for `RPN`; ``anchor_boundary_thresh`` must be negative.

        Raises:
            NotImplementedError: it is not.
        """
        super().__init__(*args, **kwargs)
        if self.anchor_boundary_thresh >= 0:
            raise NotImplementedError(
                f"RRPN trains anchors that leave the image, too: anchor_boundary_thresh must be "
                f"negative, got {self.anchor_boundary_thresh}"
            )

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        arguments = super().from_config(cfg, input_shape)
        weights = cfg.MODEL.RPN.BBOX_REG_WEIGHTS
        arguments["box2box_transform"] = Box2BoxTransformRotated(weights=weights)
        return arguments
