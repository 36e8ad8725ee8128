#include <algorithm>
#include <cstdint>

#include "csrc/common/cuda_launch.h"
#include "csrc/common/half.h"
#include "csrc/paste_masks/paste_masks.h"
#include "csrc/paste_masks/sampling.h"

namespace detectron2 {
namespace paste_masks_detail {

// A warp writes one stretch of a few rows of one mask's image. In memory a stretch starts at a
// multiple of 16 bytes, so that each lane stores 16 pixels of a row at once; rows need not, and so
// their stretches are shifted against each other by up to 15 columns. Before that, a lane computes
// every 32nd column, for all rows in turn: what depends on the column is computed once, and the
// mask is read only where the rows come to its next row.
constexpr int kWarp = 32;
constexpr int kVector = 16;
constexpr int kStretch = kWarp * kVector;
constexpr int kColumns = kStretch + kVector - 1;
constexpr int kRows = 8;
constexpr int kWarps = 4;
// A column has its place in a row's bytes even where the row's stretch does not reach it.
constexpr int kRowBytes = kStretch + 2 * kVector;

constexpr int64_t kLargestGrid = 65535;  // in the second and third dimension

// The pixels [first, first + kVector) of a row, of which those outside [0, width) do not exist,
// for a lane each.
__device__ __forceinline__ void store_pixels(uint8_t* row, int64_t first, int64_t width,
                                             const uint8_t* bytes, bool is_zero, int lane) {
  const int64_t x = first + lane;
  if (lane < kVector && x >= 0 && x < width) {
    row[x] = is_zero ? 0 : bytes[lane];
  }
}

// The pixels [begin, begin + kStretch) of a row, as far as they exist, from `bytes` or zeros.
__device__ __forceinline__ void store_stretch(uint8_t* row, int64_t begin, int64_t width,
                                              const uint8_t* bytes, bool is_zero, int lane) {
  const int64_t x = begin + lane * kVector;
  if (x >= 0 && x + kVector <= width) {
    const uint4 pixels =
        is_zero ? make_uint4(0, 0, 0, 0) : *reinterpret_cast<const uint4*>(bytes + lane * kVector);
    *reinterpret_cast<uint4*>(row + x) = pixels;
  }
  if (begin < 0) {
    store_pixels(row, begin, width, bytes, is_zero, lane);
  }
  const int64_t left = width - begin;
  const int tail = left < kStretch ? static_cast<int>(left) / kVector * kVector : kStretch;
  if (tail < kStretch && (tail > 0 || begin >= 0)) {
    store_pixels(row, begin + tail, width, bytes + tail, is_zero, lane);
  }
}

template <typename S>
__device__ __forceinline__ Accumulator<S> mask_value(const S* mask, int64_t row, int64_t column,
                                                     const PasteMasksShape& shape) {
  const bool is_inside =
      row >= 0 && row < shape.mask_height && column >= 0 && column < shape.mask_width;
  return is_inside ? widen(mask[row * shape.mask_width + column]) : Accumulator<S>(0);
}

template <typename S, bool thresholded>
__global__ void __launch_bounds__(kWarps* kWarp)
    paste_masks_kernel(const S* masks, const Accumulator<S>* boxes, PasteMasksShape shape,
                       Accumulator<S> threshold, uint8_t* pasted) {
  using T = Accumulator<S>;
  __shared__ alignas(kVector) uint8_t block_bytes[kWarps][kRows][kRowBytes];
  const int lane = threadIdx.x;
  uint8_t (*bytes)[kRowBytes] = block_bytes[threadIdx.y];

  const int64_t stretch = static_cast<int64_t>(blockIdx.x) * kStretch;
  const int64_t first_column = stretch - (kVector - 1);
  const int64_t row_step = static_cast<int64_t>(gridDim.y) * kWarps * kRows;
  for (int64_t n = blockIdx.z; n < shape.num_masks; n += gridDim.z) {
    const S* mask = masks + n * shape.mask_height * shape.mask_width;
    const T* box = boxes + n * kPasteBoxSize;
    const PasteAxis<T> x_axis = paste_axis(box[0], box[2], shape.mask_width, shape.width);
    const PasteAxis<T> y_axis = paste_axis(box[1], box[3], shape.mask_height, shape.height);
    const int64_t begin_covered = max(x_axis.begin - first_column, static_cast<int64_t>(0));
    const int64_t end_covered = min(x_axis.end - first_column, static_cast<int64_t>(kColumns));

    for (int64_t first_row = (static_cast<int64_t>(blockIdx.y) * kWarps + threadIdx.y) * kRows;
         first_row < shape.height; first_row += row_step) {
      uint8_t* image_row = pasted + (n * shape.height + first_row) * shape.width;
      const bool is_covered = begin_covered < end_covered && x_axis.begin < x_axis.end &&
                              y_axis.begin < first_row + kRows && y_axis.end > first_row;
      if (is_covered) {
        PasteSample<T> rows[kRows];
        int shifts[kRows];
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
          rows[r] = paste_sample(y_axis, first_row + r);
          shifts[r] =
              static_cast<int>(reinterpret_cast<uintptr_t>(image_row + r * shape.width) % kVector);
        }
        __syncwarp();
        for (int i = lane; i < kColumns; i += kWarp) {
          const bool is_inside = i >= begin_covered && i < end_covered;
          const PasteSample<T> column = paste_sample(x_axis, first_column + i);
          T top_near, top_far, bottom_near, bottom_far;
#pragma unroll
          for (int r = 0; r < kRows; ++r) {
            if (r == 0 || rows[r].cell != rows[r - 1].cell) {
              const int64_t top = rows[r].cell;
              const int64_t near = column.cell;
              top_near = mask_value(mask, top, near, shape);
              top_far = mask_value(mask, top, near + 1, shape);
              bottom_near = mask_value(mask, top + 1, near, shape);
              bottom_far = mask_value(mask, top + 1, near + 1, shape);
            }
            const T value = paste_value(rows[r], column.near, column.far, top_near, top_far,
                                        bottom_near, bottom_far);
            const uint8_t pixel =
                thresholded ? static_cast<uint8_t>(value >= threshold) : quantized_value(value);
            bytes[r][i + shifts[r] + 1] = is_inside ? pixel : 0;
          }
        }
        __syncwarp();
      }
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        const int64_t y = first_row + r;
        if (y < shape.height) {
          uint8_t* row = image_row + r * shape.width;
          const int shift = static_cast<int>(reinterpret_cast<uintptr_t>(row) % kVector);
          const bool is_zero = !is_covered || y < y_axis.begin || y >= y_axis.end;
          store_stretch(row, stretch - shift, shape.width, bytes[r] + kVector, is_zero, lane);
        }
      }
    }
  }
}

}  // namespace paste_masks_detail

