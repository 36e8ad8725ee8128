#include <algorithm>
#include <cstdint>

#include "csrc/common/cuda_launch.h"
#include "csrc/mask_bounding_boxes/mask_bounding_boxes.h"

namespace detectron2 {
namespace mask_bounding_boxes_detail {

constexpr int kWarp = 32;
constexpr int kWarps = 8;
constexpr int kThreads = kWarps * kWarp;
constexpr int kVector = 16;
// Pixels below which another slice costs more than it saves.
constexpr int64_t kPixelsPerSlice = 1 << 15;
constexpr int64_t kMostSlices = 64;

// Columns [left, right) and rows [top, bottom) with a pixel set.
struct Extent {
  int64_t left;
  int64_t top;
  int64_t right;
  int64_t bottom;

  __device__ __forceinline__ void add(const Extent& other) {
    left = min(left, other.left);
    top = min(top, other.top);
    right = max(right, other.right);
    bottom = max(bottom, other.bottom);
  }
};

__device__ __forceinline__ Extent empty_extent() { return {INT64_MAX, INT64_MAX, 0, 0}; }

__device__ __forceinline__ Extent warp_union(Extent extent) {
  for (int distance = kWarp / 2; distance > 0; distance /= 2) {
    extent.add({__shfl_xor_sync(~0u, extent.left, distance),
                __shfl_xor_sync(~0u, extent.top, distance),
                __shfl_xor_sync(~0u, extent.right, distance),
                __shfl_xor_sync(~0u, extent.bottom, distance)});
  }
  return extent;
}

// The first byte of 16 that is not 0, and one more than the last; nothing for zeros.
__device__ __forceinline__ void add_vector(uint4 bytes, int64_t column, int64_t& left,
                                           int64_t& right) {
  const uint64_t low = static_cast<uint64_t>(bytes.y) << 32 | bytes.x;
  const uint64_t high = static_cast<uint64_t>(bytes.w) << 32 | bytes.z;
  if ((low | high) == 0) {
    return;
  }
  const int first = low != 0 ? (__ffsll(low) - 1) / 8 : 8 + (__ffsll(high) - 1) / 8;
  const int last = high != 0 ? 16 - __clzll(high) / 8 : 8 - __clzll(low) / 8;
  left = min(left, column + first);
  right = max(right, column + last);
}

__device__ __forceinline__ void add_row(const uint8_t* row, int64_t width, int64_t y, int lane,
                                        Extent& extent) {
  const int64_t head =
      min(static_cast<int64_t>((kVector - reinterpret_cast<uintptr_t>(row) % kVector) % kVector),
          width);
  const int64_t tail = head + (width - head) / kVector * kVector;
  int64_t left = INT64_MAX;
  int64_t right = 0;
  if (lane < head && row[lane] != 0) {
    left = lane;
    right = lane + 1;
  }
  for (int64_t x = head + lane * kVector; x < tail; x += kWarp * kVector) {
    add_vector(*reinterpret_cast<const uint4*>(row + x), x, left, right);
  }
  if (tail + lane < width && row[tail + lane] != 0) {
    left = min(left, tail + lane);
    right = tail + lane + 1;
  }
  if (left < right) {
    extent.add({left, y, right, y + 1});
  }
}

// A block a slice of a mask, which is as many consecutive rows as every other, or fewer.
__global__ void __launch_bounds__(kThreads)
    slice_extents_kernel(const uint8_t* masks, int64_t height, int64_t width, int64_t slices,
                         Extent* extents) {
  __shared__ Extent warp_extents[kWarps];
  const int lane = threadIdx.x % kWarp;
  const int warp = threadIdx.x / kWarp;
  const int64_t n = blockIdx.x / slices;
  const int64_t rows = (height + slices - 1) / slices;
  const int64_t begin = blockIdx.x % slices * rows;
  const int64_t end = min(begin + rows, height);
  Extent extent = empty_extent();
  for (int64_t y = begin + warp; y < end; y += kWarps) {
    add_row(masks + (n * height + y) * width, width, y, lane, extent);
  }
  extent = warp_union(extent);
  if (lane == 0) {
    warp_extents[warp] = extent;
  }
  __syncthreads();
  if (warp == 0) {
    extent = warp_union(lane < kWarps ? warp_extents[lane] : empty_extent());
    if (lane == 0) {
      extents[blockIdx.x] = extent;
    }
  }
}

// A warp a mask.
__global__ void __launch_bounds__(kThreads)
    mask_boxes_kernel(const Extent* extents, int64_t count, int64_t slices, float4* boxes) {
  const int lane = threadIdx.x % kWarp;
  const int64_t n = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / kWarp;
  if (n >= count) {
    return;
  }
  Extent extent = empty_extent();
  for (int64_t slice = lane; slice < slices; slice += kWarp) {
    extent.add(extents[n * slices + slice]);
  }
  extent = warp_union(extent);
  if (lane == 0) {
    const bool is_empty = extent.right == 0;
    boxes[n] = make_float4(is_empty ? 0.0f : static_cast<float>(extent.left),
                           is_empty ? 0.0f : static_cast<float>(extent.top),
                           static_cast<float>(extent.right), static_cast<float>(extent.bottom));
  }
}

}  // namespace mask_bounding_boxes_detail

int64_t mask_bounding_boxes_slices(int64_t count, int64_t height, int64_t width) {
  namespace detail = mask_bounding_boxes_detail;
  return std::clamp<int64_t>(height * width / detail::kPixelsPerSlice, 1,
                             std::min(detail::kMostSlices, height));
}

void mask_bounding_boxes_cuda(const uint8_t* masks, int64_t count, int64_t height, int64_t width,
                              int64_t* extents, float* boxes, void* stream) {
  namespace detail = mask_bounding_boxes_detail;
  const int64_t slices = mask_bounding_boxes_slices(count, height, width);
  const cudaStream_t cuda_stream = static_cast<cudaStream_t>(stream);
  detail::Extent* slice_extents = reinterpret_cast<detail::Extent*>(extents);
  detail::slice_extents_kernel<<<static_cast<unsigned int>(count * slices), detail::kThreads, 0,
                                 cuda_stream>>>(masks, height, width, slices, slice_extents);
  check_launch("slice_extents_kernel");
  detail::mask_boxes_kernel<<<static_cast<unsigned int>(divide_up(count, detail::kWarps)),
                              detail::kThreads, 0, cuda_stream>>>(slice_extents, count, slices,
                                                                  reinterpret_cast<float4*>(boxes));
  check_launch("mask_boxes_kernel");
}

}  // namespace detectron2
