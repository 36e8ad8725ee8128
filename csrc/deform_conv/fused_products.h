// What the fused products of samples share: how samples come into shared memory, and the products
// of the tiles there. Only .cu files include it.
//
// A step of a product takes two tiles of lines of 128 bytes, swizzled: one whose lines are rows of
// the result and one for its columns. It goes by quarters, and between them the next step's samples
// are taken, so that memory and tensor cores work at the same time. float32 is in split form: a
// line is 32 high parts, then 32 low parts, of values times a power of two.

#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <type_traits>

#include "csrc/common/half.h"
#include "csrc/deform_conv/fused_sampling.h"
#include "csrc/deform_conv/tensor_core.h"

namespace detectron2 {
namespace deform_conv_fused {

// Blocks of eight columns whose products of split values a warp has under way at a time.
constexpr int kSplitGroup = 2;

// Quarters that the loop over them is unrolled by. No further: the compiler would start too much at
// once for its registers.
template <typename T, typename Tile>
constexpr int kUnrolledQuarters = std::is_same_v<T, float> ? 2 : Tile::kQuartersPerPass;

// The vector of 16 bytes of a line that a thread samples, and where it writes that in a tile. Lines
// that are multiples of eight apart have the same permutation, so a step of lines is a sum; a step
// of vectors is an exclusive or.
struct LinePlace {
  int vector;
  int row;
  uint32_t whole;  // where 16 bytes go
  uint32_t split;  // where the high parts of 16 bytes of float32 go

  __device__ __forceinline__ LinePlace()
      : vector(static_cast<int>(threadIdx.x) % kLineVectors),
        row(static_cast<int>(threadIdx.x) / kLineVectors),
        whole(swizzled(row, vector)),
        split(swizzled(row, vector / 2) + static_cast<uint32_t>(vector % 2 * 8)) {}
};

// Writes samples of 16 bytes' worth of channels.
template <typename T>
__device__ __forceinline__ void store_whole(uint32_t place, const float (&sample)[8]) {
  store_shared(place, {pack<T>(sample[0], sample[1]), pack<T>(sample[2], sample[3]),
                       pack<T>(sample[4], sample[5]), pack<T>(sample[6], sample[7])});
}

__device__ __forceinline__ void store_split(uint32_t place, const float (&sample)[4],
                                            const float4& scale) {
  const SplitPair first = split(sample[0] * scale.x, sample[1] * scale.y);
  const SplitPair second = split(sample[2] * scale.z, sample[3] * scale.w);
  store_shared(place, first.high, second.high);
  store_shared(place ^ 64, first.low, second.low);
}

// A quarter of the products of a step. `rows` is the address of the rows' tile as ldmatrix reads
// it. load_columns(fragments, block) loads the columns of a block of eight: of two blocks, or of
// one the high parts, then the low parts. For split values half of the rows take half of the depth;
// `scales` are what their products are multiplied by, a row's at scales[row].
template <typename T, int kRows, int kBlocks, typename LoadColumns>
__device__ __forceinline__ void multiply_quarter(float (&sums)[kRows][kBlocks][4], uint32_t rows,
                                                 const float* scales, int quarter, int half,
                                                 const LoadColumns& load_columns) {
  if constexpr (std::is_same_v<T, float>) {
    constexpr int kHalf = kRows / 2;
    const uint32_t step = quarter / 2 * 32;
    const int row0 = half * kHalf;
    const int lane = threadIdx.x % 32;
    uint32_t high[kHalf][4];
    uint32_t low[kHalf][4];
    float row_scales[kHalf][2];
#pragma unroll
    for (int i = 0; i < kHalf; ++i) {
      const uint32_t lines = (row0 + i) * (16 * kLineBytes);
      load_matrices(high[i], (rows ^ step) + lines);
      load_matrices(low[i], (rows ^ (step + 64)) + lines);
      const float* scale = scales + (row0 + i) * 16 + lane / 4;
      row_scales[i][0] = scale[0];
      row_scales[i][1] = scale[8];
    }
#pragma unroll
    for (int j = 0; j < kBlocks; j += kSplitGroup) {
      uint32_t columns[kSplitGroup][4];
#pragma unroll
      for (int n = 0; n < kSplitGroup; ++n) {
        load_columns(columns[n], j + n);
      }
      // Tensor cores round sums towards zero, so long sums are float32's own additions.
      float partial[kHalf][kSplitGroup][4] = {};
      multiply_add_split(partial, high, low, columns);
#pragma unroll
      for (int i = 0; i < kHalf; ++i) {
#pragma unroll
        for (int n = 0; n < kSplitGroup; ++n) {
#pragma unroll
          for (int k = 0; k < 4; ++k) {
            sums[row0 + i][j + n][k] += partial[i][n][k] * row_scales[i][k / 2];
          }
        }
      }
    }
  } else {
    uint32_t fragments[kRows][4];
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      load_matrices(fragments[i], (rows ^ (quarter * 32)) + i * (16 * kLineBytes));
    }
#pragma unroll
    for (int j = 0; j < kBlocks; j += 2) {
      uint32_t columns[4];
      load_columns(columns, j);
#pragma unroll
      for (int i = 0; i < kRows; ++i) {
        multiply_add<T>(sums[i][j], fragments[i], columns[0], columns[1]);
        multiply_add<T>(sums[i][j + 1], fragments[i], columns[2], columns[3]);
      }
    }
  }
}

// The quarters of a step, and between them the samples of the next one, if there is one: load(pass)
// starts reading, store(pass) puts what was read into shared memory, multiply(quarter, half) is as
// above.
template <typename T, typename Tile, typename Load, typename Multiply, typename Store>
__device__ __forceinline__ void overlap_quarters(bool more, const Load& load,
                                                 const Multiply& multiply, const Store& store) {
  constexpr int kUnrolled = kUnrolledQuarters<T, Tile>;
#pragma unroll 1
  for (int first_quarter = 0; first_quarter < 4; first_quarter += kUnrolled) {
#pragma unroll
    for (int k = 0; k < kUnrolled; ++k) {
      const int quarter = first_quarter + k;
      const int pass = quarter / Tile::kQuartersPerPass;
      if (more && k % Tile::kQuartersPerPass == 0) {
        load(pass);
      }
      multiply(quarter, k);
      if (more && (k + 1) % Tile::kQuartersPerPass == 0) {
        store(pass);
      }
    }
  }
}

}  // namespace deform_conv_fused
}  // namespace detectron2
