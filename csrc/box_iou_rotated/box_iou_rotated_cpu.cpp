#include <algorithm>
#include <cstdint>
#include <vector>

#include "csrc/box_iou_rotated/box_iou_rotated.h"
#include "csrc/common/rotated_box.h"

namespace detectron2 {
namespace {

// A range of pairs below this costs less to compute than to hand to a thread.
constexpr int64_t kPairsPerRange = 4096;

}  // namespace

template <typename T>
void box_iou_rotated_cpu(const T* boxes1, int64_t count1, const T* boxes2, int64_t count2, T* ious,
                         ParallelFor parallel_for) {
  std::vector<RotatedBox<T>> columns;
  columns.reserve(count2);
  for (int64_t j = 0; j < count2; ++j) {
    columns.push_back(load_rotated_box(boxes2 + j * kRotatedBoxSize));
  }
  const int64_t rows_per_range =
      std::max<int64_t>(1, kPairsPerRange / std::max<int64_t>(1, count2));
  parallel_for(0, count1, rows_per_range, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const RotatedBox<T> box = load_rotated_box(boxes1 + i * kRotatedBoxSize);
      T* row = ious + i * count2;
      for (int64_t j = 0; j < count2; ++j) {
        row[j] = rotated_iou(box, columns[j]);
      }
    }
  });
}

template void box_iou_rotated_cpu<float>(const float*, int64_t, const float*, int64_t, float*,
                                         ParallelFor);
template void box_iou_rotated_cpu<double>(const double*, int64_t, const double*, int64_t, double*,
                                          ParallelFor);

}  // namespace detectron2
