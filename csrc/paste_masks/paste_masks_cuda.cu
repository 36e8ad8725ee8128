#include <algorithm>
#include <cstdint>

#include "csrc/common/cuda_launch.h"
#include "csrc/common/half.h"
#include "csrc/paste_masks/paste_masks.h"
#include "csrc/paste_masks/sampling.h"

namespace detectron2 {
namespace paste_masks_detail {

// A warp writes a few rows of one mask's image. Rows that the mask does not reach are one piece of
// memory, cleared 16 bytes a lane and step. Others are written stretch by stretch. In memory a
// stretch starts at a multiple of 16 bytes, so that each lane stores 16 pixels of a row at once;
// rows need not, and so their stretches are shifted against each other by up to 15 columns. Before
// that, a lane computes every 32nd column, for all rows in turn: what depends on the column is
// computed once, and the mask is read only where the rows come to its next row.
constexpr int kWarp = 32;
constexpr int kVector = 16;
constexpr int kStretch = kWarp * kVector;
constexpr int kColumns = kStretch + kVector - 1;
constexpr int kRows = 8;
constexpr int kWarps = 4;
// So that registers are left for this many blocks on a multiprocessor.
constexpr int kBlocks = 5;
// A column has its place in a row's bytes even where the row's stretch does not reach it.
constexpr int kRowBytes = (kColumns + kWarp - 1) / kWarp * kWarp + kVector;

constexpr int64_t kLargestGrid = 65535;  // in the second dimension

__device__ __forceinline__ int misalignment(const uint8_t* pixels) {
  return static_cast<int>(reinterpret_cast<uintptr_t>(pixels) % kVector);
}

__device__ __forceinline__ int column_in_stretch(int64_t column) {
  return static_cast<int>(min(max(column, int64_t{0}), int64_t{kColumns}));
}

__device__ __forceinline__ void clear(uint8_t* pixels, int64_t count, int lane) {
  const int64_t first =
      min(static_cast<int64_t>((kVector - misalignment(pixels)) % kVector), count);
  const int64_t last = first + (count - first) / kVector * kVector;
  if (lane < first) {
    pixels[lane] = 0;
  }
  if (last + lane < count && lane < kVector) {
    pixels[last + lane] = 0;
  }
#pragma unroll 4
  for (int64_t at = first + lane * kVector; at < last; at += kStretch) {
    *reinterpret_cast<uint4*>(pixels + at) = make_uint4(0, 0, 0, 0);
  }
}

// Stores the pixels [first, last) of a stretch, from `bytes` or zeros.
__device__ __forceinline__ void store_stretch(uint8_t* stretch, int first, int last,
                                              const uint8_t* bytes, bool is_zero, int lane) {
  const int at = lane * kVector;
  if (at >= first && at + kVector <= last) {
    const uint4 pixels =
        is_zero ? make_uint4(0, 0, 0, 0) : *reinterpret_cast<const uint4*>(bytes + at);
    *reinterpret_cast<uint4*>(stretch + at) = pixels;
  }
  // What is left before the first and after the last whole vector.
  if (first > 0 && lane >= first && lane < min(last, kVector)) {
    stretch[lane] = is_zero ? 0 : bytes[lane];
  }
  const int tail = last / kVector * kVector + lane;
  if (tail < last && tail >= (first > 0 ? kVector : 0)) {
    stretch[tail] = is_zero ? 0 : bytes[tail];
  }
}

template <typename S>
__device__ __forceinline__ Accumulator<S> value_if(bool is_inside, const S* value) {
  return is_inside ? widen(*value) : Accumulator<S>(0);
}

// Computes the columns from `first_column` on, of all rows, into `bytes`. Those outside
// [begin, end), which counts from there, are zeros.
template <typename S, bool thresholded>
__device__ __forceinline__ void paste_columns(const S* mask, const PasteMasksShape& shape,
                                              const PasteAxis<Accumulator<S>>& x_axis,
                                              const PasteSample<Accumulator<S>> (&rows)[kRows],
                                              const int (&shifts)[kRows], Accumulator<S> threshold,
                                              int64_t first_column, int begin, int end, int lane,
                                              uint8_t (*bytes)[kRowBytes]) {
  using T = Accumulator<S>;
  for (int first = 0; first < kColumns; first += kWarp) {
    const int i = first + lane;
    if (first + kWarp <= begin || first >= end) {
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        bytes[r][i + shifts[r] + 1] = 0;
      }
      continue;
    }
    const PasteSample<T> column = paste_sample(x_axis, first_column + i);
    const bool near_inside = column.cell >= 0;  // and never beyond the mask's last column
    const bool far_inside = column.cell >= -1 && column.cell + 1 < shape.mask_width;
    T top_near, top_far, bottom_near, bottom_far;
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      if (r == 0 || rows[r].cell != rows[r - 1].cell) {
        const bool top_inside = rows[r].cell >= 0;
        const bool bottom_inside = rows[r].cell >= -1 && rows[r].cell + 1 < shape.mask_height;
        const S* top = mask + rows[r].cell * shape.mask_width + column.cell;
        const S* bottom = top + shape.mask_width;
        top_near = value_if(top_inside && near_inside, top);
        top_far = value_if(top_inside && far_inside, top + 1);
        bottom_near = value_if(bottom_inside && near_inside, bottom);
        bottom_far = value_if(bottom_inside && far_inside, bottom + 1);
      }
      const T value =
          paste_value(rows[r], column.near, column.far, top_near, top_far, bottom_near, bottom_far);
      const uint8_t pixel =
          thresholded ? static_cast<uint8_t>(value >= threshold) : quantized_value(value);
      bytes[r][i + shifts[r] + 1] = i >= begin && i < end ? pixel : 0;
    }
  }
}

