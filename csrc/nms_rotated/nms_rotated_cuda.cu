// Greedy NMS is sequential, its IoUs are not. The boxes are cut into tiles of 64 and, so that
// memory stays bounded, into panels of many tiles. For each panel in turn, overlaps_kernel computes
// which later boxes each of its boxes would remove, one bit a pair; then one block of select_kernel
// walks the panel tile by tile and settles which of its boxes are kept. Nothing goes to the host.

#include <algorithm>
#include <cstdint>

#include "csrc/common/cuda_launch.h"
#include "csrc/common/rotated_box.h"
#include "csrc/nms_rotated/nms_rotated.h"

namespace detectron2 {
namespace nms_rotated_detail {

constexpr int kTile = 64;  // bits of a word
constexpr int kSelectThreads = 1024;
// 64 MiB: a panel then covers all of 23,000 boxes, and still 1,300 of 400,000.
constexpr int64_t kOverlapWords = int64_t{8} << 20;

// Block (x, y) compares the boxes of tile first_tile + y with those of tile x, the upper triangle
// only: bit c of a row's word x says that the row's box removes box 64 x + c. Boxes that an earlier
// panel removed take no part.
template <typename T>
__global__ void __launch_bounds__(kTile)
    overlaps_kernel(const T* boxes, int64_t count, T threshold, int64_t first_tile,
                    const uint64_t* removed, int64_t words, uint64_t* overlaps) {
  const int64_t row_tile = first_tile + blockIdx.y;
  const int64_t column_tile = row_tile + blockIdx.x;
  if (column_tile >= words) {
    return;
  }
  __shared__ RotatedBox<T> columns[kTile];
  const int thread = threadIdx.x;
  const int64_t first_column = column_tile * kTile;
  if (first_column + thread < count) {
    columns[thread] = load_rotated_box(boxes + (first_column + thread) * kRotatedBoxSize);
  }
  __syncthreads();

  const int64_t row = row_tile * kTile + thread;
  if (row >= count) {
    return;
  }
  uint64_t word = 0;
  if ((removed[row_tile] >> thread & 1) == 0) {
    const RotatedBox<T> box = load_rotated_box(boxes + row * kRotatedBoxSize);
    const uint64_t removed_columns = removed[column_tile];
    const int columns_end =
        count - first_column < kTile ? static_cast<int>(count - first_column) : kTile;
    for (int c = column_tile == row_tile ? thread + 1 : 0; c < columns_end; ++c) {
      if ((removed_columns >> c & 1) == 0 && rotated_iou(box, columns[c]) > threshold) {
        word |= uint64_t{1} << c;
      }
    }
  }
  overlaps[(row - first_tile * kTile) * words + column_tile] = word;
}

// One block. Tile by tile: a thread settles the 64 boxes of the tile, one after the other, from
// the words that compare the tile with itself; then all threads add what the kept ones remove to
// the bits of the later tiles.
__global__ void __launch_bounds__(kSelectThreads)
    select_kernel(int64_t count, int64_t first_tile, int64_t end_tile, const uint64_t* overlaps,
                  int64_t words, uint64_t* removed, bool* keep) {
  __shared__ uint64_t within[kTile];
  __shared__ uint64_t kept_word;
  const int thread = threadIdx.x;
  for (int64_t tile = first_tile; tile < end_tile; ++tile) {
    const int64_t boxes_left = count - tile * kTile;
    const int tile_size = boxes_left < kTile ? static_cast<int>(boxes_left) : kTile;
    const uint64_t* rows = overlaps + (tile - first_tile) * kTile * words;
    if (thread < tile_size) {
      within[thread] = rows[thread * words + tile];
    }
    __syncthreads();
    if (thread == 0) {
      uint64_t gone = removed[tile];
      uint64_t kept = 0;
      for (int i = 0; i < tile_size; ++i) {
        if ((gone >> i & 1) == 0) {
          kept |= uint64_t{1} << i;
          gone |= within[i];
        }
      }
      kept_word = kept;
    }
    __syncthreads();
    const uint64_t kept = kept_word;
    if (thread < tile_size) {
      keep[tile * kTile + thread] = kept >> thread & 1;
    }
    for (int64_t word = tile + 1 + thread; word < words; word += kSelectThreads) {
      uint64_t gone = removed[word];
      // Unrolled so that loads do not wait for one another.
#pragma unroll 16
      for (int i = 0; i < kTile; ++i) {
        gone |= (kept >> i & 1) != 0 ? rows[i * words + word] : 0;
      }
      removed[word] = gone;
    }
    // Before thread 0 reads the next tile's bits, and before `within` is written again.
    __syncthreads();
  }
}

}  // namespace nms_rotated_detail

NmsWorkspace nms_rotated_workspace(int64_t count) {
  using namespace nms_rotated_detail;
  const int64_t words = divide_up(count, kTile);
  const int64_t tiles = std::clamp<int64_t>(kOverlapWords / (words * kTile), 1, words);
  return {nullptr, nullptr, words, tiles * kTile};
}

template <typename T>
void nms_rotated_cuda(const T* boxes, int64_t count, double iou_threshold,
                      const NmsWorkspace& workspace, bool* keep, void* stream) {
  using namespace nms_rotated_detail;
  const cudaStream_t cuda_stream = static_cast<cudaStream_t>(stream);
  const int64_t words = workspace.words;
  const int64_t tiles_per_panel = workspace.rows_per_panel / kTile;
  for (int64_t tile = 0; tile < words; tile += tiles_per_panel) {
    const int64_t end_tile = std::min(tile + tiles_per_panel, words);
    const dim3 grid(static_cast<unsigned int>(words - tile),
                    static_cast<unsigned int>(end_tile - tile));
    overlaps_kernel<T><<<grid, kTile, 0, cuda_stream>>>(boxes, count, static_cast<T>(iou_threshold),
                                                        tile, workspace.removed, words,
                                                        workspace.overlaps);
    check_launch("nms_rotated overlaps_kernel");
    select_kernel<<<1, kSelectThreads, 0, cuda_stream>>>(count, tile, end_tile, workspace.overlaps,
                                                         words, workspace.removed, keep);
    check_launch("nms_rotated select_kernel");
  }
}

template void nms_rotated_cuda<float>(const float*, int64_t, double, const NmsWorkspace&, bool*,
                                      void*);
template void nms_rotated_cuda<double>(const double*, int64_t, double, const NmsWorkspace&, bool*,
                                       void*);

}  // namespace detectron2
