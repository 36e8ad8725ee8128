"""FCOS.

Tian et al., "FCOS: Fully Convolutional One-Stage Object Detection", ICCV 2019, with the later
version's centre sampling, GIoU loss and centre-ness on the box branch.
"""

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812
from torch.nn.utils.rnn import pad_sequence

# Code written for upstream imports some of these names from here.
from detectron2.layers import ShapeSpec, batched_nms, cat
from detectron2.layers._dtypes import at_least_float32
from detectron2.modeling._labelling import pad_boxes
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.modeling.backbone import Backbone
from detectron2.modeling.box_regression import Box2BoxTransformLinear, _dense_box_regression_loss
from detectron2.modeling.meta_arch._one_stage import OneStageDetector
from detectron2.modeling.meta_arch.dense_detector import DenseDetector  # noqa: F401
from detectron2.modeling.meta_arch.retinanet import RetinaNetHead
from detectron2.structures import Boxes, ImageList, Instances, pairwise_point_box_distance
from detectron2.utils.events import get_event_storage  # noqa: F401

__all__ = ["FCOS", "FCOSHead", "batched_nms", "pairwise_point_box_distance"]


class FCOS(OneStageDetector):
    """A dense detector with one point, not anchors, at each location."""

    def __init__(
        self,
        *,
        backbone: Backbone,
        head: nn.Module,
        head_in_features: list[str] | None = None,
        box2box_transform: Any = None,
        num_classes: int,
        center_sampling_radius: float = 1.5,
        focal_loss_alpha: float = 0.25,
        focal_loss_gamma: float = 2.0,
        test_score_thresh: float = 0.2,
        test_topk_candidates: int = 1000,
        test_nms_thresh: float = 0.6,
        max_detections_per_image: int = 100,
        pixel_mean: tuple[float, ...],
        pixel_std: tuple[float, ...],
    ) -> None:
        """Args:
        backbone: makes feature maps of a batch of images.
        head: a module like `FCOSHead`.
        head_in_features: names of the feature maps that the head takes; None: all, from the
            finest to the coarsest.
        box2box_transform: between points, as boxes of one stride, and boxes; None:
            ``Box2BoxTransformLinear(normalize_by_size=True)``.
        num_classes: without the background.
        center_sampling_radius: positives are within so many strides of an object's centre, along
            both axes.
        focal_loss_alpha: weight of the foreground in the focal loss.
        focal_loss_gamma: exponent of the focal loss.
        test_score_thresh: what the score of a detection exceeds.
        test_topk_candidates: best-scored detections of each level that go into NMS.
        test_nms_thresh: IoU above which the worse one of two detections of a class goes.
        max_detections_per_image: best-scored detections that come out.
        pixel_mean: of each channel, what is subtracted.
        pixel_std: of each channel, what is divided by.
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
        shapes = backbone.output_shape()
        strides = [shapes[name].stride for name in self.head_in_features]
        self.anchor_generator = DefaultAnchorGenerator(
            sizes=[[stride] for stride in strides], aspect_ratios=[1.0], strides=strides
        )
        if box2box_transform is None:
            box2box_transform = Box2BoxTransformLinear(normalize_by_size=True)
        self.box2box_transform = box2box_transform
        self.center_sampling_radius = float(center_sampling_radius)

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
        logits, deltas, centerness = self._transpose_dense_predictions(
            predictions, [self.num_classes, 4, 1]
        )
        return self.losses(anchors, logits, labels, deltas, boxes, centerness)

    @torch.jit.unused
    @torch.no_grad()
    def _match_anchors(self, gt_boxes: torch.Tensor, anchors: list[Boxes]) -> torch.Tensor:
        """Whether a point may detect an object: bool ``(N, M, R)`` for boxes ``(N, M, 4)``."""
        all_anchors = cat([boxes.tensor for boxes in anchors])
        x, y = ((all_anchors[:, :2] + all_anchors[:, 2:]) / 2).unbind(1)
        sizes = all_anchors[:, 2] - all_anchors[:, 0]
        x0, y0, x1, y1 = gt_boxes[..., None].unbind(2)

        # Near the centre, inside of the box, and on the level for its size.
        off_centre = torch.max((x - (x0 + x1) / 2).abs(), (y - (y0 + y1) / 2).abs())
        left, top, right, bottom = x - x0, y - y0, x1 - x, y1 - y
        nearest = torch.min(torch.min(left, right), torch.min(top, bottom))
        farthest = torch.max(torch.max(left, right), torch.max(top, bottom))
        lower, upper = sizes * 4, sizes * 8
        lower[: len(anchors[0])] = 0
        upper[len(all_anchors) - len(anchors[-1]) :] = torch.inf
        return (
            (off_centre < self.center_sampling_radius * sizes)
            & (nearest > 0)
            & (farthest > lower)
            & (farthest < upper)
        )

    @torch.jit.unused
    @torch.no_grad()
    def label_anchors(
        self, anchors: list[Boxes], gt_instances: list[Instances]
    ) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Match the points with the ground truth, with the smallest object where several fit.

        Args:
            anchors: of each level, R in all.
            gt_instances: of each of N images, with ``gt_boxes`` and ``gt_classes``.

        Returns:
            For each image the labels ``(R,)`` int64, the class or K for background, and the boxes
            ``(R, 4)`` that the points are matched with, which count at positives only.
        """
        # A box of zeros, which no point is inside of, for images without any.
        nothing = anchors[0].tensor.new_zeros((1, 4))
        boxes = [Boxes(torch.cat([x.gt_boxes.tensor, nothing])) for x in gt_instances]
        classes = [F.pad(x.gt_classes, [0, 1]) for x in gt_instances]
        padded = pad_boxes(boxes, anchors[0])
        sides = padded[..., 2:] - padded[..., :2]
        areas = (sides[..., 0] * sides[..., 1])[..., None]
        fits = self._match_anchors(padded, anchors)
        area, matches = torch.where(fits, areas, torch.inf).min(dim=1)
        labels = pad_sequence(classes, batch_first=True).gather(1, matches)
        labels = torch.where(area.isinf(), self.num_classes, labels)
        matched = padded.gather(1, matches[..., None].expand(-1, -1, 4))
        return list(labels), list(matched)

    @torch.jit.unused
    def losses(
        self,
        anchors: list[Boxes],
        pred_logits: list[torch.Tensor],
        gt_labels: list[torch.Tensor],
        pred_anchor_deltas: list[torch.Tensor],
        gt_boxes: list[torch.Tensor],
        pred_centerness: list[torch.Tensor],
    ) -> dict[str, torch.Tensor]:
        """The losses, divided by a moving average of the number of positives in a batch.

        Args:
            anchors: of each level, R in all.
            pred_logits: of each level, ``(N, R_i, K)``.
            gt_labels: of each of N images, ``(R,)``, see :meth:`label_anchors`.
            pred_anchor_deltas: of each level, ``(N, R_i, 4)``.
            gt_boxes: of each image, ``(R, 4)``.
            pred_centerness: of each level, logits ``(N, R_i, 1)``.

        Returns:
            ``loss_fcos_cls``, the focal loss of all points; ``loss_fcos_loc``, the GIoU loss of
            the positives' boxes; ``loss_fcos_ctr``, binary cross-entropy of their centre-ness.
        """
        loss_cls, is_positive, normalizer = self._class_loss(pred_logits, gt_labels, 300)
        loss_box_reg = _dense_box_regression_loss(
            anchors,
            self.box2box_transform,
            pred_anchor_deltas,
            gt_boxes,
            is_positive,
            box_reg_loss_type="giou",
        )
        targets = self.compute_ctrness_targets(anchors, gt_boxes)
        centerness = at_least_float32(cat(pred_centerness, dim=1).squeeze(2))
        loss_ctrness = F.binary_cross_entropy_with_logits(
            centerness,
            torch.where(is_positive, targets, 0.0).to(centerness.dtype),
            weight=is_positive.to(centerness.dtype),
            reduction="sum",
        )
        return {
            "loss_fcos_cls": loss_cls / normalizer,
            "loss_fcos_loc": loss_box_reg / normalizer,
            "loss_fcos_ctr": loss_ctrness / normalizer,
        }

    @torch.jit.unused
    def compute_ctrness_targets(
        self, anchors: list[Boxes], gt_boxes: list[torch.Tensor]
    ) -> torch.Tensor:
        """How central the points are in their boxes, equation 3 of the paper: 1 in the middle, 0
        at the border.

        Args:
            anchors: of each level, R in all.
            gt_boxes: of each of N images, ``(R, 4)``.

        Returns:
            ``(N, R)``; any number for points outside of their boxes.
        """
        all_anchors = cat([boxes.tensor for boxes in anchors])
        boxes = torch.stack(list(gt_boxes))
        deltas = self.box2box_transform.get_deltas(
            all_anchors.expand_as(boxes).flatten(0, 1), boxes.flatten(0, 1)
        )
        left, top, right, bottom = deltas.reshape(boxes.shape).unbind(2)
        horizontal = torch.min(left, right) / torch.max(left, right)
        vertical = torch.min(top, bottom) / torch.max(top, bottom)
        return torch.sqrt(horizontal * vertical)

    def _ranks_and_deltas(
        self, predictions: list[list[torch.Tensor]]
    ) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Of each level and in the order of the anchors, scores ``(N, R_i, K)``, the geometric mean
        of those of the class and of the centre-ness, and deltas ``(N, R_i, 4)``."""
        logits, deltas, centerness = self._transpose_dense_predictions(
            predictions, [self.num_classes, 4, 1]
        )
        scores: list[torch.Tensor] = []
        for of_class, of_centre in zip(logits, centerness):  # noqa: B905
            scores.append(torch.sqrt(of_class.float().sigmoid() * of_centre.float().sigmoid()))
        return scores, deltas

    def _to_scores(self, ranks: torch.Tensor) -> torch.Tensor:
        return ranks


class FCOSHead(RetinaNetHead):
    """`RetinaNetHead` with one anchor a location, and a prediction of centre-ness beside the
    box."""

    def __init__(
        self, *, input_shape: list[ShapeSpec], conv_dims: list[int], **kwargs: Any
    ) -> None:
        """Args:
        input_shape: of each level, with equal channels.
        conv_dims: channels of the hidden convolutions.
        **kwargs: other arguments of `RetinaNetHead`, without ``num_anchors``.
        """
        super().__init__(input_shape=input_shape, conv_dims=conv_dims, num_anchors=1, **kwargs)
        channels = conv_dims[-1] if conv_dims else input_shape[0].channels
        self.ctrness = nn.Conv2d(channels, 1, kernel_size=3, padding=1)
        nn.init.normal_(self.ctrness.weight, std=0.01)
        nn.init.zeros_(self.ctrness.bias)

    def forward(
        self, features: list[torch.Tensor]
    ) -> tuple[list[torch.Tensor], list[torch.Tensor], list[torch.Tensor]]:
        """Predict.

        Args:
            features: of each level, ``(N, C, H_i, W_i)``.

        Returns:
            For each level, class logits ``(N, K, H_i, W_i)``, deltas ``(N, 4, H_i, W_i)`` and
            logits of the centre-ness ``(N, 1, H_i, W_i)``.
        """
        self._begin(features)
        logits: list[torch.Tensor] = []
        deltas: list[torch.Tensor] = []
        centerness: list[torch.Tensor] = []
        for feature in features:
            logits.append(self.cls_score(self.cls_subnet(feature)))
            hidden = self.bbox_subnet(feature)
            deltas.append(self.bbox_pred(hidden))
            centerness.append(self.ctrness(hidden))
        return logits, deltas, centerness
