"""Heads that predict the mask of an object within its box.

He et al., "Mask R-CNN", ICCV 2017.
"""

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from detectron2.config.config import CfgNode, configurable
from detectron2.layers._dtypes import at_least_float32
from detectron2.layers._weight_init import c2_msra_fill
from detectron2.layers.batch_norm import get_norm
from detectron2.layers.shape_spec import ShapeSpec

# Code written for upstream imports some of these names from here.
from detectron2.layers.wrappers import Conv2d, ConvTranspose2d, cat, move_device_like
from detectron2.modeling.roi_heads._mask_targets import crop_gt_masks
from detectron2.structures.instances import Instances
from detectron2.utils.events import get_event_storage
from detectron2.utils.registry import Registry

__all__ = [
    "ROI_MASK_HEAD_REGISTRY",
    "BaseMaskRCNNHead",
    "MaskRCNNConvUpsampleHead",
    "build_mask_head",
    "cat",
    "mask_rcnn_inference",
    "mask_rcnn_loss",
    "move_device_like",
]

ROI_MASK_HEAD_REGISTRY = Registry("ROI_MASK_HEAD")
"""Mask heads by name; each is called with ``(cfg, input_shape)``."""


def _masks_of_classes(mask_logits: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    """``(R, 1, M, M)``: of ``(R, K, M, M)`` the map of each instance's class, or the only one."""
    if mask_logits.size(1) == 1:
        return mask_logits
    index = classes.to(torch.int64).view(-1, 1, 1, 1)
    # Not by indexing, whose gradient sorts.
    return mask_logits.gather(1, index.expand(-1, 1, mask_logits.size(2), mask_logits.size(3)))


def mask_rcnn_loss(
    pred_mask_logits: torch.Tensor, instances: list[Instances], vis_period: int = 0
) -> torch.Tensor:
    """Binary cross-entropy of the masks of the ground-truth classes, a mean over all pixels.

    Puts the events ``mask_rcnn/accuracy``, ``mask_rcnn/false_positive`` and
    ``mask_rcnn/false_negative``.

    Args:
        pred_mask_logits: ``(R, K, M, M)`` with R instances over all images; K is the number of
            classes, or 1 for masks that do not depend on the class.
        instances: for each image its instances, with the fields ``proposal_boxes``,
            ``gt_classes`` and ``gt_masks``. Images without any need no ``gt_masks``.
        vis_period: every so many iterations, predictions and targets are put as images; 0: never.

    Returns:
        A float32 scalar; 0, on the graph, where there are no instances.
    """
    if pred_mask_logits.size(2) != pred_mask_logits.size(3):
        raise ValueError(f"masks must be square, got {list(pred_mask_logits.shape)}")
    present = [x for x in instances if len(x) > 0]
    if not present:
        return pred_mask_logits.sum() * 0
    side = pred_mask_logits.size(2)
    targets = crop_gt_masks(present, side, pred_mask_logits.device)
    gt_classes = cat([x.gt_classes for x in present])
    logits = _masks_of_classes(pred_mask_logits, gt_classes).squeeze(1)
    logits = at_least_float32(logits)
    _put_mask_accuracy(logits.detach(), targets)
    _visualize_masks(logits.detach(), targets, vis_period)
    return F.binary_cross_entropy_with_logits(logits, targets.to(logits.dtype))


def _put_mask_accuracy(logits: torch.Tensor, targets: torch.Tensor) -> None:
    predicted = logits > 0
    counts = torch.stack([predicted != targets, predicted & ~targets, targets]).sum((1, 2, 3))
    total = targets.numel()  # Not the targets, which would be kept until the storage is read.

    def to_scalars(values: list[float]) -> dict[str, float]:
        wrong, false_positive, positive = values
        return {
            "mask_rcnn/accuracy": 1 - wrong / max(total, 1),
            "mask_rcnn/false_positive": false_positive / max(total - positive, 1),
            "mask_rcnn/false_negative": (wrong - false_positive) / max(positive, 1),
        }

    get_event_storage().put_scalars_later(counts, to_scalars)


def _visualize_masks(logits: torch.Tensor, targets: torch.Tensor, vis_period: int) -> None:
    storage = get_event_storage()
    if vis_period <= 0 or storage.iter % vis_period != 0:
        return
    pairs = torch.cat([logits.sigmoid(), targets.to(logits.dtype)], dim=2)
    for i, pair in enumerate(pairs):
        name = f"Left: mask prediction;   Right: mask GT ({i})"
        storage.put_image(name, pair[None].expand(3, -1, -1))


def mask_rcnn_inference(pred_mask_logits: torch.Tensor, pred_instances: list[Instances]) -> None:
    """Set ``pred_masks``, ``(R_i, 1, M, M)``, of each image: probabilities, relative to the boxes.

    Args:
        pred_mask_logits: ``(R, K, M, M)`` with R instances over all images; K is the number of
            classes, or 1 for masks that do not depend on the class.
        pred_instances: for each image its instances, with the field ``pred_classes``.
    """
    if pred_mask_logits.size(1) == 1:
        masks = pred_mask_logits.sigmoid()
    else:
        classes = cat([x.pred_classes for x in pred_instances])
        masks = _masks_of_classes(pred_mask_logits, classes).sigmoid()
    if len(pred_instances) == 1:
        pred_instances[0].pred_masks = masks
        return
    masks_by_image = masks.split([len(x) for x in pred_instances], dim=0)
    for i, instances in enumerate(pred_instances):
        instances.pred_masks = masks_by_image[i]


class BaseMaskRCNNHead(nn.Module):
    """What a mask head does around its layers: the loss in training, the masks otherwise."""

    @configurable
    def __init__(self, *, loss_weight: float = 1.0, vis_period: int = 0) -> None:
        """
        Args:
            loss_weight: what the loss is multiplied by.
            vis_period: as for :func:`mask_rcnn_loss`.
        """
        super().__init__()
        self.loss_weight, self.vis_period = loss_weight, vis_period

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: Any) -> dict[str, Any]:
        return {"vis_period": cfg.VIS_PERIOD}

    # Without a return type: TorchScript takes the one of the branch that it compiles.
    def forward(self, x: torch.Tensor, instances: list[Instances]):
        """
        Args:
            x: pooled features ``(R, C, H, W)``, or whatever :meth:`layers` takes.
            instances: for each image its instances, R in all. In training they have what
                :func:`mask_rcnn_loss` needs, otherwise what :func:`mask_rcnn_inference` does.

        Returns:
            In training ``{"loss_mask": scalar}``, otherwise ``instances`` with ``pred_masks``.
        """
        logits = self.layers(x)
        if self.training:
            loss = mask_rcnn_loss(logits, instances, self.vis_period)
            return {"loss_mask": loss * self.loss_weight}
        mask_rcnn_inference(logits, instances)
        return instances

    def layers(self, x: torch.Tensor) -> torch.Tensor:
        """Map the input to mask logits ``(R, K, M, M)``."""
        raise NotImplementedError(f"{type(self).__name__} has no layers")


