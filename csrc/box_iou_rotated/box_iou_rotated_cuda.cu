#include <cstdint>

#include "csrc/box_iou_rotated/box_iou_rotated.h"
#include "csrc/common/cuda_launch.h"
#include "csrc/common/rotated_box.h"

namespace detectron2 {
namespace box_iou_rotated_detail {

// A block computes a tile of pairs: consecutive threads take consecutive columns, so that a warp
// writes one stretch of a row, and each thread takes every fourth row.
constexpr int kTileRows = 32;
constexpr int kTileColumns = 64;
constexpr int kThreads = 256;
constexpr int kRowStep = kThreads / kTileColumns;

template <typename T>
__global__ void __launch_bounds__(kThreads)
    box_iou_rotated_kernel(const T* boxes1, int64_t count1, const T* boxes2, int64_t count2,
                           int64_t column_tiles, T* ious) {
  __shared__ RotatedBox<T> rows[kTileRows];
  __shared__ RotatedBox<T> columns[kTileColumns];
  const int64_t first_row = blockIdx.x / column_tiles * kTileRows;
  const int64_t first_column = blockIdx.x % column_tiles * kTileColumns;

  const int thread = threadIdx.x;
  if (thread < kTileColumns) {
    if (first_column + thread < count2) {
      columns[thread] = load_rotated_box(boxes2 + (first_column + thread) * kRotatedBoxSize);
    }
  } else if (thread < kTileColumns + kTileRows) {
    const int row = thread - kTileColumns;
    if (first_row + row < count1) {
      rows[row] = load_rotated_box(boxes1 + (first_row + row) * kRotatedBoxSize);
    }
  }
  __syncthreads();

  const int64_t column = first_column + thread % kTileColumns;
  if (column >= count2) {
    return;
  }
  const RotatedBox<T> box = columns[thread % kTileColumns];
  for (int r = thread / kTileColumns; r < kTileRows && first_row + r < count1; r += kRowStep) {
    ious[(first_row + r) * count2 + column] = rotated_iou(rows[r], box);
  }
}

}  // namespace box_iou_rotated_detail

template <typename T>
void box_iou_rotated_cuda(const T* boxes1, int64_t count1, const T* boxes2, int64_t count2, T* ious,
                          void* stream) {
  namespace detail = box_iou_rotated_detail;
  const int64_t column_tiles = divide_up(count2, detail::kTileColumns);
  const int64_t tiles = divide_up(count1, detail::kTileRows) * column_tiles;
  detail::box_iou_rotated_kernel<T>
      <<<static_cast<unsigned int>(tiles), detail::kThreads, 0,
         static_cast<cudaStream_t>(stream)>>>(boxes1, count1, boxes2, count2, column_tiles, ious);
  check_launch("box_iou_rotated_kernel");
}

template void box_iou_rotated_cuda<float>(const float*, int64_t, const float*, int64_t, float*,
                                          void*);
template void box_iou_rotated_cuda<double>(const double*, int64_t, const double*, int64_t, double*,
                                           void*);

}  // namespace detectron2
