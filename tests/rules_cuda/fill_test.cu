// Runs the kernel where there is a GPU; elsewhere, the linked runtime must at least say that there
// is none.

#include <cstdio>
#include <vector>

#include "tests/rules_cuda/fill.h"

int main() {
  int devices = 0;
  const cudaError_t found = cudaGetDeviceCount(&devices);
  if (found == cudaErrorNoDevice || found == cudaErrorInsufficientDriver) {
    std::puts("no GPU: linked, not run");
    return 0;
  }
  constexpr int count = 1000;
  float* values = nullptr;
  std::vector<float> host(count);
  if (found != cudaSuccess || cudaMalloc(&values, count * sizeof(float)) != cudaSuccess ||
      rules_cuda_test::fill(values, count) != cudaSuccess ||
      cudaMemcpy(host.data(), values, count * sizeof(float), cudaMemcpyDeviceToHost) !=
          cudaSuccess) {
    std::printf("CUDA: %s\n", cudaGetErrorString(cudaGetLastError()));
    return 1;
  }
  for (int i = 0; i < count; ++i) {
    if (host[i] != 2.0f * i) {
      std::printf("values[%d] = %g, not %g\n", i, host[i], 2.0f * i);
      return 1;
    }
  }
  return 0;
}
