#include <algorithm>
#include <cstdint>
#include <functional>
#include <vector>

#include "csrc/common/aligned_box.h"
#include "csrc/nms_groups/nms_groups.h"

namespace detectron2 {
namespace {

template <typename T>
void nms_of_group(const T* boxes, const int64_t* classes, int64_t size, T threshold, bool* keep) {
  std::vector<AlignedBox<T>> loaded(size);
  for (int64_t i = 0; i < size; ++i) {
    loaded[i] = load_aligned_box(boxes + i * kAlignedBoxSize);
  }
  for (int64_t i = 0; i < size; ++i) {
    if (!keep[i]) {
      continue;
    }
    for (int64_t j = i + 1; j < size; ++j) {
      const bool is_rival = keep[j] && (classes == nullptr || classes[i] == classes[j]);
      if (is_rival &&
          overlap<OverlapOf::kUnion>(loaded[i], loaded[j], std::divides<T>()) > threshold) {
        keep[j] = false;
      }
    }
  }
}

}  // namespace

template <typename T>
void nms_groups_cpu(const T* boxes, const int64_t* classes, const bool* valid, int64_t groups,
                    int64_t size, double iou_threshold, bool* keep, ParallelFor parallel_for) {
  std::copy(valid, valid + groups * size, keep);
  parallel_for(0, groups, 1, [&](int64_t begin, int64_t end) {
    for (int64_t g = begin; g < end; ++g) {
      nms_of_group(boxes + g * size * kAlignedBoxSize,
                   classes == nullptr ? nullptr : classes + g * size, size,
                   static_cast<T>(iou_threshold), keep + g * size);
    }
  });
}

template void nms_groups_cpu<float>(const float*, const int64_t*, const bool*, int64_t, int64_t,
                                    double, bool*, ParallelFor);
template void nms_groups_cpu<double>(const double*, const int64_t*, const bool*, int64_t, int64_t,
                                     double, bool*, ParallelFor);

}  // namespace detectron2
