#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "csrc/common/cuda_launch.h"
#include "csrc/common/half.h"
#include "csrc/deform_conv/fused.h"
#include "csrc/deform_conv/shape.h"
#include "csrc/deform_conv/tensor_core.h"

namespace detectron2 {
namespace deform_conv_backward_data {

// Channels of the input that a block works on, and output channels that a stage of weights holds.
constexpr int kSlice = 64;
constexpr int kDepth = 64;
constexpr int kTileWidth = 16;

// Accumulation buffers take at most this much, if one slice of channels does not need more.
constexpr int64_t kMaxAccumulatorBytes = int64_t{8} << 20;

// Displacements from here on, all far outside of any image, count as infinite.
constexpr float kMaxShift = 1e9f;

template <typename T>
constexpr int kPlanes = std::is_same_v<T, float> ? 2 : 1;

template <typename T>
using Operand = std::conditional_t<std::is_same_v<T, float>, Half, T>;

__device__ __forceinline__ void split(float value, Half& high, Half& low) {
  high = narrow<Half>(value);
  low = narrow<Half>(value - widen(high));
}

struct Sizes {
  int batch, channels, height, width, out_channels, out_height, out_width;
  int kernel_w, taps;
  int stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w;
  int offset_groups, slices_per_group;
  int depth_steps;  // stages of weights a tap
  int tiles_x, tiles_y;
};

template <typename T>
struct Arguments {
  const T* grad_output;
  bool nhwc;
  const T* input;  // of the first slice
  int64_t input_slice_stride;
  int input_pixel_stride;
  float* grad_input;  // of the first slice; null if not wanted
  int64_t grad_slice_stride;
  int grad_pixel_stride;
  const T* offset;
  const T* mask;
  const Operand<T>* weight;  // packed
  const uint32_t* largest;   // bits of the largest magnitude of grad_output and of the weight
  float* grad_offset;        // either may be null
  float* grad_mask;
  int first_slice;
};

template <typename T>
struct Four;
template <>
struct Four<float> {
  float4 raw;
};
template <>
struct Four<Half> {
  uint2 raw;
};
template <>
struct Four<BFloat16> {
  uint2 raw;
};

__device__ __forceinline__ void widen_four(const Four<float>& v, float (&f)[4]) {
  f[0] = v.raw.x;
  f[1] = v.raw.y;
  f[2] = v.raw.z;
  f[3] = v.raw.w;
}
template <typename T>
__device__ __forceinline__ void widen_four(const Four<T>& v, float (&f)[4]) {
  f[0] = widen(T{static_cast<uint16_t>(v.raw.x)});
  f[1] = widen(T{static_cast<uint16_t>(v.raw.x >> 16)});
  f[2] = widen(T{static_cast<uint16_t>(v.raw.y)});
  f[3] = widen(T{static_cast<uint16_t>(v.raw.y >> 16)});
}

// `to` is 16-byte aligned.
__device__ __forceinline__ void add_four(float* to, float a, float b, float c, float d) {
#if __CUDA_ARCH__ >= 900
  asm volatile("red.global.add.v4.f32 [%0], {%1, %2, %3, %4};" ::"l"(to), "f"(a), "f"(b), "f"(c),
               "f"(d)
               : "memory");
#else
  atomicAdd(to, a);
  atomicAdd(to + 1, b);
  atomicAdd(to + 2, c);
  atomicAdd(to + 3, d);
#endif
}

template <typename T, int kPixels>
constexpr int kSharedRow = kPixels + 8;

template <typename T, int kPixels, int kStages>
__host__ __device__ constexpr int64_t shared_bytes(int depth_steps) {
  return int64_t{kPlanes<T>} * 2 *
         (int64_t{depth_steps} * kDepth * (kPixels + 8) + kStages * kDepth * kSlice);
}

template <typename T, int kPixels, int kWarpPixels, int kWarpChannels, int kStages, int kMinBlocks>
__global__ void __launch_bounds__((kPixels / kWarpPixels) * (kSlice / kWarpChannels) * 32,
                                  kMinBlocks)
    scatter_kernel(const Arguments<T> args, const Sizes sizes) {
  constexpr int kWarpsM = kPixels / kWarpPixels;
  constexpr int kWarpsN = kSlice / kWarpChannels;
  constexpr int kThreads = kWarpsM * kWarpsN * 32;
  constexpr int kRow = kPixels + 8;
  constexpr int kP = kPlanes<T>;
  constexpr int kStageElements = kP * kDepth * kSlice;
  constexpr int kTileHeight = kPixels / kTileWidth;
  constexpr int kM = kWarpPixels / 16;
  constexpr int kGroups = kWarpChannels / 16;
  constexpr int kBatch = std::is_same_v<T, float> ? 2 : kGroups;  // groups loaded at once
  using Op = Operand<T>;

  extern __shared__ __align__(128) unsigned char memory[];
  Op* const stages = reinterpret_cast<Op*>(memory);
  Op* const grad_tile = stages + kStages * kStageElements;
  const int depth = sizes.depth_steps * kDepth;
  const int plane = depth * kRow;

  const int lane = threadIdx.x % 32;
  const int warp = threadIdx.x / 32;
  const int warp_m = warp % kWarpsM;
  const int warp_n = warp / kWarpsM;
  int tile = blockIdx.x;
  const int tile_x = tile % sizes.tiles_x * kTileWidth;
  tile /= sizes.tiles_x;
  const int tile_y = tile % sizes.tiles_y * kTileHeight;
  const int image = tile / sizes.tiles_y;
  const int slice = args.first_slice + blockIdx.y;
  const int slices = sizes.channels / kSlice;

  const int steps = sizes.taps * sizes.depth_steps;
  const auto fetch = [&](int step) {
    if (step < steps) {
      const int tap = step / sizes.depth_steps;
      const Op* from =
          args.weight +
          ((int64_t{tap} * slices + slice) * sizes.depth_steps + step % sizes.depth_steps) *
              kStageElements;
      const uint32_t to = shared_address(stages + step % kStages * kStageElements);
      for (int i = threadIdx.x; i < kStageElements / 8; i += kThreads) {
        copy_async(to + i * 16, from + i * 8);
      }
    }
    commit_copies();
  };
#pragma unroll
  for (int s = 0; s < kStages - 1; ++s) {
    fetch(s);
  }

  // grad_output of the tile, [out_channel][pixel]
  float unscale_a = 1;
  float unscale_b = 1;
  float scale = 1;
  if constexpr (kP == 2) {
    const PowerOfTwo a = scale_to_exponent<14>(args.largest[0]);
    scale = a.scale;
    unscale_a = a.inverse;
    unscale_b = scale_to_exponent<14>(args.largest[1]).inverse;
  }
  const int64_t out_pixels = int64_t{sizes.out_height} * sizes.out_width;
  {
    constexpr int kUnroll = 8;
    const T* from = args.grad_output + image * out_pixels * sizes.out_channels;
    for (int base = 0; base < depth * kPixels; base += kThreads * kUnroll) {
      T values[kUnroll];
#pragma unroll
      for (int u = 0; u < kUnroll; ++u) {
        const int i = base + u * kThreads + threadIdx.x;
        const int o = args.nhwc ? i % depth : i / kPixels;
        const int p = args.nhwc ? i / depth : i % kPixels;
        const int y = tile_y + p / kTileWidth;
        const int x = tile_x + p % kTileWidth;
        values[u] = T{};
        if (y < sizes.out_height && x < sizes.out_width && o < sizes.out_channels &&
            i < depth * kPixels) {
          const int64_t pixel = int64_t{y} * sizes.out_width + x;
          values[u] =
              from[args.nhwc ? pixel * sizes.out_channels + o : o * out_pixels + pixel];
        }
      }
#pragma unroll
      for (int u = 0; u < kUnroll; ++u) {
        const int i = base + u * kThreads + threadIdx.x;
        if (i < depth * kPixels) {
          const int o = args.nhwc ? i % depth : i / kPixels;
          const int p = args.nhwc ? i / depth : i % kPixels;
          if constexpr (kP == 2) {
            split(values[u] * scale, grad_tile[o * kRow + p], grad_tile[plane + o * kRow + p]);
          } else {
            grad_tile[o * kRow + p] = values[u];
          }
        }
      }
    }
  }

  const uint32_t a_address =
      shared_address(grad_tile + (lane / 16 * 8 + lane % 8) * kRow + lane / 8 % 2 * 8 +
                     warp_m * kWarpPixels);
  const int b_row = warp_n * kWarpChannels + lane / 16 * 8 + lane % 8;
  const int b_chunk = lane / 8 % 2;

  const int quad = lane % 4;
  const int offset_group = slice / sizes.slices_per_group;
  const T* const input = args.input + blockIdx.y * args.input_slice_stride +
                         int64_t{image} * sizes.height * sizes.width * args.input_pixel_stride +
                         warp_n * kWarpChannels + quad * 4;
  float* const grad_input =
      args.grad_input == nullptr
          ? nullptr
          : args.grad_input + blockIdx.y * args.grad_slice_stride +
                int64_t{image} * sizes.height * sizes.width * args.grad_pixel_stride +
                warp_n * kWarpChannels + quad * 4;
  const bool need_sums = args.grad_offset != nullptr || args.grad_mask != nullptr;

  int step = 0;
  for (int tap = 0; tap < sizes.taps; ++tap) {
    // The displacements of this thread's pixels; read now, needed after the product.
    float shift_y[2 * kM];
    float shift_x[2 * kM];
    float point_mask[2 * kM];
    const int64_t first =
        (int64_t{image} * sizes.offset_groups + offset_group) * sizes.taps + tap;
#pragma unroll
    for (int r = 0; r < 2 * kM; ++r) {
      const int p = warp_m * kWarpPixels + lane / 4 + r * 8;
      const int y = tile_y + p / kTileWidth;
      const int x = tile_x + p % kTileWidth;
      shift_y[r] = NAN;
      shift_x[r] = NAN;
      point_mask[r] = 1;
      if (y < sizes.out_height && x < sizes.out_width) {
        const int64_t pixel = int64_t{y} * sizes.out_width + x;
        const T* from = args.offset + 2 * first * out_pixels + pixel;
        shift_y[r] = widen(from[0]);
        shift_x[r] = widen(from[out_pixels]);
        if (args.mask != nullptr) {
          point_mask[r] = widen(args.mask[first * out_pixels + pixel]);
        }
      }
    }

    float sums[kM][2 * kGroups][4] = {};
    for (int k = 0; k < sizes.depth_steps; ++k, ++step) {
      wait_copies<kStages - 2>();
      __syncthreads();
      fetch(step + kStages - 1);
      const uint32_t b_base = shared_address(stages + step % kStages * kStageElements);
#pragma unroll
      for (int kk = 0; kk < kDepth / 16; ++kk) {
        uint32_t a[kP][kM][4];
#pragma unroll
        for (int p = 0; p < kP; ++p) {
#pragma unroll
          for (int m = 0; m < kM; ++m) {
            load_matrices_transposed(a[p][m], a_address + 2 * (p * plane + m * 16 +
                                                          (k * kDepth + kk * 16) * kRow));
          }
        }
#pragma unroll
        for (int g = 0; g < kGroups; ++g) {
          uint32_t b[kP][4];
#pragma unroll
          for (int p = 0; p < kP; ++p) {
            const int row = b_row + g * 16;
            load_matrices(b[p], b_base + 2 * p * kDepth * kSlice + row * 128 +
                               (((kk * 2 + b_chunk) ^ (row % 8)) * 16));
          }
#pragma unroll
          for (int m = 0; m < kM; ++m) {
#pragma unroll
            for (int half = 0; half < 2; ++half) {
              float(&c)[4] = sums[m][2 * g + half];
              if constexpr (kP == 2) {
                multiply_add<Op>(c, a[1][m], b[0][2 * half], b[0][2 * half + 1]);
                multiply_add<Op>(c, a[0][m], b[1][2 * half], b[1][2 * half + 1]);
              }
              multiply_add<Op>(c, a[0][m], b[0][2 * half], b[0][2 * half + 1]);
            }
          }
        }
      }
    }

#pragma unroll
    for (int r = 0; r < 2 * kM; ++r) {
      const int m = r / 2;
      const int h = r % 2 * 2;
      const int p = warp_m * kWarpPixels + lane / 4 + r * 8;
      const int out_y = tile_y + p / kTileWidth;
      const int out_x = tile_x + p % kTileWidth;
      // The fraction is taken before the position is added: it keeps all its bits so.
      const bool bounded = fabsf(shift_y[r]) < kMaxShift && fabsf(shift_x[r]) < kMaxShift;
      const float floor_y = bounded ? floorf(shift_y[r]) : 0.f;
      const float floor_x = bounded ? floorf(shift_x[r]) : 0.f;
      const float ly = bounded ? shift_y[r] - floor_y : 0.f;
      const float lx = bounded ? shift_x[r] - floor_x : 0.f;
      const int y0 = out_y * sizes.stride_h - sizes.pad_h +
                     tap / sizes.kernel_w * sizes.dilation_h + static_cast<int>(floor_y);
      const int x0 = out_x * sizes.stride_w - sizes.pad_w +
                     tap % sizes.kernel_w * sizes.dilation_w + static_cast<int>(floor_x);
      const bool inside = bounded && (y0 >= 0 || (y0 == -1 && ly > 0)) && y0 < sizes.height &&
                          (x0 >= 0 || (x0 == -1 && lx > 0)) && x0 < sizes.width;
      const float weight[4] = {(1 - ly) * (1 - lx), (1 - ly) * lx, ly * (1 - lx), ly * lx};
      bool valid[4];
      int pixel[4];
#pragma unroll
      for (int corner = 0; corner < 4; ++corner) {
        const int y = y0 + corner / 2;
        const int x = x0 + corner % 2;
        valid[corner] = inside && y >= 0 && y < sizes.height && x >= 0 && x < sizes.width;
        pixel[corner] = valid[corner] ? y * sizes.width + x : 0;
      }
      float dots[4] = {0, 0, 0, 0};
#pragma unroll
      for (int batch = 0; batch < kGroups; batch += kBatch) {
        Four<T> values[kBatch][4];
        if (need_sums) {
#pragma unroll
          for (int g = 0; g < kBatch; ++g) {
#pragma unroll
            for (int corner = 0; corner < 4; ++corner) {
              values[g][corner] = Four<T>{};
              if (valid[corner]) {
                values[g][corner].raw = __ldg(reinterpret_cast<const decltype(Four<T>::raw)*>(
                    input + int64_t{pixel[corner]} * args.input_pixel_stride + (batch + g) * 16));
              }
            }
          }
        }
#pragma unroll
        for (int g = 0; g < kBatch; ++g) {
          float grad[4];
#pragma unroll
          for (int c = 0; c < 4; ++c) {
            grad[c] = sums[m][2 * (batch + g) + c / 2][h + c % 2];
            if constexpr (kP == 2) {
              grad[c] = grad[c] * unscale_a * unscale_b;
            }
          }
          if (grad_input != nullptr) {
#pragma unroll
            for (int corner = 0; corner < 4; ++corner) {
              const float w = weight[corner] * point_mask[r];
              if (valid[corner] && w != 0) {
                add_four(grad_input + int64_t{pixel[corner]} * args.grad_pixel_stride +
                             (batch + g) * 16,
                         w * grad[0], w * grad[1], w * grad[2], w * grad[3]);
              }
            }
          }
          if (need_sums) {
#pragma unroll
            for (int corner = 0; corner < 4; ++corner) {
              float v[4];
              widen_four(values[g][corner], v);
#pragma unroll
              for (int c = 0; c < 4; ++c) {
                dots[corner] += grad[c] * v[c];
              }
            }
          }
        }
      }
      if (need_sums) {
#pragma unroll
        for (int corner = 0; corner < 4; ++corner) {
          dots[corner] += __shfl_xor_sync(0xffffffffu, dots[corner], 1);
          dots[corner] += __shfl_xor_sync(0xffffffffu, dots[corner], 2);
        }
        const int64_t at = int64_t{out_y} * sizes.out_width + out_x;
        if (inside) {
          if (args.grad_offset != nullptr && quad < 2) {
            const float slope = quad == 0
                                    ? (1 - lx) * (dots[2] - dots[0]) + lx * (dots[3] - dots[1])
                                    : (1 - ly) * (dots[1] - dots[0]) + ly * (dots[3] - dots[2]);
            atomicAdd(args.grad_offset + (2 * first + quad) * out_pixels + at,
                      slope * point_mask[r]);
          }
          if (args.grad_mask != nullptr && quad == 2) {
            atomicAdd(args.grad_mask + first * out_pixels + at,
                      weight[0] * dots[0] + weight[1] * dots[1] + weight[2] * dots[2] +
                          weight[3] * dots[3]);
          }
        }
      }
    }
  }
}

// ---- around it

constexpr int kSimpleThreads = 256;

__global__ void __launch_bounds__(kSimpleThreads)
    largest_kernel(const float* values, int64_t count, uint32_t* largest) {
  uint32_t bits = 0;
  const int64_t stride = int64_t{gridDim.x} * kSimpleThreads;
#pragma unroll 4
  for (int64_t i = int64_t{blockIdx.x} * kSimpleThreads + threadIdx.x; i < count; i += stride) {
    bits = max(bits, __float_as_uint(values[i]) & 0x7fffffffu);
  }
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2) {
    bits = max(bits, __shfl_xor_sync(0xffffffffu, bits, distance));
  }
  if (threadIdx.x % 32 == 0 && bits != 0) {
    atomicMax(largest, bits);
  }
}

// Packed [tap][slice][depth step][plane][channel of the slice, permuted][out channel of the step],
// with the 16-byte pieces of each row swizzled.
template <typename T>
__global__ void __launch_bounds__(kSimpleThreads)
    pack_kernel(const T* weight, const uint32_t* largest, int channels, int out_channels, int taps,
                int depth_steps, Operand<T>* packed) {
  const int64_t count = int64_t{taps} * channels * depth_steps * kDepth;
  const int64_t stride = int64_t{gridDim.x} * kSimpleThreads;
  for (int64_t i = int64_t{blockIdx.x} * kSimpleThreads + threadIdx.x; i < count; i += stride) {
    const int k = i % kDepth;
    const int n = i / kDepth % kSlice;
    int64_t rest = i / (kDepth * kSlice);
    const int step = rest % depth_steps;
    rest /= depth_steps;
    const int slice = rest % (channels / kSlice);
    const int tap = rest / (channels / kSlice);
    const int column = n % 8;
    const int channel =
        slice * kSlice + n / 16 * 16 + column / 2 * 4 + n / 8 % 2 * 2 + column % 2;
    const int out_channel = step * kDepth + k;
    T value{};
    if (out_channel < out_channels) {
      value = weight[(int64_t{out_channel} * channels + channel) * taps + tap];
    }
    const int64_t tile = i / (kDepth * kSlice) * kPlanes<T> * kDepth * kSlice;
    const int at = n * kDepth + ((k / 8) ^ (n % 8)) * 8 + k % 8;
    if constexpr (kPlanes<T> == 2) {
      split(value * scale_to_exponent<14>(*largest).scale, packed[tile + at],
            packed[tile + kDepth * kSlice + at]);
    } else {
      packed[tile + at] = value;
    }
  }
}

// (batch, channels, pixels) of T from channel `first` on to [slice][batch][pixel][kSlice].
template <typename T>
__global__ void __launch_bounds__(kSimpleThreads)
    slice_kernel(const T* input, int batch, int channels, int64_t pixels, int first_slice,
                 T* sliced) {
  __shared__ T tile[kSlice][kSlice + 2];
  const int64_t start = int64_t{blockIdx.x} * kSlice;
  const int image = blockIdx.y % batch;
  const int slice = blockIdx.y / batch;
  const T* from =
      input + (int64_t{image} * channels + (first_slice + slice) * kSlice) * pixels + start;
  T* to = sliced + ((int64_t{slice} * batch + image) * pixels + start) * kSlice;
#pragma unroll
  for (int i = threadIdx.x; i < kSlice * kSlice; i += kSimpleThreads) {
    const int p = i % kSlice;
    if (start + p < pixels) {
      tile[p][i / kSlice] = from[i / kSlice * pixels + p];
    }
  }
  __syncthreads();
#pragma unroll
  for (int i = threadIdx.x; i < kSlice * kSlice; i += kSimpleThreads) {
    if (start + i / kSlice < pixels) {
      to[i] = tile[i / kSlice][i % kSlice];
    }
  }
}

// The way back, from float.
template <typename T>
__global__ void __launch_bounds__(kSimpleThreads)
    unslice_kernel(const float* sliced, int batch, int channels, int64_t pixels, int first_slice,
                   bool nhwc, T* grad_input) {
  __shared__ float tile[kSlice][kSlice + 1];
  const int64_t start = int64_t{blockIdx.x} * kSlice;
  const int image = blockIdx.y % batch;
  const int slice = blockIdx.y / batch;
  const float* from = sliced + ((int64_t{slice} * batch + image) * pixels + start) * kSlice;
  const int channel = (first_slice + slice) * kSlice;
  if (nhwc) {
    T* to = grad_input + (int64_t{image} * pixels + start) * channels + channel;
#pragma unroll
    for (int i = threadIdx.x; i < kSlice * kSlice; i += kSimpleThreads) {
      if (start + i / kSlice < pixels) {
        to[int64_t{i / kSlice} * channels + i % kSlice] = narrow<T>(from[i]);
      }
    }
    return;
  }
  T* to = grad_input + (int64_t{image} * channels + channel) * pixels + start;
#pragma unroll
  for (int i = threadIdx.x; i < kSlice * kSlice; i += kSimpleThreads) {
    if (start + i / kSlice < pixels) {
      tile[i / kSlice][i % kSlice] = from[i];
    }
  }
  __syncthreads();
#pragma unroll
  for (int i = threadIdx.x; i < kSlice * kSlice; i += kSimpleThreads) {
    const int p = i % kSlice;
    if (start + p < pixels) {
      to[i / kSlice * pixels + p] = narrow<T>(tile[p][i / kSlice]);
    }
  }
}

template <typename T>
__global__ void __launch_bounds__(kSimpleThreads)
    narrow_kernel(const float* from, int64_t count, T* to) {
  const int64_t stride = int64_t{gridDim.x} * kSimpleThreads;
  for (int64_t i = int64_t{blockIdx.x} * kSimpleThreads + threadIdx.x; i < count; i += stride) {
    to[i] = narrow<T>(from[i]);
  }
}

int64_t align(int64_t bytes) { return divide_up(bytes, 256) * 256; }

// How the work space is divided, in bytes from its start.
struct Plan {
  int slices_at_once;
  int64_t largest;
  int64_t packed;
  int64_t offset_sums;
  int64_t mask_sums;
  int64_t input;
  int64_t grad_input;
  int64_t end;
};

Plan make_plan(const DeformConvShape& shape, int64_t element_size, Layout layout) {
  const int64_t pixels = shape.batch * shape.height * shape.width;
  const int64_t slices = shape.in_channels / kSlice;
  const int64_t taps = shape.kernel_h * shape.kernel_w;
  const int64_t points =
      shape.batch * shape.offset_groups * taps * shape.out_height * shape.out_width;
  const bool is_float = element_size == 4;
  const bool nhwc = layout == Layout::kNhwc;
  const bool whole = nhwc && is_float;
  Plan plan;
  plan.slices_at_once = static_cast<int>(
      whole ? slices
            : std::clamp<int64_t>(kMaxAccumulatorBytes / (pixels * kSlice * 4), 1, slices));
  const int64_t sliced = plan.slices_at_once * pixels * kSlice;
  int64_t at = 0;
  const auto take = [&](int64_t bytes) {
    const int64_t start = at;
    at += align(bytes);
    return start;
  };
  plan.largest = take(8);
  plan.packed = take(taps * shape.in_channels * divide_up(shape.out_channels, kDepth) * kDepth *
                     2 * (is_float ? 2 : 1));
  plan.offset_sums = take(is_float ? 0 : 2 * points * 4);
  plan.mask_sums = take(is_float ? 0 : points * 4);
  plan.input = take(nhwc ? 0 : sliced * element_size);
  plan.grad_input = take(whole ? 0 : sliced * 4);
  plan.end = at;
  return plan;
}

void check(cudaError_t status, const char* what) {
  if (status != cudaSuccess) {
    throw std::runtime_error(std::string(what) + ": " + cudaGetErrorString(status));
  }
}

template <typename T, int kPixels, int kWarpPixels, int kWarpChannels, int kStages, int kMinBlocks>
void launch(const Arguments<T>& args, Sizes sizes, int slices, cudaStream_t stream) {
  sizes.tiles_x = static_cast<int>(divide_up(sizes.out_width, kTileWidth));
  sizes.tiles_y = static_cast<int>(divide_up(sizes.out_height, kPixels / kTileWidth));
  constexpr int kThreads = (kPixels / kWarpPixels) * (kSlice / kWarpChannels) * 32;
  const auto kernel =
      scatter_kernel<T, kPixels, kWarpPixels, kWarpChannels, kStages, kMinBlocks>;
  const int bytes = static_cast<int>(shared_bytes<T, kPixels, kStages>(sizes.depth_steps));
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes),
        "deform_conv scatter_kernel");
  const dim3 grid(static_cast<unsigned int>(int64_t{sizes.batch} * sizes.tiles_x * sizes.tiles_y),
                  slices);
  kernel<<<grid, kThreads, bytes, stream>>>(args, sizes);
  check_launch("deform_conv scatter_kernel");
}

}  // namespace deform_conv_backward_data

