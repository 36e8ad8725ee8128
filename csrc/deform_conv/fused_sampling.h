// How the fused kernels of the deformable convolution order pixels, prepare the input and sample
// it. Only .cu files include it.
//
// Samples are read as lines of 128 bytes, the neighbouring channels of a pixel: the input is packed
// as (batch, height * width, offset group, channels of the group filled up with zeros to whole
// lines), which a channels-last tensor may be as it is.

#pragma once

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdint>

#include "csrc/common/cuda_launch.h"
#include "csrc/common/half.h"
#include "csrc/deform_conv/fused.h"
#include "csrc/deform_conv/shape.h"
#include "csrc/deform_conv/tensor_core.h"

namespace detectron2 {
namespace deform_conv_fused {

constexpr int kLineBytes = 128;
constexpr int kLineVectors = 8;  // of 16 bytes
constexpr int64_t kAlignment = 256;

template <typename T>
constexpr int kLineChannels = kLineBytes / static_cast<int>(sizeof(T));

inline int64_t align_up(int64_t bytes) { return divide_up(bytes, kAlignment) * kAlignment; }

// Lines of one pixel and offset group.
inline int64_t lines_per_group(const DeformConvShape& shape, int64_t element_size) {
  return divide_up(shape.in_channels / shape.offset_groups * element_size, kLineBytes);
}

inline bool is_packed(const DeformConvShape& shape, int64_t element_size, Layout layout) {
  return layout == Layout::kNhwc &&
         shape.in_channels / shape.offset_groups * element_size % kLineBytes == 0;
}

inline int64_t packed_image_bytes(const DeformConvShape& shape, int64_t element_size) {
  return shape.height * shape.width * shape.offset_groups * lines_per_group(shape, element_size) *
         kLineBytes;
}

inline int device_attribute(cudaDeviceAttr attribute) {
  int device = 0;
  int value = 0;
  cudaGetDevice(&device);
  cudaDeviceGetAttribute(&value, attribute, device);
  return value;
}

// The order in which output pixels are worked on: down strips about 16 pixels wide, row by row, so
// that the samples of neighbours in the order lie near one another both ways and caches hold them.
struct PixelOrder {
  int height;
  int width;
  int strips;
};

constexpr int kStripWidth = 16;

inline PixelOrder pixel_order(const DeformConvShape& shape) {
  const int width = static_cast<int>(shape.out_width);
  return {static_cast<int>(shape.out_height), width,
          std::max(1, (width + kStripWidth / 2) / kStripWidth)};
}

struct Pixel {
  int y;
  int x;
};

// `index` in [0, height * width).
__device__ __forceinline__ Pixel pixel_at(const PixelOrder& order, int index) {
  const int full_strip = order.height * kStripWidth;
  int strip = index / full_strip;
  strip = strip < order.strips ? strip : order.strips - 1;
  const int rest = index - strip * full_strip;
  const int width = strip == order.strips - 1 ? order.width - strip * kStripWidth : kStripWidth;
  const int y = width == kStripWidth ? rest / kStripWidth : rest / width;
  return {y, strip * kStripWidth + rest - y * width};
}

// The sizes that sampling needs, as 32-bit numbers: an image has fewer than 2^29 pixels.
struct SamplingShape {
  int height;
  int width;
  int kernel_w;
  int taps;
  int stride_h;
  int stride_w;
  int pad_h;
  int pad_w;
  int dilation_h;
  int dilation_w;
  int offset_groups;
};

inline SamplingShape sampling_shape(const DeformConvShape& shape) {
  return {static_cast<int>(shape.height),       static_cast<int>(shape.width),
          static_cast<int>(shape.kernel_w),     static_cast<int>(shape.kernel_h * shape.kernel_w),
          static_cast<int>(shape.stride_h),     static_cast<int>(shape.stride_w),
          static_cast<int>(shape.pad_h),        static_cast<int>(shape.pad_w),
          static_cast<int>(shape.dilation_h),   static_cast<int>(shape.dilation_w),
          static_cast<int>(shape.offset_groups)};
}

// Where a sample comes from: four times the index of its first pixel, plus 1 if the right
// neighbour differs from it and 2 if the one below does; kNowhere for a point outside the input.
constexpr uint32_t kNowhere = 0xfffffffcu;

struct SamplePoint {
  uint32_t corner;
  float4 weights;  // of the corners, row by row, times the mask
};

// Where a tap samples for an output pixel, as it is in memory.
template <typename T>
struct OffsetPoint {
  int y;  // without the offset
  int x;
  T offset_y;
  T offset_x;
  T mask;
};

template <typename T>
__device__ __forceinline__ OffsetPoint<T> load_point(const T* offset, const T* mask,
                                                     const SamplingShape& shape,
                                                     const PixelOrder& order, int64_t image,
                                                     int group, int tap, const Pixel& pixel) {
  const int64_t plane = int64_t{order.height} * order.width;
  const int64_t at = int64_t{pixel.y} * order.width + pixel.x;
  const int64_t map = (image * shape.offset_groups + group) * shape.taps + tap;
  const int tap_y = tap / shape.kernel_w;
  const int tap_x = tap - tap_y * shape.kernel_w;
  OffsetPoint<T> point;
  point.y = pixel.y * shape.stride_h - shape.pad_h + tap_y * shape.dilation_h;
  point.x = pixel.x * shape.stride_w - shape.pad_w + tap_x * shape.dilation_w;
  point.offset_y = offset[2 * map * plane + at];
  point.offset_x = offset[(2 * map + 1) * plane + at];
  point.mask = mask == nullptr ? narrow<T>(1.0f) : mask[map * plane + at];
  return point;
}

// Corners outside the input are moved to their neighbour inside, with weight zero: no pixel is read
// that has no part in the sample.
template <typename T>
__device__ __forceinline__ SamplePoint sample_point(const OffsetPoint<T>& from,
                                                    const SamplingShape& shape) {
  const float y = static_cast<float>(from.y) + widen(from.offset_y);
  const float x = static_cast<float>(from.x) + widen(from.offset_x);
  const float scale = widen(from.mask);
  SamplePoint point;
  // False for NaN.
  if (y > -1 && x > -1 && y < static_cast<float>(shape.height) &&
      x < static_cast<float>(shape.width)) {
    const float floor_y = floorf(y);
    const float floor_x = floorf(x);
    const int top = static_cast<int>(floor_y);
    const int left = static_cast<int>(floor_x);
    const float low_y = y - floor_y;
    const float low_x = x - floor_x;
    const float high_y = top < 0 ? 0.0f : 1 - low_y;
    const float high_x = left < 0 ? 0.0f : 1 - low_x;
    const float bottom_y = top + 1 < shape.height ? low_y : 0.0f;
    const float right_x = left + 1 < shape.width ? low_x : 0.0f;
    point.weights = {scale * (high_y * high_x), scale * (high_y * right_x),
                     scale * (bottom_y * high_x), scale * (bottom_y * right_x)};
    const uint32_t first = static_cast<uint32_t>(max(top, 0) * shape.width + max(left, 0));
    const bool right = left >= 0 && left + 1 < shape.width;
    const bool below = top >= 0 && top + 1 < shape.height;
    point.corner = first << 2 | (right ? 1u : 0u) | (below ? 2u : 0u);
  } else {
    const float zero = 0 * scale;  // NaN if the mask is
    point.weights = {zero, zero, zero, zero};
    point.corner = kNowhere;
  }
  return point;
}

// The same 16 bytes of the four corners of a sample.
struct Corners {
  uint4 value[4];
};

// `line` is the vector at pixel 0, `zeros` a line of zeros.
__device__ __forceinline__ void load_corners(Corners& corners, const char* line, const char* zeros,
                                             uint32_t corner, uint32_t pixel_bytes,
                                             uint32_t row_bytes) {
  const char* first = line + static_cast<uint64_t>(corner >> 2) * pixel_bytes;
  first = corner == kNowhere ? zeros : first;
  const char* second = first + ((corner & 2) != 0 ? row_bytes : 0);
  const uint32_t right = (corner & 1) != 0 ? pixel_bytes : 0;
  corners.value[0] = __ldg(reinterpret_cast<const uint4*>(first));
  corners.value[1] = __ldg(reinterpret_cast<const uint4*>(first + right));
  corners.value[2] = __ldg(reinterpret_cast<const uint4*>(second));
  corners.value[3] = __ldg(reinterpret_cast<const uint4*>(second + right));
}

__device__ __forceinline__ uint32_t word(const uint4& value, int index) {
  return index == 0 ? value.x : index == 1 ? value.y : index == 2 ? value.z : value.w;
}

// Samples of 16 bytes' worth of channels, in float32.
template <typename T>
__device__ __forceinline__ void interpolate(float (&sample)[16 / sizeof(T)], const Corners& corners,
                                            const float4& weights) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if constexpr (sizeof(T) == 4) {
      float sum = weights.x * __uint_as_float(word(corners.value[0], i));
      sum += weights.y * __uint_as_float(word(corners.value[1], i));
      sum += weights.z * __uint_as_float(word(corners.value[2], i));
      sum += weights.w * __uint_as_float(word(corners.value[3], i));
      sample[i] = sum;
    } else {
      float low = weights.x * unpack_low<T>(word(corners.value[0], i));
      float high = weights.x * unpack_high<T>(word(corners.value[0], i));
      low += weights.y * unpack_low<T>(word(corners.value[1], i));
      high += weights.y * unpack_high<T>(word(corners.value[1], i));
      low += weights.z * unpack_low<T>(word(corners.value[2], i));
      high += weights.z * unpack_high<T>(word(corners.value[2], i));
      low += weights.w * unpack_low<T>(word(corners.value[3], i));
      high += weights.w * unpack_high<T>(word(corners.value[3], i));
      sample[2 * i] = low;
      sample[2 * i + 1] = high;
    }
  }
}

