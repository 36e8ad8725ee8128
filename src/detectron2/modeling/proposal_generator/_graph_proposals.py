"""The choice of proposals where a script or a trace is made: of any number of anchors and images.

It gives what ``select_proposals`` gives, an image and a level at a time.
"""

import torch

from detectron2.layers import batched_nms
from detectron2.structures import Boxes, Instances


def find_proposals_in_graph(
    proposals: list[torch.Tensor],
    logits: list[torch.Tensor],
    image_sizes: list[tuple[int, int]],
    nms_thresh: float,
    pre_nms_topk: int,
    post_nms_topk: int,
    min_box_size: float,
) -> list[Instances]:
    """Choose proposals; the arguments are those of ``find_top_rpn_proposals``."""
    all_logits: list[torch.Tensor] = []
    all_boxes: list[torch.Tensor] = []
    all_levels: list[torch.Tensor] = []
    for level, (of_level, its_boxes) in enumerate(zip(logits, proposals)):  # noqa: B905
        # Sorting needs no number that would be a constant of a trace.
        values, indices = of_level.float().sort(descending=True, dim=1)
        indices = indices[:, :pre_nms_topk]
        all_logits.append(values[:, :pre_nms_topk])
        all_boxes.append(its_boxes.gather(1, indices[..., None].expand(-1, -1, its_boxes.size(2))))
        all_levels.append(torch.full_like(indices[0], level))
    boxes_of_images = torch.cat(all_boxes, dim=1)
    logits_of_images = torch.cat(all_logits, dim=1)
    levels = torch.cat(all_levels)

    results: list[Instances] = []
    for i, image_size in enumerate(image_sizes):
        tensor, scores = boxes_of_images[i], logits_of_images[i]
        is_finite = torch.isfinite(tensor).all(dim=1) & torch.isfinite(scores)
        boxes = Boxes(tensor[is_finite])
        scores = scores[is_finite]
        classes = levels[is_finite]
        boxes.clip(image_size)
        is_large = boxes.nonempty(min_box_size)
        boxes, scores, classes = boxes[is_large], scores[is_large], classes[is_large]
        kept = batched_nms(boxes.tensor, scores, classes, nms_thresh)[:post_nms_topk]
        instances = Instances(image_size)
        instances.proposal_boxes = boxes[kept]
        instances.objectness_logits = scores[kept]
        results.append(instances)
    return results
