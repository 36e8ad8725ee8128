// Object keypoint similarity (https://cocodataset.org/#keypoints-eval), within groups.

#pragma once

#include <cstdint>

#include "csrc/cocoeval/groups.h"

namespace detectron2 {

struct KeypointInputs {
  int64_t num_keypoints;
  const double* dt_keypoints;  // (num_dt, num_keypoints, 3): x, y, score
  const double* gt_keypoints;  // (num_gt, num_keypoints, 3): x, y, visibility
  const double* gt_boxes;      // (num_gt, 4) XYWH
  const double* gt_areas;      // (num_gt)
  const double* variances;     // (num_keypoints): (2 sigma)^2
};

// Writes the similarity of every detection with every ground truth of the same group, for the
// groups in [begin, end): exp(-d^2 / (2 area (2 sigma)^2)), averaged over the keypoints that are
// labelled in the ground truth. One without labelled keypoints is there to be ignored: for it, d is
// the distance of any keypoint to the box of three times its size around it.
void coco_keypoint_similarity(const KeypointInputs& inputs, const EvaluationGroups& groups,
                              int64_t begin, int64_t end, double* similarities);

}  // namespace detectron2