#ifdef DCN_TUNE
int dcn_variant = 0;
#endif

bool deform_conv_fused_backward_data_supports(const DeformConvShape& shape, int64_t element_size) {
  using namespace deform_conv_backward_data;
  const int depth_steps = static_cast<int>(divide_up(shape.out_channels, kDepth));
  const int64_t bytes = element_size == 4 ? shared_bytes<float, 64, 2>(depth_steps)
                                          : shared_bytes<Half, 64, 2>(depth_steps);
  int device = 0;
  int limit = 0;
  cudaGetDevice(&device);
  cudaDeviceGetAttribute(&limit, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
  return shape.in_channels / shape.offset_groups % kSlice == 0 && bytes <= limit;
}

int64_t deform_conv_fused_backward_data_workspace(const DeformConvShape& shape,
                                                  int64_t element_size, Layout layout) {
  return deform_conv_backward_data::make_plan(shape, element_size, layout).end;
}

template <typename T>
void deform_conv_fused_backward_data(const T* grad_output, const T* input, const T* offset,
                                     const T* mask, const T* weight, const DeformConvShape& shape,
                                     Layout layout, void* workspace, T* grad_input, T* grad_offset,
                                     T* grad_mask, void* stream) {
  using namespace deform_conv_backward_data;
  const auto queue = static_cast<cudaStream_t>(stream);
  constexpr bool kFloat = std::is_same_v<T, float>;
  const Plan plan = make_plan(shape, sizeof(T), layout);
  char* const base = static_cast<char*>(workspace);
  const int64_t pixels = shape.height * shape.width;
  const int64_t all_pixels = shape.batch * pixels;
  const int slices = static_cast<int>(shape.in_channels / kSlice);
  const int taps = static_cast<int>(shape.kernel_h * shape.kernel_w);
  const int64_t points =
      shape.batch * shape.offset_groups * taps * shape.out_height * shape.out_width;
  const bool nhwc = layout == Layout::kNhwc;

  Sizes sizes;
  sizes.batch = shape.batch;
  sizes.channels = shape.in_channels;
  sizes.height = shape.height;
  sizes.width = shape.width;
  sizes.out_channels = shape.out_channels;
  sizes.out_height = shape.out_height;
  sizes.out_width = shape.out_width;
  sizes.kernel_w = shape.kernel_w;
  sizes.taps = taps;
  sizes.stride_h = shape.stride_h;
  sizes.stride_w = shape.stride_w;
  sizes.pad_h = shape.pad_h;
  sizes.pad_w = shape.pad_w;
  sizes.dilation_h = shape.dilation_h;
  sizes.dilation_w = shape.dilation_w;
  sizes.offset_groups = shape.offset_groups;
  sizes.slices_per_group = shape.in_channels / shape.offset_groups / kSlice;
  sizes.depth_steps = divide_up(shape.out_channels, kDepth);

  auto* const largest = reinterpret_cast<uint32_t*>(base + plan.largest);
  auto* const packed = reinterpret_cast<Operand<T>*>(base + plan.packed);
  if constexpr (kFloat) {
    check(cudaMemsetAsync(largest, 0, 8, queue), "deform_conv memset");
    const int64_t outputs =
        shape.batch * shape.out_channels * shape.out_height * shape.out_width;
    largest_kernel<<<std::min(grid_for(outputs, kSimpleThreads * 16), 1024u), kSimpleThreads, 0, queue>>>(
        grad_output, outputs, largest);
    const int64_t weights = shape.out_channels * shape.in_channels * taps;
    largest_kernel<<<std::min(grid_for(weights, kSimpleThreads * 4), 1024u), kSimpleThreads, 0, queue>>>(
        weight, weights, largest + 1);
    check_launch("deform_conv largest_kernel");
  }
  pack_kernel<T><<<grid_for(int64_t{taps} * shape.in_channels * sizes.depth_steps * kDepth,
                            kSimpleThreads),
                   kSimpleThreads, 0, queue>>>(weight, largest + 1, sizes.channels,
                                               sizes.out_channels, taps, sizes.depth_steps, packed);
  check_launch("deform_conv pack_kernel");

  Arguments<T> args;
  args.grad_output = grad_output;
  args.nhwc = nhwc;
  args.offset = offset;
  args.mask = mask;
  args.weight = packed;
  args.largest = largest;
  if constexpr (kFloat) {
    args.grad_offset = grad_offset;
    args.grad_mask = grad_mask;
  } else {
    args.grad_offset =
        grad_offset == nullptr ? nullptr : reinterpret_cast<float*>(base + plan.offset_sums);
    args.grad_mask =
        grad_mask == nullptr ? nullptr : reinterpret_cast<float*>(base + plan.mask_sums);
  }
  if (args.grad_offset != nullptr) {
    check(cudaMemsetAsync(args.grad_offset, 0, 2 * points * 4, queue), "deform_conv memset");
  }
  if (args.grad_mask != nullptr) {
    check(cudaMemsetAsync(args.grad_mask, 0, points * 4, queue), "deform_conv memset");
  }

  const bool direct = kFloat && nhwc;
  args.input_pixel_stride = nhwc ? sizes.channels : kSlice;
  args.input_slice_stride = nhwc ? kSlice : all_pixels * kSlice;
  args.grad_pixel_stride = direct ? sizes.channels : kSlice;
  args.grad_slice_stride = direct ? kSlice : all_pixels * kSlice;
  for (int first = 0; first < slices; first += plan.slices_at_once) {
    const int count = std::min(plan.slices_at_once, slices - first);
    const dim3 turn_grid(static_cast<unsigned int>(divide_up(pixels, kSlice)),
                         static_cast<unsigned int>(shape.batch * count));
    args.first_slice = first;
    args.grad_input = nullptr;
    if (grad_input != nullptr) {
      args.grad_input = reinterpret_cast<float*>(base + plan.grad_input);
      if constexpr (kFloat) {
        if (direct) {
          args.grad_input = grad_input;
        }
      }
      check(cudaMemsetAsync(args.grad_input, 0, count * all_pixels * kSlice * 4, queue),
            "deform_conv memset");
    }
    if (nhwc) {
      args.input = input + first * kSlice;
    } else {
      args.input = reinterpret_cast<T*>(base + plan.input);
      if (args.grad_offset != nullptr || args.grad_mask != nullptr) {
        slice_kernel<T><<<turn_grid, kSimpleThreads, 0, queue>>>(
            input, sizes.batch, sizes.channels, pixels, first,
            reinterpret_cast<T*>(base + plan.input));
        check_launch("deform_conv slice_kernel");
      }
    }
#ifdef DCN_TUNE
    if constexpr (kFloat) {
      switch (dcn_variant) {
        case 0: launch<T, 128, 16, 32, 3, 1>(args, sizes, count, queue); break;
        case 1: launch<T, 128, 32, 32, 3, 1>(args, sizes, count, queue); break;
        case 2: launch<T, 64, 16, 32, 2, 2>(args, sizes, count, queue); break;
        case 3: launch<T, 64, 16, 64, 2, 2>(args, sizes, count, queue); break;
        case 4: launch<T, 64, 16, 16, 2, 2>(args, sizes, count, queue); break;
        case 5: launch<T, 32, 16, 32, 2, 3>(args, sizes, count, queue); break;
      }
    } else {
      switch (dcn_variant) {
        case 0: launch<T, 128, 16, 64, 3, 2>(args, sizes, count, queue); break;
        case 1: launch<T, 128, 32, 32, 3, 2>(args, sizes, count, queue); break;
        case 2: launch<T, 128, 32, 64, 3, 2>(args, sizes, count, queue); break;
        case 3: launch<T, 64, 16, 64, 3, 3>(args, sizes, count, queue); break;
        case 4: launch<T, 64, 16, 32, 2, 4>(args, sizes, count, queue); break;
        case 5: launch<T, 64, 16, 32, 3, 3>(args, sizes, count, queue); break;
      }
    }
#else
    launch<T, 64, 16, 32, 2, 2>(args, sizes, count, queue);
#endif
    if (grad_input != nullptr && !direct) {
      unslice_kernel<T><<<turn_grid, kSimpleThreads, 0, queue>>>(
          args.grad_input, sizes.batch, sizes.channels, pixels, first, nhwc, grad_input);
      check_launch("deform_conv unslice_kernel");
    }
  }
  if constexpr (!kFloat) {
    if (grad_offset != nullptr) {
      narrow_kernel<T><<<grid_for(2 * points, kSimpleThreads), kSimpleThreads, 0, queue>>>(
          args.grad_offset, 2 * points, grad_offset);
    }
    if (grad_mask != nullptr) {
      narrow_kernel<T><<<grid_for(points, kSimpleThreads), kSimpleThreads, 0, queue>>>(
          args.grad_mask, points, grad_mask);
    }
    check_launch("deform_conv narrow_kernel");
  }
}

#define DETECTRON2_INSTANTIATE(T)                                                            \
  template void deform_conv_fused_backward_data<T>(                                          \
      const T*, const T*, const T*, const T*, const T*, const DeformConvShape&, Layout, void*, \
      T*, T*, T*, void*);
DETECTRON2_INSTANTIATE(float)
DETECTRON2_INSTANTIATE(Half)
DETECTRON2_INSTANTIATE(BFloat16)

}  // namespace detectron2
