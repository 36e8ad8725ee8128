"""The RoI heads of "C4" models: the last stage of a ResNet, applied to each region."""

from typing import Any

import torch
from torch import nn

from detectron2.config.config import CfgNode, configurable
from detectron2.layers.shape_spec import ShapeSpec
from detectron2.modeling.backbone.resnet import BottleneckBlock, ResNet
from detectron2.modeling.poolers import ROIPooler
from detectron2.modeling.roi_heads._base import ROI_HEADS_REGISTRY, ROIHeads
from detectron2.modeling.roi_heads._selection import foreground_rows, select_foreground_rows
from detectron2.modeling.roi_heads.fast_rcnn import FastRCNNOutputLayers
from detectron2.modeling.roi_heads.mask_head import build_mask_head
from detectron2.structures.boxes import Boxes
from detectron2.structures.image_list import ImageList
from detectron2.structures.instances import Instances
from detectron2.utils._host_values import to_device


@ROI_HEADS_REGISTRY.register()
class Res5ROIHeads(ROIHeads):
    """Box and mask heads that share the features of ``res5``.

    Ren et al., "Faster R-CNN", 2015, in the form that He et al., "Deep Residual Learning", 2015,
    gave it. In training masks share them for the foreground; in evaluation they are computed anew,
    for the boxes that were detected.
    """

    @configurable
    def __init__(
        self,
        *,
        in_features: list[str],
        pooler: ROIPooler,
        res5: nn.Module | list[nn.Module],
        box_predictor: nn.Module,
        mask_head: nn.Module | None = None,
        **kwargs: Any,
    ) -> None:
        """
        Args:
            in_features: names of the feature maps that are pooled from.
            pooler: pools them.
            res5: maps pooled features to those that the heads share; a list of blocks, too.
            box_predictor: such as :class:`FastRCNNOutputLayers`, of the features' spatial mean.
            mask_head: such as :class:`BaseMaskRCNNHead`; None: no masks.
            **kwargs: as for :class:`ROIHeads`.
        """
        super().__init__(**kwargs)
        self.in_features = in_features
        self.pooler = pooler
        self.res5 = nn.Sequential(*res5) if isinstance(res5, (list, tuple)) else res5
        self.box_predictor = box_predictor
        self.mask_on = mask_head is not None
        if self.mask_on:
            self.mask_head = mask_head

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        if cfg.MODEL.KEYPOINT_ON:
            raise ValueError("Res5ROIHeads have no keypoints, got MODEL.KEYPOINT_ON=True")
        in_features = cfg.MODEL.ROI_HEADS.IN_FEATURES
        if len(in_features) != 1:
            raise ValueError(f"Res5ROIHeads pool from one feature map, got {list(in_features)}")
        head, size = cfg.MODEL.ROI_BOX_HEAD, cfg.MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION
        res5, channels = cls._build_res5_block(cfg)
        arguments = {
            **super().from_config(cfg),
            "in_features": in_features,
            "pooler": ROIPooler(
                output_size=size,
                scales=(1.0 / input_shape[in_features[0]].stride,),
                sampling_ratio=head.POOLER_SAMPLING_RATIO,
                pooler_type=head.POOLER_TYPE,
            ),
            "res5": res5,
            "box_predictor": FastRCNNOutputLayers(
                cfg, ShapeSpec(channels=channels, height=1, width=1)
            ),
        }
        if cfg.MODEL.MASK_ON:
            shape = ShapeSpec(channels=channels, height=size, width=size)
            arguments["mask_head"] = build_mask_head(cfg, shape)
        return arguments

    @classmethod
    def _build_res5_block(cls, cfg: CfgNode) -> tuple[nn.Sequential, int]:
        """The stage, and its output channels."""
        resnet = cfg.MODEL.RESNETS
        if resnet.DEFORM_ON_PER_STAGE[-1]:
            raise ValueError("res5 of the RoI heads has no deformable form")
        # Eight times the width of res2, as stages double it.
        out_channels = resnet.RES2_OUT_CHANNELS * 8
        blocks = ResNet.make_stage(
            BottleneckBlock,
            3,
            stride_per_block=[2, 1, 1],
            in_channels=out_channels // 2,
            bottleneck_channels=resnet.NUM_GROUPS * resnet.WIDTH_PER_GROUP * 8,
            out_channels=out_channels,
            num_groups=resnet.NUM_GROUPS,
            norm=resnet.NORM,
            stride_in_1x1=resnet.STRIDE_IN_1X1,
        )
        return nn.Sequential(*blocks), out_channels

    def _shared_roi_transform(
        self, features: list[torch.Tensor], boxes: list[Boxes]
    ) -> torch.Tensor:
        """``(R, C, H, W)``, of the boxes of all images."""
        return self.res5(self.pooler(features, boxes))

    def forward(
        self,
        images: ImageList,
        features: dict[str, torch.Tensor],
        proposals: list[Instances],
        targets: list[Instances] | None = None,
    ) -> tuple[list[Instances], dict[str, torch.Tensor]]:
        """See :meth:`ROIHeads.forward`. In training it returns no proposals."""
        if self.training:
            if targets is None:
                raise ValueError("Res5ROIHeads need targets in training, got None")
            proposals = self.label_and_sample_proposals(proposals, targets)
        box_features = self._shared_roi_transform(
            [features[name] for name in self.in_features], [x.proposal_boxes for x in proposals]
        )
        predictions = self.box_predictor(box_features.mean(dim=[2, 3]))
        if self.training:
            losses = self.box_predictor.losses(predictions, proposals)
            if self.mask_on:
                losses.update(self._mask_losses(box_features, proposals))
            return [], losses
        pred_instances, _ = self.box_predictor.inference(predictions, proposals)
        return self.forward_with_given_boxes(features, pred_instances), {}

    @torch.jit.unused
    def _mask_losses(
        self, box_features: torch.Tensor, proposals: list[Instances]
    ) -> dict[str, torch.Tensor]:
        rows = foreground_rows(proposals, self.num_classes)
        foreground = select_foreground_rows(proposals, rows)
        starts = [0]
        for p in proposals[:-1]:
            starts.append(starts[-1] + len(p))
        index = torch.cat([r + start for r, start in zip(rows, starts, strict=True)])
        features = box_features.index_select(0, to_device(index, box_features.device))
        return self.mask_head(features, foreground)

    def forward_with_given_boxes(
        self, features: dict[str, torch.Tensor], instances: list[Instances]
    ) -> list[Instances]:
        """Predict masks for boxes that are given.

        Args:
            features: as for :meth:`forward`.
            instances: for each image, with ``pred_boxes`` and ``pred_classes``.

        Returns:
            The same ``instances``, with ``pred_masks`` where the heads predict them.
        """
        if self.training:
            raise RuntimeError("forward_with_given_boxes is for evaluation mode only")
        if not self.mask_on:
            return instances
        shared = self._shared_roi_transform(
            [features[name] for name in self.in_features], [x.pred_boxes for x in instances]
        )
        return self.mask_head(shared, instances)
