#include <cstdint>
#include <type_traits>

#include "csrc/common/cuda_launch.h"
#include "csrc/pairwise_iou/pairwise_iou.h"

namespace detectron2 {
namespace pairwise_iou_detail {

constexpr int kThreads = 256;
constexpr int kMostRows = 32;  // of a block

// Division as the compiler's own, which rounds right, but for what that does to numbers near the
// limits of float32: testing for them takes longer than dividing, and a branch keeps the loads,
// quotients and stores of several pairs from overlapping.
struct DivideModerate {
  __device__ float operator()(float dividend, float divisor) const {
    float inverse;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(inverse) : "f"(divisor));
    inverse = __fmaf_rn(inverse, __fmaf_rn(-divisor, inverse, 1.0f), inverse);
    const float quotient = __fmul_rn(dividend, inverse);
    return __fmaf_rn(inverse, __fmaf_rn(-divisor, quotient, dividend), quotient);
  }
};

struct DivideAny {
  template <typename T>
  __device__ T operator()(T dividend, T divisor) const {
    return dividend / divisor;
  }
};

// Whether the quotients of a box with others like it can be left to DivideModerate: it has an area
// well inside of float32's range, or none and so no quotient but 0.
template <typename T>
__device__ bool is_moderate(const AlignedBox<T>& box) {
  return box.area < T(1e30) && !(box.area > 0 && box.area < T(1e-30));
}

// A block computes `rows_per_block` rows of a tile of 2^log_columns columns, at most one for each
// thread: consecutive threads take consecutive columns, so that a warp writes one stretch of
// memory.
template <OverlapOf of, typename T>
__global__ void __launch_bounds__(kThreads)
    pairwise_iou_kernel(const T* boxes1, int64_t count1, const T* boxes2, int64_t count2,
                        int rows_per_block, unsigned int column_tiles, int log_columns,
                        T* overlaps) {
  __shared__ AlignedBox<T> rows[kMostRows];
  const int64_t first_row = static_cast<int64_t>(blockIdx.x / column_tiles) * rows_per_block;
  const int row_count =
      count1 - first_row < rows_per_block ? static_cast<int>(count1 - first_row) : rows_per_block;
  const int thread = threadIdx.x;
  bool rows_are_moderate = true;
  if (thread < row_count) {
    rows[thread] = load_aligned_box(boxes1 + (first_row + thread) * kAlignedBoxSize);
    rows_are_moderate = is_moderate(rows[thread]);
  }
  rows_are_moderate = __syncthreads_and(rows_are_moderate);

  const int64_t column = (static_cast<int64_t>(blockIdx.x % column_tiles) << log_columns) +
                         (thread & ((1 << log_columns) - 1));
  if (column >= count2) {
    return;
  }
  const AlignedBox<T> box = load_aligned_box(boxes2 + column * kAlignedBoxSize);
  const int step = kThreads >> log_columns;
  T* out = overlaps + first_row * count2 + column;
  const auto fill = [&](const auto& divide) {
#pragma unroll 4
    for (int r = thread >> log_columns; r < row_count; r += step) {
      out[r * count2] = overlap<of>(rows[r], box, divide);
    }
  };
  if constexpr (std::is_same_v<T, float>) {
    if (rows_are_moderate && is_moderate(box)) {
      fill(DivideModerate());
      return;
    }
  }
  fill(DivideAny());
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
  // All blocks alike, but the last ones.
  const int64_t row_tiles = divide_up(count1, detail::kMostRows);
  const int rows_per_block = static_cast<int>(divide_up(count1, row_tiles));
  const auto kernel = of == OverlapOf::kUnion ? detail::pairwise_iou_kernel<OverlapOf::kUnion, T>
                                              : detail::pairwise_iou_kernel<OverlapOf::kSecond, T>;
  kernel<<<static_cast<unsigned int>(row_tiles * column_tiles), detail::kThreads, 0,
           static_cast<cudaStream_t>(stream)>>>(boxes1, count1, boxes2, count2, rows_per_block,
                                                static_cast<unsigned int>(column_tiles),
                                                log_columns, overlaps);
  check_launch("pairwise_iou_kernel");
}

template void pairwise_iou_cuda<float>(OverlapOf, const float*, int64_t, const float*, int64_t,
                                       float*, void*);
template void pairwise_iou_cuda<double>(OverlapOf, const double*, int64_t, const double*, int64_t,
                                        double*, void*);

}  // namespace detectron2
