"""From scores and deltas of all anchors to detections.

On each level, the highest scores above a threshold are candidates, whatever their class; those of
all levels go through NMS within their class, and the best of what is left are detections.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from detectron2.layers import batched_nms
from detectron2.modeling._constants import box_limits
from detectron2.modeling._graph_replay import ReplayedModel
from detectron2.modeling._nms_selection import nms_mask, take
from detectron2.structures import Boxes, Instances


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
            instances.pred_boxes = Boxes(self.boxes[i, 0:count])
            instances.scores = self.scores[i, 0:count]
            instances.pred_classes = self.classes[i, 0:count]
            results.append(instances)
        return results


class DenseInference(ReplayedModel):
    """What dense detectors make detections with.

    Subclasses have the attributes ``box2box_transform``, ``test_score_thresh`` (what the score of
    a candidate exceeds), ``test_topk_candidates`` (of each level), ``test_nms_thresh`` and
    ``max_detections_per_image``.
    """

    def _detect_single_image(
        self,
        anchors: list[Boxes],
        scores: list[torch.Tensor],
        deltas: list[torch.Tensor],
        image_size: tuple[int, int],
    ) -> Instances:
        """The detections of one image; also in a script or a trace.

        Args:
            anchors: of each level, ``R_i``.
            scores: of each level, ``(R_i, K)``.
            deltas: of each level, ``(R_i, 4)``.
            image_size: (height, width).

        Returns:
            ``pred_boxes``, clipped to the image, ``scores`` and ``pred_classes``, the best first.
        """
        all_boxes: list[torch.Tensor] = []
        all_scores: list[torch.Tensor] = []
        all_classes: list[torch.Tensor] = []
        for of_level, its_scores, its_deltas in zip(anchors, scores, deltas):  # noqa: B905
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

    @torch.jit.unused
    def _detect(
        self,
        anchors: list[Boxes],
        logits: list[torch.Tensor],
        deltas: list[torch.Tensor],
        image_sizes: list[tuple[int, int]],
        to_scores: Callable[[torch.Tensor], torch.Tensor],
    ) -> list[Instances]:
        """The detections of N images at once. The device is waited for twice at most.

        Args:
            anchors: of each level, ``R_i``.
            logits: of each level, ``(N, R_i, K)``: what ascends with the scores.
            deltas: of each level, ``(N, R_i, 4)``.
            image_sizes: (height, width) of each image.
            to_scores: makes scores of float32 logits, of the same shape.

        Returns:
            For each image what :meth:`_detect_single_image` gives.
        """
        limits = box_limits(image_sizes, torch.float32, logits[0].device)
        return self._detect_on_device(anchors, logits, deltas, limits, to_scores).to_instances(
            image_sizes
        )

    @torch.jit.unused
    def _detect_on_device(
        self,
        anchors: list[Boxes],
        logits: list[torch.Tensor],
        deltas: list[torch.Tensor],
        limits: torch.Tensor,
        to_scores: Callable[[torch.Tensor], torch.Tensor],
    ) -> TopDetections:
        """:meth:`_detect` without waiting for the device, but for very many candidates.

        Args:
            anchors: as there, like what else is not listed.
            limits: ``(N, 1, 4)``, width and height of each image, twice.
        """
        num_classes = logits[0].size(2)
        values, rows, classes = [], [], []
        start = 0
        for of_level in logits:
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
        scores = to_scores(torch.cat(values, dim=1).float())
        rows, classes = torch.cat(rows, dim=1), torch.cat(classes, dim=1)
        scores, order = scores.sort(dim=1, descending=True, stable=True)
        rows, classes = rows.gather(1, order), classes.gather(1, order)

        of_anchors = torch.cat([boxes.tensor for boxes in anchors])[rows]
        boxes = self.box2box_transform.apply_deltas(
            take(torch.cat(deltas, dim=1), rows), of_anchors
        )
        kept = nms_mask(boxes, scores > self.test_score_thresh, self.test_nms_thresh, classes)

        size = torch.sym_min(self.max_detections_per_image, kept.size(1))
        scores, order = torch.where(kept, scores, -torch.inf).topk(size, dim=1)
        classes = classes.gather(1, order)
        boxes = take(boxes, order).clamp(min=0).minimum(limits.to(boxes.dtype))
        return TopDetections(boxes, scores, classes, kept.sum(dim=1).clamp(max=size))
