#include <algorithm>
#include <cstdint>
#include <vector>

#include "csrc/pairwise_iou/pairwise_iou.h"

namespace detectron2 {
namespace {

// A range of pairs below this costs less to compute than to hand to a thread.
constexpr int64_t kPairsPerRange = 32768;

// One array for each member, so that consecutive boxes fill a vector register.
template <typename T>
struct BoxColumns {
  std::vector<T> x0, y0, x1, y1, area;

  BoxColumns(const T* boxes, int64_t count)
      : x0(count), y0(count), x1(count), y1(count), area(count) {
    for (int64_t i = 0; i < count; ++i) {
      const AlignedBox<T> box = load_aligned_box(boxes + i * kAlignedBoxSize);
      x0[i] = box.x0;
      y0[i] = box.y0;
      x1[i] = box.x1;
      y1[i] = box.y1;
      area[i] = box.area;
    }
  }
};

template <OverlapOf of, typename T>
void overlaps_of_row(const AlignedBox<T>& box, const BoxColumns<T>& columns, T* overlaps) {
  const int64_t count = columns.x0.size();
  const T* __restrict x0 = columns.x0.data();
  const T* __restrict y0 = columns.y0.data();
  const T* __restrict x1 = columns.x1.data();
  const T* __restrict y1 = columns.y1.data();
  const T* __restrict area = columns.area.data();
  T* __restrict row = overlaps;
  for (int64_t j = 0; j < count; ++j) {
    row[j] = overlap<of>(box, AlignedBox<T>{x0[j], y0[j], x1[j], y1[j], area[j]});
  }
}

}  // namespace

template <typename T>
void pairwise_iou_cpu(OverlapOf of, const T* boxes1, int64_t count1, const T* boxes2,
                      int64_t count2, T* overlaps, ParallelFor parallel_for) {
  const BoxColumns<T> columns(boxes2, count2);
  const auto row = of == OverlapOf::kUnion ? overlaps_of_row<OverlapOf::kUnion, T>
                                           : overlaps_of_row<OverlapOf::kSecond, T>;
  const int64_t rows_per_range =
      std::max<int64_t>(1, kPairsPerRange / std::max<int64_t>(1, count2));
  parallel_for(0, count1, rows_per_range, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      row(load_aligned_box(boxes1 + i * kAlignedBoxSize), columns, overlaps + i * count2);
    }
  });
}

template void pairwise_iou_cpu<float>(OverlapOf, const float*, int64_t, const float*, int64_t,
                                      float*, ParallelFor);
template void pairwise_iou_cpu<double>(OverlapOf, const double*, int64_t, const double*, int64_t,
                                       double*, ParallelFor);

}  // namespace detectron2
