#include <algorithm>
#include <cstdint>
#include <vector>

#include "csrc/common/rotated_box.h"
#include "csrc/nms_rotated/nms_rotated.h"

namespace detectron2 {
namespace {

// Handing a range to a thread takes about as long as this many comparisons, most of which end at
// the distance of the centres.
constexpr int64_t kPairsPerRange = 2048;

}  // namespace

template <typename T>
void nms_rotated_cpu(const T* boxes, int64_t count, double iou_threshold, bool* keep,
                     ParallelFor parallel_for) {
  const T threshold = static_cast<T>(iou_threshold);
  std::vector<RotatedBox<T>> sorted;
  sorted.reserve(count);
  for (int64_t i = 0; i < count; ++i) {
    sorted.push_back(load_rotated_box(boxes + i * kRotatedBoxSize));
  }
  std::fill(keep, keep + count, true);
  for (int64_t i = 0; i < count; ++i) {
    if (!keep[i]) {
      continue;
    }
    const RotatedBox<T> box = sorted[i];
    parallel_for(i + 1, count, kPairsPerRange, [&](int64_t begin, int64_t end) {
      for (int64_t j = begin; j < end; ++j) {
        if (keep[j] && rotated_iou(box, sorted[j]) > threshold) {
          keep[j] = false;
        }
      }
    });
  }
}

template void nms_rotated_cpu<float>(const float*, int64_t, double, bool*, ParallelFor);
template void nms_rotated_cpu<double>(const double*, int64_t, double, bool*, ParallelFor);

}  // namespace detectron2