template <typename S>
void paste_masks_cuda(const S* masks, const Accumulator<S>* boxes, const PasteMasksShape& shape,
                      Accumulator<S> threshold, uint8_t* pasted, void* stream) {
  namespace detail = paste_masks_detail;
  const auto kernel =
      threshold >= 0 ? detail::paste_masks_kernel<S, true> : detail::paste_masks_kernel<S, false>;
  const int64_t stretches = divide_up(shape.width + detail::kVector - 1, detail::kStretch);
  const int64_t row_groups = divide_up(shape.height, detail::kWarps * detail::kRows);
  const dim3 grid(static_cast<unsigned int>(stretches),
                  static_cast<unsigned int>(std::min(row_groups, detail::kLargestGrid)),
                  static_cast<unsigned int>(std::min(shape.num_masks, detail::kLargestGrid)));
  const dim3 block(detail::kWarp, detail::kWarps);
  kernel<<<grid, block, 0, static_cast<cudaStream_t>(stream)>>>(masks, boxes, shape, threshold,
                                                                pasted);
  check_launch("paste_masks_kernel");
}

template void paste_masks_cuda<float>(const float*, const float*, const PasteMasksShape&, float,
                                      uint8_t*, void*);
template void paste_masks_cuda<double>(const double*, const double*, const PasteMasksShape&, double,
                                       uint8_t*, void*);
template void paste_masks_cuda<Half>(const Half*, const float*, const PasteMasksShape&, float,
                                     uint8_t*, void*);
template void paste_masks_cuda<BFloat16>(const BFloat16*, const float*, const PasteMasksShape&,
                                         float, uint8_t*, void*);

}  // namespace detectron2