// Bits of the magnitude, which order as it does; zero if it is not finite.
__device__ __forceinline__ uint32_t finite_magnitude(float value) {
  const uint32_t bits = __float_as_uint(value) & 0x7fffffffu;
  return bits < 0x7f800000u ? bits : 0u;
}

__device__ __forceinline__ uint32_t largest_in_warp(uint32_t value) {
#pragma unroll
  for (int lanes = 16; lanes > 0; lanes /= 2) {
    value = max(value, __shfl_xor_sync(0xffffffffu, value, lanes));
  }
  return value;
}

constexpr int kPackThreads = 256;

// Pixels of a line that a block packs: 32 pairs, or 32 of float32.
template <typename T>
constexpr int kPackPixels = 128 / static_cast<int>(sizeof(T));

// How the input is packed, a line of kPackPixels pixels a block.
template <typename T>
struct InputPacking {
  const T* input;
  int64_t pixels;
  int group_channels;
  int group_lines;
  int lines;  // of a pixel
  int64_t image_stride;
  int64_t channel_stride;
  int64_t pixel_stride;
  bool pairs;  // two pixels of half precision can be read at a time
  uint32_t* largest;
  uint4* packed;
};

// `input` is in `layout`. Bits of the largest finite magnitude of each (packed) channel of float32
// go to `largest`, which starts as zeros, if it is not null.
template <typename T>
InputPacking<T> input_packing(const T* input, const DeformConvShape& shape, Layout layout,
                              uint32_t* largest, void* packed) {
  const bool channels_last = layout == Layout::kNhwc;
  const int64_t lines = lines_per_group(shape, sizeof(T));
  InputPacking<T> packing;
  packing.input = input;
  packing.pixels = shape.height * shape.width;
  packing.group_channels = static_cast<int>(shape.in_channels / shape.offset_groups);
  packing.group_lines = static_cast<int>(lines);
  packing.lines = static_cast<int>(shape.offset_groups * lines);
  packing.image_stride = shape.in_channels * packing.pixels;
  packing.channel_stride = channels_last ? 1 : packing.pixels;
  packing.pixel_stride = channels_last ? shape.in_channels : 1;
  packing.pairs = !channels_last && packing.pixels % 2 == 0 &&
                  reinterpret_cast<uintptr_t>(input) % sizeof(uint32_t) == 0;
  packing.largest = largest;
  packing.packed = static_cast<uint4*>(packed);
  return packing;
}

