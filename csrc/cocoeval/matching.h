// Greedy matching of detections to ground truths by IoU, as the COCO protocol defines it.

#pragma once

#include <cstdint>

#include "csrc/cocoeval/groups.h"

namespace detectron2 {

// What a detection counts as, at one IoU threshold and in one area range.
enum class DetectionStatus : uint8_t { kFalsePositive = 0, kTruePositive = 1, kIgnored = 2 };

struct MatchingInputs {
  EvaluationGroups groups;
  const double* ious;
  int64_t num_dt;
  int64_t num_gt;
  const double* dt_areas;
  const double* gt_areas;
  const bool* dt_ignore;  // ignored where unmatched, whatever its area
  const bool* gt_crowd;   // may match any number of detections
  const bool* gt_ignore;  // ignored whatever its area
  int64_t num_areas;
  const double* area_ranges;  // (num_areas, 2), both ends inclusive
  int64_t num_thresholds;
  const double* iou_thresholds;
};

struct MatchingOutputs {
  DetectionStatus* dt_status;  // (num_areas, num_thresholds, num_dt)
  bool* gt_ignored;            // (num_areas, num_gt): gt_ignore, or area out of range
  int64_t* dt_matches;         // as dt_status: ground truth matched, or -1; null if not wanted
};

// Matches the groups in [begin, end). At each threshold, detections choose in order of score: the
// free ground truth of highest IoU, the later one among equals, and an ignored one only where no
// other reaches the threshold. A detection matched to an ignored ground truth is ignored, and so is
// an unmatched one that is marked so, or whose own area is out of range.
void coco_match(const MatchingInputs& inputs, int64_t begin, int64_t end,
                const MatchingOutputs& outputs);

}  // namespace detectron2
