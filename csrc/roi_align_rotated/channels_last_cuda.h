// The kernel that pools features whose channels are side by side in memory, and which pixels it
// needs in that form. Only .cu files include it.
//
// The lanes of a warp take neighbouring channels: all that concerns a sample is then the same for
// the warp, found once, and a pixel is read in one piece. Of channels that lie in planes a sample
// needs two short pieces of rows each, and most of what is fetched with them goes unused; that
// costs more than to bring all of a map into the other order first, once its pixels are sampled a
// few times each.

#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <type_traits>

#include "csrc/common/channels_last_cuda.h"
#include "csrc/common/dependent_launch_cuda.h"
#include "csrc/common/store_pooled_cuda.h"
#include "csrc/common/warp_cuda.h"
#include "csrc/roi_align_rotated/roi_align_rotated.h"
#include "csrc/roi_align_rotated/sampling.h"

namespace detectron2 {
namespace roi_align_rotated_detail {

// ---- RoIs ---------------------------------------------------------------------------------------

struct RoiRow {
  float values[kRoiSize];
};

__device__ __forceinline__ RoiRow load_row(const RoiRows& rois, int k) {
  const int64_t first = int64_t{k} * kRoiSize;
  RoiRow row;
#pragma unroll
  for (int i = 0; i < kRoiSize; ++i) {
    switch (rois.type) {
      case RoiType::kFloat:
        row.values[i] = static_cast<const float*>(rois.rows)[first + i];
        break;
      case RoiType::kHalf:
        row.values[i] = widen(static_cast<const Half*>(rois.rows)[first + i]);
        break;
      case RoiType::kBFloat16:
        row.values[i] = widen(static_cast<const BFloat16*>(rois.rows)[first + i]);
        break;
    }
  }
  return row;
}

// More of them are not looked at for each square.
constexpr int64_t kMaxTestedRois = 4096;

// Pixels side by side of one or more rows of an image, in the form that distances are taken from.
struct PixelBox {
  float left;
  float right;
  float top;
  float bottom;

  // The square of the distance to a point.
  __device__ __forceinline__ float distance2(float x, float y) const {
    const float beside = fmaxf(fmaxf(left - x, x - right), 0.0f);
    const float above = fmaxf(fmaxf(top - y, y - bottom), 0.0f);
    return beside * beside + above * above;
  }
};

// The pixels from `first` to `last` of an image: the end of a row and the start of the next one, or
// twice the same box.
struct PixelRun {
  PixelBox boxes[2];

  __device__ PixelRun(int first, int last, int width) {
    const int top = first / width;
    const int bottom = last / width;
    const int left = first - top * width;
    const int right = last - bottom * width;
    const float last_column = static_cast<float>(width - 1);
    const float rows[2] = {static_cast<float>(top), static_cast<float>(bottom)};
    if (top == bottom) {
      boxes[0] = {static_cast<float>(left), static_cast<float>(right), rows[0], rows[0]};
      boxes[1] = boxes[0];
    } else if (top + 1 == bottom) {
      boxes[0] = {static_cast<float>(left), last_column, rows[0], rows[0]};
      boxes[1] = {0.0f, static_cast<float>(right), rows[1], rows[1]};
    } else {
      boxes[0] = {0.0f, last_column, rows[0], rows[1]};
      boxes[1] = boxes[0];
    }
  }

  __device__ __forceinline__ float distance2(float x, float y) const {
    return fminf(boxes[0].distance2(x, y), boxes[1].distance2(x, y));
  }
};

// Whether a RoI can sample one of the pixels of the halves of a square: whether the circle about
// the RoI meets them. The margin is three pixels: samples up to a pixel outside the map are moved
// onto it, and read the next pixel, too; and some rounding. Bit 0 is for the first half, bit 1 for
// the second. For all threads of a block of kThreads.
template <int kThreads>
__device__ __forceinline__ unsigned int halves_near_roi(const RoiRows& rois, int64_t image,
                                                        int first_pixel, int last_pixel,
                                                        const RoiAlignRotatedShape& shape) {
  const int width = static_cast<int>(shape.width);
  const int middle = min(first_pixel + kHalfSquare, last_pixel);
  const PixelRun first_half(first_pixel, min(first_pixel + kHalfSquare - 1, last_pixel), width);
  const PixelRun second_half(middle, last_pixel, width);
  const float scale = static_cast<float>(shape.spatial_scale);
  const int num_rois = static_cast<int>(shape.num_rois);
  unsigned int halves = 0;
  for (int first = 0; first < num_rois && halves != 3; first += kThreads) {
    const int k = first + static_cast<int>(threadIdx.x);
    bool near_first = false;
    bool near_second = false;
    if (k < num_rois) {
      const RoiRow row = load_row(rois, k);
      const float center_x = row.values[1] * scale - 0.5f;
      const float center_y = row.values[2] * scale - 0.5f;
      const float diagonal =
          sqrtf(row.values[3] * row.values[3] + row.values[4] * row.values[4]) * scale;
      const float reach = diagonal * 0.50001f + 3;
      // Negated, so that a RoI with NaN is near.
      if (static_cast<int64_t>(row.values[0]) == image) {
        near_first = !(first_half.distance2(center_x, center_y) > reach * reach);
        near_second = !(second_half.distance2(center_x, center_y) > reach * reach);
      }
    }
    halves |= __syncthreads_or(near_first) ? 1u : 0u;
    halves |= __syncthreads_or(near_second) ? 2u : 0u;
  }
  return halves;
}

// The halves of squares to bring into the other order: those that a RoI may sample, or all if there
// are too many RoIs to look at. Pixels are counted in 32 bits.
struct SampledSquares {
  RoiRows rois;
  RoiAlignRotatedShape shape;

