#include <cstdint>

#include "csrc/common/cuda_launch.h"
#include "csrc/pairwise_iou/pairwise_iou.h"

namespace detectron2 {
namespace pairwise_iou_detail {

constexpr int kThreads = 256;
// Rows of a block, divided among its threads where there are fewer columns than threads.
constexpr int kRows = 32;

// A block computes kRows rows of a tile of 2^log_columns columns, at most one for each thread:
// consecutive threads take consecutive columns, so that a warp writes one stretch of memory.
template <OverlapOf of, typename T>
__global__ void __launch_bounds__(kThreads)
    pairwise_iou_kernel(const T* boxes1, int64_t count1, const T* boxes2, int64_t count2,
                        int64_t column_tiles, int log_columns, T* overlaps) {
  __shared__ AlignedBox<T> rows[kRows];
  const int64_t first_row = blockIdx.x / column_tiles * kRows;
  const int thread = threadIdx.x;
  if (thread < kRows && first_row + thread < count1) {
    rows[thread] = load_aligned_box(boxes1 + (first_row + thread) * kAlignedBoxSize);
  }
  __syncthreads();

  const int64_t column = (static_cast<int64_t>(blockIdx.x % column_tiles) << log_columns) +
                         (thread & ((1 << log_columns) - 1));
  if (column >= count2) {
    return;
  }
  const AlignedBox<T> box = load_aligned_box(boxes2 + column * kAlignedBoxSize);
  const int end_row = count1 - first_row < kRows ? static_cast<int>(count1 - first_row) : kRows;
  const int step = kThreads >> log_columns;
  T* out = overlaps + first_row * count2 + column;
#pragma unroll 4
  for (int r = thread >> log_columns; r < end_row; r += step) {
    out[r * count2] = overlap<of>(rows[r], box);
  }
}

}  // namespace pairwise_iou_detail

template <typename T>
void pairwise_iou_cuda(OverlapOf of, const T* boxes1, int64_t count1, const T* boxes2,
                       int64_t count2, T* overlaps, void* stream) {
  namespace detail = pairwise_iou_detail;
  int log_columns = 5;
  while ((1 << log_columns) < detail::kThreads && (1 << log_columns) < count2) {
    ++log_columns;
  }
  const int64_t column_tiles = divide_up(count2, int64_t{1} << log_columns);
  const int64_t tiles = divide_up(count1, detail::kRows) * column_tiles;
  const auto kernel = of == OverlapOf::kUnion ? detail::pairwise_iou_kernel<OverlapOf::kUnion, T>
                                              : detail::pairwise_iou_kernel<OverlapOf::kSecond, T>;
  kernel<<<static_cast<unsigned int>(tiles), detail::kThreads, 0,
           static_cast<cudaStream_t>(stream)>>>(boxes1, count1, boxes2, count2, column_tiles,
                                                log_columns, overlaps);
  check_launch("pairwise_iou_kernel");
}

template void pairwise_iou_cuda<float>(OverlapOf, const float*, int64_t, const float*, int64_t,
                                       float*, void*);
template void pairwise_iou_cuda<double>(OverlapOf, const double*, int64_t, const double*, int64_t,
                                        double*, void*);

}  // namespace detectron2
