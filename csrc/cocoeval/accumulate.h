// Precision and recall of whole categories from the statuses of their detections.

#pragma once

#include <cstdint>

#include "csrc/cocoeval/matching.h"

namespace detectron2 {

struct AccumulationInputs {
  int64_t num_dt;
  int64_t num_gt;
  const DetectionStatus* dt_status;    // (num_areas, num_thresholds, num_dt)
  const bool* gt_ignored;              // (num_areas, num_gt)
  const double* dt_scores;             // (num_dt)
  const int64_t* dt_ranks;             // (num_dt): place by score within the group, from 0
  const int64_t* dt_category_offsets;  // (num_categories + 1)
  const int64_t* gt_category_offsets;  // (num_categories + 1)
  int64_t num_thresholds;
  int64_t num_recalls;
  const double* recall_thresholds;
  int64_t num_categories;
  int64_t num_areas;
  int64_t num_max_dets;
  const int64_t* max_dets;  // detections kept in each group
};

// All -1 where the category has no ground truth that counts in the area range.
struct AccumulationOutputs {
  double* precision;  // (num_thresholds, num_recalls, num_categories, num_areas, num_max_dets)
  double* recall;     // (num_thresholds, num_categories, num_areas, num_max_dets)
  double* scores;     // as precision: score at which the recall is reached, 0 where it is not;
                      // null if not wanted
};

// Writes the detections of one category into `order`, from its place dt_category_offsets[category]
// on, by decreasing score; equal scores keep their order.
void coco_sort_category(const AccumulationInputs& inputs, int64_t category, int64_t* order);

// Fills all thresholds of one curve; `curve` counts through (category, area range, max_dets).
// `order` is what coco_sort_category wrote for all categories.
void coco_accumulate_curve(const AccumulationInputs& inputs, const int64_t* order, int64_t curve,
                           const AccumulationOutputs& outputs);

}  // namespace detectron2
