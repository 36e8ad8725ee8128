// 1. overlaps_kernel compares the boxes of each tile of 64 with those of the same and of later
//    tiles of their group: one bit for each pair of which the earlier box would remove the later.
// 2. select_kernel, a block for each group, settles tile after tile which boxes are kept.

#include <cstdint>

#include "csrc/common/aligned_box.h"
#include "csrc/common/cuda_launch.h"
#include "csrc/nms_groups/nms_groups.h"

namespace detectron2 {
namespace nms_groups_detail {

constexpr int kTile = 64;  // bits of a word
constexpr int kSelectThreads = 512;
constexpr int kWarp = 32;

template <typename T>
struct Divide {
  __device__ T operator()(T dividend, T divisor) const { return dividend / divisor; }
};

// A block has one pair of tiles, in each group that it strides over, and a thread one row. Word
// (row, tile) of a group holds the boxes of that later tile that the row's box would remove. Words
// of rows that are not valid are not written, nor are they read.
template <typename T>
__global__ void __launch_bounds__(kTile)
    overlaps_kernel(const T* boxes, const int64_t* classes, const bool* valid, int64_t groups,
                    int size, int tiles, T threshold, unsigned long long* words) {
  const int column_tile = blockIdx.x;
  const int row_tile = blockIdx.y;
  if (column_tile < row_tile) {
    return;
  }
  __shared__ AlignedBox<T> columns[kTile];
  __shared__ int64_t column_classes[kTile];
  const int thread = threadIdx.x;
  const int first_column = column_tile * kTile;
  const int row = row_tile * kTile + thread;
  const int num_columns = size - first_column < kTile ? size - first_column : kTile;
  for (int64_t group = blockIdx.z; group < groups; group += gridDim.z) {
    const int64_t start = group * size;
    __syncthreads();
    if (thread < num_columns) {
      const int64_t column = start + first_column + thread;
      columns[thread] = load_aligned_box(boxes + column * kAlignedBoxSize);
      column_classes[thread] = classes == nullptr ? 0 : classes[column];
    }
    __syncthreads();
    if (row >= size || !valid[start + row]) {
      continue;
    }
    const AlignedBox<T> box = load_aligned_box(boxes + (start + row) * kAlignedBoxSize);
    const int64_t own_class = classes == nullptr ? 0 : classes[start + row];
    unsigned long long word = 0;
    for (int c = column_tile == row_tile ? thread + 1 : 0; c < num_columns; ++c) {
      if (column_classes[c] == own_class &&
          overlap<OverlapOf::kUnion>(box, columns[c], Divide<T>()) > threshold) {
        word |= 1ull << c;
      }
    }
    words[(start + row) * tiles + column_tile] = word;
  }
}

// Dynamic shared memory: a word for each tile, of the boxes that are gone.
__global__ void __launch_bounds__(kSelectThreads)
    select_kernel(const bool* valid, int size, int tiles, const unsigned long long* words,
                  bool* keep) {
  extern __shared__ unsigned long long gone[];
  __shared__ unsigned long long within[kTile];
  __shared__ unsigned long long kept_of_tile;
  const int64_t start = static_cast<int64_t>(blockIdx.x) * size;
  const int thread = threadIdx.x;
  const int lane = thread % kWarp;
  const int warp = thread / kWarp;
  for (int tile = thread; tile < tiles; tile += kSelectThreads) {
    gone[tile] = 0;
  }
  __syncthreads();
  for (int i = thread; i < size; i += kSelectThreads) {
    if (!valid[start + i]) {
      atomicOr(&gone[i / kTile], 1ull << i % kTile);
    }
  }
  __syncthreads();

  for (int tile = 0; tile < tiles; ++tile) {
    const int first = tile * kTile;
    const int count = size - first < kTile ? size - first : kTile;
    const unsigned long long all = count < kTile ? (1ull << count) - 1 : ~0ull;
    const unsigned long long candidates = all & ~gone[tile];
    // The same for all threads: `gone` of this tile does not change any more.
    if (candidates == 0) {
      if (thread < count) {
        keep[start + first + thread] = false;
      }
      continue;
    }
    if (thread < count && (candidates >> thread & 1) != 0) {
      within[thread] = words[(start + first + thread) * tiles + tile];
    }
    __syncthreads();
    if (thread == 0) {
      unsigned long long left = candidates;
      unsigned long long kept = 0;
      while (left != 0) {
        const int i = __ffsll(static_cast<long long>(left)) - 1;
        kept |= 1ull << i;
        left &= ~(1ull << i) & ~within[i];
      }
      kept_of_tile = kept;
    }
    __syncthreads();
    const unsigned long long kept = kept_of_tile;
    if (thread < count) {
      keep[start + first + thread] = (kept >> thread & 1) != 0;
    }
    // A warp has every so many rows, its lanes the later tiles.
    for (int i = warp; i < count; i += kSelectThreads / kWarp) {
      if ((kept >> i & 1) == 0) {
        continue;
      }
      const unsigned long long* row = words + (start + first + i) * tiles;
      for (int later = tile + 1 + lane; later < tiles; later += kWarp) {
        const unsigned long long word = row[later];
        if (word != 0) {
          atomicOr(&gone[later], word);
        }
      }
    }
    __syncthreads();
  }
}

}  // namespace nms_groups_detail

int64_t nms_groups_workspace(int64_t groups, int64_t size) {
  return groups * size * divide_up(size, nms_groups_detail::kTile) *
         static_cast<int64_t>(sizeof(unsigned long long));
}

template <typename T>
void nms_groups_cuda(const T* boxes, const int64_t* classes, const bool* valid, int64_t groups,
                     int64_t size, double iou_threshold, void* workspace, bool* keep,
                     void* stream) {
  using namespace nms_groups_detail;
  const cudaStream_t cuda_stream = static_cast<cudaStream_t>(stream);
  const int tiles = static_cast<int>(divide_up(size, kTile));
  auto* words = static_cast<unsigned long long*>(workspace);
  const dim3 grid(static_cast<unsigned int>(tiles), static_cast<unsigned int>(tiles),
                  static_cast<unsigned int>(std::min<int64_t>(groups, 65535)));
  overlaps_kernel<T><<<grid, kTile, 0, cuda_stream>>>(boxes, classes, valid, groups,
                                                      static_cast<int>(size), tiles,
                                                      static_cast<T>(iou_threshold), words);
  check_launch("nms_groups overlaps_kernel");
  select_kernel<<<static_cast<unsigned int>(groups), kSelectThreads,
                  static_cast<std::size_t>(tiles) * sizeof(unsigned long long), cuda_stream>>>(
      valid, static_cast<int>(size), tiles, words, keep);
  check_launch("nms_groups select_kernel");
}

template void nms_groups_cuda<float>(const float*, const int64_t*, const bool*, int64_t, int64_t,
                                     double, void*, bool*, void*);
template void nms_groups_cuda<double>(const double*, const int64_t*, const bool*, int64_t, int64_t,
                                      double, void*, bool*, void*);

}  // namespace detectron2
