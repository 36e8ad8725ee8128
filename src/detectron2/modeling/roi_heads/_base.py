"""What all RoI heads have in common: proposals get labels, and a sample of them is trained on."""

from typing import Any

import torch
from torch import nn

from detectron2.config.config import CfgNode, configurable
from detectron2.modeling._own_methods import has_own, works_around
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.proposal_generator.proposal_utils import add_ground_truth_to_proposals
from detectron2.modeling.roi_heads._matching import match_proposals
from detectron2.modeling.roi_heads._sampling import (
    SampledProposals,
    classes_of_matches,
    sample_proposals,
)
from detectron2.modeling.roi_heads._selection import is_on_cpu
from detectron2.modeling.sampling import subsample_labels
from detectron2.structures._selected_masks import SelectedBitMasks
from detectron2.structures.boxes import Boxes, pairwise_iou
from detectron2.structures.image_list import ImageList
from detectron2.structures.instances import Instances
from detectron2.structures.masks import BitMasks
from detectron2.utils._host_values import remember_on_host
from detectron2.utils.events import get_event_storage
from detectron2.utils.registry import Registry

ROI_HEADS_REGISTRY = Registry("ROI_HEADS")
"""RoI heads by name: what turns features and proposals into detections, or into losses.

Each is called with ``(cfg, input_shape)``, the latter a dict of :class:`ShapeSpec` by feature.
"""


def build_roi_heads(cfg: CfgNode, input_shape: dict[str, Any]) -> nn.Module:
    """Make the RoI heads that ``cfg.MODEL.ROI_HEADS.NAME`` names."""
    return ROI_HEADS_REGISTRY.get(cfg.MODEL.ROI_HEADS.NAME)(cfg, input_shape)


