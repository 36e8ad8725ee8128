#include "csrc/cocoeval/box_iou.h"

#include <algorithm>

namespace detectron2 {
namespace {

double box_iou(const double* dt, const double* gt, bool crowd) {
  const double width = std::min(dt[0] + dt[2], gt[0] + gt[2]) - std::max(dt[0], gt[0]);
  const double height = std::min(dt[1] + dt[3], gt[1] + gt[3]) - std::max(dt[1], gt[1]);
  if (width <= 0 || height <= 0) return 0;
  const double intersection = width * height;
  const double dt_area = dt[2] * dt[3];
  // Summed in the order of the COCO API, so that an IoU at a threshold falls on the same side.
  const double union_area = crowd ? dt_area : dt_area + gt[2] * gt[3] - intersection;
  return intersection / union_area;
}

}  // namespace

void coco_box_iou(const double* dt_boxes, const double* gt_boxes, const bool* gt_crowd,
                  const EvaluationGroups& groups, int64_t begin, int64_t end, double* ious) {
  for (int64_t group = begin; group < end; ++group) {
    double* iou = ious + groups.iou_offsets[group];
    for (int64_t d = groups.dt_offsets[group]; d < groups.dt_offsets[group + 1]; ++d) {
      for (int64_t g = groups.gt_offsets[group]; g < groups.gt_offsets[group + 1]; ++g) {
        *iou++ = box_iou(dt_boxes + 4 * d, gt_boxes + 4 * g, gt_crowd[g]);
      }
    }
  }
}

}  // namespace detectron2
