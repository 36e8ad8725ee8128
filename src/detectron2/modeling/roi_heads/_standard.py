"""RoI heads for boxes, masks and keypoints that do not share anything but the proposals."""

import inspect
from typing import Any

import torch
from torch import nn

from detectron2.config.config import CfgNode, configurable
from detectron2.layers.shape_spec import ShapeSpec
from detectron2.modeling.poolers import ROIPooler
from detectron2.modeling.roi_heads._base import ROI_HEADS_REGISTRY, ROIHeads
from detectron2.modeling.roi_heads._selection import (
    foreground_rows,
    select_foreground_rows,
    select_proposals_with_visible_keypoints,
)
from detectron2.modeling.roi_heads.box_head import build_box_head
from detectron2.modeling.roi_heads.fast_rcnn import FastRCNNOutputLayers
from detectron2.modeling.roi_heads.keypoint_head import build_keypoint_head
from detectron2.modeling.roi_heads.mask_head import build_mask_head
from detectron2.structures.boxes import Boxes
from detectron2.structures.image_list import ImageList
from detectron2.structures.instances import Instances


def common_channels(input_shape: dict[str, ShapeSpec], in_features: list[str]) -> int:
    """The channels of all these features.

    Raises:
        ValueError: they differ.
    """
    channels = {name: input_shape[name].channels for name in in_features}
    if len(set(channels.values())) != 1:
        raise ValueError(f"RoI heads pool from features of as many channels, got {channels}")
    return channels[in_features[0]]


def _pooler(head: CfgNode, input_shape: dict[str, ShapeSpec], in_features: list[str]) -> ROIPooler:
    return ROIPooler(
        output_size=head.POOLER_RESOLUTION,
        scales=tuple(1.0 / input_shape[name].stride for name in in_features),
        sampling_ratio=head.POOLER_SAMPLING_RATIO,
        pooler_type=head.POOLER_TYPE,
    )