// Blocks that some images take.
template <typename T>
int64_t packing_blocks(const InputPacking<T>& packing, int64_t images) {
  return divide_up(packing.pixels, kPackPixels<T>) * packing.lines * images;
}

// Where a block packs. Blocks are numbered by image, by line, by pixels.
struct PackedLine {
  int64_t image;
  int line;  // of a pixel
  int64_t first_pixel;
  int first_channel;  // of the offset group
  int64_t start;      // of that channel of the image, in elements
};

template <typename T>
__device__ __forceinline__ PackedLine packed_line(const InputPacking<T>& packing, uint32_t block) {
  const uint32_t rows =
      static_cast<uint32_t>((packing.pixels + kPackPixels<T> - 1) / kPackPixels<T>);
  const uint32_t column = block / rows;
  PackedLine place;
  place.image = column / packing.lines;
  place.line = static_cast<int>(column % packing.lines);
  place.first_pixel = int64_t{block - column * rows} * kPackPixels<T>;
  const int group = place.line / packing.group_lines;
  place.first_channel = (place.line - group * packing.group_lines) * kLineChannels<T>;
  place.start =
      place.image * packing.image_stride +
      (int64_t{group} * packing.group_channels + place.first_channel) * packing.channel_stride;
  return place;
}

__device__ __forceinline__ void pack_input(const InputPacking<float>& packing, uint32_t block) {
  constexpr int kChannels = kLineChannels<float>;
  constexpr int kPixels = kPackPixels<float>;
  __shared__ float tile[kChannels][kPixels + 1];
  __shared__ uint32_t line_largest[kChannels];
  const PackedLine place = packed_line(packing, block);
  const int64_t first = place.first_pixel;
  const int lane = threadIdx.x % kPixels;
  const float* const line = packing.input + place.start;
#pragma unroll
  for (int i = 0; i < kChannels * kPixels / kPackThreads; ++i) {
    const int channel = threadIdx.x / kPixels + i * (kPackThreads / kPixels);
    float value = 0;
    if (place.first_channel + channel < packing.group_channels && first + lane < packing.pixels) {
      value = line[channel * packing.channel_stride + (first + lane) * packing.pixel_stride];
    }
    tile[channel][lane] = value;
    if (packing.largest != nullptr) {
      const uint32_t bits = largest_in_warp(finite_magnitude(value));
      if (lane == 0) {
        line_largest[channel] = bits;
      }
    }
  }
  __syncthreads();
  // Most blocks find a larger one there already, and a look costs less than an atomic.
  if (packing.largest != nullptr && threadIdx.x < kChannels) {
    uint32_t* known = packing.largest + place.line * kChannels + threadIdx.x;
    if (line_largest[threadIdx.x] > __ldcg(known)) {
      atomicMax(known, line_largest[threadIdx.x]);
    }
  }
  const int pixel = threadIdx.x / kLineVectors;
  const int vector = threadIdx.x % kLineVectors;
  if (first + pixel < packing.pixels) {
    const float4 values = {tile[vector * 4][pixel], tile[vector * 4 + 1][pixel],
                           tile[vector * 4 + 2][pixel], tile[vector * 4 + 3][pixel]};
    float4* const packed = reinterpret_cast<float4*>(packing.packed);
    packed[((place.image * packing.pixels + first + pixel) * packing.lines + place.line) *
               kLineVectors +
           vector] = values;
  }
}

