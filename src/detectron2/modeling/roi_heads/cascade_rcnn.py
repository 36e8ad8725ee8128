"""RoI heads that refine boxes stage by stage.

Cai and Vasconcelos, "Cascade R-CNN: Delving into High Quality Object Detection", CVPR 2018.
"""

from typing import Any

import torch
from torch import nn

from detectron2.config.config import CfgNode, configurable
from detectron2.layers.shape_spec import ShapeSpec
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.poolers import ROIPooler
from detectron2.modeling.roi_heads._base import ROI_HEADS_REGISTRY
from detectron2.modeling.roi_heads._sampling import classes_of_matches
from detectron2.modeling.roi_heads._selection import select_rows
from detectron2.modeling.roi_heads._standard import StandardROIHeads, _pooler, common_channels
from detectron2.modeling.roi_heads.box_head import build_box_head
from detectron2.modeling.roi_heads.fast_rcnn import FastRCNNOutputLayers, fast_rcnn_inference
from detectron2.structures.boxes import Boxes, pairwise_iou
from detectron2.structures.instances import Instances
from detectron2.utils.events import get_event_storage

__all__ = ["CascadeROIHeads"]


class _ScaleGradient(torch.autograd.Function):
    """The identity, whose gradient is multiplied by a number."""

    @staticmethod
    def forward(ctx: Any, input: torch.Tensor, scale: float) -> torch.Tensor:
        ctx.scale = scale
        return input.view_as(input)

    @staticmethod
    def backward(ctx: Any, grad_output: torch.Tensor) -> tuple[torch.Tensor, None]:
        return grad_output * ctx.scale, None


