// How the COCO evaluation kernels see a data set: one flat array for each field, cut into groups.

#pragma once

#include <cstdint>

namespace detectron2 {

// A group is what competes for matches: the detections and the ground truths of one category in one
// image. Detections of group g are [dt_offsets[g], dt_offsets[g + 1]), best score first; ground
// truths likewise. Its IoUs, one row a detection, start at iou_offsets[g].
struct EvaluationGroups {
  const int64_t* dt_offsets;
  const int64_t* gt_offsets;
  const int64_t* iou_offsets;

  int64_t num_dt(int64_t group) const { return dt_offsets[group + 1] - dt_offsets[group]; }
  int64_t num_gt(int64_t group) const { return gt_offsets[group + 1] - gt_offsets[group]; }
};

}  // namespace detectron2
