// Gradients of the input, the offsets and the mask.
//
// The gradient with respect to the samples is a matrix product, of grad_output and the weight. A
// block computes it for a tile of output pixels and a slice of the input's channels, tap by tap,
// and spreads it out right from the registers of the product: each thread holds four neighbouring
// channels of some pixels, reads the corners of their sampling points there, for the gradients of
// the offset and the mask, and adds its share to the same corners of the input's gradient. The
// columns of the product are ordered so that the channels of a thread are neighbours and the four
// threads of a row hold 16 in a row: whole sectors of memory.
//
// The additions are what limits the speed, 4 of them a sample, done by the L2 cache. They need
// float32 and channels next to one another, so slices of channels go one after another (as many at
// a time as fit a buffer of limited size) through a copy of the input and an accumulator for its
// gradient, both (slice, batch, height, width, channel of the slice).

#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <type_traits>

#include "csrc/common/cuda_launch.h"
#include "csrc/common/half.h"
#include "csrc/deform_conv/fused.h"
#include "csrc/deform_conv/fused_sampling.h"
#include "csrc/deform_conv/shape.h"
#include "csrc/deform_conv/tensor_core.h"

namespace detectron2 {
namespace deform_conv_backward_data {

using namespace deform_conv_fused;

constexpr int kSlice = 64;      // channels
constexpr int kDepth = 64;      // output channels of a step of the product
constexpr int kTileWidth = 16;  // output pixels
constexpr int kScaleExponent = 14;

// A quarter of the accumulator of 256 channels at 1/8 of 800 x 1216, two images.
constexpr int64_t kMostAccumulatorBytes = int64_t{8} << 20;

constexpr int64_t kMostBlocks = 65535;  // in a grid's second dimension

// Points displaced by this much or more count as infinitely far, which they are for any image.
constexpr float kFar = 1e9f;

// float32 is split into two of float16.
template <typename T>
using Operand = std::conditional_t<std::is_same_v<T, float>, Half, T>;

template <typename T>
constexpr int kParts = std::is_same_v<T, float> ? 2 : 1;

// Elements of the weight for a slice, a tap and a step.
template <typename T>
constexpr int kWeightTile = kParts<T> * kDepth * kSlice;

template <typename T>
struct FourChannels {
  using Bits = uint2;
};
template <>
struct FourChannels<float> {
  using Bits = float4;
};

__device__ __forceinline__ void widen_four(const float4& bits, float (&values)[4]) {
  values[0] = bits.x;
  values[1] = bits.y;
  values[2] = bits.z;
  values[3] = bits.w;
}

template <typename T>
__device__ __forceinline__ void widen_four(const uint2& bits, float (&values)[4]) {
  values[0] = unpack_low<T>(bits.x);
  values[1] = unpack_high<T>(bits.x);
  values[2] = unpack_low<T>(bits.y);
  values[3] = unpack_high<T>(bits.y);
}

// to[i] += factor * values[i], if `wanted`; `to` is aligned to 16 bytes.
__device__ __forceinline__ void add_four(bool wanted, float* to, float factor,
                                         const float (&values)[4]) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  // The predicate in the instruction: a branch around each would cost more than it.
  asm volatile(
      "{ .reg .pred wanted; setp.ne.s32 wanted, %0, 0; "
      "@wanted red.global.add.v4.f32 [%1], {%2, %3, %4, %5}; }" ::"r"(static_cast<int>(wanted)),
      "l"(to), "f"(factor * values[0]), "f"(factor * values[1]), "f"(factor * values[2]),
      "f"(factor * values[3])
      : "memory");
#else
  if (wanted) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      atomicAdd(to + i, factor * values[i]);
    }
  }
#endif
}

struct Arguments {
  SamplingShape sampling;
  int out_channels;
  int out_height;
  int out_width;
  int tiles_x;
  int tiles_y;
  int64_t image_stride;  // of grad_output, in elements
  int64_t channel_stride;
  int64_t pixel_stride;
  int slices_per_group;
  int first_slice;
  int weight_steps;  // of a slice and a tap in the packed weight
  int first_step;    // of those of this launch
  int steps;
};

