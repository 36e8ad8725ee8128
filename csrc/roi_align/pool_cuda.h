// The kernels that pool. Only .cu files include it.
//
// Where channels are side by side in memory, the lanes of a warp take neighbouring ones: all that
// concerns a pixel is then the same for the warp, and a pixel is read in one piece. Samples of a
// bin that are at most a pixel apart share most of their pixels; rows and columns are merged first,
// so that each pixel is read once: 16 times, not 36, for a bin with 3 x 3 samples.

#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "csrc/common/store_pooled_cuda.h"
#include "csrc/common/warp_cuda.h"
#include "csrc/roi_align/roi_align.h"
#include "csrc/roi_align/sampling.h"

namespace detectron2 {
namespace roi_align_detail {

// ---- Channels, 16 bytes at a time ---------------------------------------------------------------

template <typename T>
constexpr int kVector = sizeof(uint4) / sizeof(T);

template <typename T>
struct alignas(sizeof(uint4)) Vector {
  T values[kVector<T>];
};

// Channels that a warp takes.
template <typename T>
constexpr int kWarpChannels = kWarp * kVector<T>;

// ---- Channels side by side ----------------------------------------------------------------------

constexpr int kPoolThreads = 256;
constexpr int kPoolWarps = kPoolThreads / kWarp;
constexpr int kPoolBlocks = 4;  // of them on a multiprocessor, to hide the latency of loads
constexpr int kPoolBins = 49;   // of a block: all of the usual 7 x 7
constexpr int kAxisPixels = 12;
constexpr int kLoads = 4;  // that a lane has in flight

// Rows or columns that a bin samples, with their weights.
template <typename R>
struct AxisPixels {
  int count;  // -1: more than fit
  int pixels[kAxisPixels];
  R weights[kAxisPixels];
};

template <typename R>
__device__ inline void find_pixels(const RoiAxis<R>& axis, int bin, int64_t size,
                                   AxisPixels<R>& found) {
  int count = 0;
  // Samples come in order: a pixel met before is among the last two.
  const auto add = [&](int pixel, R weight) {
    for (int i = max(count - 2, 0); i < count; ++i) {
      if (found.pixels[i] == pixel) {
        found.weights[i] += weight;
        return true;
      }
    }
    if (count == kAxisPixels) {
      return false;
    }
    found.pixels[count] = pixel;
    found.weights[count] = weight;
    ++count;
    return true;
  };
  const IndexRange range = samples_on_map(axis, bin, size);
  for (int i = range.begin; i < range.end; ++i) {
    const LinearSample<R> sample = linear_sample(sample_position(axis, bin, i), size);
    if (sample.inside &&
        !(add(sample.first, sample.first_weight) && add(sample.second, sample.second_weight))) {
      found.count = -1;
      return;
    }
  }
  const R samples = static_cast<R>(axis.samples);
  for (int i = 0; i < count; ++i) {
    found.weights[i] /= samples;
  }
  found.count = count;
}

template <typename T>
struct PoolTile {
  using R = Accumulator<T>;
  AlignedRoi<R> roi;
  alignas(16) T pooled[kWarpChannels<T> * (kPoolBins | 1)];
  AxisPixels<R> rows[kPoolBins];
  AxisPixels<R> columns[kPoolBins];
};

template <typename T>
__device__ __forceinline__ void add_pixel(const Vector<T>& pixel, Accumulator<T> weight,
                                          Accumulator<T> (&sums)[kVector<T>]) {
#pragma unroll
  for (int i = 0; i < kVector<T>; ++i) {
    sums[i] += weight * widen(pixel.values[i]);
  }
}

template <typename T>
__device__ __forceinline__ Vector<T> load_vector(const T* at) {
  union {
    uint4 bits;
    Vector<T> vector;
  } loaded = {__ldg(reinterpret_cast<const uint4*>(at))};
  return loaded.vector;
}

template <typename T>
__device__ __forceinline__ void store_bin(const Accumulator<T> (&sums)[kVector<T>], int stride,
                                          T* pooled) {
#pragma unroll
  for (int i = 0; i < kVector<T>; ++i) {
    pooled[i * stride] = narrow<T>(sums[i]);
  }
}

// A bin whose samples touch many rows or columns. Not inlined: its registers would be taken from
// what all RoIs need.
template <typename T>
__device__ __noinline__ void pool_samples(const T* image, const AlignedRoi<Accumulator<T>>& roi,
                                          int bin_y, int bin_x, const PyramidLevel& level,
                                          int stride, T* pooled) {
  using R = Accumulator<T>;
  R sums[kVector<T>] = {};
  const R count = static_cast<R>(roi.y.samples) * static_cast<R>(roi.x.samples);
  const IndexRange range_y = samples_on_map(roi.y, bin_y, level.height);
  const IndexRange range_x = samples_on_map(roi.x, bin_x, level.width);
  for (int i = range_y.begin; i < range_y.end; ++i) {
    const LinearSample<R> y = linear_sample(sample_position(roi.y, bin_y, i), level.height);
    if (!y.inside) {
      continue;
    }
    const T* const first = image + y.first * level.row_stride;
    const T* const second = image + y.second * level.row_stride;
    for (int j = range_x.begin; j < range_x.end; ++j) {
      const LinearSample<R> x = linear_sample(sample_position(roi.x, bin_x, j), level.width);
      if (x.inside) {
        const int64_t left = x.first * level.column_stride;
        const int64_t right = x.second * level.column_stride;
        add_pixel(load_vector(first + left), y.first_weight * x.first_weight / count, sums);
        add_pixel(load_vector(first + right), y.first_weight * x.second_weight / count, sums);
        add_pixel(load_vector(second + left), y.second_weight * x.first_weight / count, sums);
        add_pixel(load_vector(second + right), y.second_weight * x.second_weight / count, sums);
      }
    }
  }
  store_bin(sums, stride, pooled);
}

// A block takes a RoI, `part_bins` of its bins and kWarpChannels channels; a warp takes a bin.
template <typename T>
__global__ void __launch_bounds__(kPoolThreads, kPoolBlocks)
    pool_kernel(const __grid_constant__ PyramidData<const T*> features,
                const LeveledRois<Accumulator<T>> rois, const __grid_constant__ RoiAlignShape shape,
                int parts, int part_bins, T* pooled) {
  using R = Accumulator<T>;
  extern __shared__ uint4 shared[];
  auto& tile = *reinterpret_cast<PoolTile<T>*>(shared);
  const int warp = threadIdx.x / kWarp;
  const int lane = threadIdx.x % kWarp;
  const int num_rois = static_cast<int>(shape.num_rois);
  const int pooled_width = static_cast<int>(shape.pooled_width);
  const int bins = static_cast<int>(shape.pooled_height) * pooled_width;
  const int part = blockIdx.x % parts;
  const int k = blockIdx.x / parts % num_rois;
  const int64_t first_channel = int64_t{blockIdx.x / parts / num_rois} * kWarpChannels<T>;
  const int channels =
      static_cast<int>(min(shape.channels - first_channel, int64_t{kWarpChannels<T>}));
  const int first_bin = part * part_bins;
  const int num_bins = min(bins - first_bin, part_bins);
  const int first_row = first_bin / pooled_width;
  const int stride = num_bins | 1;
  pooled += (k * shape.channels + first_channel) * bins + first_bin;

  if (threadIdx.x == 0) {
    tile.roi = load_aligned_roi(rois, k, shape);
  }
  __syncthreads();
  const AlignedRoi<R>& roi = tile.roi;
  if (roi.image < 0) {
    for (int i = threadIdx.x; i < channels * num_bins; i += kPoolThreads) {
      pooled[static_cast<int64_t>(i / num_bins) * bins + i % num_bins] = narrow<T>(R(0));
    }
    return;
  }
  const PyramidLevel& level = shape.levels[roi.level];
  const int num_rows = (first_bin + num_bins - 1) / pooled_width - first_row + 1;
  const int num_columns = min(num_bins, pooled_width);
  // Rows by one half of the threads, columns by the other, so that no warp does both.
  if (threadIdx.x < kPoolThreads / 2) {
    if (threadIdx.x < num_rows) {
      find_pixels(roi.y, first_row + static_cast<int>(threadIdx.x), level.height,
                  tile.rows[threadIdx.x]);
    }
  } else {
    const int i = static_cast<int>(threadIdx.x) - kPoolThreads / 2;
    if (i < num_columns) {
      find_pixels(roi.x, (first_bin + i) % pooled_width, level.width, tile.columns[i]);
    }
  }
  __syncthreads();

  // Lanes beyond the last channel read what others read.
  const int lane_channel = min(lane * kVector<T>, (channels - 1) / kVector<T> * kVector<T>);
  const T* const image =
      features.levels[roi.level] + roi.image * level.image_stride + first_channel + lane_channel;
  const int64_t row_stride = level.row_stride;
  const int column_stride = static_cast<int>(level.column_stride);
  for (int bin = warp; bin < num_bins; bin += kPoolWarps) {
    const AxisPixels<R>& rows = tile.rows[(first_bin + bin) / pooled_width - first_row];
    const AxisPixels<R>& columns = tile.columns[bin % pooled_width];
    T* const pooled_bin = tile.pooled + lane * kVector<T> * stride + bin;
    if (rows.count < 0 || columns.count < 0) {
      const int at = first_bin + bin;
      pool_samples(image, roi, at / pooled_width, at % pooled_width, level, stride, pooled_bin);
      continue;
    }
    R sums[kVector<T>] = {};
    const int num_pixels = columns.count;
    for (int y = 0; y < rows.count; ++y) {
      const T* const row = image + rows.pixels[y] * row_stride;
      const R row_weight = rows.weights[y];
      for (int x = 0; x < num_pixels; x += kLoads) {
        Vector<T> pixels[kLoads];
#pragma unroll
        for (int i = 0; i < kLoads; ++i) {
          if (x + i < num_pixels) {
            pixels[i] =
                load_vector(row + static_cast<int64_t>(columns.pixels[x + i]) * column_stride);
          }
        }
#pragma unroll
        for (int i = 0; i < kLoads; ++i) {
          if (x + i < num_pixels) {
            add_pixel(pixels[i], row_weight * columns.weights[x + i], sums);
          }
        }
      }
    }
    store_bin(sums, stride, pooled_bin);
  }
  __syncthreads();
  store_pooled<kPoolThreads>(tile.pooled, channels, num_bins, bins, pooled);
}

// ---- Any strides --------------------------------------------------------------------------------

constexpr int kThreads = 256;

// A thread computes a pooled value. Slow, but of any shape, and for a few RoIs or channels quicker
// than to bring a large map into another order.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    forward_kernel(const __grid_constant__ PyramidData<const T*> features,
                   const LeveledRois<Accumulator<T>> rois,
                   const __grid_constant__ RoiAlignShape shape, int64_t count, T* pooled) {
  using R = Accumulator<T>;
  const int64_t stride = int64_t{gridDim.x} * kThreads;
  for (int64_t at = int64_t{blockIdx.x} * kThreads + threadIdx.x; at < count; at += stride) {
    int64_t rest = at;
    const int bin_x = static_cast<int>(rest % shape.pooled_width);
    rest /= shape.pooled_width;
    const int bin_y = static_cast<int>(rest % shape.pooled_height);
    rest /= shape.pooled_height;
    const AlignedRoi<R> roi = load_aligned_roi(rois, rest / shape.channels, shape);
    R sum = 0;
    if (roi.image >= 0) {
      const PyramidLevel& level = shape.levels[roi.level];
      const T* const plane = features.levels[roi.level] + roi.image * level.image_stride +
                             rest % shape.channels * level.channel_stride;
      const IndexRange range_y = samples_on_map(roi.y, bin_y, level.height);
      const IndexRange range_x = samples_on_map(roi.x, bin_x, level.width);
      for (int i = range_y.begin; i < range_y.end; ++i) {
        const LinearSample<R> y = linear_sample(sample_position(roi.y, bin_y, i), level.height);
        if (!y.inside) {
          continue;
        }
        const T* const first = plane + y.first * level.row_stride;
        const T* const second = plane + y.second * level.row_stride;
        for (int j = range_x.begin; j < range_x.end; ++j) {
          const LinearSample<R> x = linear_sample(sample_position(roi.x, bin_x, j), level.width);
          if (x.inside) {
            const int64_t left = x.first * level.column_stride;
            const int64_t right = x.second * level.column_stride;
            sum +=
                y.first_weight *
                    (x.first_weight * widen(first[left]) + x.second_weight * widen(first[right])) +
                y.second_weight *
                    (x.first_weight * widen(second[left]) + x.second_weight * widen(second[right]));
          }
        }
      }
      sum /= static_cast<R>(roi.y.samples) * static_cast<R>(roi.x.samples);
    }
    pooled[at] = narrow<T>(sum);
  }
}

}  // namespace roi_align_detail
}  // namespace detectron2
