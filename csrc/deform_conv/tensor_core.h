// Tensor-core instructions (sm_80 on), and the splitting that gives float32 products their
// precision on them. Only .cu files include it.
//
// Fragments are those of mma.m16n8k16. With g = lane / 4 and t = lane % 4, a thread holds of
//   A (16 x 16, row by k)  a[0] = (g, 2t..), a[1] = (g + 8, 2t..), a[2] = (g, 2t + 8..), a[3] =
//                          (g + 8, 2t + 8..), two neighbours in k each;
//   B (16 x 8, k by col)   b[0] = (2t.., g), b[1] = (2t + 8.., g), two neighbours in k each;
//   C (16 x 8, row by col) c[0], c[1] = (g, 2t), (g, 2t + 1), c[2], c[3] = the same of row g + 8.

#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <type_traits>

#include "csrc/common/half.h"

namespace detectron2 {

__device__ __forceinline__ uint32_t shared_address(const void* pointer) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

// Byte offset of 16-byte vector `vector` (0 to 7) of row `row` in a tile of 128-byte rows, permuted
// so that eight consecutive rows of one vector, or eight vectors of one row, meet no bank twice.
// Tiles start at multiples of 1024 bytes.
__device__ __forceinline__ uint32_t swizzled(int row, int vector) {
  return static_cast<uint32_t>(row * 128 + ((vector ^ (row & 7)) << 4));
}

// The same for a tile of 64-byte rows (`vector` from 0 to 3).
__device__ __forceinline__ uint32_t swizzled64(int row, int vector) {
  return static_cast<uint32_t>(row * 64 + ((vector ^ (row >> 1 & 3)) << 4));
}

// Four 8 x 8 matrices of 16-bit elements: thread i gives the address of row i % 8 of matrix i / 8.
// Thread i receives elements 2 * (i % 4) and the next of row i / 4 of each.
__device__ __forceinline__ void load_matrices(uint32_t (&m)[4], uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(m[0]), "=r"(m[1]), "=r"(m[2]), "=r"(m[3])
               : "r"(address)
               : "memory");
}

// The same, each matrix transposed.
__device__ __forceinline__ void load_matrices_transposed(uint32_t (&m)[4], uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(m[0]), "=r"(m[1]), "=r"(m[2]), "=r"(m[3])
               : "r"(address)
               : "memory");
}

// c += a * b. T is Half or BFloat16.
template <typename T>
__device__ __forceinline__ void multiply_add(float (&c)[4], const uint32_t (&a)[4], uint32_t b0,
                                             uint32_t b1) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  if constexpr (std::is_same_v<T, BFloat16>) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  } else {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  }
#endif
}

// Starts a copy of 16 bytes, both sides aligned to it, past the L1 cache.
__device__ __forceinline__ void copy_async(uint32_t shared, const void* global) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared), "l"(global) : "memory");
#endif
}

__device__ __forceinline__ void commit_copies() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

// Waits until at most the `kPending` last committed groups of this thread are under way.
template <int kPending>
__device__ __forceinline__ void wait_copies() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
#endif
}

__device__ __forceinline__ void store_shared(uint32_t address, uint32_t x, uint32_t y) {
  asm volatile("st.shared.v2.b32 [%0], {%1, %2};" ::"r"(address), "r"(x), "r"(y) : "memory");
}

__device__ __forceinline__ void store_shared(uint32_t address, const uint4& value) {
  asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(address), "r"(value.x),
               "r"(value.y), "r"(value.z), "r"(value.w)
               : "memory");
}

// Two neighbours in memory, `low` first, each rounded to the nearest T.
template <typename T>
__device__ __forceinline__ uint32_t pack(float low, float high) {
  uint32_t result;
  if constexpr (std::is_same_v<T, BFloat16>) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(result) : "f"(high), "f"(low));
#else
    result = narrow<T>(low).bits | static_cast<uint32_t>(narrow<T>(high).bits) << 16;
#endif
  } else {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(result) : "f"(high), "f"(low));
#else
    result = narrow<T>(low).bits | static_cast<uint32_t>(narrow<T>(high).bits) << 16;
#endif
  }
  return result;
}

template <typename T>
__device__ __forceinline__ float unpack_low(uint32_t pair) {
  return widen(T{static_cast<uint16_t>(pair & 0xffffu)});
}

template <typename T>
__device__ __forceinline__ float unpack_high(uint32_t pair) {
  if constexpr (std::is_same_v<T, BFloat16>) {
    return __uint_as_float(pair & 0xffff0000u);
  } else {
    return widen(T{static_cast<uint16_t>(pair >> 16)});
  }
}

// A float32 as the sum of two of float16 (Ootomo and Yokota, "Recovering single precision accuracy
// from Tensor Cores while surpassing the FP32 theoretical peak performance", 2022): high + low is
// the value to 22 bits, or to 2^-25 where that is more. So values are first scaled by a power of
// two that brings the largest near 2^14 (the largest of float16 is below 2^16); then what is lost
// is 2^-39 of the largest at most. A product is high * high + high * low + low * high, three of the
// tensor cores'.
struct SplitPair {
  uint32_t high;
  uint32_t low;
};

__device__ __forceinline__ SplitPair split(float first, float second) {
  SplitPair result;
  result.high = pack<Half>(first, second);
  result.low =
      pack<Half>(first - unpack_low<Half>(result.high), second - unpack_high<Half>(result.high));
  return result;
}

// partial += (high + low) * columns, of which each holds the fragments of the high parts, then of
// the low parts. The small products come first, and products of one sum lie apart, for each waits
// for the one before.
template <int kRows, int kColumns>
__device__ __forceinline__ void multiply_add_split(float (&partial)[kRows][kColumns][4],
                                                   const uint32_t (&high)[kRows][4],
                                                   const uint32_t (&low)[kRows][4],
                                                   const uint32_t (&columns)[kColumns][4]) {
#pragma unroll
  for (int i = 0; i < kRows; ++i) {
#pragma unroll
    for (int n = 0; n < kColumns; ++n) {
      multiply_add<Half>(partial[i][n], low[i], columns[n][0], columns[n][1]);
    }
  }
#pragma unroll
  for (int i = 0; i < kRows; ++i) {
#pragma unroll
    for (int n = 0; n < kColumns; ++n) {
      multiply_add<Half>(partial[i][n], high[i], columns[n][2], columns[n][3]);
    }
  }
#pragma unroll
  for (int i = 0; i < kRows; ++i) {
#pragma unroll
    for (int n = 0; n < kColumns; ++n) {
      multiply_add<Half>(partial[i][n], high[i], columns[n][0], columns[n][1]);
    }
  }
}

// The power of two that brings a value with these bits, a float32's magnitude, into
// [2^(kExponent), 2^(kExponent + 1)), and its inverse. One if it is zero, infinite or NaN; both
// are normal numbers always.
struct PowerOfTwo {
  float scale;
  float inverse;
};

template <int kExponent>
__device__ __forceinline__ PowerOfTwo scale_to_exponent(uint32_t magnitude_bits) {
  const int exponent = static_cast<int>(magnitude_bits >> 23);  // biased by 127
  int shift = 127 + kExponent - exponent;
  shift = shift < -126 ? -126 : (shift > 126 ? 126 : shift);
  shift = magnitude_bits == 0 || exponent == 255 ? 0 : shift;
  return {__uint_as_float(static_cast<uint32_t>(127 + shift) << 23),
          __uint_as_float(static_cast<uint32_t>(127 - shift) << 23)};
}

}  // namespace detectron2
