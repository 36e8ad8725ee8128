// float16 and bfloat16 as kernels store them; arithmetic on them is in float32.
//
// Conversions are written out, so that kernels need not include CUDA's large half-precision
// headers.

#pragma once

#include <cstdint>
#include <type_traits>

#include "csrc/common/host_device.h"

namespace detectron2 {

struct Half {
  uint16_t bits;
};

struct BFloat16 {
  uint16_t bits;
};

// The type that sums of T are kept in.
template <typename T>
using Accumulator = std::conditional_t<std::is_same_v<T, double>, double, float>;

#ifdef __CUDACC__

__device__ __forceinline__ float widen(float value) { return value; }
__device__ __forceinline__ double widen(double value) { return value; }

__device__ __forceinline__ float widen(Half value) {
  float result;
  asm("cvt.f32.f16 %0, %1;" : "=f"(result) : "h"(value.bits));
  return result;
}

__device__ __forceinline__ float widen(BFloat16 value) {
  return __uint_as_float(static_cast<uint32_t>(value.bits) << 16);
}

// The nearest T to a sum, ties to even.
template <typename T>
__device__ __forceinline__ T narrow(Accumulator<T> value) {
  if constexpr (std::is_same_v<T, Half>) {
    Half result;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(result.bits) : "f"(value));
    return result;
  } else if constexpr (std::is_same_v<T, BFloat16>) {
    // Written out: there is an instruction for it from sm_80 on only.
    const uint32_t bits = __float_as_uint(value);
    const bool is_nan = (bits & 0x7fffffffu) > 0x7f800000u;
    const uint32_t rounded = bits + 0x7fffu + (bits >> 16 & 1);
    return {static_cast<uint16_t>(is_nan ? 0x7fc0u : rounded >> 16)};
  } else {
    return value;
  }
}

#endif

}  // namespace detectron2
