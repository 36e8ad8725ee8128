"""Two-stage detectors: a backbone, proposals, and what is computed for each of them."""

import logging
from typing import Any

import numpy as np
import torch
from torch import nn

from detectron2.config.config import CfgNode, configurable

# Code written for upstream imports some of these names from here.
from detectron2.layers.wrappers import move_device_like
from detectron2.modeling.backbone.backbone import Backbone
from detectron2.modeling.backbone.build import build_backbone
from detectron2.modeling.meta_arch._images import ImageModel, image_inputs, output_size
from detectron2.modeling.meta_arch.build import META_ARCH_REGISTRY
from detectron2.modeling.postprocessing import detector_postprocess, detector_postprocess_batch
from detectron2.modeling.proposal_generator.build import build_proposal_generator
from detectron2.modeling.proposal_generator.rpn import RPN
from detectron2.modeling.roi_heads.roi_heads import build_roi_heads
from detectron2.structures.image_list import ImageList
from detectron2.structures.instances import Instances
from detectron2.utils._lazy import lazy_attributes
from detectron2.utils.events import get_event_storage
from detectron2.utils.logger import log_first_n

__all__ = [
    "GeneralizedRCNN",
    "ImageList",
    "ProposalNetwork",
    "build_backbone",
    "detector_postprocess",
    "move_device_like",
]

# Of the data package, which inference does without.
__getattr__ = lazy_attributes(__name__, {"convert_image_to_rgb": "detectron2.data.detection_utils"})

# Proposals that are drawn of an image.
_SHOWN_PROPOSALS = 20