// blockIdx is (tile, slice). `weight` is packed by side_kernel; `input` and `grad_input`
// start at the first slice. `largest` is of grad_output and of the weight, for float32.
// `grad_input`, `grad_offset` and `grad_mask` are added to, and may be null.
template <typename T, int kPixels, int kWarpChannels, int kStages, int kMinBlocks>
__global__ void __launch_bounds__(kPixels / 16 * (kSlice / kWarpChannels) * 32, kMinBlocks)
    scatter_kernel(const T* grad_output, const T* input, const T* offset, const T* mask,
                   const Operand<T>* weight, const uint32_t* largest, Arguments arguments,
                   float* grad_input, float* grad_offset, float* grad_mask) {
  using Product = Operand<T>;
  using Bits = typename FourChannels<T>::Bits;
  constexpr bool kSplit = kParts<T> == 2;
  constexpr int kTile = kWeightTile<T>;
  constexpr int kWarps = kPixels / 16;  // along the pixels
  constexpr int kThreads = kWarps * (kSlice / kWarpChannels) * 32;
  constexpr int kRow = kPixels + 8;  // 8 rows of 16 bytes then meet no bank twice
  constexpr int kGroups = kWarpChannels / 16;
  constexpr int kUnroll = 8;
  static_assert(kThreads % kPixels == 0 && kTile % (8 * kThreads) == 0);

  extern __shared__ __align__(1024) char shared[];
  Product* const stages = reinterpret_cast<Product*>(shared);
  Product* const gradient = stages + kStages * kTile;  // [part][output channel][pixel]
  const int depth = arguments.steps * kDepth;
  const int part_size = depth * kRow;

  const SamplingShape& sampling = arguments.sampling;
  const int lane = threadIdx.x % 32;
  const int first_row = threadIdx.x / 32 % kWarps * 16;
  const int first_column = threadIdx.x / 32 / kWarps * kWarpChannels;
  const int tile_x = blockIdx.x % arguments.tiles_x * kTileWidth;
  const int tile_y = blockIdx.x / arguments.tiles_x % arguments.tiles_y * (kPixels / kTileWidth);
  const int64_t image = blockIdx.x / arguments.tiles_x / arguments.tiles_y;
  const int slice = arguments.first_slice + blockIdx.y;
  const int offset_group = slice / arguments.slices_per_group;
  const int64_t out_pixels = int64_t{arguments.out_height} * arguments.out_width;
  const int64_t pixels = int64_t{sampling.height} * sampling.width;

  // The weight streams through the stages, in the order of its use.
  const Product* next_weight =
      weight +
      (int64_t{slice} * sampling.taps * arguments.weight_steps + arguments.first_step) * kTile +
      threadIdx.x * 8;
  int next_step = 0;
  int next_tap = 0;
  int next_stage = 0;
  const auto fetch_weight = [&]() {
    if (next_tap < sampling.taps) {
      const uint32_t to = shared_address(stages + next_stage * kTile + threadIdx.x * 8);
#pragma unroll
      for (int i = 0; i < kTile / (8 * kThreads); ++i) {
        copy_async(to + i * kThreads * 16, next_weight + i * kThreads * 8);
      }
      next_stage = next_stage + 1 < kStages ? next_stage + 1 : 0;
      next_weight += kTile;
      if (++next_step == arguments.steps) {
        next_step = 0;
        ++next_tap;
        next_weight += (arguments.weight_steps - arguments.steps) * kTile;
      }
    }
    commit_copies();
  };
#pragma unroll
  for (int i = 0; i < kStages - 1; ++i) {
    fetch_weight();
  }

  PowerOfTwo gradient_scale{1, 1};
  PowerOfTwo weight_scale{1, 1};
  if constexpr (kSplit) {
    gradient_scale = scale_to_exponent<kScaleExponent>(largest[0]);
    weight_scale = scale_to_exponent<kScaleExponent>(largest[1]);
  }
  const auto keep_gradient = [&](int channel, int pixel, T value) {
    if constexpr (kSplit) {
      const float scaled = value * gradient_scale.scale;
      const Half high = narrow<Half>(scaled);
      gradient[channel * kRow + pixel] = high;
      gradient[part_size + channel * kRow + pixel] = narrow<Half>(scaled - widen(high));
    } else {
      gradient[channel * kRow + pixel] = value;
    }
  };
  const T* const image_gradient = grad_output + image * arguments.image_stride;
  const int first_output = arguments.first_step * kDepth;
  if (arguments.pixel_stride == 1) {
    constexpr int kPass = kThreads / kPixels;
    const int pixel = threadIdx.x % kPixels;
    const int y = tile_y + pixel / kTileWidth;
    const int x = tile_x + pixel % kTileWidth;
    const bool inside = y < arguments.out_height && x < arguments.out_width;
    const int outputs = inside ? arguments.out_channels - first_output : 0;
    const T* from = image_gradient + int64_t{y} * arguments.out_width + x;
    for (int first = threadIdx.x / kPixels; first < depth; first += kUnroll * kPass) {
      T values[kUnroll];
#pragma unroll
      for (int i = 0; i < kUnroll; ++i) {
        const int channel = first + i * kPass;
        values[i] =
            channel < outputs ? from[(first_output + channel) * arguments.channel_stride] : T{};
      }
#pragma unroll
      for (int i = 0; i < kUnroll; ++i) {
        keep_gradient(first + i * kPass, pixel, values[i]);
      }
    }
  } else {
    constexpr int kPass = kThreads / kDepth;
    for (int channel = threadIdx.x % kDepth; channel < depth; channel += kDepth) {
      const bool exists = first_output + channel < arguments.out_channels;
      const T* from = image_gradient + (first_output + channel) * arguments.channel_stride;
      for (int first = threadIdx.x / kDepth; first < kPixels; first += kUnroll * kPass) {
        T values[kUnroll];
#pragma unroll
        for (int i = 0; i < kUnroll; ++i) {
          const int pixel = first + i * kPass;
          const int y = tile_y + pixel / kTileWidth;
          const int x = tile_x + pixel % kTileWidth;
          values[i] = T{};
          if (exists && y < arguments.out_height && x < arguments.out_width) {
            values[i] = from[(int64_t{y} * arguments.out_width + x) * arguments.pixel_stride];
          }
        }
#pragma unroll
        for (int i = 0; i < kUnroll; ++i) {
          if (first + i * kPass < kPixels) {
            keep_gradient(channel, first + i * kPass, values[i]);
          }
        }
      }
    }
  }

  const uint32_t gradient_address =
      shared_address(gradient + (lane / 16 * 8 + lane % 8) * kRow + lane / 8 % 2 * 8 + first_row);
  const int weight_row = first_column + lane / 16 * 8 + lane % 8;
  const int weight_vector = lane / 8 % 2;
  const int quarter = lane % 4;
  const int64_t slice_start =
      ((int64_t{blockIdx.y} * gridDim.x / (arguments.tiles_x * arguments.tiles_y) + image) *
       pixels) *
          kSlice +
      first_column + quarter * 4;
  const T* const own_input = input + slice_start;
  float* const own_grad_input = grad_input + slice_start;
  const bool need_samples = grad_offset != nullptr || grad_mask != nullptr;

  int stage = 0;
  for (int tap = 0; tap < sampling.taps; ++tap) {
    // Read now, needed after the product: the displacements and masks of this thread's two pixels.
    const int64_t map = (image * sampling.offset_groups + offset_group) * sampling.taps + tap;
    float shift_y[2];
    float shift_x[2];
    float scale[2];
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int y = tile_y + first_row / kTileWidth;
      const int x = tile_x + lane / 4 + r * 8;
      shift_y[r] = INFINITY;
      shift_x[r] = INFINITY;
      scale[r] = 1;
      if (y < arguments.out_height && x < arguments.out_width) {
        const int64_t pixel = int64_t{y} * arguments.out_width + x;
        shift_y[r] = widen(offset[2 * map * out_pixels + pixel]);
        shift_x[r] = widen(offset[(2 * map + 1) * out_pixels + pixel]);
        if (mask != nullptr) {
          scale[r] = widen(mask[map * out_pixels + pixel]);
        }
      }
    }

    float sums[2 * kGroups][4] = {};
    for (int step = 0; step < arguments.steps; ++step) {
      wait_copies<kStages - 2>();
      __syncthreads();
      fetch_weight();
      const uint32_t weight_address = shared_address(stages + stage * kTile);
      stage = stage + 1 < kStages ? stage + 1 : 0;
      // The tensor cores cut off the sum after each product; float32 keeps its precision by
      // adding up the steps itself.
      float step_sums[2 * kGroups][4] = {};
      auto& target = kSplit ? step_sums : sums;
#pragma unroll
      for (int k = 0; k < kDepth / 16; ++k) {
        uint32_t a[kParts<T>][4];
#pragma unroll
        for (int part = 0; part < kParts<T>; ++part) {
          load_matrices_transposed(
              a[part], gradient_address + 2 * (part * part_size + (step * kDepth + k * 16) * kRow));
        }
#pragma unroll
        for (int group = 0; group < kGroups; ++group) {
          uint32_t b[kParts<T>][4];
#pragma unroll
          for (int part = 0; part < kParts<T>; ++part) {
            load_matrices(b[part], weight_address + 2 * part * kDepth * kSlice +
                                       swizzled(weight_row + group * 16, 2 * k + weight_vector));
          }
#pragma unroll
          for (int half = 0; half < 2; ++half) {
            float (&sum)[4] = target[2 * group + half];
            if constexpr (kSplit) {
              multiply_add<Product>(sum, a[1], b[0][2 * half], b[0][2 * half + 1]);
              multiply_add<Product>(sum, a[0], b[1][2 * half], b[1][2 * half + 1]);
            }
            multiply_add<Product>(sum, a[0], b[0][2 * half], b[0][2 * half + 1]);
          }
        }
      }
      if constexpr (kSplit) {
#pragma unroll
        for (int i = 0; i < 2 * kGroups; ++i) {
#pragma unroll
          for (int j = 0; j < 4; ++j) {
            sums[i][j] += step_sums[i][j];
          }
        }
      }
    }

#pragma unroll
    for (int r = 0; r < 2; ++r) {
      // The fraction is taken of the displacement itself, where it has all its bits.
      const bool is_near = fabsf(shift_y[r]) < kFar && fabsf(shift_x[r]) < kFar;
      const float floor_y = is_near ? floorf(shift_y[r]) : 0.0f;
      const float floor_x = is_near ? floorf(shift_x[r]) : 0.0f;
      const float low_y = is_near ? shift_y[r] - floor_y : 0.0f;
      const float low_x = is_near ? shift_x[r] - floor_x : 0.0f;
      const int out_y = tile_y + first_row / kTileWidth;
      const int out_x = tile_x + lane / 4 + r * 8;
      const int tap_y = tap / sampling.kernel_w;
      const int tap_x = tap - tap_y * sampling.kernel_w;
      const int top = out_y * sampling.stride_h - sampling.pad_h + tap_y * sampling.dilation_h +
                      static_cast<int>(floor_y);
      const int left = out_x * sampling.stride_w - sampling.pad_w + tap_x * sampling.dilation_w +
                       static_cast<int>(floor_x);
      const bool inside = is_near && top < sampling.height && left < sampling.width &&
                          (top >= 0 || (top == -1 && low_y > 0)) &&
                          (left >= 0 || (left == -1 && low_x > 0));
      const float weights[4] = {(1 - low_y) * (1 - low_x), (1 - low_y) * low_x, low_y * (1 - low_x),
                                low_y * low_x};
      bool exists[4];
      bool wanted[4];
      const T* from[4];
      float* to[4];
#pragma unroll
      for (int corner = 0; corner < 4; ++corner) {
        const int y = top + corner / 2;
        const int x = left + corner % 2;
        exists[corner] = inside && y >= 0 && y < sampling.height && x >= 0 && x < sampling.width;
        // Corners of weight zero (points on the grid) are spared the addition.
        wanted[corner] = exists[corner] && weights[corner] * scale[r] != 0 && grad_input != nullptr;
        const int64_t at = exists[corner] ? (y * sampling.width + x) * int64_t{kSlice} : 0;
        from[corner] = own_input + at;
        to[corner] = own_grad_input + at;
      }
      Bits corners[kGroups][4];
      if (need_samples) {
#pragma unroll
        for (int group = 0; group < kGroups; ++group) {
#pragma unroll
          for (int corner = 0; corner < 4; ++corner) {
            corners[group][corner] =
                __ldg(reinterpret_cast<const Bits*>(from[corner] + group * 16));
          }
        }
      }
      float gradients[kGroups][4];
#pragma unroll
      for (int group = 0; group < kGroups; ++group) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          gradients[group][i] = sums[2 * group + i / 2][2 * r + i % 2];
          if constexpr (kSplit) {
            gradients[group][i] *= gradient_scale.inverse;
            gradients[group][i] *= weight_scale.inverse;
          }
        }
#pragma unroll
        for (int corner = 0; corner < 4; ++corner) {
          add_four(wanted[corner], to[corner] + group * 16, weights[corner] * scale[r],
                   gradients[group]);
        }
      }
      if (need_samples) {
        // Products of the gradient with each corner, which all three gradients are sums of.
        float products[4] = {0, 0, 0, 0};
#pragma unroll
        for (int corner = 0; corner < 4; ++corner) {
#pragma unroll
          for (int group = 0; group < kGroups; ++group) {
            float values[4];
            if constexpr (kSplit) {
              widen_four(corners[group][corner], values);
            } else {
              widen_four<T>(corners[group][corner], values);
            }
#pragma unroll
            for (int i = 0; i < 4; ++i) {
              products[corner] += gradients[group][i] * values[i];
            }
          }
          products[corner] += __shfl_xor_sync(0xffffffffu, products[corner], 1);
          products[corner] += __shfl_xor_sync(0xffffffffu, products[corner], 2);
          products[corner] = exists[corner] ? products[corner] : 0.0f;
        }
        const int64_t pixel = int64_t{out_y} * arguments.out_width + out_x;
        if (inside && quarter < 2 && grad_offset != nullptr) {
          const float slope =
              quarter == 0
                  ? (1 - low_x) * (products[2] - products[0]) + low_x * (products[3] - products[1])
                  : (1 - low_y) * (products[1] - products[0]) + low_y * (products[3] - products[2]);
          atomicAdd(grad_offset + (2 * map + quarter) * out_pixels + pixel, scale[r] * slope);
        }
        if (inside && quarter == 2 && grad_mask != nullptr) {
          atomicAdd(grad_mask + map * out_pixels + pixel,
                    weights[0] * products[0] + weights[1] * products[1] + weights[2] * products[2] +
                        weights[3] * products[3]);
        }
      }
    }
  }
}

