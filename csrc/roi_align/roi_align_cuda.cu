#include <algorithm>
#include <cstdint>
#include <limits>

#include "csrc/common/channels_last_cuda.h"
#include "csrc/common/cuda_launch.h"
#include "csrc/roi_align/backward_cuda.h"
#include "csrc/roi_align/pool_cuda.h"
#include "csrc/roi_align/roi_align.h"

namespace detectron2 {
namespace roi_align_detail {

constexpr int64_t kMaxBlocks = std::numeric_limits<int32_t>::max();
constexpr int64_t kMaxBins = int64_t{1} << 22;  // times a warp's channels, still in 32 bits

// Whether bins and pixels can be counted in 32 bits.
inline bool fits_32_bits(const RoiAlignShape& shape) {
  if (shape.pooled_height >= kMaxBins || shape.pooled_width >= kMaxBins ||
      shape.pooled_height * shape.pooled_width >= kMaxBins || shape.num_rois >= kMaxBlocks ||
      shape.batch_size >= kMaxBlocks) {
    return false;
  }
  for (int i = 0; i < shape.num_levels; ++i) {
    if (shape.levels[i].height >= kMaxBlocks - kTileColumns ||
        shape.levels[i].width >= kMaxBlocks - kTileColumns) {
      return false;
    }
  }
  return true;
}

inline int64_t pool_parts(const RoiAlignShape& shape) {
  return divide_up(shape.pooled_height * shape.pooled_width, kPoolBins);
}

// The same for all, as if a warp took as few channels as it does of float64.
inline int64_t most_channel_blocks(const RoiAlignShape& shape) {
  return divide_up(shape.channels, kWarpChannels<double>);
}

struct AllPixels {
  __device__ unsigned int operator()(int64_t, int64_t, int64_t) const { return 3; }
};

// Lays out the tiles; returns how many there are, at most kMaxBlocks + 1.
inline int64_t lay_out_tiles(const RoiAlignShape& shape, TileGrid& grid) {
  int64_t tiles = 0;
  for (int i = shape.num_levels - 1; i >= 0; --i) {
    const int64_t rows = divide_up(shape.levels[i].height, kTileRows);
    const int64_t columns = divide_up(shape.levels[i].width, kTileColumns);
    grid.first_tile[i] = tiles;
    grid.rows[i] = static_cast<int>(rows);
    grid.columns[i] = static_cast<int>(columns);
    if (rows > kMaxBlocks / columns || rows * columns > kMaxBlocks / shape.batch_size) {
      return kMaxBlocks + 1;
    }
    tiles = std::min(tiles + rows * columns * shape.batch_size, kMaxBlocks + 1);
  }
  return tiles;
}

}  // namespace roi_align_detail

template <typename T>
void roi_align_forward_cuda(const PyramidData<const T*>& features,
                            const LeveledRois<Accumulator<T>>& rois, const RoiAlignShape& shape,
                            T* pooled, void* stream) {
  using namespace roi_align_detail;
  const int64_t count = shape.num_rois * shape.channels * shape.pooled_height * shape.pooled_width;
  forward_kernel<T><<<grid_for(count, kThreads), kThreads, 0, static_cast<cudaStream_t>(stream)>>>(
      features, rois, shape, count, pooled);
  check_launch("roi_align forward_kernel");
}

bool roi_align_can_pool_channels_last(const RoiAlignShape& shape) {
  using namespace roi_align_detail;
  if (!fits_32_bits(shape) || shape.channels >= kMaxBins) {
    return false;
  }
  return shape.num_rois <= kMaxBlocks / pool_parts(shape) / most_channel_blocks(shape);
}

bool roi_align_prefers_channels_last(const RoiAlignShape& shape, int64_t element_size) {
  using namespace roi_align_detail;
  constexpr int64_t kLeastBytes = 64;    // of a pixel's channels: below, lanes and memory lie idle
  constexpr int64_t kPixelsPerBin = 16;  // as for roi_align_rotated
  if (!roi_align_can_pool_channels_last(shape) || shape.channels * element_size < kLeastBytes) {
    return false;
  }
  int64_t pixels = 0;
  for (int i = 0; i < shape.num_levels; ++i) {
    const int64_t plane = shape.levels[i].height * shape.levels[i].width;
    if (channels_last_blocks<double>(shape.batch_size, plane, shape.channels + 16) > kMaxBlocks) {
      return false;
    }
    pixels += shape.batch_size * plane;
  }
  return shape.num_rois * shape.pooled_height * shape.pooled_width * kPixelsPerBin >= pixels;
}

template <typename T>
void roi_align_pool_channels_last_cuda(const PyramidData<const T*>& features,
                                       const LeveledRois<Accumulator<T>>& rois,
                                       const RoiAlignShape& shape, T* pooled, void* stream) {
  using namespace roi_align_detail;
  const int64_t bins = shape.pooled_height * shape.pooled_width;
  const int64_t parts = pool_parts(shape);
  const int64_t blocks = shape.num_rois * parts * divide_up(shape.channels, kWarpChannels<T>);
  constexpr int kShared = sizeof(PoolTile<T>);
  static_assert(kShared <= 48 * 1024);
  pool_kernel<T>
      <<<static_cast<unsigned int>(blocks), kPoolThreads, kShared,
         static_cast<cudaStream_t>(stream)>>>(features, rois, shape, static_cast<int>(parts),
                                              static_cast<int>(divide_up(bins, parts)), pooled);
  check_launch("roi_align pool_kernel");
}

template <typename T>
void roi_align_channels_last_cuda(const T* planes, int64_t count, int64_t rows, int64_t columns,
                                  int64_t row_stride, T* channels_last, void* stream) {
  using namespace roi_align_detail;
  bring_channels_side_by_side(planes, count, rows, columns, row_stride, AllPixels{}, channels_last,
                              static_cast<cudaStream_t>(stream));
  check_launch("roi_align channels_last_kernel");
}

bool roi_align_has_backward(const RoiAlignShape& shape) {
  using namespace roi_align_detail;
  TileGrid grid = {};
  return fits_32_bits(shape) && shape.channels < kMaxBins &&
         lay_out_tiles(shape, grid) <= kMaxBlocks / most_channel_blocks(shape) &&
         channels_last_blocks<double>(shape.num_rois, shape.pooled_height * shape.pooled_width,
                                      shape.channels + 16) <= kMaxBlocks;
}

template <typename T>
int64_t roi_align_backward_workspace(int64_t num_rois) {
  using namespace roi_align_detail;
  return num_rois * static_cast<int64_t>(sizeof(PixelWindow) + sizeof(MapIndex) +
                                         sizeof(RoiAxes<Accumulator<T>>));
}

template <typename T>
void roi_align_backward_cuda(const T* grad_pooled, int64_t bin_stride,
                             const LeveledRois<Accumulator<T>>& rois, const RoiAlignShape& shape,
                             void* workspace, const PyramidData<T*>& grad_features, void* stream) {
  using namespace roi_align_detail;
  const auto cuda_stream = static_cast<cudaStream_t>(stream);
  const RoiTable<Accumulator<T>> table = roi_table<Accumulator<T>>(workspace, shape.num_rois);
  table_kernel<<<grid_for(shape.num_rois, kThreads), kThreads, 0, cuda_stream>>>(rois, shape,
                                                                                 table);
  check_launch("roi_align table_kernel");
  TileGrid grid = {};
  const int64_t tiles = lay_out_tiles(shape, grid);
  const int64_t channel_blocks = divide_up(shape.channels, kWarpChannels<T>);
  constexpr int kShared = sizeof(GatherTile<T>);
  static_assert(kShared <= 64 * 1024);  // what sm_75 has at most
  if constexpr (kShared > 48 * 1024) {
    // Must be asked for; if there is less, the launch fails.
    cudaFuncSetAttribute(gather_kernel<T>, cudaFuncAttributeMaxDynamicSharedMemorySize, kShared);
  }
  gather_kernel<T>
      <<<static_cast<unsigned int>(tiles * channel_blocks), kTileThreads, kShared, cuda_stream>>>(
          grad_pooled, bin_stride, table, shape, grid, static_cast<int>(channel_blocks),
          grad_features);
  check_launch("roi_align gather_kernel");
}

#define DETECTRON2_INSTANTIATE(T)                                                                 \
  template void roi_align_forward_cuda<T>(const PyramidData<const T*>&,                           \
                                          const LeveledRois<Accumulator<T>>&,                     \
                                          const RoiAlignShape&, T*, void*);                       \
  template void roi_align_pool_channels_last_cuda<T>(const PyramidData<const T*>&,                \
                                                     const LeveledRois<Accumulator<T>>&,          \
                                                     const RoiAlignShape&, T*, void*);            \
  template void roi_align_channels_last_cuda<T>(const T*, int64_t, int64_t, int64_t, int64_t, T*, \
                                                void*);                                           \
  template int64_t roi_align_backward_workspace<T>(int64_t);                                      \
  template void roi_align_backward_cuda<T>(const T*, int64_t, const LeveledRois<Accumulator<T>>&, \
                                           const RoiAlignShape&, void*, const PyramidData<T*>&,   \
                                           void*);
DETECTRON2_INSTANTIATE(float)
DETECTRON2_INSTANTIATE(double)
DETECTRON2_INSTANTIATE(Half)
DETECTRON2_INSTANTIATE(BFloat16)
#undef DETECTRON2_INSTANTIATE

}  // namespace detectron2
