"""Heads that predict the keypoints of an object within its box.

He et al., "Mask R-CNN", ICCV 2017, section 5: a heatmap for each keypoint, whose cells are classes.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from detectron2.config.config import CfgNode, configurable
from detectron2.layers._dtypes import at_least_float32
from detectron2.layers.shape_spec import ShapeSpec

# Code written for upstream imports some of these names from here.
from detectron2.layers.wrappers import Conv2d, ConvTranspose2d, cat, interpolate
from detectron2.structures.instances import Instances
from detectron2.structures.keypoints import heatmaps_to_keypoints
from detectron2.utils.events import get_event_storage
from detectron2.utils.registry import Registry

__all__ = [
    "ROI_KEYPOINT_HEAD_REGISTRY",
    "BaseKeypointRCNNHead",
    "KRCNNConvDeconvUpsampleHead",
    "build_keypoint_head",
    "cat",
]

ROI_KEYPOINT_HEAD_REGISTRY = Registry("ROI_KEYPOINT_HEAD")
"""Keypoint heads by name; each is called with ``(cfg, input_shape)``."""

# Of cells that cross_entropy leaves out.
_IGNORED = -100

_skipped_batches = 0


def build_keypoint_head(cfg: CfgNode, input_shape: ShapeSpec) -> nn.Module:
    """Make the keypoint head that ``cfg.MODEL.ROI_KEYPOINT_HEAD.NAME`` names."""
    return ROI_KEYPOINT_HEAD_REGISTRY.get(cfg.MODEL.ROI_KEYPOINT_HEAD.NAME)(cfg, input_shape)


def _count_skipped(values: list[float]) -> dict[str, float]:
    global _skipped_batches
    if values[0] > 0:
        return {}
    _skipped_batches += 1
    return {"kpts_num_skipped_batches": _skipped_batches}


def keypoint_rcnn_loss(
    pred_keypoint_logits: torch.Tensor, instances: list[Instances], normalizer: float | None
) -> torch.Tensor:
    """Cross-entropy over the cells of the heatmaps, of the keypoints that are visible.

    Those are the ones that are labelled and lie in the proposal's box. Without any, the event
    ``kpts_num_skipped_batches`` is put: how often that was the case.

    Args:
        pred_keypoint_logits: ``(R, K, S, S)`` with R instances over all images, K keypoints each.
        instances: for each image its instances, with the fields ``proposal_boxes`` and
            ``gt_keypoints``. Images without any need no ``gt_keypoints``.
        normalizer: what the sum is divided by; None: the number of visible keypoints.

    Returns:
        A float32 scalar; 0, on the graph, where there are no visible keypoints.
    """
    present = [x for x in instances if len(x) > 0]
    count, num_keypoints, side = pred_keypoint_logits.shape[:3]
    if pred_keypoint_logits.size(3) != side:
        raise ValueError(f"heatmaps must be square, got {list(pred_keypoint_logits.shape)}")
    storage = get_event_storage()
    if not present or num_keypoints == 0:
        storage.put_scalars_later(torch.zeros(1), _count_skipped, smoothing_hint=False)
        return pred_keypoint_logits.sum() * 0
    keypoints = type(present[0].gt_keypoints).cat([x.gt_keypoints for x in present])
    boxes = cat([x.proposal_boxes.tensor for x in present])
    cells, is_valid = keypoints.to_heatmap(boxes, side)
    targets = torch.where(is_valid > 0, cells, _IGNORED).reshape(-1)
    num_valid = is_valid.sum()
    storage.put_scalars_later(num_valid.reshape(1), _count_skipped, smoothing_hint=False)

    logits = pred_keypoint_logits.reshape(count * num_keypoints, side * side)
    loss = F.cross_entropy(
        at_least_float32(logits), targets, ignore_index=_IGNORED, reduction="sum"
    )
    return loss / (num_valid.clamp(min=1) if normalizer is None else normalizer)


def keypoint_rcnn_inference(
    pred_keypoint_logits: torch.Tensor, pred_instances: list[Instances]
) -> None:
    """Set ``pred_keypoints`` and ``pred_keypoint_heatmaps`` of each image.

    The former are ``(R_i, K, 3)``, rows ``(x, y, score)`` in the pixels of the image; the latter
    ``(R_i, K, S, S)``, the logits.

    Args:
        pred_keypoint_logits: ``(R, K, S, S)`` with R instances over all images.
        pred_instances: for each image its instances, with the field ``pred_boxes``.
    """
    heatmaps = pred_keypoint_logits.detach()
    boxes = cat([x.pred_boxes.tensor for x in pred_instances])
    found = heatmaps_to_keypoints(heatmaps, boxes.detach())
    keypoints = torch.cat([found[:, :, :2], found[:, :, 3:]], dim=2)
    if len(pred_instances) == 1:
        pred_instances[0].pred_keypoints = keypoints
        pred_instances[0].pred_keypoint_heatmaps = heatmaps
        return
    counts = [len(x) for x in pred_instances]
    keypoints_by_image = keypoints.split(counts, dim=0)
    heatmaps_by_image = heatmaps.split(counts, dim=0)
    for i, instances in enumerate(pred_instances):
        instances.pred_keypoints = keypoints_by_image[i]
        instances.pred_keypoint_heatmaps = heatmaps_by_image[i]


class BaseKeypointRCNNHead(nn.Module):
    """What a keypoint head does around its layers: the loss in training, keypoints otherwise."""

    @configurable
    def __init__(
        self,
        *,
        num_keypoints: int,
        loss_weight: float = 1.0,
        loss_normalizer: float | str = 1.0,
    ) -> None:
        """
        Args:
            num_keypoints: K.
            loss_weight: what the loss is multiplied by.
            loss_normalizer: ``"visible"`` divides the loss by the number of visible keypoints; a
                number by that, for each image.

        Raises:
            ValueError: another string.
        """
        super().__init__()
        if isinstance(loss_normalizer, str) and loss_normalizer != "visible":
            raise ValueError(
                f"loss_normalizer should be 'visible' or a number, got {loss_normalizer!r}"
            )
        self.num_keypoints = num_keypoints
        self.loss_weight = loss_weight
        self.loss_normalizer = loss_normalizer

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: Any) -> dict[str, Any]:
        head, roi_heads = cfg.MODEL.ROI_KEYPOINT_HEAD, cfg.MODEL.ROI_HEADS
        normalizer: float | str = "visible"
        if not head.NORMALIZE_LOSS_BY_VISIBLE_KEYPOINTS:
            # The number of keypoints of an image if it has all the foreground that it may have.
            foreground = roi_heads.BATCH_SIZE_PER_IMAGE * roi_heads.POSITIVE_FRACTION
            normalizer = head.NUM_KEYPOINTS * foreground
        return {
            "num_keypoints": head.NUM_KEYPOINTS,
            "loss_weight": head.LOSS_WEIGHT,
            "loss_normalizer": normalizer,
        }

    # Without a return type: TorchScript takes the one of the branch that it compiles.
    def forward(self, x: torch.Tensor, instances: list[Instances]):
        """
        Args:
            x: pooled features ``(R, C, H, W)``, or whatever :meth:`layers` takes.
            instances: for each image its instances, R in all. In training they have what
                :func:`keypoint_rcnn_loss` needs, otherwise what :func:`keypoint_rcnn_inference`
                does.

        Returns:
            In training ``{"loss_keypoint": scalar}``, otherwise ``instances`` with
            ``pred_keypoints`` and ``pred_keypoint_heatmaps``.
        """
        x = self.layers(x)
        if self.training:
            normalizer = None
            if self.loss_normalizer != "visible":
                normalizer = len(instances) * self.loss_normalizer
            loss = keypoint_rcnn_loss(x, instances, normalizer=normalizer)
            return {"loss_keypoint": loss * self.loss_weight}
        keypoint_rcnn_inference(x, instances)
        return instances

    def layers(self, x: torch.Tensor) -> torch.Tensor:
        """Map the input to heatmaps of logits ``(R, K, S, S)``."""
        raise NotImplementedError(f"{type(self).__name__} has no layers")


@ROI_KEYPOINT_HEAD_REGISTRY.register()
class KRCNNConvDeconvUpsampleHead(BaseKeypointRCNNHead, nn.Sequential):
    """3 x 3 convolutions, a deconvolution that doubles the size, and bilinear upsampling by 2."""

    @configurable
    def __init__(
        self,
        input_shape: ShapeSpec,
        *,
        num_keypoints: int,
        conv_dims: Sequence[int],
        **kwargs: Any,
    ) -> None:
        """
        Args:
            input_shape: its channels are those of the pooled features.
            num_keypoints: K.
            conv_dims: output channels of each convolution.
            **kwargs: as for :class:`BaseKeypointRCNNHead`.
        """
        super().__init__(num_keypoints=num_keypoints, **kwargs)
        channels = input_shape.channels
        for i, dim in enumerate(conv_dims, start=1):
            self.add_module(f"conv_fcn{i}", Conv2d(channels, dim, 3, padding=1))
            self.add_module(f"conv_fcn_relu{i}", nn.ReLU(inplace=True))
            channels = dim
        self.score_lowres = ConvTranspose2d(channels, num_keypoints, 4, stride=2, padding=1)
        self.up_scale = 2

        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            else:
                nn.init.kaiming_normal_(parameter, mode="fan_out", nonlinearity="relu")

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: ShapeSpec) -> dict[str, Any]:
        return {
            **super().from_config(cfg, input_shape),
            "input_shape": input_shape,
            "conv_dims": cfg.MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS,
        }

    def layers(self, x: torch.Tensor) -> torch.Tensor:
        """Map pooled features ``(R, C, H, W)`` to logits ``(R, K, 4H, 4W)``."""
        for layer in self:
            x = layer(x)
        return interpolate(
            x, scale_factor=float(self.up_scale), mode="bilinear", align_corners=False
        )
