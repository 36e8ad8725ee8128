// IoU of axis-aligned boxes, within groups, with the COCO rule for crowds.

#pragma once

#include <cstdint>

#include "csrc/cocoeval/groups.h"

namespace detectron2 {

// Writes the IoU of every detection with every ground truth of the same group, for the groups in
// [begin, end). Boxes are XYWH in absolute pixels. Against a crowd the union is the detection's
// area alone, since one crowd box stands for many objects. Boxes that do not overlap have IoU 0,
// degenerate ones among them.
void coco_box_iou(const double* dt_boxes, const double* gt_boxes, const bool* gt_crowd,
                  const EvaluationGroups& groups, int64_t begin, int64_t end, double* ious);

}  // namespace detectron2
