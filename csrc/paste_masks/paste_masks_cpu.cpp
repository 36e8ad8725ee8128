#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "csrc/common/huge_pages.h"
#include "csrc/paste_masks/paste_masks.h"
#include "csrc/paste_masks/sampling.h"

namespace detectron2 {
namespace {

// Fewer pixels than this cost less to write than to hand to a thread.
constexpr int64_t kPixelsPerRange = 1 << 16;

// The columns of the image that a mask may cover, one entry a column.
template <typename T>
struct Columns {
  std::vector<T> near;
  std::vector<T> far;
  std::vector<int32_t> cell;
  // The four neighbours in the two rows of the mask between which the image's rows now lie.
  std::vector<T> top_near;
  std::vector<T> top_far;
  std::vector<T> bottom_near;
  std::vector<T> bottom_far;

  void place(const PasteAxis<T>& axis) {
    const int64_t count = axis.end - axis.begin;
    for (std::vector<T>* values : {&near, &far, &top_near, &top_far, &bottom_near, &bottom_far}) {
      values->resize(count);
    }
    cell.resize(count);
    for (int64_t i = 0; i < count; ++i) {
      const PasteSample<T> sample = paste_sample(axis, axis.begin + i);
      near[i] = sample.near;
      far[i] = sample.far;
      cell[i] = sample.cell;
    }
  }

  void load_row(const T* mask, int64_t row, const PasteMasksShape& shape,
                std::vector<T>& values_near, std::vector<T>& values_far) const {
    if (row < 0 || row >= shape.mask_height) {
      std::fill(values_near.begin(), values_near.end(), T(0));
      std::fill(values_far.begin(), values_far.end(), T(0));
      return;
    }
    const T* values = mask + row * shape.mask_width;
    const auto value_at = [&](int64_t column) {
      return column >= 0 && column < shape.mask_width ? values[column] : T(0);
    };
    for (std::size_t i = 0; i < cell.size(); ++i) {
      values_near[i] = value_at(cell[i]);
      values_far[i] = value_at(int64_t{cell[i]} + 1);
    }
  }
};

template <typename T, bool thresholded>
inline __attribute__((always_inline)) void paste_row(const Columns<T>& columns,
                                                     const PasteSample<T>& row, T threshold,
                                                     uint8_t* __restrict pasted) {
  const T* near = columns.near.data();
  const T* far = columns.far.data();
  const T* top_near = columns.top_near.data();
  const T* top_far = columns.top_far.data();
  const T* bottom_near = columns.bottom_near.data();
  const T* bottom_far = columns.bottom_far.data();
  const int64_t count = static_cast<int64_t>(columns.near.size());
  for (int64_t i = 0; i < count; ++i) {
    const T value =
        paste_value(row, near[i], far[i], top_near[i], top_far[i], bottom_near[i], bottom_far[i]);
    pasted[i] = thresholded ? static_cast<uint8_t>(value >= threshold) : quantized_value(value);
  }
}

// std::fma is one instruction here, and a call in the other build of the loop; the results are the
// same.
template <typename T, bool thresholded>
__attribute__((target("avx2,fma"))) void paste_row_avx2(const Columns<T>& columns,
                                                        const PasteSample<T>& row, T threshold,
                                                        uint8_t* pasted) {
  paste_row<T, thresholded>(columns, row, threshold, pasted);
}

template <typename T, bool thresholded>
void paste_row_portable(const Columns<T>& columns, const PasteSample<T>& row, T threshold,
                        uint8_t* pasted) {
  paste_row<T, thresholded>(columns, row, threshold, pasted);
}

template <typename T>
using PasteRow = void (*)(const Columns<T>&, const PasteSample<T>&, T, uint8_t*);

template <typename T, bool thresholded>
PasteRow<T> choose_paste_row() {
  const bool has_fma = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  return has_fma ? paste_row_avx2<T, thresholded> : paste_row_portable<T, thresholded>;
}

// Writes rows [first_row, last_row) of the image of mask n.
template <typename T>
void paste_rows(const T* mask, const T* box, const PasteMasksShape& shape, int64_t first_row,
                int64_t last_row, T threshold, PasteRow<T> paste, Columns<T>& columns,
                uint8_t* image) {
  const PasteAxis<T> x_axis = paste_axis(box[0], box[2], shape.mask_width, shape.width);
  const PasteAxis<T> y_axis = paste_axis(box[1], box[3], shape.mask_height, shape.height);
  const bool is_empty = x_axis.begin >= x_axis.end || y_axis.begin >= y_axis.end;
  const int64_t begin = is_empty ? last_row : std::clamp(y_axis.begin, first_row, last_row);
  const int64_t end = is_empty ? last_row : std::clamp(y_axis.end, begin, last_row);
  std::memset(image + first_row * shape.width, 0, (begin - first_row) * shape.width);
  std::memset(image + end * shape.width, 0, (last_row - end) * shape.width);
  if (begin == end) {
    return;
  }
  columns.place(x_axis);
  int32_t loaded_cell = -3;  // none
  for (int64_t y = begin; y < end; ++y) {
    uint8_t* row = image + y * shape.width;
    const PasteSample<T> sample = paste_sample(y_axis, y);
    if (sample.cell != loaded_cell) {
      loaded_cell = sample.cell;
      columns.load_row(mask, sample.cell, shape, columns.top_near, columns.top_far);
      columns.load_row(mask, int64_t{sample.cell} + 1, shape, columns.bottom_near,
                       columns.bottom_far);
    }
    std::memset(row, 0, x_axis.begin);
    paste(columns, sample, threshold, row + x_axis.begin);
    std::memset(row + x_axis.end, 0, shape.width - x_axis.end);
  }
}

}  // namespace

template <typename T>
void paste_masks_cpu(const T* masks, const T* boxes, const PasteMasksShape& shape, T threshold,
                     uint8_t* pasted, ParallelFor parallel_for) {
  const PasteRow<T> paste =
      threshold >= 0 ? choose_paste_row<T, true>() : choose_paste_row<T, false>();
  advise_huge_pages(pasted, shape.num_masks * shape.height * shape.width);
  const int64_t rows_per_range =
      std::max<int64_t>(1, kPixelsPerRange / std::max<int64_t>(1, shape.width));
  parallel_for(0, shape.num_masks * shape.height, rows_per_range, [&](int64_t begin, int64_t end) {
    Columns<T> columns;
    while (begin < end) {
      const int64_t n = begin / shape.height;
      const int64_t first_row = begin % shape.height;
      const int64_t last_row = std::min(shape.height, first_row + end - begin);
      paste_rows(masks + n * shape.mask_height * shape.mask_width, boxes + n * kPasteBoxSize, shape,
                 first_row, last_row, threshold, paste, columns,
                 pasted + n * shape.height * shape.width);
      begin += last_row - first_row;
    }
  });
}

template void paste_masks_cpu<float>(const float*, const float*, const PasteMasksShape&, float,
                                     uint8_t*, ParallelFor);
template void paste_masks_cpu<double>(const double*, const double*, const PasteMasksShape&, double,
                                      uint8_t*, ParallelFor);

}  // namespace detectron2
