"""What RetinaNet and FCOS share: the loss of classes, and the way from all anchors to detections.

On each level, the highest scores above a threshold are candidates, whatever their class; those of
all levels go through NMS within their class, and the best of what is left are detections.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from detectron2.layers import batched_nms
from detectron2.modeling._constants import box_limits
from detectron2.modeling._focal_loss import sigmoid_focal_loss_sum
from detectron2.modeling._nms_selection import nms_mask, take
from detectron2.modeling._own_methods import works_around
from detectron2.modeling.backbone import Backbone
from detectron2.modeling.box_regression import apply_deltas_by_row
from detectron2.modeling.meta_arch._images import image_inputs
from detectron2.modeling.meta_arch.dense_detector import DenseDetector
from detectron2.modeling.postprocessing import boxes_of_one
from detectron2.structures import Boxes, ImageList, Instances
from detectron2.utils.events import get_event_storage


@dataclass
class TopDetections:
    """Detections of N images, of each by descending score.

    Attributes:
        boxes: ``(N, K, 4)``, clipped to the image.
        scores: ``(N, K)``.
        classes: ``(N, K)``.
        counts: ``(N,)``: how many of each image there are; what is behind them is none.
    """

    boxes: torch.Tensor
    scores: torch.Tensor
    classes: torch.Tensor
    counts: torch.Tensor

    def clone(self) -> "TopDetections":
        """The same in memory of their own."""
        return TopDetections(
            self.boxes.clone(), self.scores.clone(), self.classes.clone(), self.counts
        )

    def to_instances(self, image_sizes: list[tuple[int, int]]) -> list[Instances]:
        """Instances with views of these. Waits for the device.

        Args:
            image_sizes: (height, width) of the N images.
        """
        results = []
        counts = self.counts.tolist()
        for i, (image_size, count) in enumerate(zip(image_sizes, counts, strict=True)):
            instances = Instances(image_size)
            # Sliced, then selected: of a selection, Inductor of PyTorch 2.11 has no strides.
            instances.pred_boxes = boxes_of_one(self.boxes[:, 0:count][i])
            instances.scores = self.scores[:, 0:count][i]
            instances.pred_classes = self.classes[:, 0:count][i]
            results.append(instances)
        return results


def focal_loss_of_levels(
    logits: list[torch.Tensor], labels: torch.Tensor, alpha: float, gamma: float
) -> torch.Tensor:
    """Sum of the focal losses of all anchors.

    Args:
        logits: of each level, ``(N, R_i, K)``.
        labels: ``(N, R)``, of all levels: the class, K for background, -1 for what is ignored.
        alpha: weight of the foreground.
        gamma: exponent.
    """
    # Not of all levels together, which would be a copy of the largest tensor there is.
    of_levels = labels.split([x.size(1) for x in logits], dim=1)
    losses = [
        sigmoid_focal_loss_sum(x.flatten(0, 1), y.flatten(), alpha, gamma)
        for x, y in zip(logits, of_levels, strict=True)
    ]
    return torch.stack(losses).sum()


@works_around("forward_inference", "inference_single_image", "_transpose_dense_predictions")
class OneStageDetector(DenseDetector):
    """A dense detector of classes by the focal loss, and of one box an anchor.

    Subclasses have the attributes ``anchor_generator`` and ``box2box_transform``, and the methods
    ``_ranks_and_deltas`` and ``_to_scores``.
    """

    def __init__(
        self,
        backbone: Backbone,
        head: nn.Module,
        head_in_features: list[str] | None,
        *,
        num_classes: int,
        focal_loss_alpha: float,
        focal_loss_gamma: float,
        test_score_thresh: float,
        test_topk_candidates: int,
        test_nms_thresh: float,
        max_detections_per_image: int,
        pixel_mean: tuple[float, ...],
        pixel_std: tuple[float, ...],
    ) -> None:
        """Arguments as for :class:`FCOS`."""
        super().__init__(
            backbone, head, head_in_features, pixel_mean=pixel_mean, pixel_std=pixel_std
        )
        self.num_classes = num_classes
        self.focal_loss_alpha = focal_loss_alpha
        self.focal_loss_gamma = focal_loss_gamma
        self.test_score_thresh = test_score_thresh
        self.test_topk_candidates = test_topk_candidates
        self.test_nms_thresh = test_nms_thresh
        self.max_detections_per_image = max_detections_per_image

    @torch.jit.unused
    def _class_loss(
        self,
        pred_logits: list[torch.Tensor],
        gt_labels: list[torch.Tensor],
        initial_normalizer: float,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The focal loss, what else the losses need, and the event ``num_pos_anchors``.

        Args:
            pred_logits: of each level, ``(N, R_i, K)``.
            gt_labels: of each of N images, ``(R,)``: the class, K for background, -1 for what is
                ignored.
            initial_normalizer: the moving average before the first batch.

        Returns:
            The loss of all anchors that are not ignored, not normalised; which of them are
            positive, ``(N, R)``; and the normaliser, a moving average of their number in a batch.
        """
        labels = torch.stack(list(gt_labels))
        is_positive = (labels >= 0) & (labels != self.num_classes)
        num_positives = is_positive.sum()
        get_event_storage().put_scalar("num_pos_anchors", num_positives / len(labels))
        normalizer = self._ema_update(
            "loss_normalizer", num_positives.clamp(min=1), initial_normalizer
        )
        loss = focal_loss_of_levels(
            pred_logits, labels, self.focal_loss_alpha, self.focal_loss_gamma
        )
        return loss, is_positive, normalizer

    def forward_inference(
        self,
        images: ImageList,
        features: list[torch.Tensor],
        predictions: list[list[torch.Tensor]],
    ) -> list[Instances]:
        """Detect; see :meth:`inference_single_image` for the results.

        Args:
            images: N images; only their sizes count.
            features: of each level, ``(N, C, H_i, W_i)``.
            predictions: what the head gives of them.
        """
        ranks, deltas = self._ranks_and_deltas(predictions)
        anchors = self.anchor_generator(features)
        if not torch.jit.is_scripting() and self._detects_at_once():
            return self._detect(anchors, ranks, deltas, images.image_sizes)
        results: list[Instances] = []
        for i, image_size in enumerate(images.image_sizes):
            its_scores = [self._to_scores(x[i]) for x in ranks]
            its_deltas = [x[i] for x in deltas]
            results.append(self.inference_single_image(anchors, its_scores, its_deltas, image_size))
        return results

    def inference_single_image(
        self,
        anchors: list[Boxes],
        box_cls: list[torch.Tensor],
        box_delta: list[torch.Tensor],
        image_size: tuple[int, int],
    ) -> Instances:
        """Detect in one image; also in a script or a trace.

        Args:
            anchors: of each level, ``R_i``.
            box_cls: of each level, scores ``(R_i, K)``.
            box_delta: of each level, ``(R_i, 4)``.
            image_size: (height, width).

        Returns:
            ``pred_boxes``, clipped to the image, ``scores`` and ``pred_classes``, the best first.
        """
        all_boxes: list[torch.Tensor] = []
        all_scores: list[torch.Tensor] = []
        all_classes: list[torch.Tensor] = []
        for of_level, its_scores, its_deltas in zip(anchors, box_cls, box_delta):  # noqa: B905
            candidates = torch.nonzero(its_scores > self.test_score_thresh)
            best, order = its_scores[candidates[:, 0], candidates[:, 1]].sort(descending=True)
            candidates = candidates[order[: self.test_topk_candidates]]
            rows = candidates[:, 0]
            boxes = self.box2box_transform.apply_deltas(its_deltas[rows], of_level.tensor[rows])
            all_boxes.append(boxes)
            all_scores.append(best[: self.test_topk_candidates].float())
            all_classes.append(candidates[:, 1])
        boxes, best_scores = torch.cat(all_boxes), torch.cat(all_scores)
        classes = torch.cat(all_classes)
        kept = batched_nms(boxes, best_scores, classes, self.test_nms_thresh)
        kept = kept[: self.max_detections_per_image]
        pred_boxes = Boxes(boxes[kept])
        pred_boxes.clip(image_size)
        instances = Instances(image_size)
        instances.pred_boxes = pred_boxes
        instances.scores = best_scores[kept]
        instances.pred_classes = classes[kept]
        return instances

    def _ranks_and_deltas(
        self, predictions: list[list[torch.Tensor]]
    ) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Of each level and in the order of the anchors, what ascends with the scores, ``(N, R_i,
        K)``, and deltas ``(N, R_i, 4)``, from the head's predictions."""
        raise NotImplementedError(f"{type(self).__name__} has no _ranks_and_deltas")

    def _to_scores(self, ranks: torch.Tensor) -> torch.Tensor:
        """Scores of what ascends with them, in the same shape."""
        raise NotImplementedError(f"{type(self).__name__} has no _to_scores")

    @torch.jit.unused
    def _detects_at_once(self) -> bool:
        """Neither in a trace, which must hold for any number of detections, nor where a subclass
        has its own way for single images."""
        is_own = self._has_own(OneStageDetector, "inference_single_image")
        return not (is_own or torch.jit.is_tracing())

    @torch.jit.unused
    def _detects_on_device(self) -> bool:
        """Whether ``forward_inference`` is what :meth:`_compute_detections` does."""
        methods = ("forward_inference", "inference_single_image", "_transpose_dense_predictions")
        return not self._has_own(OneStageDetector, *methods)

    @torch.jit.unused
    def _replayed(self, images: Any) -> list[Instances] | None:
        """What ``forward_inference`` gives, by a CUDA graph; None if there is none."""
        if not (self._may_replay(images.tensor) and self._detects_on_device()):
            return None
        found = self.graph_replay(
            self._compute_detections,
            image_inputs(images),
            [self.backbone, self.head, self.anchor_generator],
            settings={
                "head_in_features": self.head_in_features,
                "num_classes": self.num_classes,
                "test_score_thresh": self.test_score_thresh,
                "test_topk_candidates": self.test_topk_candidates,
                "test_nms_thresh": self.test_nms_thresh,
                "max_detections_per_image": self.max_detections_per_image,
                "box2box_transform": (self.box2box_transform, vars(self.box2box_transform)),
            },
        )
        return None if found is None else found.clone().to_instances(images.image_sizes)

    @torch.jit.unused
    def _compute_detections(
        self, batch: torch.Tensor, limits: torch.Tensor
    ) -> tuple[TopDetections, list[torch.Tensor]]:
        features = self.backbone(batch)
        maps = [features[name] for name in self.head_in_features]
        ranks, deltas = self._ranks_and_deltas(self.head(maps))
        anchors = self.anchor_generator(maps)
        found = self._detect_on_device(anchors, ranks, deltas, limits)
        return found, [x.tensor for x in anchors]

    @torch.jit.unused
    def _detect(
        self,
        anchors: list[Boxes],
        ranks: list[torch.Tensor],
        deltas: list[torch.Tensor],
        image_sizes: list[tuple[int, int]],
    ) -> list[Instances]:
        """The detections of N images at once. The device is waited for twice at most.

        Args:
            anchors: of each level, ``R_i``.
            ranks: of each level, ``(N, R_i, K)``: what ascends with the scores.
            deltas: of each level, ``(N, R_i, 4)``.
            image_sizes: (height, width) of each image.

        Returns:
            For each image what :meth:`inference_single_image` gives.
        """
        limits = box_limits(image_sizes, torch.float32, ranks[0].device)
        return self._detect_on_device(anchors, ranks, deltas, limits).to_instances(image_sizes)

    @torch.jit.unused
    def _detect_on_device(
        self,
        anchors: list[Boxes],
        ranks: list[torch.Tensor],
        deltas: list[torch.Tensor],
        limits: torch.Tensor,
    ) -> TopDetections:
        """:meth:`_detect` without waiting for the device, but for very many candidates.

        Args:
            anchors: as there, like what else is not listed.
            limits: ``(N, 1, 4)``, width and height of each image, twice.
        """
        num_classes = ranks[0].size(2)
        values, rows, classes = [], [], []
        start = 0
        for of_level in ranks:
            # Not of all levels together, which would be a copy of several times their size.
            size = of_level.size(1) * num_classes
            best, indices = of_level.flatten(1).topk(
                torch.sym_min(self.test_topk_candidates, size), dim=1
            )
            values.append(best)
            row = torch.div(indices, num_classes, rounding_mode="floor")
            classes.append(indices - row * num_classes)
            rows.append(row + start)
            start += of_level.size(1)
        scores = self._to_scores(torch.cat(values, dim=1).float())
        rows, classes = torch.cat(rows, dim=1), torch.cat(classes, dim=1)
        scores, order = scores.sort(dim=1, descending=True, stable=True)
        rows, classes = rows.gather(1, order), classes.gather(1, order)

        of_anchors = torch.cat([boxes.tensor for boxes in anchors])[rows]
        best_deltas = take(torch.cat(deltas, dim=1), rows)
        boxes = apply_deltas_by_row(self.box2box_transform, best_deltas, of_anchors)
        kept = nms_mask(boxes, scores > self.test_score_thresh, self.test_nms_thresh, classes)

        size = torch.sym_min(self.max_detections_per_image, kept.size(1))
        scores, order = torch.where(kept, scores, -torch.inf).topk(size, dim=1)
        classes = classes.gather(1, order)
        boxes = take(boxes, order).clamp(min=0).minimum(limits.to(boxes.dtype))
        return TopDetections(boxes, scores, classes, kept.sum(dim=1).clamp(max=size))