// Bits of the largest finite magnitudes of two arrays, a row of blocks for each; `largest` starts
// as zeros.
__global__ void __launch_bounds__(kPackThreads)
    largest_kernel(const float* first, int64_t first_count, const float* second,
                   int64_t second_count, uint32_t* largest) {
  const float* const values = blockIdx.y == 0 ? first : second;
  const int64_t count = blockIdx.y == 0 ? first_count : second_count;
  const int64_t stride = int64_t{gridDim.x} * kPackThreads;
  uint32_t result = 0;
#pragma unroll 8
  for (int64_t i = int64_t{blockIdx.x} * kPackThreads + threadIdx.x; i < count; i += stride) {
    result = max(result, finite_magnitude(values[i]));
  }
  result = largest_in_warp(result);
  if (threadIdx.x % 32 == 0 && result != 0) {
    atomicMax(largest + blockIdx.y, result);
  }
}

// How the input's channels fall into slices: those of an offset group fill whole slices up.
struct Slices {
  int batch;
  int channels;
  int group_channels;
  int per_group;
  int total;
  int64_t pixels;
  bool is_nhwc;
};

__device__ __forceinline__ int first_channel(const Slices& slices, int slice) {
  return slice / slices.per_group * slices.group_channels + slice % slices.per_group * kSlice;
}