  __device__ unsigned int operator()(int64_t image, int64_t first_pixel, int64_t last_pixel) const {
    return shape.num_rois > kMaxTestedRois
               ? 3u
               : halves_near_roi<kSquareThreads>(rois, image, static_cast<int>(first_pixel),
                                                 static_cast<int>(last_pixel), shape);
  }
};

// ---- Pooling ------------------------------------------------------------------------------------

constexpr int kPoolThreads = 256;
constexpr int kPoolWarps = kPoolThreads / kWarp;
constexpr int kPoolBlocks = 4;  // of them on a multiprocessor, to hide the latency of loads

// All of the usual 7 x 7 bins with 2 x 2 samples each fit.
constexpr int kPoolSamples = 208;
constexpr int kPoolBins = 50;

// What a block that takes `words` words of each pixel for every lane keeps in shared memory.
template <typename T, int words>
struct PooledTile {
  RotatedRoi<float> roi;
  float scale;
  // Bins of a channel side by side, an odd number of them, so that lanes use different banks.
  alignas(16) T pooled[kWarp * words * kWordChannels<T> * (kPoolBins | 1)];
  int4 pixels[kPoolSamples];  // the first of them -1 for a sample outside the map
  float4 weights[kPoolSamples];
};

// Words side by side, read at once.
template <int words>
struct alignas(words * sizeof(uint32_t)) Words {
  uint32_t values[words];
};

// base + index * size: one instruction, which the compiler does not find by itself.
__device__ __forceinline__ const char* address_of(const char* base, int index, int size) {
  const char* result;
  asm("mad.wide.s32 %0, %1, %2, %3;" : "=l"(result) : "r"(index), "r"(size), "l"(base));
  return result;
}

__device__ __forceinline__ void add_word(uint32_t word, float weight, float (&sums)[1], float) {
  sums[0] += weight * __uint_as_float(word);
}
template <typename T>
__device__ __forceinline__ void add_word(uint32_t word, float weight, float (&sums)[2], T) {
  sums[0] += weight * widen(T{static_cast<uint16_t>(word)});
  sums[1] += weight * widen(T{static_cast<uint16_t>(word >> 16)});
}

__device__ __forceinline__ void find_corners(const RotatedRoi<float>& roi, int bin,
                                             int64_t sample_y, int64_t sample_x,
                                             const RoiAlignRotatedShape& shape, int4& pixels,
                                             float4& weights) {
  const int bin_y = bin / static_cast<int>(shape.pooled_width);
  const int bin_x = bin % static_cast<int>(shape.pooled_width);
  const SamplePoint<float> point =
      sample_point(roi, static_cast<float>(bin_y), static_cast<float>(bin_x),
                   static_cast<float>(sample_y), static_cast<float>(sample_x), shape);
  const int width = static_cast<int>(shape.width);
  const int top = static_cast<int>(point.y);
  const int left = static_cast<int>(point.x);
  const int below = min(top + 1, static_cast<int>(shape.height) - 1);
  const int next = min(left + 1, width - 1);
  const float part_y = point.y - static_cast<float>(top);
  const float part_x = point.x - static_cast<float>(left);
  pixels = {point.inside ? top * width + left : -1, top * width + next, below * width + left,
            below * width + next};
  weights = {(1 - part_y) * (1 - part_x), (1 - part_y) * part_x, part_y * (1 - part_x),
             part_y * part_x};
}

// A block takes a RoI and kWarp * words words of each pixel. It finds the samples of some bins,
// then each warp takes some of these bins; `tile_bins` bins are written at a time. It may depend on
// the kernel that brings the features' channels side by side.
template <typename T, int words>
__global__ void __launch_bounds__(kPoolThreads, kPoolBlocks)
    pool_channels_last_kernel(const uint32_t* features, int pixel_words, RoiRows rois,
                              const __grid_constant__ RoiAlignRotatedShape shape, int tile_bins,
                              T* pooled) {
  extern __shared__ uint4 shared[];
  auto& tile = *reinterpret_cast<PooledTile<T, words>*>(shared);
  constexpr int kWords = kWordChannels<T>;
  constexpr int kBlockChannels = kWarp * words * kWords;
  const int warp = threadIdx.x / kWarp;
  const int lane = threadIdx.x % kWarp;
  const int num_rois = static_cast<int>(shape.num_rois);
  const int k = blockIdx.x % num_rois;
  const int64_t first_channel = int64_t{blockIdx.x / num_rois} * kBlockChannels;
  const int channels =
      static_cast<int>(min(shape.channels - first_channel, int64_t{kBlockChannels}));
  const int bins = static_cast<int>(shape.pooled_height * shape.pooled_width);
  pooled += (k * shape.channels + first_channel) * bins;

  if (warp == 0) {
    const RotatedRoi<float> roi = load_rotated_roi(load_row(rois, k).values, shape);
    if (lane == 0) {
      tile.roi = roi;
      tile.scale = sample_weight(roi);
    }
  }
  __syncthreads();
  wait_for_dependency();
  const RotatedRoi<float>& roi = tile.roi;
  const int64_t bin_samples = roi.samples_y * roi.samples_x;
  if (roi.batch_index < 0 || bin_samples == 0) {
    for (int i = threadIdx.x; i < channels * bins; i += kPoolThreads) {
      pooled[i] = narrow<T>(0.0f);
    }
    return;
  }
  // Lanes beyond the last channel read what others read.
  const int first_word = static_cast<int>(first_channel / kWords);
  const char* const image = reinterpret_cast<const char*>(
      features + roi.batch_index * shape.height * shape.width * pixel_words +
      min(first_word + lane * words, pixel_words - words));
  const int pixel_bytes = pixel_words * static_cast<int>(sizeof(uint32_t));
  // Samples are found for `group` bins at a time: all of their samples, or a slab of those of a bin
  // for each warp.
  const bool slabs = bin_samples > kPoolSamples / kPoolWarps;
  const int slab = slabs ? kPoolSamples / kPoolWarps : static_cast<int>(bin_samples);
  const int group = slabs ? kPoolWarps : kPoolSamples / slab;

  for (int first_bin = 0; first_bin < bins; first_bin += tile_bins) {
    const int num_bins = min(bins - first_bin, tile_bins);
    const int stride = num_bins | 1;
    for (int first = 0; first < num_bins; first += group) {
      const int group_bins = min(group, num_bins - first);
      float sums[words][kWords] = {};
      for (int64_t done = 0; done < bin_samples; done += slab) {
        const int samples = static_cast<int>(min(bin_samples - done, int64_t{slab}));
        for (int i = threadIdx.x; i < group_bins * samples; i += kPoolThreads) {
          const int bin = first_bin + first + i / samples;
          const int sample = i % samples;
          if (slabs) {
            find_corners(roi, bin, (done + sample) / roi.samples_x, (done + sample) % roi.samples_x,
                         shape, tile.pixels[i], tile.weights[i]);
          } else {
            const int samples_x = static_cast<int>(roi.samples_x);
            find_corners(roi, bin, sample / samples_x, sample % samples_x, shape, tile.pixels[i],
                         tile.weights[i]);
          }
        }
        __syncthreads();
        for (int bin = warp; bin < group_bins; bin += kPoolWarps) {
#pragma unroll 2
          for (int i = bin * samples; i < (bin + 1) * samples; ++i) {
            const int4 pixels = tile.pixels[i];
            const float4 weights = tile.weights[i];
            const auto load = [&](int pixel) {
              return pixels.x >= 0 ? *reinterpret_cast<const Words<words>*>(
                                         address_of(image, pixel, pixel_bytes))
                                   : Words<words>{};
            };
            const Words<words> corners[4] = {load(pixels.x), load(pixels.y), load(pixels.z),
                                             load(pixels.w)};
#pragma unroll
            for (int word = 0; word < words; ++word) {
              add_word(corners[0].values[word], weights.x, sums[word], T{});
              add_word(corners[1].values[word], weights.y, sums[word], T{});
              add_word(corners[2].values[word], weights.z, sums[word], T{});
              add_word(corners[3].values[word], weights.w, sums[word], T{});
            }
          }
          if (done + samples == bin_samples) {
            const float scale = tile.scale;
#pragma unroll
            for (int word = 0; word < words; ++word) {
#pragma unroll
              for (int j = 0; j < kWords; ++j) {
                const int channel = (lane * words + word) * kWords + j;
                tile.pooled[channel * stride + first + bin] = narrow<T>(sums[word][j] * scale);
                sums[word][j] = 0;
              }
            }
          }
        }
        __syncthreads();
      }
    }
    store_pooled<kPoolThreads>(tile.pooled, channels, num_bins, bins, pooled + first_bin);
    if (first_bin + tile_bins < bins) {
      __syncthreads();
    }
  }
}

}  // namespace roi_align_rotated_detail
}  // namespace detectron2
