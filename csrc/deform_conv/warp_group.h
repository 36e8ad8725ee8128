// Products of whole warp groups (sm_90a): four consecutive warps multiply a tile of 64 rows, whose
// factors the tensor cores read from shared memory by themselves while the warps do other work.
// Only .cu files include it.
//
// Tiles are lines of 128 bytes, permuted by swizzled(), from multiples of 1024 bytes on. Of a
// result a thread holds, in c[j], columns 8 * j + 2 * (lane % 4) and the next of row lane / 4 of
// its warp's 16 rows, then the same of row lane / 4 + 8.

#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <type_traits>

#include "csrc/common/half.h"

namespace detectron2 {

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
constexpr bool kHasWarpGroups = true;
#else
constexpr bool kHasWarpGroups = false;
#endif

// How the tensor cores are told of a tile: its address and the distance of groups of eight lines,
// in units of 16 bytes, and the permutation. 16 columns of 16 bits on, it is larger by two.
__device__ __forceinline__ uint64_t tile_descriptor(uint32_t shared) {
  return uint64_t{(shared & 0x3ffff) >> 4} | uint64_t{1} << 16 | uint64_t{1024 >> 4} << 32 |
         uint64_t{1} << 62;
}

// Makes what this thread wrote to shared memory known to the tensor cores; a barrier comes next.
__device__ __forceinline__ void publish_to_tensor_cores() {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
#endif
}

// Before the first of some products.
__device__ __forceinline__ void begin_products() {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#endif
}

// After the last of them.
__device__ __forceinline__ void end_products() {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
#endif
}

// Waits for all of them. Results may not be looked at before.
template <int kBlocks>
__device__ __forceinline__ void wait_products(float (&c)[kBlocks][4]) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
#pragma unroll
  for (int j = 0; j < kBlocks; ++j) {
    asm volatile("" : "+f"(c[j][0]), "+f"(c[j][1]), "+f"(c[j][2]), "+f"(c[j][3])::"memory");
  }
#endif
}

// c = rows * columns, plus c if `keep`: 64 rows a group, 16 deep, and 8 columns for each element of
// c. T is Half or BFloat16.
#define D4(j) "+f"(c[j][0]), "+f"(c[j][1]), "+f"(c[j][2]), "+f"(c[j][3])
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define DETECTRON2_PRODUCT_128(type)                                                          \
  asm volatile(                                                                               \
      "{\n.reg .pred keep;\nsetp.ne.b32 keep, %66, 0;\n"                                      \
      "wgmma.mma_async.sync.aligned.m64n128k16.f32." type "." type                            \
      " {"                                                                                    \
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "                \
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "      \
      "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "      \
      "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"        \
      "}, %64, %65, keep, 1, 1, 0, 0;\n}"                                                     \
      : D4(0), D4(1), D4(2), D4(3), D4(4), D4(5), D4(6), D4(7), D4(8), D4(9), D4(10), D4(11), \
        D4(12), D4(13), D4(14), D4(15)                                                        \
      : "l"(rows), "l"(columns), "r"(keep ? 1 : 0))
#define DETECTRON2_PRODUCT_256(type)                                                               \
  asm volatile(                                                                                    \
      "{\n.reg .pred keep;\nsetp.ne.b32 keep, %130, 0;\n"                                          \
      "wgmma.mma_async.sync.aligned.m64n256k16.f32." type "." type                                 \
      " {"                                                                                         \
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "                     \
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "           \
      "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "           \
      "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, "           \
      "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, "           \
      "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, "           \
      "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, "     \
      "%111, "                                                                                     \
      "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, " \
      "%127"                                                                                       \
      "}, %128, %129, keep, 1, 1, 0, 0;\n}"                                                        \
      : D4(0), D4(1), D4(2), D4(3), D4(4), D4(5), D4(6), D4(7), D4(8), D4(9), D4(10), D4(11),      \
        D4(12), D4(13), D4(14), D4(15), D4(16), D4(17), D4(18), D4(19), D4(20), D4(21), D4(22),    \
        D4(23), D4(24), D4(25), D4(26), D4(27), D4(28), D4(29), D4(30), D4(31)                     \
      : "l"(rows), "l"(columns), "r"(keep ? 1 : 0))
#endif

template <typename T>
__device__ __forceinline__ void multiply_add(float (&c)[16][4], uint64_t rows, uint64_t columns,
                                             bool keep) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  if constexpr (std::is_same_v<T, BFloat16>) {
    DETECTRON2_PRODUCT_128("bf16");
  } else {
    DETECTRON2_PRODUCT_128("f16");
  }
#endif
}

template <typename T>
__device__ __forceinline__ void multiply_add(float (&c)[32][4], uint64_t rows, uint64_t columns,
                                             bool keep) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  if constexpr (std::is_same_v<T, BFloat16>) {
    DETECTRON2_PRODUCT_256("bf16");
  } else {
    DETECTRON2_PRODUCT_256("f16");
  }
#endif
}

#undef D4
#undef DETECTRON2_PRODUCT_128
#undef DETECTRON2_PRODUCT_256

}  // namespace detectron2