__device__ __forceinline__ int channel_count(const Slices& slices, int slice) {
  return min(kSlice, slices.group_channels - slice % slices.per_group * kSlice);
}

struct SumRange {
  float* begin;  // aligned to 16 bytes
  int64_t count;
};

// What is done beside the scattering. Blocks are counted by task, in this order.
template <typename T>
struct SideTasks {
  Slices slices;

  // Sums are cleared.
  uint32_t clear_blocks;
  SumRange cleared[3];

  // The weight is packed.
  uint32_t weight_blocks;
  const T* weight;
  const uint32_t* largest;
  int out_channels;
  int taps;
  int steps;
  Operand<T>* packed_weight;

  // Accumulated slices from `done` on go to grad_input, and are cleared for what comes next.
  uint32_t finish_blocks;
  int done;
  bool clears;
  float* accumulator;
  T* grad_input;

  // Slices of the input from `next` on are copied.
  uint32_t copy_blocks;
  int next;
  const T* input;
  T* sliced_input;

  // Sums of half-precision gradients are rounded.
  uint32_t narrow_blocks;
  const float* offset_sums;
  int64_t offset_count;
  T* grad_offset;
  const float* mask_sums;
  int64_t mask_count;
  T* grad_mask;
};

// Packs the weight as [slice][tap][step][part][column][output channel of the step], zeros where
// there is none, swizzled as the products read it. Columns 8i + 2j and 8i + 2j + 1 of the product
// go to thread j of a row: they are channels 16 (i / 2) + 4j + 2 (i % 2) and the next.
template <typename T>
__device__ __forceinline__ void pack_weight(const SideTasks<T>& tasks, uint32_t block) {
  const Slices& slices = tasks.slices;
  const int taps = tasks.taps;
  const int steps = tasks.steps;
  const int64_t count = int64_t{slices.total} * taps * steps * kDepth * kSlice;
  const int64_t stride = int64_t{tasks.weight_blocks} * kPackThreads;
  for (int64_t i = int64_t{block} * kPackThreads + threadIdx.x; i < count; i += stride) {
    const int k = static_cast<int>(i % kDepth);
    const int column = static_cast<int>(i / kDepth % kSlice);
    const int64_t tile = i / (kDepth * kSlice);
    const int out_channel = static_cast<int>(tile % steps) * kDepth + k;
    const int tap = static_cast<int>(tile / steps % taps);
    const int slice = static_cast<int>(tile / steps / taps);
    const int channel = column / 16 * 16 + column % 8 / 2 * 4 + column / 8 % 2 * 2 + column % 2;
    T value{};
    if (out_channel < tasks.out_channels && channel < channel_count(slices, slice)) {
      value = tasks.weight[(int64_t{out_channel} * slices.channels + first_channel(slices, slice) +
                            channel) *
                               taps +
                           tap];
    }
    Operand<T>* const to =
        tasks.packed_weight + tile * kWeightTile<T> + swizzled(column, k / 8) / 2 + k % 8;
    if constexpr (kParts<T> == 2) {
      const float scaled = value * scale_to_exponent<kScaleExponent>(tasks.largest[1]).scale;
      to[0] = narrow<Half>(scaled);
      to[kDepth * kSlice] = narrow<Half>(scaled - widen(to[0]));
    } else {
      to[0] = value;
    }
  }
}

