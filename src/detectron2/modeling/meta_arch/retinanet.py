"""RetinaNet.

Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017.
"""

import logging
import math
from typing import Any

import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence

from detectron2.config import CfgNode, configurable

# Code written for upstream imports some of these names from here.
from detectron2.layers import CycleBatchNormList, ShapeSpec, batched_nms, cat, get_norm
from detectron2.modeling._labelling import match_batch
from detectron2.modeling.anchor_generator import build_anchor_generator
from detectron2.modeling.backbone import Backbone, build_backbone
from detectron2.modeling.box_regression import Box2BoxTransform, _dense_box_regression_loss
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.meta_arch._one_stage import OneStageDetector
from detectron2.modeling.meta_arch.build import META_ARCH_REGISTRY
from detectron2.modeling.meta_arch.dense_detector import (
    DenseDetector,  # noqa: F401
    permute_to_N_HWA_K,
)
from detectron2.structures import Boxes, ImageList, Instances, pairwise_iou
from detectron2.utils.events import get_event_storage  # noqa: F401

__all__ = ["RetinaNet", "RetinaNetHead", "batched_nms", "cat", "permute_to_N_HWA_K"]

logger = logging.getLogger(__name__)


@META_ARCH_REGISTRY.register()
class RetinaNet(OneStageDetector):
    """A dense detector with anchors of several shapes."""

    @configurable
    def __init__(
        self,
        *,
        backbone: Backbone,
        head: nn.Module,
        head_in_features: list[str],
        anchor_generator: nn.Module,
        box2box_transform: Box2BoxTransform,
        anchor_matcher: Matcher,
        num_classes: int,
        focal_loss_alpha: float = 0.25,
        focal_loss_gamma: float = 2.0,
        smooth_l1_beta: float = 0.0,
        box_reg_loss_type: str = "smooth_l1",
        test_score_thresh: float = 0.05,
        test_topk_candidates: int = 1000,
        test_nms_thresh: float = 0.5,
        max_detections_per_image: int = 100,
        pixel_mean: tuple[float, ...],
        pixel_std: tuple[float, ...],
        vis_period: int = 0,
        input_format: str = "BGR",
    ) -> None:
        """Args:
        backbone: makes feature maps of a batch of images.
        head: a module like `RetinaNetHead`.
        head_in_features: names of the feature maps that the head takes.
        anchor_generator: makes anchors on feature maps.
        box2box_transform: between anchors and boxes.
        anchor_matcher: labels anchors by their IoU with the ground truth.
        num_classes: without the background.
        focal_loss_alpha: weight of the foreground in the focal loss.
        focal_loss_gamma: exponent of the focal loss.
        smooth_l1_beta: where the smooth L1 loss turns linear; 0 is the L1 loss.
        box_reg_loss_type: "smooth_l1", "giou", "diou" or "ciou".
        test_score_thresh: what the score of a detection exceeds.
        test_topk_candidates: best-scored detections of each level that go into NMS.
        test_nms_thresh: IoU above which the worse one of two detections of a class goes.
        max_detections_per_image: best-scored detections that come out.
        pixel_mean: of each channel, what is subtracted.
        pixel_std: of each channel, what is divided by.
        vis_period: kept for :meth:`visualize_training`, which nothing calls by itself.
        input_format: order of the channels.
        """
        super().__init__(
            backbone,
            head,
            head_in_features,
            num_classes=num_classes,
            focal_loss_alpha=focal_loss_alpha,
            focal_loss_gamma=focal_loss_gamma,
            test_score_thresh=test_score_thresh,
            test_topk_candidates=test_topk_candidates,
            test_nms_thresh=test_nms_thresh,
            max_detections_per_image=max_detections_per_image,
            pixel_mean=pixel_mean,
            pixel_std=pixel_std,
        )
        self.input_format = input_format
        self.vis_period = vis_period
        self.anchor_generator = anchor_generator
        self.anchor_matcher = anchor_matcher
        self.box2box_transform = box2box_transform
        self.box_reg_loss_type = box_reg_loss_type
        self.smooth_l1_beta = smooth_l1_beta

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        backbone = build_backbone(cfg)
        retinanet = cfg.MODEL.RETINANET
        all_shapes = backbone.output_shape()
        shapes = [all_shapes[name] for name in retinanet.IN_FEATURES]
        return {
            "backbone": backbone,
            "head": RetinaNetHead(cfg, shapes),
            "head_in_features": retinanet.IN_FEATURES,
            "anchor_generator": build_anchor_generator(cfg, shapes),
            "box2box_transform": Box2BoxTransform(weights=retinanet.BBOX_REG_WEIGHTS),
            "anchor_matcher": Matcher(
                retinanet.IOU_THRESHOLDS, retinanet.IOU_LABELS, allow_low_quality_matches=True
            ),
            "num_classes": retinanet.NUM_CLASSES,
            "focal_loss_alpha": retinanet.FOCAL_LOSS_ALPHA,
            "focal_loss_gamma": retinanet.FOCAL_LOSS_GAMMA,
            "smooth_l1_beta": retinanet.SMOOTH_L1_LOSS_BETA,
            "box_reg_loss_type": retinanet.BBOX_REG_LOSS_TYPE,
            "test_score_thresh": retinanet.SCORE_THRESH_TEST,
            "test_topk_candidates": retinanet.TOPK_CANDIDATES_TEST,
            "test_nms_thresh": retinanet.NMS_THRESH_TEST,
            "max_detections_per_image": cfg.TEST.DETECTIONS_PER_IMAGE,
            "pixel_mean": cfg.MODEL.PIXEL_MEAN,
            "pixel_std": cfg.MODEL.PIXEL_STD,
            "vis_period": cfg.VIS_PERIOD,
            "input_format": cfg.INPUT.FORMAT,
        }

    @torch.jit.unused
    def forward_training(
        self,
        images: ImageList,
        features: list[torch.Tensor],
        predictions: list[list[torch.Tensor]],
        gt_instances: list[Instances],
    ) -> dict[str, torch.Tensor]:
        anchors = self.anchor_generator(features)
        labels, boxes = self.label_anchors(anchors, gt_instances)
        logits, deltas = self._transpose_dense_predictions(predictions, [self.num_classes, 4])
        return self.losses(anchors, logits, labels, deltas, boxes)

    @torch.jit.unused
    def losses(
        self,
        anchors: list[Boxes],
        pred_logits: list[torch.Tensor],
        gt_labels: list[torch.Tensor],
        pred_anchor_deltas: list[torch.Tensor],
        gt_boxes: list[torch.Tensor],
    ) -> dict[str, torch.Tensor]:
        """The losses, divided by a moving average of the number of positives in a batch.

        Args:
            anchors: of each level, R in all.
            pred_logits: of each level, ``(N, R_i, K)``.
            gt_labels: of each of N images, ``(R,)``, see :meth:`label_anchors`.
            pred_anchor_deltas: of each level, ``(N, R_i, 4)``.
            gt_boxes: of each image, ``(R, 4)``.

        Returns:
            ``loss_cls``, the focal loss of all anchors that are not ignored, and
            ``loss_box_reg``, of the positives' boxes.
        """
        loss_cls, is_positive, normalizer = self._class_loss(pred_logits, gt_labels, 100)
        loss_box_reg = _dense_box_regression_loss(
            anchors,
            self.box2box_transform,
            pred_anchor_deltas,
            gt_boxes,
            is_positive,
            box_reg_loss_type=self.box_reg_loss_type,
            smooth_l1_beta=self.smooth_l1_beta,
        )
        return {"loss_cls": loss_cls / normalizer, "loss_box_reg": loss_box_reg / normalizer}

    @torch.jit.unused
    @torch.no_grad()
    def label_anchors(
        self, anchors: list[Boxes], gt_instances: list[Instances]
    ) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Match the anchors with the ground truth.

        Args:
            anchors: of each level, R in all.
            gt_instances: of each of N images, with ``gt_boxes`` and ``gt_classes``.

        Returns:
            For each image the labels ``(R,)`` int64: the class, K for background, -1 for what is
            ignored; and the boxes ``(R, 4)`` that the anchors are matched with, which count at
            positives only.
        """
        labels, matches, gt_boxes = match_batch(
            pairwise_iou,
            self.anchor_matcher,
            [instances.gt_boxes for instances in gt_instances],
            Boxes.cat(anchors),
        )
        classes = _padded([x.gt_classes for x in gt_instances], gt_boxes).gather(1, matches)
        classes = torch.where(labels == 0, self.num_classes, classes)
        classes = torch.where(labels == -1, -1, classes)
        matched = gt_boxes.gather(1, matches[..., None].expand(-1, -1, 4))
        return list(classes), list(matched)

    def _ranks_and_deltas(
        self, predictions: list[list[torch.Tensor]]
    ) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Of each level and in the order of the anchors, what ascends with the scores, ``(N, R_i,
        K)``, and deltas, ``(N, R_i, 4)``."""
        logits, deltas = self._transpose_dense_predictions(predictions, [self.num_classes, 4])
        return logits, deltas

    def _to_scores(self, ranks: torch.Tensor) -> torch.Tensor:
        return ranks.sigmoid()