@META_ARCH_REGISTRY.register()
class GeneralizedRCNN(ImageModel):
    """A backbone, a proposal generator, and RoI heads.

    Faster R-CNN, Mask R-CNN and their like.
    """

    @configurable
    def __init__(
        self,
        *,
        backbone: Backbone,
        proposal_generator: nn.Module | None,
        roi_heads: nn.Module,
        pixel_mean: tuple[float, ...],
        pixel_std: tuple[float, ...],
        input_format: str | None = None,
        vis_period: int = 0,
    ) -> None:
        """
        Args:
            backbone: makes feature maps of a batch of images.
            proposal_generator: makes proposals of the feature maps; None: they come with the
                input.
            roi_heads: make detections of the proposals.
            pixel_mean: of each channel, what is subtracted.
            pixel_std: of each channel, what is divided by.
            input_format: order of the channels, such as "BGR"; needed for ``vis_period`` only.
            vis_period: every so many iterations of the training, an image is put into the event
                storage; 0: never.

        Raises:
            ValueError: ``vis_period`` without ``input_format``, or as many means as deviations
                were not given.
        """
        super().__init__(backbone, pixel_mean, pixel_std)
        if vis_period > 0 and input_format is None:
            raise ValueError(f"vis_period={vis_period} needs input_format, got None")
        self.vis_period = vis_period
        self.input_format = input_format
        self.proposal_generator = proposal_generator
        self.roi_heads = roi_heads

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        arguments = cls._image_arguments(cfg)
        shapes = arguments["backbone"].output_shape()
        arguments["proposal_generator"] = build_proposal_generator(cfg, shapes)
        arguments["roi_heads"] = build_roi_heads(cfg, shapes)
        return {**arguments, "input_format": cfg.INPUT.FORMAT, "vis_period": cfg.VIS_PERIOD}

    def visualize_training(
        self, batched_inputs: list[dict[str, Any]], proposals: list[Instances]
    ) -> None:
        """Put an image of the ground truth and of the best proposals of the first input.

        Args:
            batched_inputs: as for :meth:`forward`.
            proposals: for each image, by descending score.
        """
        from detectron2.data.detection_utils import convert_image_to_rgb
        from detectron2.utils.visualizer import Visualizer

        sample, of_image = batched_inputs[0], proposals[0]
        image = convert_image_to_rgb(sample["image"].permute(1, 2, 0), self.input_format)
        gt = Visualizer(image, None).overlay_instances(boxes=sample["instances"].gt_boxes)
        boxes = of_image.proposal_boxes[:_SHOWN_PROPOSALS].tensor.detach().cpu().numpy()
        predicted = Visualizer(image, None).overlay_instances(boxes=boxes)
        both = np.concatenate([gt.get_image(), predicted.get_image()], axis=1)
        name = "Left: GT bounding boxes;  Right: Predicted proposals"
        get_event_storage().put_image(name, both.transpose(2, 0, 1))

    # Without a return type: TorchScript takes the one of the branch that it compiles.
    def forward(self, batched_inputs: list[dict[str, torch.Tensor]]):
        """Detect, or compute losses.

        Args:
            batched_inputs: a dict for each image, with ``image``, ``(C, H, W)`` with values in
                [0, 255]; optionally ``height`` and ``width``, the size of the output; in training
                ``instances``, the ground truth; ``proposals`` if the model makes none.

        Returns:
            In training losses by name; otherwise for each image ``{"instances": Instances}``, with
            ``pred_boxes``, ``pred_classes``, ``scores`` and what else the RoI heads predict.
        """
        if not self.training:
            return self.inference(batched_inputs)
        return self._losses(batched_inputs)

    @torch.jit.unused
    def _losses(self, batched_inputs: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        images = self.preprocess_image(batched_inputs)
        gt_instances = self._of_inputs(batched_inputs, "instances")
        features = self.backbone(images.tensor)
        if self.proposal_generator is None:
            proposals, proposal_losses = self._given_proposals(batched_inputs), {}
        else:
            proposals, proposal_losses = self.proposal_generator(images, features, gt_instances)
        losses = dict(self.roi_heads(images, features, proposals, gt_instances)[1])
        losses.update(proposal_losses)
        if self.vis_period > 0 and get_event_storage().iter % self.vis_period == 0:
            self.visualize_training(batched_inputs, proposals)
        return losses

    @torch.jit.unused
    def _given_proposals(self, batched_inputs: list[dict[str, torch.Tensor]]) -> list[Instances]:
        proposals = self._of_inputs(batched_inputs, "proposals")
        if proposals is None:
            raise ValueError(
                "a model without a proposal generator needs 'proposals' in its input, got "
                f"{sorted(batched_inputs[0])}"
            )
        return proposals

    def inference(
        self,
        batched_inputs: list[dict[str, torch.Tensor]],
        detected_instances: list[Instances] | None = None,
        do_postprocess: bool = True,
    ):
        """Detect.

        Args:
            batched_inputs: as for :meth:`forward`.
            detected_instances: for each image ``pred_boxes``, in the pixels of the input, and
                ``pred_classes``. If they are given, only what else there is to predict is.
            do_postprocess: scale the results to the size of the output.

        Returns:
            As :meth:`forward`; for each image :class:`Instances`, in the pixels of the input,
            without ``do_postprocess``.
        """
        assert not self.training, "inference is for evaluation mode only"
        images = self.preprocess_image(batched_inputs)
        if detected_instances is not None:
            features = self.backbone(images.tensor)
            given = [x.to(self.device) for x in detected_instances]
            results = self.roi_heads.forward_with_given_boxes(features, given)
        else:
            features, proposals = self._features_and_proposals(images, batched_inputs)
            results = self.roi_heads(images, features, proposals, None)[0]
        if do_postprocess:
            assert not torch.jit.is_scripting(), "scripted models have no post-processing"
            return self._postprocess(results, batched_inputs, images.image_sizes)
        return results

    # Without a return type: TorchScript knows neither of two.
    def _features_and_proposals(
        self, images: ImageList, batched_inputs: list[dict[str, torch.Tensor]]
    ):
        """Feature maps by name and proposals of each image, in evaluation mode."""
        if not torch.jit.is_scripting():
            replayed = self._replayed(images)
            if replayed is not None:
                return replayed
        features = self.backbone(images.tensor)
        if self.proposal_generator is None:
            return features, self._given_proposals(batched_inputs)
        return features, self.proposal_generator(images, features, None)[0]

    @torch.jit.unused
    def _replayed(
        self, images: ImageList
    ) -> tuple[dict[str, torch.Tensor], list[Instances]] | None:
        """The same by a CUDA graph, to be used up before the next; None if there is none."""
        generator = self.proposal_generator
        if not (isinstance(generator, RPN) and generator.proposes_on_device()):
            return None
        if not self._may_replay(images.tensor):
            return None
        computed = self.graph_replay(
            self._compute_features_and_proposals,
            image_inputs(images),
            [self.backbone, generator],
            self._feature_consumers(),
        )
        if computed is None:
            return None
        features, proposals = computed
        return features, proposals.to_instances(images.image_sizes)

    @torch.jit.unused
    def _feature_consumers(self) -> list[nn.Module]:
        """The modules that features and proposals are given to."""
        return [self.roi_heads]

    @torch.jit.unused
    def _compute_features_and_proposals(
        self, batch: torch.Tensor, limits: torch.Tensor
    ) -> tuple[Any, list[torch.Tensor]]:
        features = self.backbone(batch)
        proposals, anchors = self.proposal_generator.propose_on_device(features, limits)
        return (features, proposals), anchors

    @staticmethod
    def _postprocess(
        instances: list[Instances],
        batched_inputs: list[dict[str, torch.Tensor]],
        image_sizes: list[tuple[int, int]],
    ) -> list[dict[str, Instances]]:
        """Results in the size that each input asks for."""
        sizes = [output_size(x, size) for x, size in zip(batched_inputs, image_sizes, strict=True)]
        return [{"instances": r} for r in detector_postprocess_batch(instances, sizes)]


@META_ARCH_REGISTRY.register()
class ProposalNetwork(ImageModel):
    """A backbone and a proposal generator, whose proposals are the result."""

    @configurable
    def __init__(
        self,
        *,
        backbone: Backbone,
        proposal_generator: nn.Module,
        pixel_mean: tuple[float, ...],
        pixel_std: tuple[float, ...],
    ) -> None:
        """
        Args:
            backbone: makes feature maps of a batch of images.
            proposal_generator: makes proposals of the feature maps.
            pixel_mean: of each channel, what is subtracted.
            pixel_std: of each channel, what is divided by.
        """
        super().__init__(backbone, pixel_mean, pixel_std)
        self.proposal_generator = proposal_generator

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        arguments = cls._image_arguments(cfg)
        shapes = arguments["backbone"].output_shape()
        return {**arguments, "proposal_generator": build_proposal_generator(cfg, shapes)}

    def forward(
        self, batched_inputs: list[dict[str, Any]]
    ) -> dict[str, torch.Tensor] | list[dict[str, Instances]]:
        """Propose, or compute losses.

        Args:
            batched_inputs: as for :meth:`GeneralizedRCNN.forward`.

        Returns:
            In training losses by name; otherwise for each image ``{"proposals": Instances}``, with
            ``proposal_boxes`` and ``objectness_logits``.
        """
        images = self.preprocess_image(batched_inputs)
        gt_instances = self._of_inputs(batched_inputs, "instances")
        if gt_instances is None and "targets" in batched_inputs[0]:
            log_first_n(
                logging.WARNING, "the ground truth's key 'targets' is now named 'instances'", n=10
            )
            gt_instances = self._of_inputs(batched_inputs, "targets")
        features = self.backbone(images.tensor)
        proposals, losses = self.proposal_generator(images, features, gt_instances)
        if self.training:
            return losses
        sizes = self._output_sizes(batched_inputs, images)
        return [{"proposals": p} for p in detector_postprocess_batch(proposals, sizes)]