template <typename S, bool thresholded>
__global__ void __launch_bounds__(kWarps* kWarp, kBlocks)
    paste_masks_kernel(const S* masks, const Accumulator<S>* boxes, PasteMasksShape shape,
                       Accumulator<S> threshold, uint8_t* pasted) {
  using T = Accumulator<S>;
  __shared__ alignas(kVector) uint8_t block_bytes[kWarps][kRows][kRowBytes];
  const int lane = threadIdx.x;
  uint8_t (*bytes)[kRowBytes] = block_bytes[threadIdx.y];

  const int64_t first_row = (static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.y) * kRows;
  const int64_t last_row = min(first_row + kRows, shape.height);
  if (first_row >= shape.height) {
    return;
  }
  for (int64_t n = blockIdx.y; n < shape.num_masks; n += gridDim.y) {
    uint8_t* const image_row = pasted + (n * shape.height + first_row) * shape.width;
    const T* box = boxes + n * kPasteBoxSize;
    const PasteAxis<T> x_axis = paste_axis(box[0], box[2], shape.mask_width, shape.width);
    const PasteAxis<T> y_axis = paste_axis(box[1], box[3], shape.mask_height, shape.height);
    if (x_axis.begin >= x_axis.end || y_axis.begin >= last_row || y_axis.end <= first_row) {
      clear(image_row, (last_row - first_row) * shape.width, lane);
      continue;
    }
    PasteSample<T> rows[kRows];
    int shifts[kRows];
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      rows[r] = paste_sample(y_axis, first_row + r);
      shifts[r] = misalignment(image_row + r * shape.width);
    }
    for (int64_t stretch = 0; stretch < shape.width + kVector - 1; stretch += kStretch) {
      const int64_t first_column = stretch - (kVector - 1);
      const int begin = column_in_stretch(x_axis.begin - first_column);
      const int end = column_in_stretch(x_axis.end - first_column);
      const bool is_reached = begin < end;
      if (is_reached) {
        __syncwarp();
        paste_columns<S, thresholded>(masks + n * shape.mask_height * shape.mask_width, shape,
                                      x_axis, rows, shifts, threshold, first_column, begin, end,
                                      lane, bytes);
        __syncwarp();
      }
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        if (first_row + r < last_row) {
          const bool is_zero =
              !is_reached || first_row + r < y_axis.begin || first_row + r >= y_axis.end;
          const int first = stretch == 0 ? shifts[r] : 0;
          const int last =
              static_cast<int>(min(shape.width - stretch + shifts[r], int64_t{kStretch}));
          store_stretch(image_row + r * shape.width + (stretch - shifts[r]), first, last,
                        bytes[r] + kVector, is_zero, lane);
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
  const dim3 grid(
      static_cast<unsigned int>(divide_up(shape.height, detail::kWarps * detail::kRows)),
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
