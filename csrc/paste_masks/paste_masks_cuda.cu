#include <cstdint>

#include "csrc/common/cuda_launch.h"
#include "csrc/common/half.h"
#include "csrc/paste_masks/paste_masks.h"
#include "csrc/paste_masks/sampling.h"

namespace detectron2 {
namespace paste_masks_detail {

// A block writes a tile of one mask's image; each of its warps takes one stretch of a row at a
// time, which starts at a multiple of 16 bytes in memory, so that a lane stores 16 pixels at once.
constexpr int kWarp = 32;
constexpr int kVector = 16;
constexpr int kStretch = kWarp * kVector;
constexpr int kWarps = 8;
constexpr int kThreads = kWarps * kWarp;
constexpr int kTileRows = 32;
// Rows need not start at a multiple of 16 bytes: their stretches are shifted against each other.
constexpr int kTileColumns = kStretch + kVector - 1;

template <typename S, typename T = Accumulator<S>>
__device__ __forceinline__ T mask_value(const S* mask_row, bool row_inside, int32_t column,
                                        int64_t mask_width) {
  return row_inside && static_cast<uint64_t>(static_cast<int64_t>(column)) <
                           static_cast<uint64_t>(mask_width)
             ? widen(mask_row[column])
             : T(0);
}

// Stores what `bytes` holds of pixels [begin, begin + kStretch) of a row of `width`.
__device__ __forceinline__ void store_stretch(uint8_t* row, int64_t begin, int64_t width,
                                              const uint8_t* bytes, bool is_zero, int lane) {
  const int64_t column = begin + lane * kVector;
  if (column >= 0 && column + kVector <= width) {
    const uint4 vector =
        is_zero ? make_uint4(0, 0, 0, 0) : *reinterpret_cast<const uint4*>(bytes + lane * kVector);
    *reinterpret_cast<uint4*>(row + column) = vector;
  }
  // What is left of the row before its first and after its last whole vector.
  if (lane < kVector) {
    if (begin < 0 && begin + lane >= 0 && begin + lane < width) {
      row[begin + lane] = is_zero ? 0 : bytes[lane];
    }
    const int64_t tail = (width - begin) / kVector * kVector;
    const bool is_head = begin < 0 && tail == 0;
    if (begin < width && tail < kStretch && !is_head && begin + tail + lane < width) {
      row[begin + tail + lane] = is_zero ? 0 : bytes[tail + lane];
    }
  }
}

template <typename S, bool thresholded>
__global__ void __launch_bounds__(kThreads)
    paste_masks_kernel(const S* masks, const Accumulator<S>* boxes, PasteMasksShape shape,
                       Accumulator<S> threshold, int64_t row_tiles, int64_t column_tiles,
                       int64_t tiles, uint8_t* pasted) {
  using T = Accumulator<S>;
  __shared__ T column_far[kTileColumns];
  __shared__ int32_t column_cell[kTileColumns];
  __shared__ alignas(kVector) uint8_t warp_bytes[kWarps][kStretch];

  const int lane = threadIdx.x % kWarp;
  const int warp = threadIdx.x / kWarp;
  for (int64_t tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
    const int64_t stretch = tile % column_tiles;
    const int64_t first_row = tile / column_tiles % row_tiles * kTileRows;
    const int64_t n = tile / column_tiles / row_tiles;
    const T* box = boxes + n * kPasteBoxSize;
    const PasteAxis<T> x_axis = paste_axis(box[0], box[2], shape.mask_width, shape.width);
    const PasteAxis<T> y_axis = paste_axis(box[1], box[3], shape.mask_height, shape.height);

    const int64_t first_column = stretch * kStretch - (kVector - 1);
    const bool is_covered = x_axis.begin < first_column + kTileColumns &&
                            x_axis.end > first_column && y_axis.begin < first_row + kTileRows &&
                            y_axis.end > first_row && x_axis.begin < x_axis.end;
    if (is_covered) {
      __syncthreads();
      for (int i = threadIdx.x; i < kTileColumns; i += kThreads) {
        const PasteSample<T> sample = paste_sample(x_axis, first_column + i);
        column_far[i] = sample.far;
        column_cell[i] = sample.cell;
      }
      __syncthreads();
    }

    const S* mask = masks + n * shape.mask_height * shape.mask_width;
    uint8_t* bytes = warp_bytes[warp];
    for (int64_t y = first_row + warp; y < first_row + kTileRows && y < shape.height; y += kWarps) {
      uint8_t* row = pasted + (n * shape.height + y) * shape.width;
      const int shift = static_cast<int>(reinterpret_cast<uintptr_t>(row) % kVector);
      const int64_t begin = stretch * kStretch - shift;
      const bool is_zero = !is_covered || y < y_axis.begin || y >= y_axis.end;
      if (!is_zero) {
        const PasteSample<T> row_sample = paste_sample(y_axis, y);
        const bool top_inside = row_sample.cell >= 0;
        const bool bottom_inside = row_sample.cell >= -1 && row_sample.cell + 1 < shape.mask_height;
        const S* top = mask + row_sample.cell * shape.mask_width;
        const S* bottom = top + shape.mask_width;
        __syncwarp();
#pragma unroll 4
        for (int i = lane; i < kStretch; i += kWarp) {
          const int64_t x = begin + i;
          uint8_t byte = 0;
          if (x >= x_axis.begin && x < x_axis.end) {
            const int at = i - shift + kVector - 1;
            const int32_t cell = column_cell[at];
            const T far = column_far[at];
            const T near = T(1) - far;
            const T value = paste_value(
                row_sample, near, far, mask_value(top, top_inside, cell, shape.mask_width),
                mask_value(top, top_inside, cell + 1, shape.mask_width),
                mask_value(bottom, bottom_inside, cell, shape.mask_width),
                mask_value(bottom, bottom_inside, cell + 1, shape.mask_width));
            byte = thresholded ? static_cast<uint8_t>(value >= threshold) : quantized_value(value);
          }
          bytes[i] = byte;
        }
        __syncwarp();
      }
      store_stretch(row, begin, shape.width, bytes, is_zero, lane);
    }
  }
}

}  // namespace paste_masks_detail

template <typename S>
void paste_masks_cuda(const S* masks, const Accumulator<S>* boxes, const PasteMasksShape& shape,
                      Accumulator<S> threshold, uint8_t* pasted, void* stream) {
  namespace detail = paste_masks_detail;
  const int64_t row_tiles = divide_up(shape.height, detail::kTileRows);
  const int64_t column_tiles = divide_up(shape.width + detail::kVector - 1, detail::kStretch);
  const int64_t tiles = shape.num_masks * row_tiles * column_tiles;
  const auto kernel =
      threshold >= 0 ? detail::paste_masks_kernel<S, true> : detail::paste_masks_kernel<S, false>;
  kernel<<<grid_for(tiles, 1), detail::kThreads, 0, static_cast<cudaStream_t>(stream)>>>(
      masks, boxes, shape, threshold, row_tiles, column_tiles, tiles, pasted);
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
