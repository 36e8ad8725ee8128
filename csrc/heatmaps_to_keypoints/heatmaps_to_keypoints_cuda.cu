#include <cstdint>

#include "csrc/common/cuda_launch.h"
#include "csrc/heatmaps_to_keypoints/heatmaps_to_keypoints.h"
#include "csrc/heatmaps_to_keypoints/peak_search.h"

namespace detectron2 {
namespace heatmaps_to_keypoints_detail {

constexpr int kWarps = 4;
constexpr int kThreads = 32 * kWarps;
constexpr unsigned int kAllLanes = 0xffffffffu;

template <typename T>
__device__ __forceinline__ Peak<T> shuffle_down(const Peak<T>& peak, int lanes) {
  return {__shfl_down_sync(kAllLanes, peak.value, lanes),
          __shfl_down_sync(kAllLanes, peak.position, lanes)};
}

template <typename T>
__device__ __forceinline__ T shuffle_down(T value, int lanes) {
  return __shfl_down_sync(kAllLanes, value, lanes);
}

// Combines a value of each thread, in an order that is always the same, and gives the result to
// every thread. `scratch` has room for a value of each warp.
template <typename Value, typename Combine>
__device__ Value reduce_block(Value value, Value* scratch, const Combine& combine) {
  for (int lanes = 16; lanes > 0; lanes /= 2) {
    value = combine(value, shuffle_down(value, lanes));
  }
  __syncthreads();  // what was in `scratch` has been read
  if (threadIdx.x % 32 == 0) {
    scratch[threadIdx.x / 32] = value;
  }
  __syncthreads();
  value = scratch[0];
  for (int warp = 1; warp < kWarps; ++warp) {
    value = combine(value, scratch[warp]);
  }
  return value;
}

// A block finds a keypoint. Its warps share out the cells; a lane bounds a cell of its own, and all
// lanes search together each cell that may hold the peak.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    keypoint_kernel(const T* heatmaps, const Accumulator<T>* rois, HeatmapsShape shape,
                    int64_t count, Accumulator<T>* keypoints) {
  using R = Accumulator<T>;
  __shared__ Peak<R> peaks[kWarps];
  __shared__ R sums[kWarps];
  const auto higher = [](const Peak<R>& a, const Peak<R>& b) { return is_higher(b, a) ? b : a; };
  const int32_t size = shape.height * shape.width;
  for (int64_t k = blockIdx.x; k < count; k += gridDim.x) {
    const T* heatmap = heatmaps + k * size;
    R* keypoint = keypoints + k * kKeypointSize;
    const ResizedMap<R> map =
        resized_map(rois + k / shape.num_keypoints * kHeatmapRoiSize, shape.height, shape.width);

    // The highest value, which is a good start.
    Peak<R> highest = {0, -1};
    bool finite = map.defined;
    for (int32_t i = threadIdx.x; i < size; i += kThreads) {
      const Peak<R> value = {widen(heatmap[i]), i};
      finite = finite && value.value - value.value == 0;
      highest = higher(highest, value);
    }
    if (__syncthreads_or(!finite)) {
      if (threadIdx.x == 0) {
        write_undefined_keypoint(keypoint);
      }
      continue;
    }
    highest = reduce_block(highest, peaks, higher);

    const auto pixel = [&](int32_t y, int32_t x) { return widen(heatmap[y * shape.width + x]); };
    Peak<R> peak = {0, -1};
    const int32_t start_y = static_cast<int32_t>(highest.position) / shape.width;
    const int32_t start_x = static_cast<int32_t>(highest.position) % shape.width;
    for (int32_t cell_y = start_y - 1; cell_y <= start_y; ++cell_y) {
      for (int32_t cell_x = start_x - 1; cell_x <= start_x; ++cell_x) {
        search_cell(Cell<R>(pixel, map, cell_y, cell_x), map, cell_y, cell_x, threadIdx.x, kThreads,
                    peak);
      }
    }
    peak = reduce_block(peak, peaks, higher);

    const Peak<R> start = peak;
    const int32_t cells_x = shape.width + 1;
    const int32_t cells = (shape.height + 1) * cells_x;
    for (int32_t first = threadIdx.x / 32 * 32; first < cells; first += kThreads) {
      const int32_t own = first + threadIdx.x % 32;
      bool candidate = own < cells;
      if (candidate) {
        const Cell<R> cell(pixel, map, own / cells_x - 1, own % cells_x - 1);
        candidate = start.position < 0 || !(cell.highest_possible() < start.value);
      }
      for (unsigned int left = __ballot_sync(kAllLanes, candidate); left != 0; left &= left - 1) {
        const int32_t shared = first + __ffs(left) - 1;
        const int32_t cell_y = shared / cells_x - 1;
        const int32_t cell_x = shared % cells_x - 1;
        search_cell(Cell<R>(pixel, map, cell_y, cell_x), map, cell_y, cell_x, threadIdx.x % 32, 32,
                    peak);
      }
    }
    peak = reduce_block(peak, peaks, higher);

    R sum = 0;
    for (int32_t i = threadIdx.x; i < size; i += kThreads) {
      sum += std::exp(widen(heatmap[i]) - peak.value);
    }
    sum = reduce_block(sum, sums, [](R a, R b) { return a + b; });
    if (threadIdx.x == 0) {
      if (peak.position < 0) {
        write_undefined_keypoint(keypoint);
      } else {
        write_keypoint(map, peak, sum, keypoint);
      }
    }
  }
}

}  // namespace heatmaps_to_keypoints_detail

template <typename T>
void heatmaps_to_keypoints_cuda(const T* heatmaps, const Accumulator<T>* rois,
                                const HeatmapsShape& shape, Accumulator<T>* keypoints,
                                void* stream) {
  using namespace heatmaps_to_keypoints_detail;
  const int64_t count = shape.num_rois * shape.num_keypoints;
  keypoint_kernel<T><<<grid_for(count, 1), kThreads, 0, static_cast<cudaStream_t>(stream)>>>(
      heatmaps, rois, shape, count, keypoints);
  check_launch("heatmaps_to_keypoints keypoint_kernel");
}

#define DETECTRON2_INSTANTIATE(T)                                              \
  template void heatmaps_to_keypoints_cuda<T>(const T*, const Accumulator<T>*, \
                                              const HeatmapsShape&, Accumulator<T>*, void*);
DETECTRON2_INSTANTIATE(float)
DETECTRON2_INSTANTIATE(double)
DETECTRON2_INSTANTIATE(Half)
DETECTRON2_INSTANTIATE(BFloat16)

}  // namespace detectron2