def _padded(classes: list[torch.Tensor], boxes: torch.Tensor) -> torch.Tensor:
    """Classes of each image as ``(N, M)`` beside boxes ``(N, M, 4)``, with zeros behind."""
    rows = boxes.new_zeros(boxes.shape[:2], dtype=torch.int64)
    if len(classes) > 0 and any(len(x) for x in classes):
        rows.copy_(pad_sequence(classes, batch_first=True))
    return rows


def _make_norm(norm: str, channels: int, num_levels: int) -> nn.Module | None:
    """A norm of a head that is shared by levels. Statistics of a batch differ between them."""
    if norm in ("BN", "SyncBN"):
        bn_class = nn.BatchNorm2d if norm == "BN" else nn.SyncBatchNorm
        return CycleBatchNormList(num_levels, bn_class=bn_class, num_features=channels)
    module = get_norm(norm, channels)
    if "BatchNorm" in type(module).__name__ and norm != "FrozenBN":
        logger.warning(
            f"the norm {norm!r} shares its statistics among the {num_levels} levels of the head"
        )
    return module


class RetinaNetHead(nn.Module):
    """Two branches of convolutions, one for classes and one for boxes, shared by all levels."""

    @configurable
    def __init__(
        self,
        *,
        input_shape: list[ShapeSpec],
        num_classes: int,
        num_anchors: int,
        conv_dims: list[int],
        norm: str = "",
        prior_prob: float = 0.01,
    ) -> None:
        """Args:
        input_shape: of each level, with equal channels.
        num_classes: without the background.
        num_anchors: anchors a location.
        conv_dims: channels of the hidden convolutions.
        norm: after each of them, a name as for ``get_norm``. With "BN" and "SyncBN" each level
            has statistics of its own.
        prior_prob: score that all classes start from.
        """
        super().__init__()
        self._num_features = len(input_shape)
        channels = input_shape[0].channels
        cls_subnet: list[nn.Module] = []
        bbox_subnet: list[nn.Module] = []
        for out_channels in conv_dims:
            for subnet in (cls_subnet, bbox_subnet):
                subnet.append(nn.Conv2d(channels, out_channels, kernel_size=3, padding=1))
                if norm:
                    subnet.append(_make_norm(norm, out_channels, self._num_features))
                subnet.append(nn.ReLU())
            channels = out_channels
        self.cls_subnet = nn.Sequential(*cls_subnet)
        self.bbox_subnet = nn.Sequential(*bbox_subnet)
        self.cls_score = nn.Conv2d(channels, num_anchors * num_classes, kernel_size=3, padding=1)
        self.bbox_pred = nn.Conv2d(channels, num_anchors * 4, kernel_size=3, padding=1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.01)
                nn.init.zeros_(module.bias)
        nn.init.constant_(self.cls_score.bias, -math.log((1 - prior_prob) / prior_prob))

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: list[ShapeSpec]) -> dict[str, Any]:
        num_anchors = build_anchor_generator(cfg, input_shape).num_anchors
        assert len(set(num_anchors)) == 1, (
            f"the head needs the same number of anchors on each level, got {num_anchors}"
        )
        retinanet = cfg.MODEL.RETINANET
        return {
            "input_shape": input_shape,
            "num_classes": retinanet.NUM_CLASSES,
            "num_anchors": num_anchors[0],
            "conv_dims": [input_shape[0].channels] * retinanet.NUM_CONVS,
            "norm": retinanet.NORM,
            "prior_prob": retinanet.PRIOR_PROB,
        }

    def _begin(self, features: list[torch.Tensor]) -> None:
        assert len(features) == self._num_features, (
            f"the head is for {self._num_features} levels, got {len(features)}"
        )
        if not torch.jit.is_scripting():
            self._restart_norms()

    @torch.jit.unused
    def _restart_norms(self) -> None:
        """Let norms that take turns begin with the first level, also after a call that failed."""
        for module in self.modules():
            if isinstance(module, CycleBatchNormList):
                module.restart()

    def forward(
        self, features: list[torch.Tensor]
    ) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Predict.

        Args:
            features: of each level, ``(N, C, H_i, W_i)``.

        Returns:
            For each level, class logits ``(N, A * K, H_i, W_i)`` and deltas from the anchors
            ``(N, A * 4, H_i, W_i)``, those of an anchor one after the other.
        """
        self._begin(features)
        logits: list[torch.Tensor] = []
        deltas: list[torch.Tensor] = []
        for feature in features:
            logits.append(self.cls_score(self.cls_subnet(feature)))
            deltas.append(self.bbox_pred(self.bbox_subnet(feature)))
        return logits, deltas