@ROI_HEADS_REGISTRY.register()
class CascadeROIHeads(StandardROIHeads):
    """Box heads in stages: each takes the boxes of the one before, and is stricter with them.

    Masks and keypoints are as in :class:`StandardROIHeads`. The names of box losses end in
    ``_stage{k}``.
    """

    @configurable
    def __init__(
        self,
        *,
        box_in_features: list[str],
        box_pooler: ROIPooler,
        box_heads: list[nn.Module],
        box_predictors: list[nn.Module],
        proposal_matchers: list[Matcher],
        **kwargs: Any,
    ) -> None:
        """
        Args:
            box_in_features: names of the feature maps that boxes are pooled from.
            box_pooler: pools them, in all stages.
            box_heads: one for each stage.
            box_predictors: one for each stage, with one box for all classes.
            proposal_matchers: one for each stage. The first one matches what is sampled.
            **kwargs: as for :class:`StandardROIHeads`, but for ``proposal_matcher``.

        Raises:
            ValueError: different numbers of them, or a ``proposal_matcher`` was given.
        """
        if "proposal_matcher" in kwargs:
            raise ValueError("CascadeROIHeads takes proposal_matchers, got proposal_matcher, too")
        counts = len(box_heads), len(box_predictors), len(proposal_matchers)
        if len(set(counts)) != 1 or counts[0] == 0:
            raise ValueError(
                "CascadeROIHeads needs as many box_heads as box_predictors and proposal_matchers, "
                f"one at least, got {counts}"
            )
        super().__init__(
            box_in_features=box_in_features,
            box_pooler=box_pooler,
            box_head=nn.ModuleList(box_heads),
            box_predictor=nn.ModuleList(box_predictors),
            proposal_matcher=proposal_matchers[0],
            **kwargs,
        )
        self.num_cascade_stages = len(box_heads)
        self.proposal_matchers = proposal_matchers

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        arguments = super().from_config(cfg, input_shape)
        # Made of the cascade's own thresholds.
        del arguments["proposal_matcher"]
        return arguments

    @classmethod
    def _init_box_head(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        cascade, in_features = cfg.MODEL.ROI_BOX_CASCADE_HEAD, cfg.MODEL.ROI_HEADS.IN_FEATURES
        if not cfg.MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG:
            raise ValueError("CascadeROIHeads needs ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG, got False")
        if cascade.IOUS[0] != cfg.MODEL.ROI_HEADS.IOU_THRESHOLDS[0]:
            raise ValueError(
                "CascadeROIHeads samples with its first threshold: ROI_BOX_CASCADE_HEAD.IOUS[0] "
                f"is {cascade.IOUS[0]}, but ROI_HEADS.IOU_THRESHOLDS[0] is "
                f"{cfg.MODEL.ROI_HEADS.IOU_THRESHOLDS[0]}"
            )
        if len(cascade.IOUS) != len(cascade.BBOX_REG_WEIGHTS):
            raise ValueError(
                f"ROI_BOX_CASCADE_HEAD has {len(cascade.IOUS)} IOUS, but "
                f"{len(cascade.BBOX_REG_WEIGHTS)} BBOX_REG_WEIGHTS"
            )
        size = cfg.MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION
        pooled = ShapeSpec(
            channels=common_channels(input_shape, in_features), height=size, width=size
        )
        heads, predictors, matchers = [], [], []
        for iou, weights in zip(cascade.IOUS, cascade.BBOX_REG_WEIGHTS, strict=True):
            head = build_box_head(cfg, pooled)
            transform = Box2BoxTransform(weights=weights)
            heads.append(head)
            predictors.append(
                FastRCNNOutputLayers(cfg, head.output_shape, box2box_transform=transform)
            )
            matchers.append(Matcher([iou], [0, 1], allow_low_quality_matches=False))
        return {
            "box_in_features": in_features,
            "box_pooler": _pooler(cfg.MODEL.ROI_BOX_HEAD, input_shape, in_features),
            "box_heads": heads,
            "box_predictors": predictors,
            "proposal_matchers": matchers,
        }

    def _box_losses(
        self,
        features: dict[str, torch.Tensor],
        proposals: list[Instances],
        targets: list[Instances],
    ) -> dict[str, torch.Tensor]:
        return self._forward_box(features, proposals, targets)

    def _forward_box(
        self,
        features: dict[str, torch.Tensor],
        proposals: list[Instances],
        targets: list[Instances] | None = None,
    ) -> Any:
        """The box losses of all stages in training, detections otherwise."""
        maps = [features[name] for name in self.box_in_features]
        image_sizes = [x.image_size for x in proposals]
        outputs = []
        boxes: list[torch.Tensor] | None = None
        for stage in range(self.num_cascade_stages):
            if boxes is not None:
                proposals = self._create_proposals_from_boxes(boxes, image_sizes)
                if self.training:
                    proposals = self._match_and_label_boxes(proposals, stage, targets)
            predictions = self._run_stage(maps, proposals, stage)
            outputs.append((predictions, proposals))
            if stage + 1 < self.num_cascade_stages or not self.training:
                boxes = self.box_predictor[stage].predict_boxes(predictions, proposals)
        if self.training:
            return self._losses(outputs)

        # Each stage has scored its own proposals, which are as many in all stages.
        probs = [
            predictor.predict_probs(*output)
            for predictor, output in zip(self.box_predictor, outputs, strict=True)
        ]
        counts = [len(x) for x in proposals]
        total = sum(torch.cat(list(of_stage)) for of_stage in probs)
        scores = (total / self.num_cascade_stages).split(counts)
        last = self.box_predictor[-1]
        pred_instances, _ = fast_rcnn_inference(
            list(boxes),
            list(scores),
            image_sizes,
            last.test_score_thresh,
            last.test_nms_thresh,
            last.test_topk_per_image,
        )
        return pred_instances

    def _losses(self, outputs: list[tuple[Any, list[Instances]]]) -> dict[str, torch.Tensor]:
        losses = {}
        for stage, (predictions, proposals) in enumerate(outputs):
            with get_event_storage().name_scope(f"stage{stage}"):
                of_stage = self.box_predictor[stage].losses(predictions, proposals)
            losses.update({f"{name}_stage{stage}": loss for name, loss in of_stage.items()})
        return losses

    @torch.no_grad()
    def _match_and_label_boxes(
        self, proposals: list[Instances], stage: int, targets: list[Instances]
    ) -> list[Instances]:
        """Match the boxes of a stage with the ground truth; none are left out.

        Puts the events ``stage{stage}/roi_head/num_fg_samples`` and ``num_bg_samples``.

        Args:
            proposals: for each image, with ``proposal_boxes``.
            stage: from 0 on.
            targets: the ground truth of each image.

        Returns:
            The same proposals, with ``gt_classes`` and ``gt_boxes`` (of zeros in an image without
            ground truth).
        """
        for p, t in zip(proposals, targets, strict=True):
            qualities = pairwise_iou(t.gt_boxes, p.proposal_boxes)
            matches, labels = self.proposal_matchers[stage](qualities)
            classes = classes_of_matches(matches, labels, t.gt_classes, self.num_classes)
            p.gt_classes = classes
            if len(t) > 0:
                p.gt_boxes = t.gt_boxes[matches]
            else:
                p.gt_boxes = Boxes(torch.zeros_like(p.proposal_boxes.tensor))
        self._put_sample_counts(proposals, stage)
        return proposals

    def _put_sample_counts(self, proposals: list[Instances], stage: int) -> None:
        if not proposals:
            return
        classes = torch.cat([p.gt_classes for p in proposals])
        is_background = classes == self.num_classes
        is_foreground = ~is_background & (classes >= 0)
        counts = torch.stack([is_foreground, is_background]).sum(dim=1)
        count = len(proposals)
        get_event_storage().put_scalars_later(
            counts,
            lambda values: {
                f"stage{stage}/roi_head/num_fg_samples": values[0] / count,
                f"stage{stage}/roi_head/num_bg_samples": values[1] / count,
            },
        )

    def _run_stage(
        self, features: list[torch.Tensor], proposals: list[Instances], stage: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """What the predictor of a stage says of proposals.

        Args:
            features: the maps to pool from.
            proposals: for each image, with ``proposal_boxes``.
            stage: from 0 on.
        """
        pooled = self.box_pooler(features, [x.proposal_boxes for x in proposals])
        if self.training:
            # The stages add up their gradients in the features; this makes an average of it.
            pooled = _ScaleGradient.apply(pooled, 1.0 / self.num_cascade_stages)
        return self.box_predictor[stage](self.box_head[stage](pooled))

    def _create_proposals_from_boxes(
        self, boxes: list[torch.Tensor], image_sizes: list[tuple[int, int]]
    ) -> list[Instances]:
        """The boxes of a stage as the proposals of the next: clipped, without a gradient.

        In training those left without an area are dropped. They are kept in evaluation, where the
        scores of all stages must belong together.

        Args:
            boxes: for each image ``(R_i, 4)``.
            image_sizes: (height, width) of each image.
        """
        proposals = []
        for boxes_of_image, (height, width) in zip(boxes, image_sizes, strict=True):
            # Boxes.clip waits for the device, to check that the boxes are finite.
            x, y = boxes_of_image[:, 0::2].detach(), boxes_of_image[:, 1::2].detach()
            clipped = [x.clamp(min=0, max=width), y.clamp(min=0, max=height)]
            proposal_boxes = Boxes(torch.stack(clipped, dim=2).flatten(1))
            proposals.append(Instances((height, width), proposal_boxes=proposal_boxes))
        if not self.training or not proposals:
            return proposals
        is_nonempty = torch.cat([p.proposal_boxes.nonempty() for p in proposals]).cpu()
        rows = [x.nonzero().squeeze(1) for x in is_nonempty.split([len(p) for p in proposals])]
        device = boxes[0].device
        return [select_rows(p, r, device) for p, r in zip(proposals, rows, strict=True)]
