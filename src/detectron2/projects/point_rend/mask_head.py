"""Mask heads of PointRend: coarse masks, refined at points."""

import math
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from detectron2.config import CfgNode, configurable
from detectron2.layers._weight_init import c2_msra_fill, c2_xavier_fill
from detectron2.layers.shape_spec import ShapeSpec
from detectron2.layers.wrappers import Conv2d, cat
from detectron2.modeling.roi_heads.mask_head import (
    ROI_MASK_HEAD_REGISTRY,
    mask_rcnn_inference,
    mask_rcnn_loss,
)
from detectron2.projects.point_rend._renaming import is_before_version, rename_parameters
from detectron2.projects.point_rend.point_features import (
    generate_regular_grid_point_coords,
    get_point_coords_wrt_image,
    get_uncertain_point_coords_on_grid,
    get_uncertain_point_coords_with_randomness,
    point_sample,
    point_sample_fine_grained_features,
    sample_point_labels,
)
from detectron2.projects.point_rend.point_head import (
    build_point_head,
    logits_of_classes,
    roi_mask_point_loss,
)
from detectron2.structures.boxes import Boxes
from detectron2.structures.instances import Instances

__all__ = [
    "ConvFCHead",
    "ImplicitPointRendMaskHead",
    "PointRendMaskHead",
    "calculate_uncertainty",
]