// Four neighbouring channels as they lie in memory.
template <typename T>
__device__ __forceinline__ typename FourChannels<T>::Bits narrow_four(const float* values) {
  if constexpr (std::is_same_v<T, float>) {
    return {values[0], values[1], values[2], values[3]};
  } else {
    return {pack<T>(values[0], values[1]), pack<T>(values[2], values[3])};
  }
}

constexpr int kTurnPixels = 64;

// Blocks that turn some slices.
inline int64_t turn_blocks(const Slices& slices, int count) {
  return divide_up(slices.pixels, kTurnPixels) * slices.batch * count;
}

// Turns 64 pixels of a slice: writes what was accumulated to grad_input, or copies the input.
// Blocks are numbered by slice, by image, by pixels.
template <bool finishes, typename T>
__device__ __forceinline__ void turn(const SideTasks<T>& tasks, uint32_t block,
                                     float (&tile)[kTurnPixels][kSlice + 1]) {
  using Bits = typename FourChannels<T>::Bits;
  constexpr int kVectors = kSlice / 4;
  constexpr int kVectorPass = kPackThreads / kVectors;  // pixels
  constexpr int kPass = kPackThreads / kSlice;          // pixels or channels
  static_assert(kTurnPixels == kSlice);
  const Slices& slices = tasks.slices;
  const uint32_t rows = static_cast<uint32_t>((slices.pixels + kTurnPixels - 1) / kTurnPixels);
  const uint32_t plane = block / rows;
  const int place = static_cast<int>(plane / slices.batch);
  const int image = static_cast<int>(plane) - place * slices.batch;
  const int slice = (finishes ? tasks.done : tasks.next) + place;
  const int64_t start = int64_t{block - plane * rows} * kTurnPixels;
  const int pixels = static_cast<int>(min(int64_t{kTurnPixels}, slices.pixels - start));
  const int channels = channel_count(slices, slice);

  // Elements of the tensor, neighbouring threads at neighbours in memory.
  const int line = threadIdx.x % kSlice;
  const int pass = threadIdx.x / kSlice;
  const int pixel = slices.is_nhwc ? pass : line;
  const int channel = slices.is_nhwc ? line : pass;
  const int pixel_pass = slices.is_nhwc ? kPass : 0;
  const int channel_pass = slices.is_nhwc ? 0 : kPass;
  const int64_t channel_stride = slices.is_nhwc ? 1 : slices.pixels;
  const int64_t pixel_stride = slices.is_nhwc ? slices.channels : 1;
  const int64_t element = int64_t{image} * slices.channels * slices.pixels +
                          (first_channel(slices, slice) + channel) * channel_stride +
                          (start + pixel) * pixel_stride;
  const int64_t element_pass = pixel_pass * pixel_stride + channel_pass * channel_stride;

  // Vectors of four channels of the slice.
  const int vector_pixel = threadIdx.x / kVectors;
  const int vector_channel = threadIdx.x % kVectors * 4;
  const int64_t vector = (plane * slices.pixels + start + vector_pixel) * kSlice + vector_channel;

  if constexpr (finishes) {
    float4* const from = reinterpret_cast<float4*>(tasks.accumulator + vector);
#pragma unroll
    for (int i = 0; i < kTurnPixels / kVectorPass; ++i) {
      const int row = vector_pixel + i * kVectorPass;
      if (row < pixels) {
        const float4 sums = from[i * kVectorPass * kVectors];
        if (tasks.clears) {
          from[i * kVectorPass * kVectors] = {0, 0, 0, 0};
        }
        tile[row][vector_channel] = sums.x;
        tile[row][vector_channel + 1] = sums.y;
        tile[row][vector_channel + 2] = sums.z;
        tile[row][vector_channel + 3] = sums.w;
      }
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < kTurnPixels / kPass; ++i) {
      if (pixel + i * pixel_pass < pixels && channel + i * channel_pass < channels) {
        tasks.grad_input[element + i * element_pass] =
            narrow<T>(tile[pixel + i * pixel_pass][channel + i * channel_pass]);
      }
    }
  } else {
#pragma unroll
    for (int i = 0; i < kTurnPixels / kPass; ++i) {
      float value = 0;
      if (pixel + i * pixel_pass < pixels && channel + i * channel_pass < channels) {
        value = widen(tasks.input[element + i * element_pass]);
      }
      tile[pixel + i * pixel_pass][channel + i * channel_pass] = value;
    }
    __syncthreads();
    Bits* const to = reinterpret_cast<Bits*>(tasks.sliced_input + vector);
#pragma unroll
    for (int i = 0; i < kTurnPixels / kVectorPass; ++i) {
      const int row = vector_pixel + i * kVectorPass;
      if (row < pixels) {
        to[i * kVectorPass * kVectors] = narrow_four<T>(&tile[row][vector_channel]);
      }
    }
  }
}

