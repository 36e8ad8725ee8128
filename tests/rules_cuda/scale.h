#pragma once

namespace rules_cuda_test {

// Defined in another source than the kernel that calls it.
__device__ float scale(float value);

}  // namespace rules_cuda_test
