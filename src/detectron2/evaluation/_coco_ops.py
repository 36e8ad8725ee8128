"""The native core of COCO evaluation, ``torch.ops.detectron2.coco_*``, with its fake kernels.

The ops run on the CPU and use all of PyTorch's intra-op threads. They read a data set as flat
arrays cut into *groups*: the detections and ground truths of one category in one image. Group ``g``
holds detections ``dt_offsets[g]:dt_offsets[g + 1]``, best score first, and ground truths likewise.
"""

import torch

import detectron2._ops  # noqa: F401  (loads the extension that registers the ops)


@torch.library.register_fake("detectron2::coco_box_iou")
def _coco_box_iou(
    dt_boxes: torch.Tensor,
    gt_boxes: torch.Tensor,
    gt_crowd: torch.Tensor,
    dt_offsets: torch.Tensor,
    gt_offsets: torch.Tensor,
) -> torch.Tensor:
    # One IoU for each pair within a group: how many there are, only the offsets' values tell.
    num_ious = torch.library.get_ctx().new_dynamic_size()
    return dt_boxes.new_empty(num_ious)


@torch.library.register_fake("detectron2::coco_keypoint_similarity")
def _coco_keypoint_similarity(
    dt_keypoints: torch.Tensor,
    gt_keypoints: torch.Tensor,
    gt_boxes: torch.Tensor,
    gt_areas: torch.Tensor,
    sigmas: torch.Tensor,
    dt_offsets: torch.Tensor,
    gt_offsets: torch.Tensor,
) -> torch.Tensor:
    num_pairs = torch.library.get_ctx().new_dynamic_size()
    return dt_keypoints.new_empty(num_pairs)


@torch.library.register_fake("detectron2::coco_encode_masks")
def _coco_encode_masks(masks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    num_characters = torch.library.get_ctx().new_dynamic_size()
    return (
        masks.new_empty(num_characters, dtype=torch.uint8),
        masks.new_empty(len(masks), dtype=torch.int64),
    )


@torch.library.register_fake("detectron2::coco_mask_areas")
def _coco_mask_areas(
    codes: torch.Tensor, begin: torch.Tensor, end: torch.Tensor, num_pixels: torch.Tensor
) -> torch.Tensor:
    return codes.new_empty(len(begin), dtype=torch.float64)


@torch.library.register_fake("detectron2::coco_mask_iou")
def _coco_mask_iou(
    dt_codes: torch.Tensor,
    dt_begin: torch.Tensor,
    dt_end: torch.Tensor,
    dt_num_pixels: torch.Tensor,
    gt_codes: torch.Tensor,
    gt_begin: torch.Tensor,
    gt_end: torch.Tensor,
    gt_num_pixels: torch.Tensor,
    gt_crowd: torch.Tensor,
    dt_offsets: torch.Tensor,
    gt_offsets: torch.Tensor,
) -> torch.Tensor:
    num_pairs = torch.library.get_ctx().new_dynamic_size()
    return dt_codes.new_empty(num_pairs, dtype=torch.float64)


@torch.library.register_fake("detectron2::coco_match")
def _coco_match(
    ious: torch.Tensor,
    dt_areas: torch.Tensor,
    gt_areas: torch.Tensor,
    dt_ignore: torch.Tensor,
    gt_crowd: torch.Tensor,
    gt_ignore: torch.Tensor,
    dt_offsets: torch.Tensor,
    gt_offsets: torch.Tensor,
    area_ranges: torch.Tensor,
    iou_thresholds: torch.Tensor,
    return_matches: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    num_areas, num_thresholds, num_dt = len(area_ranges), len(iou_thresholds), len(dt_areas)
    dt_status = ious.new_empty((num_areas, num_thresholds, num_dt), dtype=torch.uint8)
    gt_ignored = ious.new_empty((num_areas, len(gt_areas)), dtype=torch.bool)
    num_matches = num_dt if return_matches else 0
    dt_matches = ious.new_empty((num_areas, num_thresholds, num_matches), dtype=torch.int64)
    return dt_status, gt_ignored, dt_matches


@torch.library.register_fake("detectron2::coco_accumulate")
def _coco_accumulate(
    dt_status: torch.Tensor,
    gt_ignored: torch.Tensor,
    dt_scores: torch.Tensor,
    dt_ranks: torch.Tensor,
    dt_category_offsets: torch.Tensor,
    gt_category_offsets: torch.Tensor,
    recall_thresholds: torch.Tensor,
    max_dets: torch.Tensor,
    return_scores: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    num_areas, num_thresholds, _ = dt_status.shape
    curves = (len(dt_category_offsets) - 1, num_areas, len(max_dets))
    precision = dt_scores.new_empty((num_thresholds, len(recall_thresholds), *curves))
    recall = dt_scores.new_empty((num_thresholds, *curves))
    num_scores = len(recall_thresholds) if return_scores else 0
    scores = dt_scores.new_empty((num_thresholds, num_scores, *curves))
    return precision, recall, scores


@torch.library.register_fake("detectron2::coco_results_json")
def _coco_results_json(
    image_ids: torch.Tensor,
    image_id_offsets: torch.Tensor,
    images: torch.Tensor,
    category_ids: torch.Tensor,
    boxes: torch.Tensor,
    scores: torch.Tensor,
    mask_codes: torch.Tensor,
    mask_begin: torch.Tensor,
    mask_end: torch.Tensor,
    mask_sizes: torch.Tensor,
    keypoints: torch.Tensor,
) -> torch.Tensor:
    num_characters = torch.library.get_ctx().new_dynamic_size()
    return image_ids.new_empty(num_characters)
