// What every CUDA launch here shares. Only .cu files include it.

#pragma once

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <stdexcept>
#include <string>

namespace detectron2 {

// Raises if the launch before it failed, naming the kernel.
inline void check_launch(const char* kernel) {
  const cudaError_t status = cudaGetLastError();
  if (status != cudaSuccess) {
    throw std::runtime_error(std::string("CUDA kernel ") + kernel +
                             " could not be launched: " + cudaGetErrorString(status));
  }
}

// Waits for what was launched. Raises if any of it failed, naming the operator.
inline void wait_for_stream(const char* op, cudaStream_t stream) {
  const cudaError_t status = cudaStreamSynchronize(stream);
  if (status != cudaSuccess) {
    throw std::runtime_error(std::string(op) + ": CUDA reports " + cudaGetErrorString(status));
  }
}

inline int64_t divide_up(int64_t value, int64_t divisor) { return (value + divisor - 1) / divisor; }

// Blocks for a kernel whose threads stride over `count` elements: as many as the grid's first
// dimension takes at most.
inline unsigned int grid_for(int64_t count, int threads) {
  return static_cast<unsigned int>(
      std::min<int64_t>(divide_up(count, threads), std::numeric_limits<int32_t>::max()));
}

}  // namespace detectron2