template <typename T>
__device__ __forceinline__ void narrow_all(const float* sums, int64_t count, T* values,
                                           int64_t first, int64_t stride) {
  for (int64_t i = first; i < count; i += stride) {
    values[i] = narrow<T>(sums[i]);
  }
}

__device__ __forceinline__ void clear_sums(const SumRange& range, int64_t first, int64_t stride) {
  const int64_t vectors = range.count / 4;
  for (int64_t i = first; i < vectors; i += stride) {
    reinterpret_cast<float4*>(range.begin)[i] = {0, 0, 0, 0};
  }
  for (int64_t i = 4 * vectors + first; i < range.count; i += stride) {
    range.begin[i] = 0;
  }
}

template <typename T>
__global__ void __launch_bounds__(kPackThreads)
    side_kernel(const __grid_constant__ SideTasks<T> tasks) {
  __shared__ float tile[kTurnPixels][kSlice + 1];
  uint32_t block = blockIdx.x;
  if (block < tasks.clear_blocks) {
    for (const SumRange& range : tasks.cleared) {
      clear_sums(range, int64_t{block} * kPackThreads + threadIdx.x,
                 int64_t{tasks.clear_blocks} * kPackThreads);
    }
    return;
  }
  block -= tasks.clear_blocks;
  if (block < tasks.weight_blocks) {
    pack_weight(tasks, block);
    return;
  }
  block -= tasks.weight_blocks;
  if (block < tasks.finish_blocks) {
    turn<true>(tasks, block, tile);
    return;
  }
  block -= tasks.finish_blocks;
  if (block < tasks.copy_blocks) {
    turn<false>(tasks, block, tile);
    return;
  }
  block -= tasks.copy_blocks;
  const int64_t first = int64_t{block} * kPackThreads + threadIdx.x;
  const int64_t stride = int64_t{tasks.narrow_blocks} * kPackThreads;
  narrow_all(tasks.offset_sums, tasks.offset_count, tasks.grad_offset, first, stride);
  narrow_all(tasks.mask_sums, tasks.mask_count, tasks.grad_mask, first, stride);
}

int64_t slice_count(const DeformConvShape& shape) {
  return shape.offset_groups * divide_up(shape.in_channels / shape.offset_groups, kSlice);
}

int64_t point_count(const DeformConvShape& shape) {
  return shape.batch * shape.offset_groups * shape.kernel_h * shape.kernel_w * shape.out_height *
         shape.out_width;
}

// Where the parts of the work space start, in bytes.
struct Workspace {
  int slices_at_once;
  int64_t accumulator_size;  // elements
  int64_t largest;
  int64_t weight;
  int64_t input;
  int64_t grad_input;
  int64_t grad_offset;  // for half-precision types, whose gradients cannot be added up in place
  int64_t grad_mask;
  int64_t size;
};

Workspace plan_workspace(const DeformConvShape& shape, int64_t element_size) {
  const bool is_float = element_size == sizeof(float);
  const int64_t slice_pixels = shape.batch * shape.height * shape.width * kSlice;
  Workspace workspace{};
  workspace.slices_at_once = static_cast<int>(
      std::clamp<int64_t>(std::min(kMostAccumulatorBytes / std::max<int64_t>(slice_pixels * 4, 1),
                                   kMostBlocks / std::max<int64_t>(shape.batch, 1)),
                          1, slice_count(shape)));
  const auto take = [&](int64_t bytes) {
    const int64_t start = workspace.size;
    workspace.size += align_up(bytes);
    return start;
  };
  workspace.largest = take(2 * sizeof(uint32_t));
  workspace.weight =
      take(slice_count(shape) * shape.kernel_h * shape.kernel_w *
           divide_up(shape.out_channels, kDepth) * kDepth * kSlice * (is_float ? 4 : 2));
  workspace.input = take(workspace.slices_at_once * slice_pixels * element_size);
  workspace.accumulator_size = workspace.slices_at_once * slice_pixels;
  workspace.grad_input = take(workspace.accumulator_size * 4);
  workspace.grad_offset = take(is_float ? 0 : 2 * point_count(shape) * 4);
  workspace.grad_mask = take(is_float ? 0 : point_count(shape) * 4);
  return workspace;
}

