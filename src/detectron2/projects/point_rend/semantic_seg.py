"""Semantic segmentation that is refined at points."""

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from detectron2.config import CfgNode
from detectron2.layers._dtypes import at_least_float32
from detectron2.layers.shape_spec import ShapeSpec

# Code written for upstream imports some of these names from here.
from detectron2.layers.wrappers import cat
from detectron2.modeling.meta_arch._pixel_head import mean_or_zero
from detectron2.modeling.meta_arch.semantic_seg import SEM_SEG_HEADS_REGISTRY
from detectron2.projects.point_rend.point_features import (
    get_uncertain_point_coords_on_grid,
    get_uncertain_point_coords_with_randomness,
    point_sample,
)
from detectron2.projects.point_rend.point_head import build_point_head

__all__ = ["PointRendSemSegHead", "calculate_uncertainty"]


def calculate_uncertainty(sem_seg_logits: torch.Tensor) -> torch.Tensor:
    """The second best logit less the best one.

    Args:
        sem_seg_logits: ``(N, K, ...)``.

    Returns:
        ``(N, 1, ...)``, at most 0, the larger the more uncertain.

    Raises:
        ValueError: there is but one class.
    """
    if sem_seg_logits.size(1) < 2:
        raise ValueError(f"need logits of two classes, got {list(sem_seg_logits.shape)}")
    # Not by topk, which sorts the classes of every pixel.
    best, index = sem_seg_logits.max(dim=1, keepdim=True)
    second = sem_seg_logits.scatter(1, index, -torch.inf).amax(dim=1, keepdim=True)
    return second - best


@SEM_SEG_HEADS_REGISTRY.register()
class PointRendSemSegHead(nn.Module):
    """Another semantic head, whose prediction is refined at its most uncertain points."""

    def __init__(self, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> None:
        """
        Args:
            cfg: a configuration with the keys of :func:`add_pointrend_config`; the other head is
                ``MODEL.POINT_HEAD.COARSE_SEM_SEG_HEAD_NAME``, and needs the methods ``layers`` and
                ``losses``.
            input_shape: feature maps by name, with channels and strides.

        Raises:
            ValueError: the heads have other numbers of classes.
        """
        super().__init__()
        self.ignore_value = cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE
        coarse_head = SEM_SEG_HEADS_REGISTRY.get(cfg.MODEL.POINT_HEAD.COARSE_SEM_SEG_HEAD_NAME)
        self.coarse_sem_seg_head = coarse_head(cfg, input_shape)
        self._init_point_head(cfg, input_shape)

    def _init_point_head(self, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> None:
        head = cfg.MODEL.POINT_HEAD
        if head.NUM_CLASSES != cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES:
            raise ValueError(
                "MODEL.POINT_HEAD.NUM_CLASSES must be MODEL.SEM_SEG_HEAD.NUM_CLASSES, got "
                f"{head.NUM_CLASSES} and {cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES}"
            )
        self.in_features = head.IN_FEATURES
        self.train_num_points = head.TRAIN_NUM_POINTS
        self.oversample_ratio = head.OVERSAMPLE_RATIO
        self.importance_sample_ratio = head.IMPORTANCE_SAMPLE_RATIO
        self.subdivision_steps = head.SUBDIVISION_STEPS
        self.subdivision_num_points = head.SUBDIVISION_NUM_POINTS
        channels = sum(input_shape[name].channels for name in self.in_features)
        self.point_head = build_point_head(cfg, ShapeSpec(channels=channels, width=1, height=1))

    def forward(
        self, features: dict[str, torch.Tensor], targets: torch.Tensor | None = None
    ) -> tuple[torch.Tensor | None, dict[str, torch.Tensor]]:
        """Predict, or compute the losses.

        Args:
            features: feature maps ``(N, C_i, H_i, W_i)`` by name.
            targets: int64 ``(N, H, W)``, in training.

        Returns:
            In training None and the losses ``loss_sem_seg``, of the coarse prediction, and
            ``loss_sem_seg_point``; otherwise logits, which are ``2**SUBDIVISION_STEPS`` times
            as large as the coarse ones: as the input, if that is their stride. And no losses.
        """
        coarse_logits = self.coarse_sem_seg_head.layers(features)
        if not self.training:
            return self._subdivided(features, coarse_logits), {}
        losses = self.coarse_sem_seg_head.losses(coarse_logits, targets)
        with torch.no_grad():
            point_coords = get_uncertain_point_coords_with_randomness(
                coarse_logits,
                calculate_uncertainty,
                self.train_num_points,
                self.oversample_ratio,
                self.importance_sample_ratio,
            )
            point_targets = _labels_at(targets, point_coords)
        logits = self._point_logits(features, coarse_logits, point_coords)
        logits = at_least_float32(logits)
        loss = F.cross_entropy(
            logits, point_targets, reduction="mean", ignore_index=self.ignore_value
        )
        losses["loss_sem_seg_point"] = mean_or_zero(loss, point_targets, self.ignore_value)
        return None, losses

    def _point_logits(
        self,
        features: dict[str, torch.Tensor],
        coarse_logits: torch.Tensor,
        point_coords: torch.Tensor,
    ) -> torch.Tensor:
        """Logits ``(N, K, P)`` at points relative to the images, ``(N, P, 2)``."""
        sampled = [
            point_sample(features[name], point_coords, align_corners=False)
            for name in self.in_features
        ]
        coarse_features = point_sample(coarse_logits, point_coords, align_corners=False)
        return self.point_head(cat(sampled, dim=1), coarse_features)

    def _subdivided(
        self, features: dict[str, torch.Tensor], coarse_logits: torch.Tensor
    ) -> torch.Tensor:
        logits = coarse_logits
        for _ in range(self.subdivision_steps):
            logits = F.interpolate(logits, scale_factor=2, mode="bilinear", align_corners=False)
            index, point_coords = get_uncertain_point_coords_on_grid(
                calculate_uncertainty(logits), self.subdivision_num_points
            )
            refined = self._point_logits(features, coarse_logits, point_coords).to(logits.dtype)
            pixels = logits.view(*logits.shape[:2], -1)
            pixels.scatter_(2, index[:, None].expand_as(refined), refined)
        return logits


def _labels_at(targets: torch.Tensor, point_coords: torch.Tensor) -> torch.Tensor:
    """The labels ``(N, P)`` of the pixels of ``(N, H, W)`` that points relative to them are in."""
    height, width = targets.shape[-2:]
    column = (point_coords[..., 0] * width).to(torch.int64).clamp(0, width - 1)
    row = (point_coords[..., 1] * height).to(torch.int64).clamp(0, height - 1)
    return targets.flatten(1).gather(1, row * width + column)
