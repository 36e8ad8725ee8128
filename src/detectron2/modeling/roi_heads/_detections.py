"""From class scores and boxes of proposals to detections."""

import itertools
import math

import torch

from detectron2.layers.nms import batched_nms
from detectron2.layers.wrappers import cat
from detectron2.modeling._constants import box_limits, to_device
from detectron2.modeling.postprocessing import boxes_of_one
from detectron2.structures.boxes import Boxes
from detectron2.structures.instances import Instances
from detectron2.utils.tracing import first_rows


def _candidates(
    boxes: torch.Tensor, scores: torch.Tensor, score_thresh: float, box_dim: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """The pairs of a proposal and a class that score above the threshold, of finite proposals.

    Args:
        boxes: ``(R, K * box_dim)`` or ``(R, box_dim)``.
        scores: ``(R, K + 1)``.

    Returns:
        For C pairs, by proposal, then by class: boxes ``(C, box_dim)``, scores ``(C,)``, and
        their rows and classes, int64 ``(C,)``.
    """
    # torch.isfinite would take four kernels each.
    is_finite = (boxes.abs() < math.inf).all(dim=1) & (scores.abs() < math.inf).all(dim=1)
    is_candidate = (scores[:, :-1] > score_thresh) & is_finite[:, None]
    rows, classes = is_candidate.nonzero().unbind(1)
    num_regressions = boxes.size(1) // box_dim
    by_class = boxes.view(boxes.size(0), num_regressions, box_dim)
    chosen = by_class[rows, 0] if num_regressions == 1 else by_class[rows, classes]
    return chosen, scores[rows, classes], rows, classes


def _clipped(boxes: torch.Tensor, image_shape: tuple[int, int]) -> torch.Tensor:
    """Boxes ``(C, 4)`` clipped to an image."""
    if not torch.jit.is_scripting() and not torch.jit.is_tracing():
        return _clipped_to_limits(boxes, [image_shape])
    x0, y0, x1, y1 = boxes.unbind(1)
    height, width = image_shape[0], image_shape[1]
    return torch.stack(
        [
            x0.clamp(min=0, max=width),
            y0.clamp(min=0, max=height),
            x1.clamp(min=0, max=width),
            y1.clamp(min=0, max=height),
        ],
        dim=1,
    )


@torch.jit.unused
def _clipped_to_limits(
    boxes: torch.Tensor, image_shapes: list[tuple[int, int]], images: torch.Tensor | None = None
) -> torch.Tensor:
    """Boxes ``(C, 4)`` clipped to their images, ``(C,)``, or to the only one."""
    limits = box_limits(image_shapes, boxes.dtype, boxes.device)[:, 0]
    return boxes.clamp(min=0).minimum(limits if images is None else limits[images])


def fast_rcnn_inference_single_image(
    boxes: torch.Tensor,
    scores: torch.Tensor,
    image_shape: tuple[int, int],
    score_thresh: float,
    nms_thresh: float,
    topk_per_image: int,
) -> tuple[Instances, torch.Tensor]:
    """:func:`fast_rcnn_inference` of one image, given and returned without lists."""
    boxes, scores, rows, classes = _candidates(boxes, scores, score_thresh, 4)
    boxes = _clipped(boxes, image_shape)
    keep = batched_nms(boxes, scores, classes, nms_thresh)
    if topk_per_image >= 0:
        keep = first_rows(keep, topk_per_image)
    result = Instances(image_shape)
    result.pred_boxes = Boxes(boxes[keep])
    result.scores = scores[keep]
    result.pred_classes = classes[keep]
    return result, rows[keep]


@torch.jit.unused
def _inference_of_batch(
    boxes: list[torch.Tensor],
    scores: list[torch.Tensor],
    image_shapes: list[tuple[int, int]],
    score_thresh: float,
    nms_thresh: float,
    topk_per_image: int,
) -> tuple[list[Instances], list[torch.Tensor]]:
    """All images at once: the device is waited for three times, however many there are."""
    device = scores[0].device
    num_images, num_classes = len(boxes), scores[0].size(1) - 1
    starts = list(itertools.accumulate((len(x) for x in boxes[:-1]), initial=0))
    starts = to_device(starts, torch.int64, device)
    all_boxes, all_scores, rows, classes = _candidates(cat(boxes), cat(scores), score_thresh, 4)
    images = torch.bucketize(rows, starts[1:], right=True)
    all_boxes = _clipped_to_limits(all_boxes, image_shapes, images)

    keep = batched_nms(all_boxes, all_scores, images * num_classes + classes, nms_thresh)
    # By image, and within an image still by score.
    sorted_images, order = images[keep].sort(stable=True)
    keep = keep[order]
    boundaries = torch.arange(num_images, device=device)
    ends = torch.searchsorted(sorted_images, boundaries, right=True).tolist()
    all_boxes, all_scores, classes = all_boxes[keep], all_scores[keep], classes[keep]
    rows = rows[keep] - starts[sorted_images]

    results, kept = [], []
    for start, end, image_shape in zip([0, *ends[:-1]], ends, image_shapes, strict=True):
        if topk_per_image >= 0:
            end = min(end, start + topk_per_image)
        result = Instances(image_shape)
        result.pred_boxes = boxes_of_one(all_boxes[start:end])
        result.scores = all_scores[start:end]
        result.pred_classes = classes[start:end]
        results.append(result)
        kept.append(rows[start:end])
    return results, kept


def fast_rcnn_inference(
    boxes: list[torch.Tensor],
    scores: list[torch.Tensor],
    image_shapes: list[tuple[int, int]],
    score_thresh: float,
    nms_thresh: float,
    topk_per_image: int,
) -> tuple[list[Instances], list[torch.Tensor]]:
    """Turn scored boxes into detections: threshold, clip, NMS within each class, and best ones.

    Proposals with a box or a score that is not finite are dropped.

    Args:
        boxes: for each image ``(R_i, K * 4)``, XYXY, or ``(R_i, 4)`` for one box for all classes.
        scores: for each image ``(R_i, K + 1)``; the last column, of the background, gives no
            detections.
        image_shapes: (height, width) of each image.
        score_thresh: detections need a higher score.
        nms_thresh: a detection goes if its IoU with a better one of its class is greater.
        topk_per_image: detections that are kept of an image; negative: all.

    Returns:
        For each image :class:`Instances` with ``pred_boxes``, ``scores`` and ``pred_classes`` by
        descending score, and the int64 indices of the proposals that they come from.
    """
    # Scripts and traces keep to what does not depend on the number of detections.
    if not torch.jit.is_scripting() and not torch.jit.is_tracing() and len(boxes) > 1:
        return _inference_of_batch(
            boxes, scores, image_shapes, score_thresh, nms_thresh, topk_per_image
        )
    instances: list[Instances] = []
    kept: list[torch.Tensor] = []
    for i in range(len(boxes)):
        result, rows = fast_rcnn_inference_single_image(
            boxes[i], scores[i], image_shapes[i], score_thresh, nms_thresh, topk_per_image
        )
        instances.append(result)
        kept.append(rows)
    return instances, kept