void check_status(cudaError_t status, const char* what) {
  if (status != cudaSuccess) {
    throw std::runtime_error(std::string(what) + " failed: " + cudaGetErrorString(status));
  }
}

template <typename T, int kPixels, int kWarpChannels, int kStages, int kMinBlocks>
struct ScatterKernel {
  static constexpr int kThreads = kPixels / 16 * (kSlice / kWarpChannels) * 32;

  static int64_t shared_bytes(int steps) {
    return 2 * (kStages * kWeightTile<T> + int64_t{kParts<T>} * steps * kDepth * (kPixels + 8));
  }

  // Steps of the product that a launch can do with `blocks` of its blocks on a multiprocessor: the
  // gradient of a tile stays in shared memory.
  static int most_steps(int blocks) {
    constexpr int64_t kReserved = 1024;  // of each block, by the system
    const int64_t available = std::min<int64_t>(
        device_attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin),
        device_attribute(cudaDevAttrMaxSharedMemoryPerMultiprocessor) / blocks - kReserved);
    return static_cast<int>((available - shared_bytes(0)) / (shared_bytes(1) - shared_bytes(0)));
  }

  static void launch(const T* grad_output, const T* input, const T* offset, const T* mask,
                     const Operand<T>* weight, const uint32_t* largest, Arguments arguments,
                     int64_t batch, int slices, float* grad_input, float* grad_offset,
                     float* grad_mask, cudaStream_t stream) {
    const auto kernel = scatter_kernel<T, kPixels, kWarpChannels, kStages, kMinBlocks>;
    arguments.tiles_x = static_cast<int>(divide_up(arguments.out_width, kTileWidth));
    arguments.tiles_y = static_cast<int>(divide_up(arguments.out_height, kPixels / kTileWidth));
    const int most = most_steps(1);
    const dim3 grid(static_cast<unsigned int>(batch * arguments.tiles_x * arguments.tiles_y),
                    static_cast<unsigned int>(slices));
    // All that is added up is linear in grad_output: its channels may come in several launches.
    for (int first = 0; first < arguments.weight_steps; first += most) {
      arguments.first_step = first;
      arguments.steps = std::min(most, arguments.weight_steps - first);
      const int bytes = static_cast<int>(shared_bytes(arguments.steps));
      check_status(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes),
                   "reserving shared memory for deform_conv scatter_kernel");
      kernel<<<grid, kThreads, bytes, stream>>>(grad_output, input, offset, mask, weight, largest,
                                                arguments, grad_input, grad_offset, grad_mask);
      check_launch("deform_conv scatter_kernel");
    }
  }
};

// Registers and, at 256 output channels, shared memory for 16 warps a multiprocessor.
template <typename T>
using HalfTile = ScatterKernel<T, 64, 64, 2, 4>;
using LargeTile = ScatterKernel<float, 64, 32, 2, 2>;
using SmallTile = ScatterKernel<float, 32, 32, 2, 3>;

}  // namespace deform_conv_backward_data

int64_t deform_conv_fused_backward_data_workspace(const DeformConvShape& shape,
                                                  int64_t element_size, Layout layout) {
  return deform_conv_backward_data::plan_workspace(shape, element_size).size;
}

