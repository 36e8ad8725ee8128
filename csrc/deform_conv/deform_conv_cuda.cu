#include <algorithm>
#include <cstdint>

#include "csrc/common/cuda_launch.h"
#include "csrc/deform_conv/deform_conv.h"
#include "csrc/deform_conv/sampling.h"

namespace detectron2 {
namespace deform_conv_detail {

constexpr int kThreads = 256;
constexpr int kWarpSize = 32;

// Threads along the channels, of which the block's rows have `channels` each: the power of two
// that leaves the fewest idle, up to a warp.
inline dim3 block_for(int64_t channels) {
  unsigned int lanes = 1;
  while (lanes < kWarpSize && lanes < channels) {
    lanes *= 2;
  }
  return {lanes, kThreads / lanes};
}

// What a row of a block works at: a pixel of the output, an offset group and a tap.
struct Row {
  int64_t pixel;  // in the range
  OutputPixel at;
  int64_t offset_group;
  int64_t tap;
};

__device__ __forceinline__ Row row_at(int64_t index, const DeformConvShape& shape,
                                      PixelRange pixels) {
  const int64_t taps = shape.kernel_h * shape.kernel_w;
  Row row;
  row.tap = index % taps;
  index /= taps;
  row.offset_group = index % shape.offset_groups;
  row.pixel = index / shape.offset_groups;
  row.at = output_pixel(pixels.begin + row.pixel, shape);
  return row;
}

template <typename R>
__device__ __forceinline__ SamplePoint<R> load_point(const R* offset, const Row& row,
                                                     const DeformConvShape& shape) {
  const R* place = offset + offset_index(row.at, row.offset_group, row.tap, shape);
  return sample_point(row.at, row.tap, place[0], place[shape.out_height * shape.out_width], shape);
}

// Where a channel of a row has its place in the columns.
__device__ __forceinline__ int64_t column_index(int64_t channel, const Row& row,
                                                const DeformConvShape& shape, PixelRange pixels) {
  const int64_t taps = shape.kernel_h * shape.kernel_w;
  const int64_t channels = shape.in_channels / shape.groups;
  const int64_t group = channel / channels;
  const int64_t line = group * (pixels.end - pixels.begin) + row.pixel;
  return (line * taps + row.tap) * channels + channel - group * channels;
}

// The sum over the threads of a row, which are `lanes` neighbours of one warp, in all of them. All
// threads of the warp take part.
template <typename R>
__device__ __forceinline__ R sum_over_lanes(R value, unsigned int lanes) {
  for (unsigned int distance = lanes / 2; distance > 0; distance /= 2) {
    value += __shfl_xor_sync(0xffffffffu, value, distance);
  }
  return value;
}

// Neighbouring threads have neighbouring channels of the same point, in memory, too.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    sample_kernel(const T* input, const Accumulator<T>* offset, const Accumulator<T>* mask,
                  DeformConvShape shape, PixelRange pixels, int64_t rows, T* columns) {
  using R = Accumulator<T>;
  const int64_t shared = shape.in_channels / shape.offset_groups;
  const int64_t stride = int64_t{gridDim.x} * blockDim.y;
  for (int64_t i = int64_t{blockIdx.x} * blockDim.y + threadIdx.y; i < rows; i += stride) {
    const Row row = row_at(i, shape, pixels);
    const SamplePoint<R> point = load_point(offset, row, shape);
    const R factor =
        mask != nullptr ? mask[mask_index(row.at, row.offset_group, row.tap, shape)] : R(1);
    const T* image = input + row.at.image * shape.height * shape.width * shape.in_channels;
    for (int64_t lane = threadIdx.x; lane < shared; lane += blockDim.x) {
      const int64_t channel = row.offset_group * shared + lane;
      R sum = 0;
#pragma unroll
      for (int corner = 0; corner < 4; ++corner) {
        if (point.exists[corner]) {
          sum += point.weight[corner] *
                 widen(image[point.corner[corner] * shape.in_channels + channel]);
        }
      }
      columns[column_index(channel, row, shape, pixels)] = narrow<T>(sum * factor);
    }
  }
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    spread_kernel(const T* grad_columns, const T* input, const Accumulator<T>* offset,
                  const Accumulator<T>* mask, DeformConvShape shape, PixelRange pixels,
                  int64_t rows, Accumulator<T>* grad_input, Accumulator<T>* grad_offset,
                  Accumulator<T>* grad_mask) {
  using R = Accumulator<T>;
  const int64_t shared = shape.in_channels / shape.offset_groups;
  const int64_t stride = int64_t{gridDim.x} * blockDim.y;
  // By blocks, so that all threads of a warp stay together for the sums.
  for (int64_t first = int64_t{blockIdx.x} * blockDim.y; first < rows; first += stride) {
    const bool present = first + threadIdx.y < rows;
    const Row row = row_at(present ? first + threadIdx.y : first, shape, pixels);
    const SamplePoint<R> point = load_point(offset, row, shape);
    const int64_t in_mask = mask_index(row.at, row.offset_group, row.tap, shape);
    const R factor = mask != nullptr && point.inside ? mask[in_mask] : R(1);
    const int64_t image = row.at.image * shape.height * shape.width * shape.in_channels;
    R values[4] = {};
    if (present && point.inside) {
      for (int64_t lane = threadIdx.x; lane < shared; lane += blockDim.x) {
        const int64_t channel = row.offset_group * shared + lane;
        const R grad = widen(grad_columns[column_index(channel, row, shape, pixels)]);
#pragma unroll
        for (int corner = 0; corner < 4; ++corner) {
          if (point.exists[corner]) {
            const int64_t at = image + point.corner[corner] * shape.in_channels + channel;
            values[corner] += grad * widen(input[at]);
            atomicAdd(grad_input + at, point.weight[corner] * factor * grad);
          }
        }
      }
    }
#pragma unroll
    for (int corner = 0; corner < 4; ++corner) {
      values[corner] = sum_over_lanes(values[corner], blockDim.x);
    }
    if (present && threadIdx.x == 0) {
      const SampleDerivatives<R> derivatives = sample_derivatives(point, values);
      R* place = grad_offset + offset_index(row.at, row.offset_group, row.tap, shape);
      place[0] = factor * derivatives.y;
      place[shape.out_height * shape.out_width] = factor * derivatives.x;
      if (mask != nullptr) {
        grad_mask[in_mask] = derivatives.mask;
      }
    }
  }
}

inline int64_t rows_of(const DeformConvShape& shape, PixelRange pixels) {
  return (pixels.end - pixels.begin) * shape.offset_groups * shape.kernel_h * shape.kernel_w;
}

}  // namespace deform_conv_detail

template <typename T>
void deform_conv_sample_cuda(const T* input, const Accumulator<T>* offset,
                             const Accumulator<T>* mask, const DeformConvShape& shape,
                             PixelRange pixels, T* columns, void* stream) {
  using namespace deform_conv_detail;
  const dim3 block = block_for(shape.in_channels / shape.offset_groups);
  const int64_t rows = rows_of(shape, pixels);
  sample_kernel<T><<<grid_for(rows, block.y), block, 0, static_cast<cudaStream_t>(stream)>>>(
      input, offset, mask, shape, pixels, rows, columns);
  check_launch("deform_conv sample_kernel");
}

template <typename T>
void deform_conv_spread_cuda(const T* grad_columns, const T* input, const Accumulator<T>* offset,
                             const Accumulator<T>* mask, const DeformConvShape& shape,
                             PixelRange pixels, Accumulator<T>* grad_input,
                             Accumulator<T>* grad_offset, Accumulator<T>* grad_mask, void* stream) {
  using namespace deform_conv_detail;
  const dim3 block = block_for(shape.in_channels / shape.offset_groups);
  const int64_t rows = rows_of(shape, pixels);
  spread_kernel<T><<<grid_for(rows, block.y), block, 0, static_cast<cudaStream_t>(stream)>>>(
      grad_columns, input, offset, mask, shape, pixels, rows, grad_input, grad_offset, grad_mask);
  check_launch("deform_conv spread_kernel");
}

#define DETECTRON2_INSTANTIATE(T)                                                                  \
  template void deform_conv_sample_cuda<T>(const T*, const Accumulator<T>*, const Accumulator<T>*, \
                                           const DeformConvShape&, PixelRange, T*, void*);         \
  template void deform_conv_spread_cuda<T>(                                                        \
      const T*, const T*, const Accumulator<T>*, const Accumulator<T>*, const DeformConvShape&,    \
      PixelRange, Accumulator<T>*, Accumulator<T>*, Accumulator<T>*, void*);
DETECTRON2_INSTANTIATE(float)
DETECTRON2_INSTANTIATE(double)
DETECTRON2_INSTANTIATE(Half)
DETECTRON2_INSTANTIATE(BFloat16)

}  // namespace detectron2
