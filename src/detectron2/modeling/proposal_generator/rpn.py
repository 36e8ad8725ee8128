"""Region proposal network.

Ren et al., "Faster R-CNN: Towards Real-Time Object Detection with Region Proposal Networks",
NeurIPS 2015.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from detectron2.config import CfgNode, configurable
from detectron2.layers import Conv2d, ShapeSpec, cat
from detectron2.layers._dtypes import at_least_float32
from detectron2.modeling._labelling import match_batch
from detectron2.modeling._own_methods import has_own, works_around
from detectron2.modeling.anchor_generator import build_anchor_generator
from detectron2.modeling.box_regression import (
    Box2BoxTransform,
    _dense_box_regression_loss,
    apply_deltas_by_row,
)
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.proposal_generator._top_proposals import (
    Candidates,
    TopProposals,
    clip,
    gather_boxes,
    select_proposals,
    top_candidates,
    top_proposals,
)
from detectron2.modeling.proposal_generator.build import PROPOSAL_GENERATOR_REGISTRY
from detectron2.modeling.proposal_generator.proposal_utils import find_top_rpn_proposals
from detectron2.modeling.sampling import subsample_labels, subsample_masks
from detectron2.structures import Boxes, ImageList, Instances, pairwise_iou
from detectron2.utils.events import get_event_storage
from detectron2.utils.memory import retry_if_cuda_oom
from detectron2.utils.registry import Registry

__all__ = [
    "RPN",
    "RPN_HEAD_REGISTRY",
    "StandardRPNHead",
    "build_rpn_head",
    "retry_if_cuda_oom",
    "subsample_labels",
]

RPN_HEAD_REGISTRY = Registry("RPN_HEAD")
RPN_HEAD_REGISTRY.__doc__ = """
Modules that score and move the anchors of feature maps, called with
``(cfg, input_shape: list[ShapeSpec])``; see `StandardRPNHead` for what they take and give.
"""


def build_rpn_head(cfg: CfgNode, input_shape: list[ShapeSpec]) -> nn.Module:
    """The head that ``cfg.MODEL.RPN.HEAD_NAME`` names."""
    return RPN_HEAD_REGISTRY.get(cfg.MODEL.RPN.HEAD_NAME)(cfg, input_shape)


def _only(values: list[Any], what: str) -> Any:
    assert len(set(values)) == 1, f"the RPN head needs the same {what} on each level, got {values}"
    return values[0]


@RPN_HEAD_REGISTRY.register()
class StandardRPNHead(nn.Module):
    """3 x 3 convolutions, then one 1 x 1 convolution for scores and one for deltas; the same for
    all levels."""

    @configurable
    def __init__(
        self,
        *,
        in_channels: int,
        num_anchors: int,
        box_dim: int = 4,
        conv_dims: list[int] = (-1,),
    ) -> None:
        """Args:
        in_channels: channels of the feature maps.
        num_anchors: anchors a location.
        box_dim: numbers a box: 4, or 5 for rotated ones.
        conv_dims: channels of the hidden convolutions; -1 for as many as enter.
        """
        super().__init__()
        convs = []
        channels = in_channels
        for conv_dim in conv_dims:
            out_channels = channels if conv_dim == -1 else conv_dim
            if out_channels <= 0:
                raise ValueError(
                    f"hidden convolutions need a positive number of channels, got {conv_dim}"
                )
            convs.append(
                Conv2d(channels, out_channels, kernel_size=3, padding=1, activation=nn.ReLU())
            )
            channels = out_channels
        if len(convs) == 1:
            self.conv = convs[0]
        else:
            self.conv = nn.Sequential()
            for i, conv in enumerate(convs):
                self.conv.add_module(f"conv{i}", conv)
        self.objectness_logits = nn.Conv2d(channels, num_anchors, kernel_size=1)
        self.anchor_deltas = nn.Conv2d(channels, num_anchors * box_dim, kernel_size=1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.01)
                nn.init.zeros_(module.bias)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: list[ShapeSpec]) -> dict[str, Any]:
        anchor_generator = build_anchor_generator(cfg, input_shape)
        return {
            "in_channels": _only([shape.channels for shape in input_shape], "channels"),
            "num_anchors": _only(anchor_generator.num_anchors, "number of anchors"),
            "box_dim": anchor_generator.box_dim,
            "conv_dims": cfg.MODEL.RPN.CONV_DIMS,
        }

    def forward(
        self, features: list[torch.Tensor]
    ) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Predict.

        Args:
            features: of each level, ``(N, C, H_i, W_i)``.

        Returns:
            For each level, objectness logits ``(N, A, H_i, W_i)``, and deltas from the anchors
            ``(N, A * box_dim, H_i, W_i)``, those of an anchor one after the other.
        """
        logits: list[torch.Tensor] = []
        deltas: list[torch.Tensor] = []
        for feature in features:
            hidden = self.conv(feature)
            logits.append(self.objectness_logits(hidden))
            deltas.append(self.anchor_deltas(hidden))
        return logits, deltas


