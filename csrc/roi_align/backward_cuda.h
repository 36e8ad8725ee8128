// The backward kernel. Only .cu files include it.
//
// A block takes a tile of a level's pixels and adds up what all RoIs give to them in registers,
// then writes each once: in the order of the RoIs, so with the same bits on every run, without
// atomics, and without a copy of the gradient in float32 that would be cleared, read and rounded.

#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "csrc/common/warp_cuda.h"
#include "csrc/roi_align/pool_cuda.h"
#include "csrc/roi_align/roi_align.h"
#include "csrc/roi_align/sampling.h"

namespace detectron2 {
namespace roi_align_detail {

constexpr int kTileThreads = 256;
constexpr int kTileWarps = kTileThreads / kWarp;
constexpr int kTileRows = 4;
constexpr int kTileColumns = 16;
constexpr int kTilePixels = kTileRows * kTileColumns;
constexpr int kWarpPixels = kTilePixels / kTileWarps;  // of a warp, side by side in a row
constexpr int kRowWarps = kTileColumns / kWarpPixels;

constexpr int kBatch = 8;       // RoIs whose weights are found at a time
constexpr int kBatchBins = 32;  // along each axis: bits of a mask
constexpr int kTests = 4;       // RoIs that a thread tests before it waits for the others
constexpr int kListed = 1024;   // RoIs that meet the tile, before they are worked on

// ---- What all tiles need to know of the RoIs ----------------------------------------------------

template <typename R>
struct RoiAxes {
  RoiAxis<R> y;
  RoiAxis<R> x;
};

// Pixels of an image of a level.
struct PixelWindow {
  int begin_y;
  int end_y;
  int begin_x;
  int end_x;
};

// Which image of which level; read at once.
struct alignas(8) MapIndex {
  int level;
  int image;
};

template <typename R>
struct RoiTable {
  PixelWindow* windows;
  MapIndex* maps;
  RoiAxes<R>* axes;
};

template <typename R>
__host__ __device__ inline RoiTable<R> roi_table(void* workspace, int64_t num_rois) {
  const auto windows = static_cast<PixelWindow*>(workspace);
  const auto maps = reinterpret_cast<MapIndex*>(windows + num_rois);
  return {windows, maps, reinterpret_cast<RoiAxes<R>*>(maps + num_rois)};
}

template <typename R>
__global__ void __launch_bounds__(kThreads)
    table_kernel(const LeveledRois<R> rois, const __grid_constant__ RoiAlignShape shape,
                 RoiTable<R> table) {
  const int64_t k = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (k >= shape.num_rois) {
    return;
  }
  const AlignedRoi<R> roi = load_aligned_roi(rois, k, shape);
  PixelWindow window = {};
  if (roi.image >= 0) {
    const PyramidLevel& level = shape.levels[roi.level];
    const IndexRange rows = pixels_of(roi.y, shape.pooled_height, level.height);
    const IndexRange columns = pixels_of(roi.x, shape.pooled_width, level.width);
    window = {rows.begin, rows.end, columns.begin, columns.end};
  }
  table.windows[k] = window;
  table.maps[k] = {roi.level, static_cast<int>(roi.image)};
  table.axes[k] = {roi.y, roi.x};
}

// ---- Tiles --------------------------------------------------------------------------------------

// Where the tiles of the levels are: those of the last level come first, as its blocks, which most
// RoIs meet, take the longest.
struct TileGrid {
  int64_t first_tile[kMaxPyramidLevels];  // of all images
  int rows[kMaxPyramidLevels];            // of tiles
  int columns[kMaxPyramidLevels];
};

struct Tile {
  int level;
  int image;
  int y;
  int x;
};

template <typename T>
struct TileWeights {
  using R = Accumulator<T>;
  R rows[kBatch][kTileRows][kBatchBins];
  alignas(16) R columns[kBatch][kBatchBins][kTileColumns];
  // Of the bins that have a weight for a row of the tile, and for a warp's columns.
  unsigned int row_masks[kBatch][kTileRows];
  unsigned int column_masks[kBatch][kRowWarps];
};

// A pixel's channels, and an odd number of words for 4 byte elements, so that threads with
// neighbouring pixels use different banks.
template <typename T>
constexpr int kPixelStride = kWarpChannels<T> + (sizeof(T) > 4 ? 1 : 4 / sizeof(T));

template <typename T>
struct GatherTile {
  int list[kListed];
  int warp_counts[kTileWarps];
  union {
    TileWeights<T> weights;
    T pixels[kTilePixels * kPixelStride<T>];
  };
};

template <typename T>
using PixelSums = Accumulator<T>[kWarpPixels][kVector<T>];

// Appends those of kTileThreads RoIs that meet the tile, in order; returns how many are listed
// then. For all threads of the block.
template <typename T>
__device__ __forceinline__ int append_rois(bool meets, int first_roi, int listed,
                                           GatherTile<T>& shared) {
  const int warp = threadIdx.x / kWarp;
  const int lane = threadIdx.x % kWarp;
  const unsigned int meeting = __ballot_sync(kAllLanes, meets);
  if (lane == 0) {
    shared.warp_counts[warp] = __popc(meeting);
  }
  __syncthreads();
  int at = listed;
#pragma unroll
  for (int i = 0; i < kTileWarps; ++i) {
    const int count = shared.warp_counts[i];
    at += i < warp ? count : 0;
    listed += count;
  }
  if (meets) {
    shared.list[at + __popc(meeting & ((1u << lane) - 1))] =
        first_roi + static_cast<int>(threadIdx.x);
  }
  __syncthreads();
  return listed;
}

// Finds the weights of bins [first_y, ...) x [first_x, ...) of some listed RoIs for the tile. For
// all threads of the block.
template <typename T>
__device__ __forceinline__ void find_weights(const RoiAxes<Accumulator<T>>* axes, const int* list,
                                             int num_rois, int first_y, int first_x,
                                             const Tile& tile, const RoiAlignShape& shape,
                                             TileWeights<T>& weights) {
  using R = Accumulator<T>;
  const PyramidLevel& level = shape.levels[tile.level];
  const int bins_y = min(static_cast<int>(shape.pooled_height) - first_y, kBatchBins);
  const int bins_x = min(static_cast<int>(shape.pooled_width) - first_x, kBatchBins);
  for (int i = threadIdx.x; i < kBatch * kTileRows; i += kTileThreads) {
    (&weights.row_masks[0][0])[i] = 0;
  }
  for (int i = threadIdx.x; i < kBatch * kRowWarps; i += kTileThreads) {
    (&weights.column_masks[0][0])[i] = 0;
  }
  __syncthreads();
  const int row_weights = bins_y * kTileRows;
  const int roi_weights = row_weights + bins_x * kTileColumns;
  for (int i = threadIdx.x; i < num_rois * roi_weights; i += kTileThreads) {
    const int roi = i / roi_weights;
    const int at = i % roi_weights;
    const RoiAxes<R>& axis = axes[list[roi]];
    if (at < row_weights) {
      const int bin = at / kTileRows;
      const int row = at % kTileRows;
      const R weight = pixel_weight(axis.y, first_y + bin, tile.y + row, level.height);
      weights.rows[roi][row][bin] = weight;
      if (weight != 0) {
        atomicOr(&weights.row_masks[roi][row], 1u << bin);
      }
    } else {
      const int bin = (at - row_weights) / kTileColumns;
      const int column = (at - row_weights) % kTileColumns;
      const R weight = pixel_weight(axis.x, first_x + bin, tile.x + column, level.width);
      weights.columns[roi][bin][column] = weight;
      if (weight != 0) {
        atomicOr(&weights.column_masks[roi][column / kWarpPixels], 1u << bin);
      }
    }
  }
  __syncthreads();
}

// Adds what some RoIs give to a warp's pixels. grad_pooled is that of the lane's channels.
template <typename T>
__device__ __forceinline__ void add_rois(const T* grad_pooled, int64_t bin_stride, const int* list,
                                         int num_rois, int first_y, int first_x,
                                         const RoiAlignShape& shape, const TileWeights<T>& weights,
                                         PixelSums<T>& sums) {
  using R = Accumulator<T>;
  const int warp = threadIdx.x / kWarp;
  const int row = warp / kRowWarps;
  const int side = warp % kRowWarps;
  const int pooled_width = static_cast<int>(shape.pooled_width);
  const int bins = static_cast<int>(shape.pooled_height) * pooled_width;
  for (int roi = 0; roi < num_rois; ++roi) {
    const unsigned int bins_y = weights.row_masks[roi][row];
    const unsigned int bins_x = weights.column_masks[roi][side];
    if (bins_y == 0 || bins_x == 0) {
      continue;
    }
    const T* const grad_roi = grad_pooled + int64_t{list[roi]} * bins * bin_stride;
    for (unsigned int rest_x = bins_x; rest_x != 0; rest_x &= rest_x - 1) {
      const int x = __ffs(rest_x) - 1;
      const T* const grad_column = grad_roi + (first_y * pooled_width + first_x + x) * bin_stride;
      R values[kVector<T>] = {};
      for (unsigned int rest_y = bins_y; rest_y != 0; rest_y &= rest_y - 1) {
        const int y = __ffs(rest_y) - 1;
        add_pixel(load_vector(grad_column + y * pooled_width * bin_stride),
                  weights.rows[roi][row][y], values);
      }
      const R* const columns = &weights.columns[roi][x][side * kWarpPixels];
#pragma unroll
      for (int pixel = 0; pixel < kWarpPixels; ++pixel) {
        const R weight = columns[pixel];
#pragma unroll
        for (int i = 0; i < kVector<T>; ++i) {
          sums[pixel][i] += weight * values[i];
        }
      }
    }
  }
}

// Writes a warp's pixels where channels are side by side. grad_pixels is that of the tile's first
// pixel and the block's first channel.
template <typename T>
__device__ __forceinline__ void store_channels_last(const PixelSums<T>& sums, int rows, int columns,
                                                    int channels, const PyramidLevel& level,
                                                    T* grad_pixels) {
  const int warp = threadIdx.x / kWarp;
  const int row = warp / kRowWarps;
  const int first = warp % kRowWarps * kWarpPixels;
  const int channel = static_cast<int>(threadIdx.x) % kWarp * kVector<T>;
  if (row >= rows || channel >= channels) {
    return;
  }
  T* at = grad_pixels + row * level.row_stride + first * level.column_stride + channel;
  const bool whole = channel + kVector<T> <= channels && level.column_stride % kVector<T> == 0;
#pragma unroll
  for (int pixel = 0; pixel < kWarpPixels; ++pixel, at += level.column_stride) {
    if (first + pixel < columns) {
      union {
        uint4 bits;
        T values[kVector<T>];
      } vector;
#pragma unroll
      for (int i = 0; i < kVector<T>; ++i) {
        vector.values[i] = narrow<T>(sums[pixel][i]);
      }
      if (whole) {
        *reinterpret_cast<uint4*>(at) = vector.bits;
      } else {
#pragma unroll
        for (int i = 0; i < kVector<T>; ++i) {
          if (channel + i < channels) {
            at[i] = vector.values[i];
          }
        }
      }
    }
  }
}

// The same where columns are side by side, by way of shared memory. For all threads of the block.
template <typename T>
__device__ __forceinline__ void store_planes(const PixelSums<T>& sums, int rows, int columns,
                                             int channels, const PyramidLevel& level,
                                             T* grad_pixels, T* pixels) {
  const int warp = threadIdx.x / kWarp;
  const int lane = threadIdx.x % kWarp;
  __syncthreads();
#pragma unroll
  for (int pixel = 0; pixel < kWarpPixels; ++pixel) {
    T* const at = pixels + (warp * kWarpPixels + pixel) * kPixelStride<T> + lane * kVector<T>;
#pragma unroll
    for (int i = 0; i < kVector<T>; ++i) {
      at[i] = narrow<T>(sums[pixel][i]);
    }
  }
  __syncthreads();
  const int pixel = threadIdx.x % kTilePixels;
  const int row = pixel / kTileColumns;
  const int column = pixel % kTileColumns;
  if (row < rows && column < columns) {
    T* const at = grad_pixels + row * level.row_stride + column * level.column_stride;
    for (int channel = threadIdx.x / kTilePixels; channel < channels;
         channel += kTileThreads / kTilePixels) {
      at[channel * level.channel_stride] = pixels[pixel * kPixelStride<T> + channel];
    }
  }
}

// A block takes a tile and kWarpChannels channels.
template <typename T>
__global__ void __launch_bounds__(kTileThreads, 2)
    gather_kernel(const T* grad_pooled, int64_t bin_stride, const RoiTable<Accumulator<T>> table,
                  const __grid_constant__ RoiAlignShape shape,
                  const __grid_constant__ TileGrid grid, int channel_blocks,
                  const __grid_constant__ PyramidData<T*> grad_features) {
  extern __shared__ uint4 shared_bytes[];
  auto& shared = *reinterpret_cast<GatherTile<T>*>(shared_bytes);
  const int64_t first_channel = int64_t{blockIdx.x % channel_blocks} * kWarpChannels<T>;
  const int channels =
      static_cast<int>(min(shape.channels - first_channel, int64_t{kWarpChannels<T>}));
  int64_t index = blockIdx.x / channel_blocks;
  Tile tile;
  tile.level = 0;
  while (index < grid.first_tile[tile.level]) {
    ++tile.level;
  }
  index -= grid.first_tile[tile.level];
  const PyramidLevel& level = shape.levels[tile.level];
  tile.x = static_cast<int>(index % grid.columns[tile.level]) * kTileColumns;
  index /= grid.columns[tile.level];
  tile.y = static_cast<int>(index % grid.rows[tile.level]) * kTileRows;
  tile.image = static_cast<int>(index / grid.rows[tile.level]);

  // Lanes beyond the last channel read what others read.
  const int lane_channel = min(static_cast<int>(threadIdx.x) % kWarp * kVector<T>,
                               (channels - 1) / kVector<T> * kVector<T>);
  grad_pooled += first_channel + lane_channel;
  PixelSums<T> sums = {};
  const auto add_listed = [&](int listed) {
    for (int first = 0; first < listed; first += kBatch) {
      const int num_rois = min(listed - first, kBatch);
      const int* const list = shared.list + first;
      for (int y = 0; y < shape.pooled_height; y += kBatchBins) {
        for (int x = 0; x < shape.pooled_width; x += kBatchBins) {
          find_weights(table.axes, list, num_rois, y, x, tile, shape, shared.weights);
          add_rois(grad_pooled, bin_stride, list, num_rois, y, x, shape, shared.weights, sums);
          __syncthreads();
        }
      }
    }
  };
  const int num_rois = static_cast<int>(shape.num_rois);
  int listed = 0;
  for (int first = 0; first < num_rois; first += kTests * kTileThreads) {
    unsigned int meets = 0;
#pragma unroll
    for (int test = 0; test < kTests; ++test) {
      const int k = first + test * kTileThreads + static_cast<int>(threadIdx.x);
      if (k < num_rois) {
        const MapIndex map = table.maps[k];
        if (map.image == tile.image && map.level == tile.level) {
          const PixelWindow window = table.windows[k];
          const bool meets_tile = window.begin_y < tile.y + kTileRows && window.end_y > tile.y &&
                                  window.begin_x < tile.x + kTileColumns && window.end_x > tile.x;
          meets |= static_cast<unsigned int>(meets_tile) << test;
        }
      }
    }
    if (!__syncthreads_or(static_cast<int>(meets))) {
      continue;
    }
    for (int test = 0; test < kTests; ++test) {
      if (listed + kTileThreads > kListed) {
        add_listed(listed);
        listed = 0;
      }
      listed = append_rois<T>(meets >> test & 1, first + test * kTileThreads, listed, shared);
    }
  }
  add_listed(listed);

  const int rows = static_cast<int>(min(level.height - tile.y, int64_t{kTileRows}));
  const int columns = static_cast<int>(min(level.width - tile.x, int64_t{kTileColumns}));
  T* const grad_pixels = grad_features.levels[tile.level] + tile.image * level.image_stride +
                         tile.y * level.row_stride + tile.x * level.column_stride +
                         first_channel * level.channel_stride;
  if (level.channel_stride == 1) {
    store_channels_last<T>(sums, rows, columns, channels, level, grad_pixels);
  } else {
    store_planes<T>(sums, rows, columns, channels, level, grad_pixels, shared.pixels);
  }
}

}  // namespace roi_align_detail
}  // namespace detectron2
