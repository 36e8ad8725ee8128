#include "csrc/cocoeval/mask_iou.h"

#include <algorithm>
#include <vector>

#include "csrc/cocoeval/mask_codes.h"

namespace detectron2 {
namespace {

struct Mask {
  std::vector<PixelRun> runs;
  int64_t area;
};

bool read_mask(const CodedMasks& masks, int64_t n, Mask* mask) {
  const bool is_valid = decode_mask(masks.codes + masks.begin[n], masks.end[n] - masks.begin[n],
                                    masks.num_pixels[n], &mask->runs);
  mask->area = count_pixels(mask->runs);
  return is_valid;
}

int64_t count_shared_pixels(const Mask& left, const Mask& right) {
  int64_t count = 0;
  const PixelRun* a = left.runs.data();
  const PixelRun* b = right.runs.data();
  const PixelRun* a_end = a + left.runs.size();
  const PixelRun* b_end = b + right.runs.size();
  while (a < a_end && b < b_end) {
    count += std::max<int64_t>(0, std::min(a->end, b->end) - std::max(a->begin, b->begin));
    const bool a_ends_first = a->end < b->end;
    a += a_ends_first;
    b += !a_ends_first;
  }
  return count;
}

}  // namespace

int64_t coco_mask_areas(const CodedMasks& masks, int64_t begin, int64_t end, double* areas) {
  Mask mask;
  for (int64_t n = begin; n < end; ++n) {
    if (!read_mask(masks, n, &mask)) return n;
    areas[n] = static_cast<double>(mask.area);
  }
  return -1;
}

bool coco_mask_iou(const CodedMasks& dt, const CodedMasks& gt, const bool* gt_crowd,
                   const EvaluationGroups& groups, int64_t begin, int64_t end, double* ious) {
  std::vector<Mask> truths;
  Mask detection;
  bool is_valid = true;
  for (int64_t group = begin; group < end; ++group) {
    const int64_t num_gt = groups.num_gt(group);
    if (num_gt == 0 || groups.num_dt(group) == 0) continue;
    const int64_t gt_begin = groups.gt_offsets[group];
    if (static_cast<int64_t>(truths.size()) < num_gt) truths.resize(num_gt);
    for (int64_t g = 0; g < num_gt; ++g) is_valid &= read_mask(gt, gt_begin + g, &truths[g]);
    double* iou = ious + groups.iou_offsets[group];
    for (int64_t d = groups.dt_offsets[group]; d < groups.dt_offsets[group + 1]; ++d) {
      is_valid &= read_mask(dt, d, &detection);
      for (int64_t g = 0; g < num_gt; ++g) {
        const int64_t shared = count_shared_pixels(detection, truths[g]);
        const int64_t all =
            gt_crowd[gt_begin + g] ? detection.area : detection.area + truths[g].area - shared;
        *iou++ = shared == 0 ? 0 : static_cast<double>(shared) / static_cast<double>(all);
      }
    }
  }
  return is_valid;
}

}  // namespace detectron2
