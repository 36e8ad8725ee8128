"""Panoptic-DeepLab's heads, and the model."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from detectron2.config import CfgNode, configurable
from detectron2.data.catalog import MetadataCatalog
from detectron2.layers.shape_spec import ShapeSpec

# Code written for upstream imports some of these names from here.
from detectron2.modeling.backbone.build import build_backbone  # noqa: F401
from detectron2.modeling.meta_arch._images import ImageModel, output_size
from detectron2.modeling.meta_arch._pixel_head import mean_or_zero, upsampled
from detectron2.modeling.meta_arch.build import META_ARCH_REGISTRY
from detectron2.modeling.meta_arch.semantic_seg import SEM_SEG_HEADS_REGISTRY, build_sem_seg_head
from detectron2.modeling.postprocessing import sem_seg_postprocess
from detectron2.projects.deeplab.loss import DeepLabCE
from detectron2.projects.deeplab.semantic_seg import (
    DeepLabV3PlusHead,
    conv3x3,
    decoder_arguments,
    pixel_loss,
    pixel_predictor,
)
from detectron2.projects.panoptic_deeplab._instances import instances_of_panoptic
from detectron2.projects.panoptic_deeplab.post_processing import get_panoptic_segmentation
from detectron2.structures.image_list import ImageList  # noqa: F401
from detectron2.utils.registry import Registry

__all__ = ["INS_EMBED_BRANCHES_REGISTRY", "PanopticDeepLab", "build_ins_embed_branch"]

INS_EMBED_BRANCHES_REGISTRY = Registry("INS_EMBED_BRANCHES")
"""Heads of centres and offsets by name; each is called with ``(cfg, input_shape)``."""


def build_ins_embed_branch(cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> nn.Module:
    """Make the head that ``cfg.MODEL.INS_EMBED_HEAD.NAME`` names."""
    return INS_EMBED_BRANCHES_REGISTRY.get(cfg.MODEL.INS_EMBED_HEAD.NAME)(cfg, input_shape)


@META_ARCH_REGISTRY.register()
class PanopticDeepLab(ImageModel):
    """A backbone, a head that labels the pixels, and one that groups them."""

    def __init__(self, cfg: CfgNode) -> None:
        """
        Args:
            cfg: a configuration with the keys of :func:`add_panoptic_deeplab_config`. Of the first
                data set in ``DATASETS.TRAIN`` the metadata ``label_divisor`` and
                ``thing_dataset_id_to_contiguous_id`` are read in inference.

        Raises:
            ValueError: the heads are not as separable as PANOPTIC_DEEPLAB says.
        """
        super().__init__(**self._image_arguments(cfg))
        options = cfg.MODEL.PANOPTIC_DEEPLAB
        shapes = self.backbone.output_shape()
        self.sem_seg_head = build_sem_seg_head(cfg, shapes)
        self.ins_embed_head = build_ins_embed_branch(cfg, shapes)
        self.meta = MetadataCatalog.get(cfg.DATASETS.TRAIN[0])
        self.stuff_area = options.STUFF_AREA
        self.threshold = options.CENTER_THRESHOLD
        self.nms_kernel = options.NMS_KERNEL
        self.top_k = options.TOP_K_INSTANCE
        self.predict_instances = options.PREDICT_INSTANCES
        self.use_depthwise_separable_conv = options.USE_DEPTHWISE_SEPARABLE_CONV
        of_heads = cfg.MODEL.SEM_SEG_HEAD.USE_DEPTHWISE_SEPARABLE_CONV
        if self.use_depthwise_separable_conv != of_heads:
            raise ValueError(
                "USE_DEPTHWISE_SEPARABLE_CONV must be the same in MODEL.PANOPTIC_DEEPLAB and in "
                f"MODEL.SEM_SEG_HEAD, got {self.use_depthwise_separable_conv} and {of_heads}"
            )
        self.size_divisibility = options.SIZE_DIVISIBILITY
        self.benchmark_network_speed = options.BENCHMARK_NETWORK_SPEED

    def forward(
        self, batched_inputs: list[dict[str, Any]]
    ) -> dict[str, torch.Tensor] | list[dict[str, Any]]:
        """Segment images, or compute losses.

        Args:
            batched_inputs: a dict for each image, with ``image``, ``(C, H, W)`` with values in
                [0, 255]; optionally ``height`` and ``width``, the size of the output; in training
                what :class:`PanopticDeepLabTargetGenerator` makes, of which ``sem_seg_weights`` may
                be missing.

        Returns:
            In training losses by name. Otherwise for each image a dict with

            - ``sem_seg``: logits ``(K, height, width)``;
            - ``panoptic_seg``: int64 ``(height, width)``, as of
              :func:`merge_semantic_and_instance` with the void label -1, and None;
            - ``instances``, if PREDICT_INSTANCES: the things, with ``pred_classes``, ``scores``,
              ``pred_masks`` and ``pred_boxes``.

            An empty list if BENCHMARK_NETWORK_SPEED.
        """
        images = self.preprocess_image(batched_inputs)
        features = self.backbone(images.tensor)
        if self.training:
            return self._losses(features, batched_inputs)
        sem_seg, _ = self.sem_seg_head(features)
        center, offset, _, _ = self.ins_embed_head(features)
        if self.benchmark_network_speed:
            return []
        return [
            self._segmented(x, size, *predictions)
            for x, size, *predictions in zip(
                batched_inputs, images.image_sizes, sem_seg, center, offset, strict=True
            )
        ]

    def _padding(self) -> tuple[int, dict[str, int]]:
        """What sizes are divisible by, and further constraints of them."""
        if self.size_divisibility > 0:
            return self.size_divisibility, {}
        return super()._padding()

    def _losses(
        self, features: dict[str, torch.Tensor], batched_inputs: list[dict[str, Any]]
    ) -> dict[str, torch.Tensor]:
        def target(name: str, padding: float = 0.0) -> torch.Tensor:
            """Padded as the images are; with weights of 0 there."""
            return self._padded_maps(batched_inputs, name, padding)

        weights = target("sem_seg_weights") if "sem_seg_weights" in batched_inputs[0] else None
        sem_seg = target("sem_seg", self.sem_seg_head.ignore_value)
        _, losses = self.sem_seg_head(features, sem_seg, weights)
        _, _, center_losses, offset_losses = self.ins_embed_head(
            features,
            target("center")[:, None],
            target("center_weights"),
            target("offset"),
            target("offset_weights"),
        )
        return {**losses, **center_losses, **offset_losses}

    def _segmented(
        self,
        sample: dict[str, Any],
        image_size: tuple[int, int],
        sem_seg: torch.Tensor,
        center: torch.Tensor,
        offset: torch.Tensor,
    ) -> dict[str, Any]:
        """The output of an image, of logits, centres and offsets in the size of the batch."""
        size = output_size(sample, image_size)
        logits = sem_seg_postprocess(sem_seg, image_size, *size)
        heat = sem_seg_postprocess(center, image_size, *size)
        offset = sem_seg_postprocess(offset, image_size, *size)
        # They are in pixels, which are others now.
        dy = offset[0] * (size[0] / image_size[0])
        dx = offset[1] * (size[1] / image_size[1])

        thing_ids = self.meta.thing_dataset_id_to_contiguous_id.values()
        panoptic, _ = get_panoptic_segmentation(
            logits.argmax(dim=0, keepdim=True),
            heat,
            torch.stack([dy, dx]),
            thing_ids=thing_ids,
            label_divisor=self.meta.label_divisor,
            stuff_area=self.stuff_area,
            void_label=-1,
            threshold=self.threshold,
            nms_kernel=self.nms_kernel,
            top_k=self.top_k,
        )
        result = {"sem_seg": logits, "panoptic_seg": (panoptic[0], None)}
        if self.predict_instances:
            result["instances"] = instances_of_panoptic(
                panoptic[0], logits, heat, thing_ids, self.meta.label_divisor
            )
        return result


@SEM_SEG_HEADS_REGISTRY.register()
class PanopticDeepLabSemSegHead(DeepLabV3PlusHead):
    """Labels pixels: a decoder as of DeepLabv3+, two more convolutions and a predictor."""

    @configurable
    def __init__(
        self,
        input_shape: dict[str, ShapeSpec],
        *,
        decoder_channels: list[int],
        norm: str | Callable[[int], nn.Module],
        head_channels: int,
        loss_weight: float,
        loss_type: str,
        loss_top_k: float,
        ignore_value: int,
        num_classes: int,
        **kwargs: Any,
    ) -> None:
        """
        Args:
            input_shape: as for :class:`DeepLabV3PlusHead`, like what is not listed here.
            decoder_channels: see above.
            norm: see above.
            head_channels: channels that the predictor takes.
            loss_weight: what the loss is multiplied by.
            loss_type: "cross_entropy", or "hard_pixel_mining" (:class:`DeepLabCE`).
            loss_top_k: fraction of the pixels that the latter averages over.
            ignore_value: label of pixels that do not count.
            num_classes: K.
            **kwargs: see above.

        Raises:
            ValueError: another loss.
        """
        super().__init__(
            input_shape,
            decoder_channels=decoder_channels,
            norm=norm,
            loss_weight=loss_weight,
            loss_type=loss_type,
            ignore_value=ignore_value,
            **kwargs,
        )
        channels = decoder_channels[0]
        self.head = self._two_convs(channels, head_channels, norm, channels)
        self.predictor = pixel_predictor(head_channels, num_classes)
        self.loss = pixel_loss(loss_type, ignore_value, loss_top_k)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        return {
            **super().from_config(cfg, input_shape),
            "head_channels": cfg.MODEL.SEM_SEG_HEAD.HEAD_CHANNELS,
            "loss_top_k": cfg.MODEL.SEM_SEG_HEAD.LOSS_TOP_K,
        }

    def forward(
        self,
        features: dict[str, torch.Tensor],
        targets: torch.Tensor | None = None,
        weights: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor | None, dict[str, torch.Tensor]]:
        """Predict, or compute the loss; as :class:`DeepLabV3PlusHead` does.

        Args:
            features: feature maps ``(N, C_i, H_i, W_i)`` by name.
            targets: int64 ``(N, H, W)``, in training.
            weights: ``(N, H, W)``, of each pixel's loss; None: 1.
        """
        logits = self.layers(features)
        if self.training:
            return None, self.losses(logits, targets, weights)
        return upsampled(logits, self.common_stride), {}

    def layers(self, features: dict[str, torch.Tensor]) -> torch.Tensor:
        """Logits at the common stride."""
        return self.predictor(self.head(super().layers(features)))

    def losses(
        self,
        predictions: torch.Tensor,
        targets: torch.Tensor | None,
        weights: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        """The loss ``loss_sem_seg``.

        Args:
            predictions: logits ``(N, K, h, w)`` at the common stride.
            targets: int64 ``(N, H, W)``.
            weights: ``(N, H, W)``, of each pixel's loss; None: 1.
        """
        logits = self._logits_of_targets(predictions, targets)
        if isinstance(self.loss, DeepLabCE):
            loss = self.loss(logits, targets, weights)
        elif weights is None:
            loss = mean_or_zero(self.loss(logits, targets), targets, self.ignore_value)
        else:
            of_pixels = F.cross_entropy(
                logits, targets, ignore_index=self.ignore_value, reduction="none"
            )
            count = (targets != self.ignore_value).sum().clamp(min=1)
            loss = (of_pixels * weights).sum() / count
        return {"loss_sem_seg": loss * self.loss_weight}


@INS_EMBED_BRANCHES_REGISTRY.register()
class PanopticDeepLabInsEmbedHead(DeepLabV3PlusHead):
    """Finds centres, and from each pixel the way to its own, with a decoder as of DeepLabv3+."""

    @configurable
    def __init__(
        self,
        input_shape: dict[str, ShapeSpec],
        *,
        decoder_channels: list[int],
        norm: str | Callable[[int], nn.Module],
        head_channels: int,
        center_loss_weight: float,
        offset_loss_weight: float,
        **kwargs: Any,
    ) -> None:
        """
        Args:
            input_shape: as for :class:`DeepLabV3PlusHead`, like what is not listed here.
            decoder_channels: see above.
            norm: see above.
            head_channels: channels that the predictors take.
            center_loss_weight: what the loss of centres is multiplied by.
            offset_loss_weight: what the loss of offsets is multiplied by.
            **kwargs: see above.
        """
        super().__init__(input_shape, decoder_channels=decoder_channels, norm=norm, **kwargs)
        self.center_loss_weight = center_loss_weight
        self.offset_loss_weight = offset_loss_weight
        channels = decoder_channels[0]
        self.center_head = nn.Sequential(
            conv3x3(channels, channels, norm), conv3x3(channels, head_channels, norm)
        )
        self.center_predictor = pixel_predictor(head_channels, 1)
        self.offset_head = self._two_convs(channels, head_channels, norm, channels)
        self.offset_predictor = pixel_predictor(head_channels, 2)
        self.center_loss = nn.MSELoss(reduction="none")
        self.offset_loss = nn.L1Loss(reduction="none")

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        head = cfg.MODEL.INS_EMBED_HEAD
        return {
            **decoder_arguments(cfg, head, input_shape),
            "head_channels": head.HEAD_CHANNELS,
            "center_loss_weight": head.CENTER_LOSS_WEIGHT,
            "offset_loss_weight": head.OFFSET_LOSS_WEIGHT,
        }

    def forward(
        self,
        features: dict[str, torch.Tensor],
        center_targets: torch.Tensor | None = None,
        center_weights: torch.Tensor | None = None,
        offset_targets: torch.Tensor | None = None,
        offset_weights: torch.Tensor | None = None,
    ) -> tuple[
        torch.Tensor | None,
        torch.Tensor | None,
        dict[str, torch.Tensor],
        dict[str, torch.Tensor],
    ]:
        """Predict, or compute the losses.

        Args:
            features: feature maps ``(N, C_i, H_i, W_i)`` by name.
            center_targets: ``(N, 1, H, W)``, in training, like the others.
            center_weights: ``(N, 1, H, W)``.
            offset_targets: ``(N, 2, H, W)``, (dy, dx) in pixels of the input.
            offset_weights: ``(N, 1, H, W)``.

        Returns:
            The heatmap ``(N, 1, H, W)``, the offsets ``(N, 2, H, W)``, and the losses of both by
            name. In training the first two are None, otherwise the last two are empty.
        """
        center, offset = self.layers(features)
        if not self.training:
            stride = self.common_stride
            # In float32: half precision cannot tell pixels apart.
            return upsampled(center, stride), upsampled(offset.float(), stride) * stride, {}, {}
        return (
            None,
            None,
            self.center_losses(center, center_targets, center_weights),
            self.offset_losses(offset, offset_targets, offset_weights),
        )

    def layers(self, features: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """The heatmap and the offsets at the common stride, the latter in units of it."""
        x = super().layers(features)
        center = self.center_predictor(self.center_head(x))
        return center, self.offset_predictor(self.offset_head(x))

    def center_losses(
        self, predictions: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """The loss ``loss_center``: the weighted mean of squared errors.

        Args:
            predictions: ``(N, 1, h, w)`` at the common stride.
            targets: ``(N, 1, H, W)``.
            weights: ``(N, 1, H, W)``. Where all are 0, so is the loss.
        """
        errors = self.center_loss(upsampled(predictions.float(), self.common_stride), targets)
        return {"loss_center": _weighted_mean(errors, weights) * self.center_loss_weight}

    def offset_losses(
        self, predictions: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """The loss ``loss_offset``: the weighted mean of ``|dy| + |dx|``, in pixels.

        Args:
            predictions: ``(N, 2, h, w)`` at the common stride, in units of it.
            targets: ``(N, 2, H, W)``, in pixels.
            weights: ``(N, 1, H, W)``. Where all are 0, so is the loss.
        """
        offsets = upsampled(predictions.float(), self.common_stride) * self.common_stride
        errors = self.offset_loss(offsets, targets)
        return {"loss_offset": _weighted_mean(errors, weights) * self.offset_loss_weight}


def _weighted_mean(errors: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Over the pixels of ``(N, C, H, W)``, with weights ``(N, 1, H, W)``; a sum over channels."""
    if weights.dim() != 4 or weights.size(1) != 1:
        raise ValueError(f"weights must have the shape (N, 1, H, W), got {list(weights.shape)}")
    total = weights.sum()
    return (errors * weights).sum() / torch.where(total > 0, total, 1)