@works_around("_sample_proposals")
class ROIHeads(nn.Module):
    """Per-region computation of two-stage detectors.

    Typically it matches proposals with the ground truth and samples them (in training), pools
    features for each, and predicts from these. Subclasses do the last two.
    """

    @configurable
    def __init__(
        self,
        *,
        num_classes: int,
        batch_size_per_image: int,
        positive_fraction: float,
        proposal_matcher: Matcher,
        proposal_append_gt: bool = True,
    ) -> None:
        """
        Args:
            num_classes: K, without the background.
            batch_size_per_image: proposals of an image that are trained on.
            positive_fraction: the largest share of foreground among them.
            proposal_matcher: matches proposals with ground truth.
            proposal_append_gt: whether the ground truth counts as proposals, too.
        """
        super().__init__()
        self.num_classes = num_classes
        self.proposal_matcher, self.proposal_append_gt = proposal_matcher, proposal_append_gt
        self.batch_size_per_image = batch_size_per_image
        self.positive_fraction = positive_fraction

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        heads = cfg.MODEL.ROI_HEADS
        return {
            "num_classes": heads.NUM_CLASSES,
            "proposal_matcher": Matcher(heads.IOU_THRESHOLDS, heads.IOU_LABELS),
            "proposal_append_gt": heads.PROPOSAL_APPEND_GT,
            "batch_size_per_image": heads.BATCH_SIZE_PER_IMAGE,
            "positive_fraction": heads.POSITIVE_FRACTION,
        }

    def _sample_proposals(
        self, matched_idxs: torch.Tensor, matched_labels: torch.Tensor, gt_classes: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Choose proposals of one image at random.

        It is here for subclasses to call and to override. Where it is not overridden, all images
        are sampled at once, to the same effect.

        Args:
            matched_idxs: ``(R,)``, the object that each proposal is matched with.
            matched_labels: ``(R,)``, 1, 0 (background) or -1 (ignored).
            gt_classes: ``(G,)``, of the objects.

        Returns:
            int64 indices of the chosen proposals, ``(K,)``, foreground first, and their classes.
        """
        classes = classes_of_matches(matched_idxs, matched_labels, gt_classes, self.num_classes)
        foreground, background = subsample_labels(
            classes, self.batch_size_per_image, self.positive_fraction, self.num_classes
        )
        sampled = torch.cat([foreground, background])
        return sampled, classes[sampled]

    @staticmethod
    def _pairwise_iou(boxes1: Boxes, boxes2: Boxes) -> torch.Tensor:
        return pairwise_iou(boxes1, boxes2)

    def _attach_targets(
        self, sampled: Instances, targets: Instances, sample: SampledProposals
    ) -> None:
        """Give proposals the fields of the objects that they are matched with."""
        for name, value in targets.get_fields().items():
            if not name.startswith("gt_") or sampled.has(name):
                continue
            if type(value) is BitMasks and value.device == sample.matches.device:
                # A copy for each proposal would take a gigabyte for two images.
                sampled.set(name, SelectedBitMasks(value.tensor, sample.matches))
                continue
            rows = sample.matches_on_host if is_on_cpu(value) else sample.matches
            # Through Instances, which index lists, too.
            field = Instances(targets.image_size, **{name: value})
            sampled.set(name, field[rows].get(name))

    @torch.no_grad()
    def label_and_sample_proposals(
        self, proposals: list[Instances], targets: list[Instances]
    ) -> list[Instances]:
        """Match proposals with the ground truth, and choose those that are trained on.

        Puts the events ``roi_head/num_fg_samples`` and ``roi_head/num_bg_samples``, averages over
        the images.

        Args:
            proposals: for each image, with the field ``proposal_boxes``.
            targets: for each image, with ``gt_boxes``, ``gt_classes`` and whatever other fields
                whose names begin with ``gt_``.

        Returns:
            For each image the chosen proposals, foreground first, with their own fields,
            ``gt_classes`` (K for background) and, if the image has ground truth, the other
            ``gt_*`` fields of the object that each is matched with. Those mean nothing for
            background.
        """
        if self.proposal_append_gt:
            proposals = add_ground_truth_to_proposals(targets, proposals)
        samples = self._sample(proposals, targets)
        chosen_proposals = []
        for sample, proposals_of_image, targets_of_image in zip(
            samples, proposals, targets, strict=True
        ):
            chosen = proposals_of_image[sample.rows]
            chosen.gt_classes = sample.classes
            if len(targets_of_image) > 0:
                self._attach_targets(chosen, targets_of_image, sample)
            remember_on_host(chosen.gt_classes, sample.classes_on_host)
            remember_on_host(chosen.proposal_boxes.tensor, sample.boxes_on_host)
            chosen_proposals.append(chosen)

        count = max(len(samples), 1)
        num_foreground = sum(s.num_foreground for s in samples)
        num_chosen = sum(len(s.classes_on_host) for s in samples)
        storage = get_event_storage()
        storage.put_scalar("roi_head/num_fg_samples", num_foreground / count)
        storage.put_scalar("roi_head/num_bg_samples", (num_chosen - num_foreground) / count)
        return chosen_proposals

    def _sample(
        self, proposals: list[Instances], targets: list[Instances]
    ) -> list[SampledProposals]:
        if not proposals:
            return []
        matches, labels = match_proposals(
            self._pairwise_iou,
            self.proposal_matcher,
            [t.gt_boxes for t in targets],
            [p.proposal_boxes for p in proposals],
        )
        boxes = [p.proposal_boxes.tensor for p in proposals]
        if has_own(self, ROIHeads, "_sample_proposals"):
            return [
                self._sample_by_override(*of_image)
                for of_image in zip(boxes, matches, labels, targets, strict=True)
            ]
        return sample_proposals(
            boxes,
            matches,
            labels,
            [t.gt_classes for t in targets],
            self.batch_size_per_image,
            self.positive_fraction,
            self.num_classes,
        )

    def _sample_by_override(
        self,
        boxes: torch.Tensor,
        matches: torch.Tensor,
        labels: torch.Tensor,
        targets: Instances,
    ) -> SampledProposals:
        rows, classes = self._sample_proposals(matches, labels, targets.gt_classes)
        classes_on_host = classes.cpu()
        return SampledProposals(
            rows=rows,
            classes=classes,
            matches=matches[rows],
            classes_on_host=classes_on_host,
            matches_on_host=matches[rows].cpu(),
            boxes_on_host=boxes[rows].cpu(),
            num_foreground=int(
                ((classes_on_host != self.num_classes) & (classes_on_host != -1)).sum()
            ),
        )

    def forward(
        self,
        images: ImageList,
        features: dict[str, torch.Tensor],
        proposals: list[Instances],
        targets: list[Instances] | None = None,
    ) -> tuple[list[Instances], dict[str, torch.Tensor]]:
        """Predict, or compute losses.

        Args:
            images: the batch.
            features: feature maps ``(N, C, H_i, W_i)`` by name.
            proposals: for each image, with the field ``proposal_boxes``.
            targets: for each image the ground truth: ``gt_boxes``, ``gt_classes``, and what else
                the heads learn. In training only.

        Returns:
            In evaluation detections for each image, with ``pred_boxes``, ``scores``,
            ``pred_classes`` and what else the heads predict, and no losses; in training the
            proposals that were sampled (or nothing) and losses by name.
        """
        raise NotImplementedError(f"{type(self).__name__} has no forward")