@ROI_MASK_HEAD_REGISTRY.register()
class MaskRCNNConvUpsampleHead(BaseMaskRCNNHead, nn.Sequential):
    """3 x 3 convolutions, a deconvolution that doubles the size, and a 1 x 1 predictor."""

    @configurable
    def __init__(
        self,
        input_shape: ShapeSpec,
        *,
        num_classes: int,
        conv_dims: list[int],
        conv_norm: Any = "",
        **kwargs: Any,
    ) -> None:
        """
        Args:
            input_shape: its channels are those of the pooled features.
            num_classes: maps to predict; 1 for masks that do not depend on the class.
            conv_dims: output channels of the convolutions and, last, of the deconvolution.
            conv_norm: normalisation after each convolution, as for ``get_norm``.
            **kwargs: as for :class:`BaseMaskRCNNHead`.

        Raises:
            ValueError: ``conv_dims`` is empty.
        """
        super().__init__(**kwargs)
        if len(conv_dims) == 0:
            raise ValueError("conv_dims needs the channels of the deconvolution, got []")
        self.conv_norm_relus = []
        channels = input_shape.channels
        for i, dim in enumerate(conv_dims[:-1], start=1):
            conv = Conv2d(
                channels,
                dim,
                3,
                padding=1,
                bias=not conv_norm,
                norm=get_norm(conv_norm, dim),
                activation=nn.ReLU(inplace=True),
            )
            self.add_module(f"mask_fcn{i}", conv)
            self.conv_norm_relus.append(conv)
            channels = dim
        self.deconv = ConvTranspose2d(channels, conv_dims[-1], 2, stride=2)
        self.add_module("deconv_relu", nn.ReLU(inplace=True))
        self.predictor = Conv2d(conv_dims[-1], num_classes, 1)

        for layer in [*self.conv_norm_relus, self.deconv]:
            c2_msra_fill(layer)
        nn.init.normal_(self.predictor.weight, std=0.001)
        nn.init.zeros_(self.predictor.bias)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: ShapeSpec) -> dict[str, Any]:
        head = cfg.MODEL.ROI_MASK_HEAD
        return {
            **super().from_config(cfg, input_shape),
            "input_shape": input_shape,
            "num_classes": 1 if head.CLS_AGNOSTIC_MASK else cfg.MODEL.ROI_HEADS.NUM_CLASSES,
            "conv_dims": [head.CONV_DIM] * (head.NUM_CONV + 1),
            "conv_norm": head.NORM,
        }

    def layers(self, x: torch.Tensor) -> torch.Tensor:
        """Map pooled features ``(R, C, H, W)`` to logits ``(R, num_classes, 2H, 2W)``."""
        for layer in self:
            x = layer(x)
        return x


def build_mask_head(cfg: CfgNode, input_shape: ShapeSpec) -> nn.Module:
    """Make the mask head that ``cfg.MODEL.ROI_MASK_HEAD.NAME`` names."""
    return ROI_MASK_HEAD_REGISTRY.get(cfg.MODEL.ROI_MASK_HEAD.NAME)(cfg, input_shape)