class _SampledLabels(list):
    """Labels of each image, of which no more than a known number in all are 1."""

    def __init__(self, labels: torch.Tensor, max_positives: int) -> None:
        super().__init__(labels)
        self.max_positives = max_positives


@PROPOSAL_GENERATOR_REGISTRY.register()
@works_around(
    *("_subsample_labels", "label_and_sample_anchors"),
    *("forward", "predict_proposals", "_decode_proposals"),
)
class RPN(nn.Module):
    """Region proposal network: scores anchors, moves them, and proposes the best.

    It waits for the device when the proposals of a batch are counted, and nowhere else.
    """

    _pairwise_iou: Callable[[Any, Any], torch.Tensor] = staticmethod(pairwise_iou)

    @configurable
    def __init__(
        self,
        *,
        in_features: list[str],
        head: nn.Module,
        anchor_generator: nn.Module,
        anchor_matcher: Matcher,
        box2box_transform: Box2BoxTransform,
        batch_size_per_image: int,
        positive_fraction: float,
        pre_nms_topk: tuple[float, float],
        post_nms_topk: tuple[float, float],
        nms_thresh: float = 0.7,
        min_box_size: float = 0.0,
        anchor_boundary_thresh: float = -1.0,
        loss_weight: float | dict[str, float] = 1.0,
        box_reg_loss_type: str = "smooth_l1",
        smooth_l1_beta: float = 0.0,
    ) -> None:
        """Args:
        in_features: names of the feature maps that are looked at.
        head: a module like `StandardRPNHead`.
        anchor_generator: a module that gives the anchors of feature maps.
        anchor_matcher: labels anchors by their IoU with the ground truth.
        box2box_transform: between anchors and boxes.
        batch_size_per_image: anchors of an image that the loss is taken over.
        positive_fraction: greatest share of positives among them.
        pre_nms_topk: (in training, otherwise) proposals of each level that go into NMS.
        post_nms_topk: (in training, otherwise) proposals of an image.
        nms_thresh: IoU above which the worse one of two proposals of a level goes.
        min_box_size: what both sides of a proposal must exceed, in pixels.
        anchor_boundary_thresh: where not negative, anchors that leave the image by more pixels
            are not trained.
        loss_weight: of both losses, or by name: ``loss_rpn_cls``, ``loss_rpn_loc``.
        box_reg_loss_type: "smooth_l1", "giou", "diou" or "ciou".
        smooth_l1_beta: where the smooth L1 loss turns linear; 0 is the L1 loss.
        """
        super().__init__()
        self.rpn_head = head
        self.anchor_generator = anchor_generator
        self.in_features = list(in_features)
        # What anchors are trained as.
        self.anchor_matcher = anchor_matcher
        self.anchor_boundary_thresh = anchor_boundary_thresh
        self.batch_size_per_image = batch_size_per_image
        self.positive_fraction = positive_fraction
        self.box2box_transform = box2box_transform
        # What becomes of predictions; the numbers by self.training.
        self.pre_nms_topk = dict(zip((True, False), pre_nms_topk, strict=True))
        self.post_nms_topk = dict(zip((True, False), post_nms_topk, strict=True))
        self.min_box_size = float(min_box_size)
        self.nms_thresh = nms_thresh
        if not isinstance(loss_weight, Mapping):
            loss_weight = dict.fromkeys(("loss_rpn_cls", "loss_rpn_loc"), loss_weight)
        self.loss_weight = loss_weight
        self.box_reg_loss_type = box_reg_loss_type
        self.smooth_l1_beta = smooth_l1_beta

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        rpn = cfg.MODEL.RPN
        shapes = [input_shape[name] for name in rpn.IN_FEATURES]
        return {
            "in_features": rpn.IN_FEATURES,
            "head": build_rpn_head(cfg, shapes),
            "anchor_generator": build_anchor_generator(cfg, shapes),
            "anchor_matcher": Matcher(
                rpn.IOU_THRESHOLDS, rpn.IOU_LABELS, allow_low_quality_matches=True
            ),
            "box2box_transform": Box2BoxTransform(weights=rpn.BBOX_REG_WEIGHTS),
            "batch_size_per_image": rpn.BATCH_SIZE_PER_IMAGE,
            "positive_fraction": rpn.POSITIVE_FRACTION,
            "pre_nms_topk": (rpn.PRE_NMS_TOPK_TRAIN, rpn.PRE_NMS_TOPK_TEST),
            "post_nms_topk": (rpn.POST_NMS_TOPK_TRAIN, rpn.POST_NMS_TOPK_TEST),
            "nms_thresh": rpn.NMS_THRESH,
            "min_box_size": cfg.MODEL.PROPOSAL_GENERATOR.MIN_SIZE,
            "anchor_boundary_thresh": rpn.BOUNDARY_THRESH,
            "loss_weight": {
                "loss_rpn_cls": rpn.LOSS_WEIGHT,
                "loss_rpn_loc": rpn.BBOX_REG_LOSS_WEIGHT * rpn.LOSS_WEIGHT,
            },
            "box_reg_loss_type": rpn.BBOX_REG_LOSS_TYPE,
            "smooth_l1_beta": rpn.SMOOTH_L1_BETA,
        }

    @torch.jit.unused
    def _subsample_labels(self, label: torch.Tensor) -> torch.Tensor:
        """Draw the anchors of the loss, and set the labels of all others to -1, in place.

        Args:
            label: ``(R,)`` of one image, or ``(N, R)``, of -1, 0 and 1.
        """
        positives, negatives = subsample_masks(
            label, self.batch_size_per_image, self.positive_fraction, 0
        )
        return label.masked_fill_(~(positives | negatives), -1)

    @torch.jit.unused
    @torch.no_grad()
    def label_and_sample_anchors(
        self, anchors: list[Boxes], gt_instances: list[Instances]
    ) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Match the anchors with the ground truth, and draw those that the loss is taken over.

        Args:
            anchors: of each level, R in all.
            gt_instances: of each of N images, with ``gt_boxes``.

        Returns:
            For each image the labels ``(R,)``, 1 for positives, 0 for negatives and -1 for what
            is ignored, and the boxes ``(R, box_dim)`` that the anchors are matched with, zeros
            where there are none; the latter count at positives only.
        """
        all_anchors = type(anchors[0]).cat(anchors)
        gt_boxes = [instances.gt_boxes for instances in gt_instances]
        labels, matches, padded_boxes = match_batch(
            self._pairwise_iou, self.anchor_matcher, gt_boxes, all_anchors
        )
        if self.anchor_boundary_thresh >= 0:
            for label, instances in zip(labels, gt_instances, strict=True):
                inside = all_anchors.inside_box(instances.image_size, self.anchor_boundary_thresh)
                label.masked_fill_(~inside, -1)
        matched = padded_boxes.gather(1, matches[..., None].expand(-1, -1, padded_boxes.size(2)))
        if has_own(self, RPN, "_subsample_labels"):
            # Another one knows of single images only.
            return [self._subsample_labels(label) for label in labels], list(matched)
        labels = self._subsample_labels(labels)
        most = int(self.batch_size_per_image * self.positive_fraction)
        return _SampledLabels(labels, max_positives=most * len(labels)), list(matched)

    @torch.jit.unused
    def losses(
        self,
        anchors: list[Boxes],
        pred_objectness_logits: list[torch.Tensor],
        gt_labels: list[torch.Tensor],
        pred_anchor_deltas: list[torch.Tensor],
        gt_boxes: list[torch.Tensor],
    ) -> dict[str, torch.Tensor]:
        """The losses, over the anchors that were drawn, divided by how many might have been.

        Args:
            anchors: of each level, R in all.
            pred_objectness_logits: of each level, ``(N, H_i * W_i * A)``.
            gt_labels: of each of N images, ``(R,)``.
            pred_anchor_deltas: of each level, ``(N, H_i * W_i * A, box_dim)``.
            gt_boxes: of each image, ``(R, box_dim)``.

        Returns:
            ``loss_rpn_cls``, binary cross-entropy, and ``loss_rpn_loc``, of the positives' boxes.
        """
        labels = torch.stack(list(gt_labels))
        num_images = len(gt_labels)
        is_positive = labels == 1
        counts = torch.stack([is_positive.sum(), (labels == 0).sum()]) / num_images
        max_positives = None
        # One of a subclass may have added others.
        if not has_own(self, RPN, "label_and_sample_anchors"):
            max_positives = getattr(gt_labels, "max_positives", None)
        storage = get_event_storage()
        storage.put_scalar("rpn/num_pos_anchors", counts[0])
        storage.put_scalar("rpn/num_neg_anchors", counts[1])

        localization_loss = _dense_box_regression_loss(
            anchors,
            self.box2box_transform,
            pred_anchor_deltas,
            gt_boxes,
            is_positive,
            box_reg_loss_type=self.box_reg_loss_type,
            smooth_l1_beta=self.smooth_l1_beta,
            max_foreground=max_positives,
        )
        all_logits = at_least_float32(cat(pred_objectness_logits, dim=1))
        objectness_loss = F.binary_cross_entropy_with_logits(
            all_logits,
            is_positive.to(all_logits.dtype),
            weight=(labels >= 0).to(all_logits.dtype),
            reduction="sum",
        )
        normalizer = self.batch_size_per_image * num_images
        losses = {
            "loss_rpn_cls": objectness_loss / normalizer,
            "loss_rpn_loc": localization_loss / normalizer,
        }
        return {name: loss * self.loss_weight.get(name, 1.0) for name, loss in losses.items()}

    def forward(
        self,
        images: ImageList,
        features: dict[str, torch.Tensor],
        gt_instances: list[Instances] | None = None,
    ) -> tuple[list[Instances], dict[str, torch.Tensor]]:
        """Propose.

        Args:
            images: N images; only their sizes count.
            features: by name, ``(N, C, H, W)``.
            gt_instances: of each image, with ``gt_boxes``; in training.

        Returns:
            For each image ``proposal_boxes`` and ``objectness_logits``, the best first, without
            gradients; and, in training, the losses by name.
        """
        anchors, logits, deltas = self._predict(features)
        losses: dict[str, torch.Tensor] = {}
        if not torch.jit.is_scripting() and self.training:
            assert gt_instances is not None, "RPN needs gt_instances in training, got None"
            gt_labels, gt_boxes = self.label_and_sample_anchors(anchors, gt_instances)
            losses = self.losses(anchors, logits, gt_labels, deltas, gt_boxes)
        proposals = self.predict_proposals(anchors, logits, deltas, images.image_sizes)
        return proposals, losses

    def _predict(
        self, features: dict[str, torch.Tensor]
    ) -> tuple[list[Boxes], list[torch.Tensor], list[torch.Tensor]]:
        """Anchors of each level, and, in their order, logits ``(N, R_i)`` and deltas
        ``(N, R_i, box_dim)``."""
        maps = [features[name] for name in self.in_features]
        anchors = self.anchor_generator(maps)
        logits, deltas = self.rpn_head(maps)
        logits = [x.permute(0, 2, 3, 1).flatten(1) for x in logits]
        box_dim = self.anchor_generator.box_dim
        deltas = [
            x.unflatten(1, [x.shape[1] // box_dim, box_dim]).permute(0, 3, 4, 1, 2).flatten(1, 3)
            for x in deltas
        ]
        return anchors, logits, deltas

    def predict_proposals(
        self,
        anchors: list[Boxes],
        pred_objectness_logits: list[torch.Tensor],
        pred_anchor_deltas: list[torch.Tensor],
        image_sizes: list[tuple[int, int]],
    ) -> list[Instances]:
        """Choose the proposals of each image; see ``find_top_rpn_proposals``.

        Args:
            anchors: of each level.
            pred_objectness_logits: of each level, ``(N, H_i * W_i * A)``.
            pred_anchor_deltas: of each level, ``(N, H_i * W_i * A, box_dim)``.
            image_sizes: (height, width) of each image.
        """
        with torch.no_grad():
            if not torch.jit.is_scripting() and self._selects_before_decoding():
                return self._select_proposals(
                    anchors, pred_objectness_logits, pred_anchor_deltas, image_sizes
                )
            return find_top_rpn_proposals(
                self._decode_proposals(anchors, pred_anchor_deltas),
                pred_objectness_logits,
                image_sizes,
                self.nms_thresh,
                self.pre_nms_topk[self.training],
                self.post_nms_topk[self.training],
                self.min_box_size,
                self.training,
            )

    @torch.jit.unused
    def _selects_before_decoding(self) -> bool:
        """Neither in a trace, nor where a subclass decodes in its own way."""
        return not (torch.jit.is_tracing() or has_own(self, RPN, "_decode_proposals"))

    def _decode_proposals(
        self, anchors: list[Boxes], pred_anchor_deltas: list[torch.Tensor]
    ) -> list[torch.Tensor]:
        """All anchors, moved: boxes ``(N, R_i, box_dim)`` of each level.

        It is for scripts, for traces and for subclasses, which may override it. Otherwise, only
        those are moved that are among the best.
        """
        proposals: list[torch.Tensor] = []
        for boxes, of_level in zip(anchors, pred_anchor_deltas):  # noqa: B905
            its_anchors = boxes.tensor.expand_as(of_level).flatten(0, 1)
            moved = self.box2box_transform.apply_deltas(of_level.flatten(0, 1), its_anchors)
            proposals.append(moved.reshape(of_level.shape))
        return proposals

    @torch.jit.unused
    def _select_proposals(
        self,
        anchors: list[Boxes],
        logits: list[torch.Tensor],
        deltas: list[torch.Tensor],
        image_sizes: list[tuple[int, int]],
    ) -> list[Instances]:
        """What :meth:`predict_proposals` gives; only the best anchors are moved."""
        candidates, boxes = self._move_best(anchors, logits, deltas)
        return select_proposals(
            boxes,
            candidates,
            image_sizes,
            self.nms_thresh,
            self.post_nms_topk[self.training],
            self.min_box_size,
            self.training,
        )

    @torch.jit.unused
    def _move_best(
        self, anchors: list[Boxes], logits: list[torch.Tensor], deltas: list[torch.Tensor]
    ) -> tuple[Candidates, torch.Tensor]:
        """The best anchors of each level, and the boxes that they become."""
        candidates = top_candidates(logits, self.pre_nms_topk[self.training])
        best_anchors = cat([boxes.tensor for boxes in anchors])[candidates.indices]
        deltas = gather_boxes(deltas, candidates)
        return candidates, apply_deltas_by_row(self.box2box_transform, deltas, best_anchors)

    @torch.jit.unused
    def proposes_on_device(self) -> bool:
        """Whether :meth:`propose_on_device` does what :meth:`forward` would."""
        methods = ("forward", "predict_proposals", "_decode_proposals")
        return type(self) is RPN and not has_own(self, RPN, *methods)

    @torch.jit.unused
    def propose_on_device(
        self, features: dict[str, torch.Tensor], limits: torch.Tensor
    ) -> tuple[TopProposals, list[torch.Tensor]]:
        """What :meth:`forward` does in evaluation mode, without waiting for the device; only where
        :meth:`proposes_on_device`.

        Args:
            features: as there.
            limits: ``(N, 1, 4)``, width and height of each image, twice.

        Returns:
            The proposals, and the anchors, of each level ``(R_i, 4)``.
        """
        anchors, logits, deltas = self._predict(features)
        candidates, boxes = self._move_best(anchors, logits, deltas)
        proposals = top_proposals(
            boxes,
            clip(boxes, limits.to(boxes.dtype)),
            candidates,
            self.nms_thresh,
            self.post_nms_topk[False],
            self.min_box_size,
            False,
        )
        return proposals, [x.tensor for x in anchors]
