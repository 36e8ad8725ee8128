"""Heads that classify points, and their loss on masks."""

import math

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from detectron2.config import CfgNode
from detectron2.layers._weight_init import c2_msra_fill
from detectron2.layers.shape_spec import ShapeSpec
from detectron2.layers.wrappers import cat
from detectron2.structures.instances import Instances
from detectron2.utils.events import get_event_storage
from detectron2.utils.registry import Registry

__all__ = [
    "POINT_HEAD_REGISTRY",
    "ImplicitPointHead",
    "StandardPointHead",
    "build_point_head",
    "roi_mask_point_loss",
]

POINT_HEAD_REGISTRY = Registry("POINT_HEAD")
"""Heads that classify points by name; each is called with ``(cfg, input_shape)``."""


def build_point_head(cfg: CfgNode, input_channels: ShapeSpec) -> nn.Module:
    """Make the head that ``cfg.MODEL.POINT_HEAD.NAME`` names.

    Args:
        cfg: a configuration.
        input_channels: its channels are those of the features at a point.
    """
    return POINT_HEAD_REGISTRY.get(cfg.MODEL.POINT_HEAD.NAME)(cfg, input_channels)


def logits_of_classes(logits: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    """``(R, 1, ...)``: of ``(R, K, ...)`` those of each instance's class, or the only ones."""
    if logits.size(1) == 1:
        return logits
    index = classes.to(torch.int64).view(-1, *[1] * (logits.dim() - 1))
    return logits.gather(1, index.expand(-1, 1, *logits.shape[2:]))


def roi_mask_point_loss(
    mask_logits: torch.Tensor, instances: list[Instances], point_labels: torch.Tensor
) -> torch.Tensor:
    """Binary cross-entropy of masks at points, for the ground-truth classes.

    Puts the event ``point/accuracy``, for which a point is of the object where its label is 1.

    Args:
        mask_logits: ``(R, K, P)`` with R instances over all images; K is the number of classes, or
            1 for masks that do not depend on the class.
        instances: for each image its instances, with ``gt_classes``.
        point_labels: ``(R, P)`` in [0, 1], or -1 for points that are ignored.

    Returns:
        A float32 scalar, the sum over the points that count, divided by the number of all; 0, on
        the graph, where there are none.
    """
    if mask_logits.numel() == 0:
        return mask_logits.sum() * 0
    logits = logits_of_classes(mask_logits, cat([x.gt_classes for x in instances])).squeeze(1)
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    counts = point_labels != -1

    is_right = (logits.detach() > 0) == (point_labels >= 1)
    get_event_storage().put_scalars_later(
        torch.stack([(is_right & counts).sum(), counts.sum()]),
        lambda values: {"point/accuracy": values[0] / max(values[1], 1)},
    )
    return F.binary_cross_entropy_with_logits(
        logits, point_labels.to(logits.dtype), weight=counts.to(logits.dtype)
    )


@POINT_HEAD_REGISTRY.register()
class StandardPointHead(nn.Module):
    """A multilayer perceptron, the same for all points, that also sees the coarse prediction."""

    def __init__(self, cfg: CfgNode, input_shape: ShapeSpec) -> None:
        """
        Args:
            cfg: a configuration; of ``MODEL.POINT_HEAD`` NUM_CLASSES, FC_DIM, NUM_FC,
                CLS_AGNOSTIC_MASK and COARSE_PRED_EACH_LAYER are read.
            input_shape: its channels are those of the fine-grained features.
        """
        super().__init__()
        head = cfg.MODEL.POINT_HEAD
        self.coarse_pred_each_layer = head.COARSE_PRED_EACH_LAYER
        channels = input_shape.channels + head.NUM_CLASSES
        self.fc_layers = []
        for i in range(head.NUM_FC):
            layer = nn.Conv1d(channels, head.FC_DIM, 1)
            c2_msra_fill(layer)
            self.add_module(f"fc{i + 1}", layer)
            self.fc_layers.append(layer)
            channels = head.FC_DIM + (head.NUM_CLASSES if self.coarse_pred_each_layer else 0)
        self.predictor = nn.Conv1d(channels, 1 if head.CLS_AGNOSTIC_MASK else head.NUM_CLASSES, 1)
        nn.init.normal_(self.predictor.weight, std=0.001)
        nn.init.zeros_(self.predictor.bias)

    def forward(
        self, fine_grained_features: torch.Tensor, coarse_features: torch.Tensor
    ) -> torch.Tensor:
        """Classify points.

        Args:
            fine_grained_features: ``(R, C, P)``.
            coarse_features: the coarse prediction there, ``(R, NUM_CLASSES, P)``.

        Returns:
            Logits ``(R, K, P)``.
        """
        x = torch.cat([fine_grained_features, coarse_features], dim=1)
        for layer in self.fc_layers:
            x = F.relu(layer(x))
            if self.coarse_pred_each_layer:
                x = torch.cat([x, coarse_features.to(x.dtype)], dim=1)
        return self.predictor(x)


@POINT_HEAD_REGISTRY.register()
class ImplicitPointHead(nn.Module):
    """A multilayer perceptron for each instance, whose weights are predicted, too.

    It sees the features of a point and where in the box it lies, as random Fourier features (Tancik
    et al., "Fourier Features Let Networks Learn High Frequency Functions in Low Dimensional
    Domains", NeurIPS 2020).

    Attributes:
        num_params: weights and biases of an instance.
    """

    def __init__(self, cfg: CfgNode, input_shape: ShapeSpec) -> None:
        """
        Args:
            cfg: a configuration; of ``MODEL.POINT_HEAD`` NUM_CLASSES, FC_DIM, NUM_FC and
                CLS_AGNOSTIC_MASK are read, and ``MODEL.IMPLICIT_POINTREND``.
            input_shape: its channels are those of the fine-grained features.

        Raises:
            ValueError: neither features nor positions are to be seen.
        """
        super().__init__()
        head, options = cfg.MODEL.POINT_HEAD, cfg.MODEL.IMPLICIT_POINTREND
        self.num_layers = head.NUM_FC + 1
        self.channels = head.FC_DIM
        self.image_feature_enabled = options.IMAGE_FEATURE_ENABLED
        self.positional_encoding_enabled = options.POS_ENC_ENABLED
        self.num_classes = 1 if head.CLS_AGNOSTIC_MASK else head.NUM_CLASSES
        self.in_channels = input_shape.channels if self.image_feature_enabled else 0
        if self.positional_encoding_enabled:
            self.in_channels += 256
            self.register_buffer("positional_encoding_gaussian_matrix", torch.randn(2, 128))
        if self.in_channels == 0:
            raise ValueError(
                "one of MODEL.IMPLICIT_POINTREND's IMAGE_FEATURE_ENABLED and POS_ENC_ENABLED must "
                "be set, got neither"
            )
        widths = [self.in_channels, *[self.channels] * head.NUM_FC, self.num_classes]
        self.num_weight_params = [widths[i] * widths[i + 1] for i in range(self.num_layers)]
        self.num_bias_params = widths[1:]
        self.num_params = sum(self.num_weight_params) + sum(self.num_bias_params)

    def forward(
        self,
        fine_grained_features: torch.Tensor,
        point_coords: torch.Tensor,
        parameters: torch.Tensor,
    ) -> torch.Tensor:
        """Classify points.

        Args:
            fine_grained_features: ``(R, C, P)``.
            point_coords: relative to the boxes, ``(R, P, 2)``.
            parameters: of each instance, ``(R, num_params)``: the weights of all layers, each
                ``(out, in)``, and then their biases.

        Returns:
            Logits ``(R, K, P)``.
        """
        inputs = []
        if self.positional_encoding_enabled:
            inputs.append(self._encoded(point_coords).to(fine_grained_features.dtype))
        if self.image_feature_enabled:
            inputs.append(fine_grained_features)
        weights, biases = self._parse_params(
            parameters,
            self.in_channels,
            self.channels,
            self.num_classes,
            self.num_weight_params,
            self.num_bias_params,
        )
        return self._dynamic_mlp(cat(inputs, dim=1), weights, biases, parameters.size(0))

    def _encoded(self, point_coords: torch.Tensor) -> torch.Tensor:
        """``(R, 256, P)``."""
        matrix = self.positional_encoding_gaussian_matrix
        x, y = (2 * point_coords.to(matrix.dtype) - 1).split(1, dim=2)
        # Not a product of matrices, which autocast would compute in half precision.
        angles = (2 * math.pi) * (x * matrix[0] + y * matrix[1])
        return torch.cat([angles.sin(), angles.cos()], dim=2).transpose(1, 2)

    @staticmethod
    def _dynamic_mlp(
        features: torch.Tensor,
        weights: list[torch.Tensor],
        biases: list[torch.Tensor],
        num_instances: int,
    ) -> torch.Tensor:
        """Apply layers ``(R, out, in)`` with biases ``(R, out, 1)`` to ``(R, C, P)``."""
        x = features.view(num_instances, -1, features.size(-1)) if num_instances else features
        for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
            x = F.relu(torch.baddbmm(bias, weight, x.to(weight.dtype)))
        return torch.baddbmm(biases[-1], weights[-1], x.to(weights[-1].dtype))

    @staticmethod
    def _parse_params(
        pred_params: torch.Tensor,
        in_channels: int,
        channels: int,
        num_classes: int,
        num_weight_params: list[int],
        num_bias_params: list[int],
    ) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Views of ``(R, num_params)``: weights ``(R, out, in)`` and biases ``(R, out, 1)``."""
        expected = sum(num_weight_params) + sum(num_bias_params)
        if pred_params.dim() != 2 or pred_params.size(1) != expected:
            raise ValueError(
                f"parameters must have the shape (R, {expected}), got {list(pred_params.shape)}"
            )
        count, layers = pred_params.size(0), len(num_weight_params)
        widths = [in_channels, *[channels] * (layers - 1), num_classes]
        pieces = pred_params.split([*num_weight_params, *num_bias_params], dim=1)
        weights = [pieces[i].view(count, widths[i + 1], widths[i]) for i in range(layers)]
        return weights, [bias.unsqueeze(2) for bias in pieces[layers:]]
