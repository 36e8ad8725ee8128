#pragma once

#include <cuda_runtime_api.h>

namespace rules_cuda_test {

// Sets values[i] = 2 i for i < count on the GPU.
cudaError_t fill(float* values, int count);

}  // namespace rules_cuda_test
