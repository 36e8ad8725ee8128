// Starting a kernel while the one before it in the stream still runs (sm_90 on): its blocks fill
// the multiprocessors that the other one's last blocks leave idle, and what they do before they
// wait costs no time of its own. Only .cu files include it.

#pragma once

#include <cuda_runtime.h>

#include <cstddef>

namespace detectron2 {

// Lets a dependent kernel start once all blocks of this one have come here, or ended.
__device__ __forceinline__ void let_dependents_start() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;");
#endif
}

// Waits for all of the kernel that this one depends on. All blocks of a dependent must come here,
// before they read what that kernel writes and before they end.
__device__ __forceinline__ void wait_for_dependency() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// Whether `kernel` was compiled, and can be launched, as a dependent.
template <typename... Parameters>
bool can_depend(void (*kernel)(Parameters...)) {
  int device = 0;
  int major = 0;
  if (cudaGetDevice(&device) != cudaSuccess ||
      cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) != cudaSuccess ||
      major < 9) {
    return false;
  }
  // Code for an older architecture, which the driver can translate, has no instruction to wait.
  cudaFuncAttributes attributes = {};
  return cudaFuncGetAttributes(&attributes, kernel) == cudaSuccess && attributes.ptxVersion >= 90;
}

// Launches `kernel`, as a dependent of the kernel before it if `depends`.
template <typename... Parameters>
void launch(bool depends, void (*kernel)(Parameters...), dim3 grid, int threads,
            std::size_t shared_bytes, cudaStream_t stream, Parameters... parameters) {
  cudaLaunchAttribute attribute = {};
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = dim3(static_cast<unsigned int>(threads));
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  config.attrs = &attribute;
  config.numAttrs = depends ? 1 : 0;
  cudaLaunchKernelEx(&config, kernel, parameters...);
}

}  // namespace detectron2