template <typename T>
void deform_conv_fused_backward_data(const T* grad_output, const T* input, const T* offset,
                                     const T* mask, const T* weight, const DeformConvShape& shape,
                                     Layout layout, void* workspace, T* grad_input, T* grad_offset,
                                     T* grad_mask, void* stream) {
  using namespace deform_conv_backward_data;
  constexpr bool kIsFloat = std::is_same_v<T, float>;
  const auto queue = static_cast<cudaStream_t>(stream);
  const Workspace plan = plan_workspace(shape, sizeof(T));
  char* const base = static_cast<char*>(workspace);
  auto* const largest = reinterpret_cast<uint32_t*>(base + plan.largest);
  auto* const packed_weight = reinterpret_cast<Operand<T>*>(base + plan.weight);
  auto* const sliced_input = reinterpret_cast<T*>(base + plan.input);
  auto* const accumulator = reinterpret_cast<float*>(base + plan.grad_input);

  const bool is_nhwc = layout == Layout::kNhwc;
  const int64_t out_pixels = shape.out_height * shape.out_width;
  const int64_t points = point_count(shape);
  const int slice_total = static_cast<int>(slice_count(shape));
  const int group_channels = static_cast<int>(shape.in_channels / shape.offset_groups);
  const Slices slices{static_cast<int>(shape.batch),
                      static_cast<int>(shape.in_channels),
                      group_channels,
                      static_cast<int>(divide_up(group_channels, kSlice)),
                      slice_total,
                      shape.height * shape.width,
                      is_nhwc};
  Arguments arguments{};
  arguments.sampling = sampling_shape(shape);
  arguments.out_channels = static_cast<int>(shape.out_channels);
  arguments.out_height = static_cast<int>(shape.out_height);
  arguments.out_width = static_cast<int>(shape.out_width);
  arguments.image_stride = shape.out_channels * out_pixels;
  arguments.channel_stride = is_nhwc ? 1 : out_pixels;
  arguments.pixel_stride = is_nhwc ? shape.out_channels : 1;
  arguments.slices_per_group = slices.per_group;
  arguments.weight_steps = static_cast<int>(divide_up(shape.out_channels, kDepth));

  if constexpr (kIsFloat) {
    check_status(cudaMemsetAsync(largest, 0, 2 * sizeof(uint32_t), queue), "clearing memory");
    const int64_t outputs = shape.batch * shape.out_channels * out_pixels;
    const int64_t weights =
        shape.out_channels * shape.in_channels * shape.kernel_h * shape.kernel_w;
    const dim3 grid(std::min(grid_for(std::max(outputs, weights), 16 * kPackThreads), 1024u), 2);
    largest_kernel<<<grid, kPackThreads, 0, queue>>>(grad_output, outputs, weight, weights,
                                                     largest);
    check_launch("deform_conv largest_kernel");
  }
  // Half-precision gradients cannot be added up in place.
  float* offset_sums = nullptr;
  float* mask_sums = nullptr;
  if constexpr (kIsFloat) {
    offset_sums = grad_offset;
    mask_sums = grad_mask;
  } else {
    if (grad_offset != nullptr) {
      offset_sums = reinterpret_cast<float*>(base + plan.grad_offset);
    }
    if (grad_mask != nullptr) {
      mask_sums = reinterpret_cast<float*>(base + plan.grad_mask);
    }
  }

  const bool need_samples = grad_offset != nullptr || grad_mask != nullptr;
  SideTasks<T> tasks{};
  tasks.slices = slices;
  tasks.cleared[0] = {accumulator, grad_input == nullptr ? 0 : plan.accumulator_size};
  tasks.cleared[1] = {offset_sums, offset_sums == nullptr ? 0 : 2 * points};
  tasks.cleared[2] = {mask_sums, mask_sums == nullptr ? 0 : points};
  tasks.weight = weight;
  tasks.largest = largest;
  tasks.out_channels = arguments.out_channels;
  tasks.taps = arguments.sampling.taps;
  tasks.steps = arguments.weight_steps;
  tasks.packed_weight = packed_weight;
  tasks.accumulator = accumulator;
  tasks.grad_input = grad_input;
  tasks.input = input;
  tasks.sliced_input = sliced_input;

  // Before the first launch of the scattering, between two and after the last one: what was added
  // up goes out, and the next input comes in.
  const auto turn_slices = [&](int done, int next) {
    const bool is_first = done < 0;
    const bool is_last = next >= slice_total;
    const auto count = [&](int first) {
      return std::min(plan.slices_at_once, slice_total - first);
    };
    const int64_t weights = int64_t{slice_total} * tasks.taps * tasks.steps * kDepth * kSlice;
    const int64_t sums = plan.accumulator_size + 3 * points;
    tasks.clear_blocks = is_first ? grid_for(sums, 16 * kPackThreads) : 0;
    tasks.weight_blocks = is_first ? grid_for(weights, kPackThreads) : 0;
    tasks.done = done;
    tasks.clears = !is_last;
    tasks.finish_blocks = static_cast<uint32_t>(
        is_first || grad_input == nullptr ? 0 : turn_blocks(slices, count(done)));
    tasks.next = next;
    tasks.copy_blocks =
        static_cast<uint32_t>(is_last || !need_samples ? 0 : turn_blocks(slices, count(next)));
    if (!kIsFloat && is_last && need_samples) {
      tasks.narrow_blocks = grid_for(2 * points, 8 * kPackThreads);
      tasks.offset_sums = offset_sums;
      tasks.offset_count = grad_offset == nullptr ? 0 : 2 * points;
      tasks.grad_offset = grad_offset;
      tasks.mask_sums = mask_sums;
      tasks.mask_count = grad_mask == nullptr ? 0 : points;
      tasks.grad_mask = grad_mask;
    }
    const int64_t blocks = int64_t{tasks.clear_blocks} + tasks.weight_blocks + tasks.finish_blocks +
                           tasks.copy_blocks + tasks.narrow_blocks;
    if (blocks > 0) {
      side_kernel<T><<<static_cast<unsigned int>(blocks), kPackThreads, 0, queue>>>(tasks);
      check_launch("deform_conv side_kernel");
    }
  };
  turn_slices(-1, 0);
  for (int first = 0; first < slice_total; first += plan.slices_at_once) {
    const int count = std::min(plan.slices_at_once, slice_total - first);
    arguments.first_slice = first;
    const auto scatter = [&](auto kernel) {
      decltype(kernel)::launch(
          grad_output, sliced_input, offset, mask, packed_weight, largest, arguments, shape.batch,
          count, grad_input == nullptr ? nullptr : accumulator, offset_sums, mask_sums, queue);
    };
    if constexpr (kIsFloat) {
      // The smaller tile where two blocks of the larger would not share a multiprocessor.
      if (arguments.weight_steps <= LargeTile::most_steps(2)) {
        scatter(LargeTile{});
      } else {
        scatter(SmallTile{});
      }
    } else {
      scatter(HalfTile<T>{});
    }
    turn_slices(first, first + plan.slices_at_once);
  }
}

#define DETECTRON2_INSTANTIATE(T)                                                            \
  template void deform_conv_fused_backward_data<T>(const T*, const T*, const T*, const T*,   \
                                                   const T*, const DeformConvShape&, Layout, \
                                                   void*, T*, T*, T*, void*);
DETECTRON2_INSTANTIATE(float)
DETECTRON2_INSTANTIATE(Half)
DETECTRON2_INSTANTIATE(BFloat16)

}  // namespace detectron2
