// How kernels that pool RoIs write their results. Only .cu files include it.

#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace detectron2 {

// Writes num_bins bins of all channels, out of `bins`, from shared memory: those of a channel are
// side by side there, an odd number of places for them, so that lanes with neighbouring channels
// use different banks. For all threads of a block of kThreads.
template <int kThreads, typename T>
__device__ __forceinline__ void store_pooled(const T* tile, int channels, int num_bins,
                                             int64_t bins, T* pooled) {
  const int stride = num_bins | 1;
  if (stride == bins) {
    constexpr int kVector = sizeof(uint4) / sizeof(T);
    const int count = channels * stride;
    const int whole =
        reinterpret_cast<uintptr_t>(pooled) % sizeof(uint4) == 0 ? count / kVector * kVector : 0;
    for (int i = threadIdx.x * kVector; i < whole; i += kThreads * kVector) {
      __stcs(reinterpret_cast<uint4*>(pooled + i), *reinterpret_cast<const uint4*>(tile + i));
    }
    for (int i = whole + threadIdx.x; i < count; i += kThreads) {
      pooled[i] = tile[i];
    }
  } else {
    for (int i = threadIdx.x; i < channels * num_bins; i += kThreads) {
      const int channel = i / num_bins;
      const int bin = i % num_bins;
      pooled[channel * bins + bin] = tile[channel * stride + bin];
    }
  }
}

}  // namespace detectron2