// Half precision goes in pairs of pixels.
template <typename T>
__device__ __forceinline__ void pack_input(const InputPacking<T>& packing, uint32_t block) {
  constexpr int kChannels = kLineChannels<T>;
  constexpr int kPairs = kPackPixels<T> / 2;
  static_assert(kPairs * kLineVectors == kPackThreads);
  __shared__ uint32_t tile[kChannels][kPairs + 1];
  const PackedLine place = packed_line(packing, block);
  const int lane = threadIdx.x % kPairs;
  const int64_t pixel = place.first_pixel + 2 * lane;
  const T* const line = packing.input + place.start + pixel * packing.pixel_stride;
#pragma unroll
  for (int i = 0; i < kChannels * kPairs / kPackThreads; ++i) {
    const int channel = threadIdx.x / kPairs + i * (kPackThreads / kPairs);
    const T* const at = line + channel * packing.channel_stride;
    uint32_t pair = 0;
    if (place.first_channel + channel < packing.group_channels && pixel < packing.pixels) {
      if (packing.pairs) {
        pair = *reinterpret_cast<const uint32_t*>(at);
      } else {
        pair = at->bits;
        if (pixel + 1 < packing.pixels) {
          pair |= static_cast<uint32_t>(at[packing.pixel_stride].bits) << 16;
        }
      }
    }
    tile[channel][lane] = pair;
  }
  __syncthreads();
  const int pair = threadIdx.x / kLineVectors;
  const int vector = threadIdx.x % kLineVectors;
  uint32_t left[4];
  uint32_t right[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const uint32_t low = tile[vector * 8 + 2 * i][pair];
    const uint32_t high = tile[vector * 8 + 2 * i + 1][pair];
    left[i] = __byte_perm(low, high, 0x5410);
    right[i] = __byte_perm(low, high, 0x7632);
  }
  const int64_t first = place.first_pixel + 2 * pair;
  uint4* const packed =
      packing.packed +
      ((place.image * packing.pixels + first) * packing.lines + place.line) * kLineVectors + vector;
  if (first < packing.pixels) {
    packed[0] = {left[0], left[1], left[2], left[3]};
  }
  if (first + 1 < packing.pixels) {
    packed[int64_t{packing.lines} * kLineVectors] = {right[0], right[1], right[2], right[3]};
  }
}

}  // namespace deform_conv_fused
}  // namespace detectron2
