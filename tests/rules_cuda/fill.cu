#include "tests/rules_cuda/fill.h"
#include "tests/rules_cuda/scale.h"

namespace rules_cuda_test {

__global__ void fill_kernel(float* values, int count) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < count) {
    values[i] = scale(static_cast<float>(i));
  }
}

cudaError_t fill(float* values, int count) {
  fill_kernel<<<(count + 255) / 256, 256>>>(values, count);
  return cudaGetLastError();
}

}  // namespace rules_cuda_test
