// IoU of masks, within groups, on their run lengths.

#pragma once

#include <cstdint>

#include "csrc/cocoeval/groups.h"

namespace detectron2 {

// Masks as strings of run lengths (mask_codes.h) in one array: mask n is the characters
// [begin[n], end[n]), and has num_pixels[n].
struct CodedMasks {
  const uint8_t* codes;
  const int64_t* begin;
  const int64_t* end;
  const int64_t* num_pixels;
};

// Writes the number of set pixels of each mask in [begin, end), and returns -1; or the first mask
// whose string is malformed.
int64_t coco_mask_areas(const CodedMasks& masks, int64_t begin, int64_t end, double* areas);

// Writes the IoU of every detection with every ground truth of the same group, for the groups in
// [begin, end); both have as many pixels. Against a crowd the union is the detection's area alone.
// Masks that share no pixel have IoU 0, empty ones among them. False if a string is malformed.
bool coco_mask_iou(const CodedMasks& dt, const CodedMasks& gt, const bool* gt_crowd,
                   const EvaluationGroups& groups, int64_t begin, int64_t end, double* ious);

}  // namespace detectron2