def calculate_uncertainty(logits: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    """How near the logit of each instance's class is to 0, negated.

    Args:
        logits: ``(R, K, ...)``; K is the number of classes, or 1 for masks that do not depend on
            the class.
        classes: int64 ``(R,)``.

    Returns:
        ``(R, 1, ...)``, at most 0, the larger the more uncertain.
    """
    return -logits_of_classes(logits, classes).abs()


class ConvFCHead(nn.Module):
    """A small map, such as a coarse mask, of features that are pooled from a box.

    A 1 x 1 convolution where the input has more than ``conv_dim`` channels, a 2 x 2 convolution of
    stride 2, and fully connected layers.
    """

    _version = 2

    @configurable
    def __init__(
        self,
        input_shape: ShapeSpec,
        *,
        conv_dim: int,
        fc_dims: list[int],
        output_shape: tuple[int, ...],
    ) -> None:
        """
        Args:
            input_shape: channels, height and width of the pooled features.
            conv_dim: channels of the convolutions.
            fc_dims: output sizes of the fully connected layers before the predicting one.
            output_shape: of the output of an instance.
        """
        super().__init__()
        self.output_shape = tuple(output_shape)
        channels = input_shape.channels
        self.conv_layers = []
        if channels > conv_dim:
            self.reduce_channel_dim_conv = Conv2d(channels, conv_dim, 1, activation=F.relu)
            self.conv_layers.append(self.reduce_channel_dim_conv)
            channels = conv_dim
        self.reduce_spatial_dim_conv = Conv2d(channels, conv_dim, 2, stride=2, activation=F.relu)
        self.conv_layers.append(self.reduce_spatial_dim_conv)

        size = conv_dim * (input_shape.height // 2) * (input_shape.width // 2)
        self.fcs = []
        for i, dim in enumerate(fc_dims, start=1):
            fc = nn.Linear(size, dim)
            self.add_module(f"fc{i}", fc)
            self.fcs.append(fc)
            size = dim
        self.prediction = nn.Linear(size, math.prod(self.output_shape))

        for layer in self.conv_layers:
            c2_msra_fill(layer)
        for layer in self.fcs:
            c2_xavier_fill(layer)
        nn.init.normal_(self.prediction.weight, std=0.001)
        nn.init.zeros_(self.prediction.bias)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: ShapeSpec) -> dict[str, Any]:
        head = cfg.MODEL.ROI_MASK_HEAD
        side = head.OUTPUT_SIDE_RESOLUTION
        return {
            "input_shape": input_shape,
            "conv_dim": head.CONV_DIM,
            "fc_dims": [head.FC_DIM] * head.NUM_FC,
            "output_shape": (cfg.MODEL.ROI_HEADS.NUM_CLASSES, side, side),
        }

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``(R, C, H, W)`` to ``(R, *output_shape)``."""
        for layer in self.conv_layers:
            x = layer(x)
        x = x.flatten(1)
        for layer in self.fcs:
            x = F.relu(layer(x))
        return self.prediction(x).view(-1, *self.output_shape)

    def _load_from_state_dict(
        self, state_dict: dict[str, torch.Tensor], prefix: str, local_metadata: dict, *args: Any
    ) -> None:
        if is_before_version(local_metadata, 2):
            rename_parameters(state_dict, f"{prefix}coarse_mask_fc", f"{prefix}fc")
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *args)


@ROI_MASK_HEAD_REGISTRY.register()
class PointRendMaskHead(nn.Module):
    """Predicts a coarse mask of each box, and refines it at its most uncertain points.

    It takes the feature maps themselves: ``MODEL.ROI_MASK_HEAD.POOLER_TYPE`` is "".
    """

    def __init__(self, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> None:
        """
        Args:
            cfg: a configuration with the keys of :func:`add_pointrend_config`.
            input_shape: feature maps by name, with channels and strides.

        Raises:
            ValueError: the heads of boxes and points have other numbers of classes.
        """
        super().__init__()
        self._feature_scales = {name: 1.0 / shape.stride for name, shape in input_shape.items()}
        # In this order, which is the state dict's.
        self._init_point_head(cfg, input_shape)
        self._init_roi_head(cfg, input_shape)

    def _init_roi_head(self, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> None:
        self.coarse_head = ConvFCHead(cfg, self._init_pooling(cfg, input_shape))

    def _init_pooling(self, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> ShapeSpec:
        """The shape of what :meth:`_roi_pooler` returns."""
        self.roi_pooler_in_features = cfg.MODEL.ROI_MASK_HEAD.IN_FEATURES
        self.roi_pooler_size = cfg.MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION
        channels = sum(input_shape[name].channels for name in self.roi_pooler_in_features)
        return ShapeSpec(channels=channels, height=self.roi_pooler_size, width=self.roi_pooler_size)

    def _init_point_head(self, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> None:
        self.mask_point_on = cfg.MODEL.ROI_MASK_HEAD.POINT_HEAD_ON
        if self.mask_point_on:
            self._make_point_head(cfg, input_shape)

    def _make_point_head(self, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> None:
        head = cfg.MODEL.POINT_HEAD
        if head.NUM_CLASSES != cfg.MODEL.ROI_HEADS.NUM_CLASSES:
            raise ValueError(
                "MODEL.POINT_HEAD.NUM_CLASSES must be MODEL.ROI_HEADS.NUM_CLASSES, got "
                f"{head.NUM_CLASSES} and {cfg.MODEL.ROI_HEADS.NUM_CLASSES}"
            )
        self.mask_point_in_features = head.IN_FEATURES
        self.mask_point_train_num_points = head.TRAIN_NUM_POINTS
        self.mask_point_oversample_ratio = head.OVERSAMPLE_RATIO
        self.mask_point_importance_sample_ratio = head.IMPORTANCE_SAMPLE_RATIO
        self.mask_point_subdivision_num_points = head.SUBDIVISION_NUM_POINTS
        # Steps that would predict every point of the grid anyway are left out.
        resolution, steps = cfg.MODEL.ROI_MASK_HEAD.OUTPUT_SIDE_RESOLUTION, head.SUBDIVISION_STEPS
        while 4 * resolution**2 <= head.SUBDIVISION_NUM_POINTS:
            resolution *= 2
            steps -= 1
        self.mask_point_subdivision_init_resolution = resolution
        self.mask_point_subdivision_steps = steps

        channels = sum(input_shape[name].channels for name in self.mask_point_in_features)
        self.point_head = build_point_head(cfg, ShapeSpec(channels=channels, width=1, height=1))

    def forward(self, features: dict[str, torch.Tensor], instances: list[Instances]) -> Any:
        """Predict masks, or compute losses.

        Args:
            features: feature maps ``(N, C_i, H_i, W_i)`` by name.
            instances: for each image its instances. In training proposals with
                ``proposal_boxes``, ``gt_classes`` and ``gt_masks``, which are BitMasks; otherwise
                with ``pred_boxes`` and ``pred_classes``.

        Returns:
            In training the losses ``loss_mask`` of the coarse masks and ``loss_mask_point``;
            otherwise ``instances`` with ``pred_masks``, ``(R_i, 1, M, M)``.
        """
        if not self.training:
            boxes = [x.pred_boxes for x in instances]
            coarse_mask = self.coarse_head(self._pooled(features, boxes))
            if not self.mask_point_on:
                mask_rcnn_inference(coarse_mask, instances)
                return instances
            return self._subdivision_inference(features, coarse_mask, instances)

        boxes = [x.proposal_boxes for x in instances]
        coarse_mask = self.coarse_head(self._pooled(features, boxes))
        losses = {"loss_mask": mask_rcnn_loss(coarse_mask, instances)}
        if self.mask_point_on:
            point_coords, point_labels = self._sample_train_points(coarse_mask, instances)
            sampled = self._point_pooler(features, boxes, point_coords)
            logits = self._get_point_logits(sampled, point_coords, coarse_mask)
            losses["loss_mask_point"] = roi_mask_point_loss(logits, instances, point_labels)
        return losses

    def _pooled(self, features: dict[str, torch.Tensor], boxes: list[Boxes]) -> torch.Tensor:
        return self._roi_pooler([features[name] for name in self.roi_pooler_in_features], boxes)

    def _roi_pooler(self, features: list[torch.Tensor], boxes: list[Boxes]) -> torch.Tensor:
        """Features at the points of a regular grid in each box, ``(R, C, side, side)``."""
        side, count = self.roi_pooler_size, sum(len(x) for x in boxes)
        grid = generate_regular_grid_point_coords(count, side, features[0].device)
        scales = [self._feature_scales[name] for name in self.roi_pooler_in_features]
        sampled, _ = point_sample_fine_grained_features(features, scales, boxes, grid)
        return sampled.unflatten(2, (side, side))

    @torch.no_grad()
    def _sample_train_points(
        self, coarse_mask: torch.Tensor, instances: list[Instances]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Points ``(R, P, 2)`` relative to the boxes, and their labels ``(R, P)``."""
        classes = cat([x.gt_classes for x in instances])
        # Not a map of every class, of which one would be looked at.
        of_classes = logits_of_classes(coarse_mask, classes)
        point_coords = get_uncertain_point_coords_with_randomness(
            of_classes,
            lambda logits: calculate_uncertainty(logits, classes),
            self.mask_point_train_num_points,
            self.mask_point_oversample_ratio,
            self.mask_point_importance_sample_ratio,
        )
        return point_coords, self._labels(instances, point_coords)

    @staticmethod
    def _labels(instances: list[Instances], point_coords: torch.Tensor) -> torch.Tensor:
        boxes = torch.cat([x.proposal_boxes.tensor for x in instances])
        return sample_point_labels(instances, get_point_coords_wrt_image(boxes, point_coords))

    def _point_pooler(
        self,
        features: dict[str, torch.Tensor],
        proposal_boxes: list[Boxes],
        point_coords: torch.Tensor,
    ) -> torch.Tensor:
        """Features ``(R, C, P)`` at points relative to the boxes."""
        names = self.mask_point_in_features
        sampled, _ = point_sample_fine_grained_features(
            [features[name] for name in names],
            [self._feature_scales[name] for name in names],
            proposal_boxes,
            point_coords,
        )
        return sampled

    def _get_point_logits(
        self,
        point_fine_grained_features: torch.Tensor,
        point_coords: torch.Tensor,
        coarse_mask: torch.Tensor,
    ) -> torch.Tensor:
        """Logits ``(R, K, P)``."""
        coarse_features = point_sample(coarse_mask, point_coords, align_corners=False)
        return self.point_head(point_fine_grained_features, coarse_features)

    def _subdivision_inference(
        self,
        features: dict[str, torch.Tensor],
        mask_representations: torch.Tensor,
        instances: list[Instances],
    ) -> list[Instances]:
        """Set ``pred_masks``, adaptively subdivided (PointRend, section 3.1).

        Args:
            features: feature maps by name.
            mask_representations: what :meth:`_get_point_logits` needs of each instance.
            instances: for each image, with ``pred_boxes`` and ``pred_classes``.
        """
        boxes = [x.pred_boxes for x in instances]
        classes = cat([x.pred_classes for x in instances])

        def logits_at(point_coords: torch.Tensor) -> torch.Tensor:
            """Of the predicted class alone, ``(R, 1, P)``: no map of the others is kept."""
            sampled = self._point_pooler(features, boxes, point_coords)
            logits = self._get_point_logits(sampled, point_coords, mask_representations)
            return logits_of_classes(logits, classes)

        side = self.mask_point_subdivision_init_resolution
        grid = generate_regular_grid_point_coords(len(classes), side, classes.device)
        masks = logits_at(grid).unflatten(2, (side, side))
        if len(classes) > 0:
            for _ in range(self.mask_point_subdivision_steps):
                masks = F.interpolate(masks, scale_factor=2, mode="bilinear", align_corners=False)
                index, point_coords = get_uncertain_point_coords_on_grid(
                    -masks.abs(), self.mask_point_subdivision_num_points
                )
                refined = logits_at(point_coords).squeeze(1).to(masks.dtype)
                masks.view(len(masks), -1).scatter_(1, index, refined)
        mask_rcnn_inference(masks, instances)
        return instances


@ROI_MASK_HEAD_REGISTRY.register()
class ImplicitPointRendMaskHead(PointRendMaskHead):
    """Predicts, instead of a coarse mask, the weights of a network that labels a box's points."""

    def _init_roi_head(self, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> None:
        head = cfg.MODEL.ROI_MASK_HEAD
        self.parameter_head = ConvFCHead(
            self._init_pooling(cfg, input_shape),
            conv_dim=head.CONV_DIM,
            fc_dims=[head.FC_DIM] * head.NUM_FC,
            output_shape=(self.point_head.num_params,),
        )
        self.regularizer = cfg.MODEL.IMPLICIT_POINTREND.PARAMS_L2_REGULARIZER

    def _init_point_head(self, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> None:
        # There is no mask without points, whatever POINT_HEAD_ON is.
        self.mask_point_on = True
        self._make_point_head(cfg, input_shape)
        head = cfg.MODEL.POINT_HEAD
        self.mask_point_subdivision_init_resolution = math.isqrt(head.SUBDIVISION_NUM_POINTS)
        self.mask_point_subdivision_steps = head.SUBDIVISION_STEPS

    def forward(self, features: dict[str, torch.Tensor], instances: list[Instances]) -> Any:
        """Predict masks, or compute losses.

        Args:
            features: as for :class:`PointRendMaskHead`, like ``instances``.
            instances: see above.

        Returns:
            In training the losses ``loss_l2``, of the predicted weights, and ``loss_mask_point``;
            otherwise ``instances`` with ``pred_masks``, ``(R_i, 1, M, M)``.
        """
        if not self.training:
            boxes = [x.pred_boxes for x in instances]
            parameters = self.parameter_head(self._pooled(features, boxes))
            return self._subdivision_inference(features, parameters, instances)

        boxes = [x.proposal_boxes for x in instances]
        parameters = self.parameter_head(self._pooled(features, boxes))
        point_coords, point_labels = self._uniform_sample_train_points(instances)
        sampled = self._point_pooler(features, boxes, point_coords)
        logits = self._get_point_logits(sampled, point_coords, parameters)
        squares = parameters.float().square().sum() / max(parameters.numel(), 1)
        return {
            "loss_l2": self.regularizer * squares,
            "loss_mask_point": roi_mask_point_loss(logits, instances, point_labels),
        }

    @torch.no_grad()
    def _uniform_sample_train_points(
        self, instances: list[Instances]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Points ``(R, P, 2)`` relative to the boxes, and their labels ``(R, P)``."""
        count, device = sum(len(x) for x in instances), instances[0].proposal_boxes.device
        point_coords = torch.rand(count, self.mask_point_train_num_points, 2, device=device)
        return point_coords, self._labels(instances, point_coords)

    def _get_point_logits(
        self,
        fine_grained_features: torch.Tensor,
        point_coords: torch.Tensor,
        parameters: torch.Tensor,
    ) -> torch.Tensor:
        """Logits ``(R, K, P)``."""
        return self.point_head(fine_grained_features, point_coords, parameters)
