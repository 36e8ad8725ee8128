// What kernels share about warps. Only .cu files include it.

#pragma once

#include <cuda_runtime_api.h>

namespace detectron2 {

constexpr int kWarp = 32;
constexpr unsigned int kAllLanes = 0xffffffffu;

// Calls store(i, sum of count(j) for j < i) for each i in [0, n), by one warp; returns the sum of
// all.
template <typename Count, typename Store>
__device__ int warp_prefix_sums(int n, const Count& count, const Store& store) {
  const int lane = threadIdx.x % kWarp;
  int sum = 0;
  for (int first = 0; first < n; first += kWarp) {
    const int i = first + lane;
    const int value = i < n ? count(i) : 0;
    int inclusive = value;
#pragma unroll
    for (int distance = 1; distance < kWarp; distance *= 2) {
      const int other = __shfl_up_sync(kAllLanes, inclusive, distance);
      inclusive += lane >= distance ? other : 0;
    }
    if (i < n) {
      store(i, sum + inclusive - value);
    }
    sum += __shfl_sync(kAllLanes, inclusive, kWarp - 1);
  }
  return sum;
}

}  // namespace detectron2