@ROI_HEADS_REGISTRY.register()
class StandardROIHeads(ROIHeads):
    """Each head pools its own features, then makes its own computation on them.

    Masks and keypoints are predicted for the boxes that were detected before. A head of another
    form goes into a subclass.
    """

    @configurable
    def __init__(
        self,
        *,
        box_in_features: list[str],
        box_pooler: ROIPooler,
        box_head: nn.Module,
        box_predictor: nn.Module,
        mask_in_features: list[str] | None = None,
        mask_pooler: ROIPooler | None = None,
        mask_head: nn.Module | None = None,
        keypoint_in_features: list[str] | None = None,
        keypoint_pooler: ROIPooler | None = None,
        keypoint_head: nn.Module | None = None,
        train_on_pred_boxes: bool = False,
        **kwargs: Any,
    ) -> None:
        """
        Args:
            box_in_features: names of the feature maps that boxes are pooled from.
            box_pooler: pools them.
            box_head: maps the pooled features to what the predictor takes.
            box_predictor: such as :class:`FastRCNNOutputLayers`.
            mask_in_features: the same for masks; None: no masks.
            mask_pooler: None gives the dict of feature maps to the head.
            mask_head: such as :class:`BaseMaskRCNNHead`.
            keypoint_in_features: the same for keypoints; None: no keypoints.
            keypoint_pooler: None gives the dict of feature maps to the head.
            keypoint_head: such as :class:`BaseKeypointRCNNHead`.
            train_on_pred_boxes: train masks and keypoints on the boxes that are predicted instead
                of on proposals.
            **kwargs: as for :class:`ROIHeads`.
        """
        super().__init__(**kwargs)
        self.train_on_pred_boxes = train_on_pred_boxes
        self.mask_on = mask_in_features is not None
        self.keypoint_on = keypoint_in_features is not None

        # In this order, which is the state dict's.
        self.box_pooler, self.box_head, self.box_predictor = box_pooler, box_head, box_predictor
        self.box_in_features = self.in_features = box_in_features
        if self.mask_on:
            self.mask_pooler, self.mask_head = mask_pooler, mask_head
            self.mask_in_features = mask_in_features
        if self.keypoint_on:
            self.keypoint_pooler, self.keypoint_head = keypoint_pooler, keypoint_head
            self.keypoint_in_features = keypoint_in_features

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        arguments = super().from_config(cfg)
        arguments["train_on_pred_boxes"] = cfg.MODEL.ROI_BOX_HEAD.TRAIN_ON_PRED_BOXES
        # Subclasses that have not been moved to from_config make their heads in methods of these
        # names, on the instance.
        for make in (cls._init_box_head, cls._init_mask_head, cls._init_keypoint_head):
            if inspect.ismethod(make):
                arguments.update(make(cfg, input_shape))
        return arguments

    @classmethod
    def _init_box_head(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        in_features = cfg.MODEL.ROI_HEADS.IN_FEATURES
        size = cfg.MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION
        pooled = ShapeSpec(
            channels=common_channels(input_shape, in_features), height=size, width=size
        )
        box_head = build_box_head(cfg, pooled)
        return {
            "box_in_features": in_features,
            "box_pooler": _pooler(cfg.MODEL.ROI_BOX_HEAD, input_shape, in_features),
            "box_head": box_head,
            "box_predictor": FastRCNNOutputLayers(cfg, box_head.output_shape),
        }

    @classmethod
    def _init_mask_head(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        if not cfg.MODEL.MASK_ON:
            return {}
        pooler, shape = cls._pooler_and_shape(cfg, cfg.MODEL.ROI_MASK_HEAD, input_shape)
        return {
            "mask_in_features": cfg.MODEL.ROI_HEADS.IN_FEATURES,
            "mask_pooler": pooler,
            "mask_head": build_mask_head(cfg, shape),
        }

    @classmethod
    def _init_keypoint_head(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        if not cfg.MODEL.KEYPOINT_ON:
            return {}
        pooler, shape = cls._pooler_and_shape(cfg, cfg.MODEL.ROI_KEYPOINT_HEAD, input_shape)
        return {
            "keypoint_in_features": cfg.MODEL.ROI_HEADS.IN_FEATURES,
            "keypoint_pooler": pooler,
            "keypoint_head": build_keypoint_head(cfg, shape),
        }

    @classmethod
    def _pooler_and_shape(
        cls, cfg: CfgNode, head: CfgNode, input_shape: dict[str, ShapeSpec]
    ) -> tuple[ROIPooler | None, Any]:
        """What pools for a head, and the shape that the head is given; None and all shapes where
        the head is to pool itself."""
        in_features = cfg.MODEL.ROI_HEADS.IN_FEATURES
        if not head.POOLER_TYPE:
            return None, {name: input_shape[name] for name in in_features}
        size = head.POOLER_RESOLUTION
        channels = common_channels(input_shape, in_features)
        shape = ShapeSpec(channels=channels, height=size, width=size)
        return _pooler(head, input_shape, in_features), shape

    def forward(
        self,
        images: ImageList,
        features: dict[str, torch.Tensor],
        proposals: list[Instances],
        targets: list[Instances] | None = None,
    ) -> tuple[list[Instances], dict[str, torch.Tensor]]:
        """See :meth:`ROIHeads.forward`."""
        if self.training:
            return self._train(features, proposals, targets)
        detections = self._forward_box(features, proposals)
        return self.forward_with_given_boxes(features, detections), {}

    @torch.jit.unused
    def _train(
        self,
        features: dict[str, torch.Tensor],
        proposals: list[Instances],
        targets: list[Instances] | None,
    ) -> tuple[list[Instances], dict[str, torch.Tensor]]:
        if targets is None:
            raise ValueError(f"{type(self).__name__} needs targets in training, got None")
        sampled = self.label_and_sample_proposals(proposals, targets)
        losses = dict(self._box_losses(features, sampled, targets))
        # On the original proposals by default: the predicted boxes come and go with the weights,
        # and mean little at first.
        for forward_head in (self._forward_mask, self._forward_keypoint):
            losses.update(forward_head(features, sampled))
        return sampled, losses

    def _box_losses(
        self,
        features: dict[str, torch.Tensor],
        proposals: list[Instances],
        targets: list[Instances],
    ) -> dict[str, torch.Tensor]:
        return self._forward_box(features, proposals)

    def forward_with_given_boxes(
        self, features: dict[str, torch.Tensor], instances: list[Instances]
    ) -> list[Instances]:
        """Predict all but the boxes, for boxes that are given.

        In test-time augmentation, for example, boxes are decided on before masks.

        Args:
            features: as for :meth:`forward`.
            instances: for each image, with ``pred_boxes`` and ``pred_classes``.

        Returns:
            The same ``instances``, with ``pred_masks`` and ``pred_keypoints``.
        """
        if self.training:
            raise RuntimeError("forward_with_given_boxes is for evaluation mode only")
        instances = self._forward_mask(features, instances)
        return self._forward_keypoint(features, instances)

    # Without return types: TorchScript takes those of the branches that it compiles.

    def _forward_box(self, features: dict[str, torch.Tensor], proposals: list[Instances]):
        """The box losses in training, detections otherwise.

        With ``train_on_pred_boxes`` it replaces the boxes of ``proposals`` in training.
        """
        box_features = self.box_pooler(
            [features[name] for name in self.box_in_features],
            [x.proposal_boxes for x in proposals],
        )
        predictions = self.box_predictor(self.box_head(box_features))
        if self.training:
            losses = self.box_predictor.losses(predictions, proposals)
            if self.train_on_pred_boxes:
                self._replace_proposals(predictions, proposals)
            return losses
        pred_instances, _ = self.box_predictor.inference(predictions, proposals)
        return pred_instances

    @torch.no_grad()
    @torch.jit.unused
    def _replace_proposals(self, predictions: Any, proposals: list[Instances]) -> None:
        boxes = self.box_predictor.predict_boxes_for_gt_classes(predictions, proposals)
        for p, predicted in zip(proposals, boxes, strict=True):
            p.proposal_boxes = Boxes(predicted)

    def _forward_mask(self, features: dict[str, torch.Tensor], instances: list[Instances]):
        """The mask loss in training, ``instances`` with ``pred_masks`` otherwise."""
        if not self.mask_on:
            return {} if self.training else instances
        if self.training:
            rows = foreground_rows(instances, self.num_classes)
            instances = select_foreground_rows(instances, rows)
        if self.mask_pooler is not None:
            boxes = [x.proposal_boxes if self.training else x.pred_boxes for x in instances]
            pooled = self.mask_pooler([features[name] for name in self.mask_in_features], boxes)
            return self.mask_head(pooled, instances)
        return self.mask_head({name: features[name] for name in self.mask_in_features}, instances)

    def _forward_keypoint(self, features: dict[str, torch.Tensor], instances: list[Instances]):
        """The keypoint loss in training, ``instances`` with ``pred_keypoints`` otherwise."""
        if not self.keypoint_on:
            return {} if self.training else instances
        if self.training:
            rows = foreground_rows(instances, self.num_classes)
            instances = select_foreground_rows(instances, rows)
            instances = select_proposals_with_visible_keypoints(instances)
        if self.keypoint_pooler is not None:
            boxes = [x.proposal_boxes if self.training else x.pred_boxes for x in instances]
            pooled = self.keypoint_pooler(
                [features[name] for name in self.keypoint_in_features], boxes
            )
            return self.keypoint_head(pooled, instances)
        return self.keypoint_head(
            {name: features[name] for name in self.keypoint_in_features}, instances
        )
