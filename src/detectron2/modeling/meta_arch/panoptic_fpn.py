"""Panoptic FPN: instances and semantic labels from one pyramid.

Kirillov et al., "Panoptic Feature Pyramid Networks", CVPR 2019.
"""

import logging
from typing import Any

import torch
from torch import nn

from detectron2.config.config import CfgNode, configurable
from detectron2.modeling.meta_arch._panoptic_merge import combine_semantic_and_instance_outputs
from detectron2.modeling.meta_arch.build import META_ARCH_REGISTRY
from detectron2.modeling.meta_arch.rcnn import GeneralizedRCNN

# Code written for upstream imports some of these names from here.
from detectron2.modeling.meta_arch.semantic_seg import build_sem_seg_head, sem_seg_targets
from detectron2.modeling.postprocessing import (
    detector_postprocess,
    detector_postprocess_batch,
    sem_seg_postprocess,
)
from detectron2.modeling.roi_heads.fast_rcnn import FastRCNNOutputLayers
from detectron2.modeling.roi_heads.mask_head import BaseMaskRCNNHead
from detectron2.structures.image_list import ImageList

__all__ = [
    "ImageList",
    "PanopticFPN",
    "combine_semantic_and_instance_outputs",
    "detector_postprocess",
]


def _scale_instance_losses(roi_heads: nn.Module, weight: float) -> None:
    for module in roi_heads.modules():
        if isinstance(module, FastRCNNOutputLayers):
            names = {"loss_cls", "loss_box_reg", *module.loss_weight}
            module.loss_weight = {
                name: module.loss_weight.get(name, 1.0) * weight for name in names
            }
        elif isinstance(module, BaseMaskRCNNHead):
            module.loss_weight = module.loss_weight * weight


@META_ARCH_REGISTRY.register()
class PanopticFPN(GeneralizedRCNN):
    """A two-stage detector with a semantic head, whose results are merged."""

    @configurable
    def __init__(
        self,
        *,
        sem_seg_head: nn.Module,
        combine_overlap_thresh: float = 0.5,
        combine_stuff_area_thresh: float = 4096,
        combine_instances_score_thresh: float = 0.5,
        **kwargs: Any,
    ) -> None:
        """
        Args:
            sem_seg_head: labels the pixels of the feature maps.
            combine_overlap_thresh: see :func:`combine_semantic_and_instance_outputs`.
            combine_stuff_area_thresh: likewise.
            combine_instances_score_thresh: likewise.
            **kwargs: as for :class:`GeneralizedRCNN`.
        """
        super().__init__(**kwargs)
        self.combine_instances_score_thresh = combine_instances_score_thresh
        self.combine_stuff_area_thresh = combine_stuff_area_thresh
        self.combine_overlap_thresh = combine_overlap_thresh
        self.sem_seg_head = sem_seg_head

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        arguments = super().from_config(cfg)
        panoptic = cfg.MODEL.PANOPTIC_FPN
        logger = logging.getLogger(__name__)
        if not panoptic.COMBINE.ENABLED:
            logger.warning(
                "PANOPTIC_FPN.COMBINE.ENABLED is no longer used: call inference() with "
                "do_postprocess=False for results that are not combined"
            )
        if panoptic.INSTANCE_LOSS_WEIGHT != 1.0:
            logger.warning(
                "PANOPTIC_FPN.INSTANCE_LOSS_WEIGHT is deprecated: set the weights of each RoI head"
            )
            _scale_instance_losses(arguments["roi_heads"], panoptic.INSTANCE_LOSS_WEIGHT)
        return {
            **arguments,
            "sem_seg_head": build_sem_seg_head(cfg, arguments["backbone"].output_shape()),
            "combine_overlap_thresh": panoptic.COMBINE.OVERLAP_THRESH,
            "combine_stuff_area_thresh": panoptic.COMBINE.STUFF_AREA_LIMIT,
            "combine_instances_score_thresh": panoptic.COMBINE.INSTANCES_CONFIDENCE_THRESH,
        }

    def forward(
        self, batched_inputs: list[dict[str, Any]]
    ) -> dict[str, torch.Tensor] | list[dict[str, Any]]:
        """Segment, or compute losses.

        Args:
            batched_inputs: as for :meth:`GeneralizedRCNN.forward`; in training with ``sem_seg``,
                int64 ``(H, W)``, too.

        Returns:
            In training losses by name; otherwise for each image ``instances``, as of
            :class:`GeneralizedRCNN`, ``sem_seg``, as of :class:`SemanticSegmentor`, and
            ``panoptic_seg``, as of :func:`combine_semantic_and_instance_outputs`.
        """
        if not self.training:
            return self.inference(batched_inputs)
        gt_sem_seg = sem_seg_targets(self, batched_inputs)
        gt_instances = self._of_inputs(batched_inputs, "instances")
        if gt_sem_seg is None or gt_instances is None:
            raise ValueError(
                f"PanopticFPN trains on 'sem_seg' and 'instances', got {sorted(batched_inputs[0])}"
            )
        images = self.preprocess_image(batched_inputs)
        features = self.backbone(images.tensor)
        losses = dict(self.sem_seg_head(features, gt_sem_seg)[1])
        proposals, proposal_losses = self.proposal_generator(images, features, gt_instances)
        losses.update(proposal_losses)
        losses.update(self.roi_heads(images, features, proposals, gt_instances)[1])
        return losses

    def inference(
        self, batched_inputs: list[dict[str, torch.Tensor]], do_postprocess: bool = True
    ) -> Any:
        """Segment.

        Args:
            batched_inputs: as for :meth:`forward`.
            do_postprocess: scale the results to the size of the output, and merge them.

        Returns:
            As :meth:`forward`; the detections of each image and the logits of the batch, in the
            pixels of the input, without ``do_postprocess``.
        """
        images = self.preprocess_image(batched_inputs)
        features, proposals = self._features_and_proposals(images, batched_inputs)
        sem_seg_logits = self.sem_seg_head(features, None)[0]
        detections = self.roi_heads(images, features, proposals, None)[0]
        if not do_postprocess:
            return detections, sem_seg_logits

        sizes = self._output_sizes(batched_inputs, images)
        detections = detector_postprocess_batch(detections, sizes)
        results = []
        for logits, instances, image_size, size in zip(
            sem_seg_logits, detections, images.image_sizes, sizes, strict=True
        ):
            sem_seg = sem_seg_postprocess(logits, image_size, *size)
            panoptic = combine_semantic_and_instance_outputs(
                instances,
                sem_seg.argmax(dim=0),
                self.combine_overlap_thresh,
                self.combine_stuff_area_thresh,
                self.combine_instances_score_thresh,
            )
            results.append({"sem_seg": sem_seg, "instances": instances, "panoptic_seg": panoptic})
        return results

    @torch.jit.unused
    def _feature_consumers(self) -> list[nn.Module]:
        return [self.roi_heads, self.sem_seg_head]
