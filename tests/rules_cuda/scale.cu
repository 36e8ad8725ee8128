#include "tests/rules_cuda/scale.h"

namespace rules_cuda_test {

__device__ float scale(float value) { return 2.0f * value; }

}  // namespace rules_cuda_test
