"""RoI heads for rotated boxes."""

from typing import Any

import torch

from detectron2.config.config import CfgNode, configurable
from detectron2.layers.nms import batched_nms_rotated
from detectron2.layers.shape_spec import ShapeSpec
from detectron2.modeling.box_regression import Box2BoxTransformRotated
from detectron2.modeling.poolers import ROIPooler

# Code written for upstream imports some of these names from here.
from detectron2.modeling.proposal_generator.proposal_utils import add_ground_truth_to_proposals
from detectron2.modeling.roi_heads._base import ROI_HEADS_REGISTRY
from detectron2.modeling.roi_heads._detections import _candidates
from detectron2.modeling.roi_heads._sampling import SampledProposals
from detectron2.modeling.roi_heads._standard import StandardROIHeads, _pooler, common_channels
from detectron2.modeling.roi_heads.box_head import build_box_head
from detectron2.modeling.roi_heads.fast_rcnn import FastRCNNOutputLayers
from detectron2.structures.instances import Instances
from detectron2.structures.rotated_boxes import RotatedBoxes, pairwise_iou_rotated
from detectron2.structures.rotated_boxes import pairwise_iou as pairwise_iou_of_rotated_boxes
from detectron2.utils.events import get_event_storage
from detectron2.utils.tracing import first_rows

__all__ = [
    "ROIPooler",
    "RROIHeads",
    "RotatedFastRCNNOutputLayers",
    "add_ground_truth_to_proposals",
    "fast_rcnn_inference_rotated",
    "fast_rcnn_inference_single_image_rotated",
    "get_event_storage",
    "pairwise_iou_rotated",
]


def fast_rcnn_inference_rotated(
    boxes: list[torch.Tensor],
    scores: list[torch.Tensor],
    image_shapes: list[tuple[int, int]],
    score_thresh: float,
    nms_thresh: float,
    topk_per_image: int,
) -> tuple[list[Instances], list[torch.Tensor]]:
    """``fast_rcnn_inference`` for rotated boxes.

    Args:
        boxes: for each image ``(R_i, K * 5)``, or ``(R_i, 5)`` for one box for all classes.
        scores: for each image ``(R_i, K + 1)``, the background last.
        image_shapes: (height, width) of each image.
        score_thresh: detections need a higher score.
        nms_thresh: a detection goes if its IoU with a better one of its class is greater.
        topk_per_image: detections that are kept of an image; negative: all.

    Returns:
        For each image :class:`Instances`, whose ``pred_boxes`` are :class:`RotatedBoxes`, and the
        int64 indices of the proposals that they come from.
    """
    results = [
        fast_rcnn_inference_single_image_rotated(
            boxes_of_image, scores_of_image, shape, score_thresh, nms_thresh, topk_per_image
        )
        for boxes_of_image, scores_of_image, shape in zip(boxes, scores, image_shapes, strict=True)
    ]
    return [instances for instances, _ in results], [rows for _, rows in results]


@torch.no_grad()
def fast_rcnn_inference_single_image_rotated(
    boxes: torch.Tensor,
    scores: torch.Tensor,
    image_shape: tuple[int, int],
    score_thresh: float,
    nms_thresh: float,
    topk_per_image: int,
) -> tuple[Instances, torch.Tensor]:
    """:func:`fast_rcnn_inference_rotated` of one image, given and returned without lists."""
    boxes, scores, rows, classes = _candidates(boxes, scores, score_thresh, 5)
    clipped = RotatedBoxes(boxes)
    clipped.clip(image_shape)
    keep = batched_nms_rotated(clipped.tensor, scores, classes, nms_thresh)
    if topk_per_image >= 0:
        keep = first_rows(keep, topk_per_image)
    result = Instances(image_shape)
    result.pred_boxes = clipped[keep]
    result.scores = scores[keep]
    result.pred_classes = classes[keep]
    return result, rows[keep]


class RotatedFastRCNNOutputLayers(FastRCNNOutputLayers):
    """Class scores and deltas of rotated proposals."""

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: ShapeSpec) -> dict[str, Any]:
        weights = cfg.MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS
        if len(weights) != 5:
            raise ValueError(
                f"rotated boxes need 5 ROI_BOX_HEAD.BBOX_REG_WEIGHTS, got {tuple(weights)}"
            )
        arguments = super().from_config(cfg, input_shape)
        arguments["box2box_transform"] = Box2BoxTransformRotated(weights=weights)
        return arguments

    def inference(
        self, predictions: tuple[torch.Tensor, torch.Tensor], proposals: list[Instances]
    ) -> tuple[list[Instances], list[torch.Tensor]]:
        """Detections, as :func:`fast_rcnn_inference_rotated` returns them.

        Args:
            predictions: what ``forward`` returned.
            proposals: for each image, with the field ``proposal_boxes``.
        """
        return fast_rcnn_inference_rotated(
            self.predict_boxes(predictions, proposals),
            self.predict_probs(predictions, proposals),
            [x.image_size for x in proposals],
            self.test_score_thresh,
            self.test_nms_thresh,
            self.test_topk_per_image,
        )


@ROI_HEADS_REGISTRY.register()
class RROIHeads(StandardROIHeads):
    """RoI heads that detect rotated boxes; without masks or keypoints."""

    @configurable
    def __init__(self, **kwargs: Any) -> None:
        """
        Args:
            **kwargs: as for :class:`StandardROIHeads`.

        Raises:
            ValueError: masks, keypoints or ``train_on_pred_boxes`` are asked for.
        """
        super().__init__(**kwargs)
        for name in ("mask_on", "keypoint_on", "train_on_pred_boxes"):
            if getattr(self, name):
                raise ValueError(f"RROIHeads are for boxes only, got {name}=True")

    @classmethod
    def _init_box_head(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        head, in_features = cfg.MODEL.ROI_BOX_HEAD, cfg.MODEL.ROI_HEADS.IN_FEATURES
        if head.POOLER_TYPE != "ROIAlignRotated":
            raise ValueError(
                f"RROIHeads need the POOLER_TYPE 'ROIAlignRotated', got {head.POOLER_TYPE!r}"
            )
        size = head.POOLER_RESOLUTION
        pooled = ShapeSpec(
            channels=common_channels(input_shape, in_features), height=size, width=size
        )
        box_head = build_box_head(cfg, pooled)
        return {
            "box_in_features": in_features,
            "box_pooler": _pooler(head, input_shape, in_features),
            "box_head": box_head,
            "box_predictor": RotatedFastRCNNOutputLayers(cfg, box_head.output_shape),
        }

    @staticmethod
    def _pairwise_iou(boxes1: RotatedBoxes, boxes2: RotatedBoxes) -> torch.Tensor:
        return pairwise_iou_of_rotated_boxes(boxes1, boxes2)

    def _attach_targets(
        self, sampled: Instances, targets: Instances, sample: SampledProposals
    ) -> None:
        sampled.gt_boxes = targets.gt_boxes[sample.matches]

    @torch.no_grad()
    def label_and_sample_proposals(
        self, proposals: list[Instances], targets: list[Instances]
    ) -> list[Instances]:
        """As :meth:`ROIHeads.label_and_sample_proposals`; of the ground truth's fields, proposals
        get classes and boxes only."""
        return super().label_and_sample_proposals(proposals, targets)
