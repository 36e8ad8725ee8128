// The backward kernel. Only .cu files include it.
//
// A block adds up what a tile's bins give to each pixel of its window in shared memory, without
// atomics, and adds the window to the gradient of the features with one atomic for each pixel and
// channel, neighbouring threads at neighbouring pixels. Spreading each sample by itself takes 784
// atomics for 7 x 7 bins with 2 x 2 samples each, on often a third as many pixels.

#pragma once

#include "csrc/roi_align_rotated/tile_cuda.h"

namespace detectron2 {
namespace roi_align_rotated_detail {

// Passes over a warp's number of channels that a block makes with a layout.
constexpr int kBackwardPasses = 2;
constexpr int kBackwardChannels = kBackwardPasses * kWarp;

// Values of a pixel or a bin, a channel for each lane, and one more: so threads with neighbouring
// pixels use different banks, as do threads with neighbouring channels.
constexpr int kPixelStride = kWarp + 1;

// What a bin gives to a pixel.
struct Share {
  float weight;
  int bin;
};

struct BackwardTile {
  TilePlan plan;
  Window window;
  int bin_offsets[kTileBins];  // into a channel of the pooled features
  // Shares sorted by pixel: those of pixel i start at first_share[i].
  Share shares[4 * kTileSamples];
  int first_share[kTilePixels + 1];
  union {
    struct {
      Samples samples;
      int num_shares[kTilePixels];
      int4 ranks[kTileSamples];  // of a sample's shares among those of their pixel
    };
    float grads[kTileBins * kPixelStride];  // once the shares are sorted
  };
  float pixels[kTilePixels * kPixelStride];
};

// Sorts what the bins of a tile give by pixel. After lay_out_tile and a barrier.
__device__ inline void sort_shares(int num_samples, int bin_samples, BackwardTile& tile) {
  const int num_pixels = tile.window.num_pixels;
  for (int i = threadIdx.x; i < num_pixels; i += kTileThreads) {
    tile.num_shares[i] = 0;
  }
  __syncthreads();
  for (int i = threadIdx.x; i < num_samples; i += kTileThreads) {
    const int2 at = tile.samples.pixels[i];
    if (at.x >= 0) {
      tile.ranks[i] = {
          atomicAdd(&tile.num_shares[at.x], 1), atomicAdd(&tile.num_shares[at.x + 1], 1),
          atomicAdd(&tile.num_shares[at.y], 1), atomicAdd(&tile.num_shares[at.y + 1], 1)};
    }
  }
  __syncthreads();
  if (threadIdx.x < kWarp) {
    const int sum = warp_prefix_sums(
        num_pixels, [&](int pixel) { return tile.num_shares[pixel]; },
        [&](int pixel, int first) { tile.first_share[pixel] = first; });
    if (threadIdx.x == 0) {
      tile.first_share[num_pixels] = sum;
    }
  }
  __syncthreads();
  for (int i = threadIdx.x; i < num_samples; i += kTileThreads) {
    const int2 at = tile.samples.pixels[i];
    if (at.x >= 0) {
      const int bin = i / bin_samples;
      const float4 weights = tile.samples.weights[i];
      const int4 ranks = tile.ranks[i];
      tile.shares[tile.first_share[at.x] + ranks.x] = Share{weights.x, bin};
      tile.shares[tile.first_share[at.x + 1] + ranks.y] = Share{weights.y, bin};
      tile.shares[tile.first_share[at.y] + ranks.z] = Share{weights.z, bin};
      tile.shares[tile.first_share[at.y + 1] + ranks.w] = Share{weights.w, bin};
    }
  }
}

// Reads the gradients of a tile's bins, of the first `channels` lanes' channels.
template <typename T>
__device__ void load_grads(const T* grad_pooled, int num_bins, int channels, int64_t bins,
                           float weight, BackwardTile& tile) {
  const int step_channels = kTileThreads / num_bins;
  const int step_bins = kTileThreads % num_bins;
  int channel = static_cast<int>(threadIdx.x) / num_bins;
  int bin = static_cast<int>(threadIdx.x) % num_bins;
  while (channel < channels) {
    tile.grads[bin * kPixelStride + channel] =
        widen(grad_pooled[channel * bins + tile.bin_offsets[bin]]) * weight;
    channel += step_channels;
    bin += step_bins;
    if (bin >= num_bins) {
      bin -= num_bins;
      ++channel;
    }
  }
}

// Adds up what each pixel is given; a warp takes a pixel, a lane a channel.
__device__ inline void sum_shares(BackwardTile& tile) {
  const int lane = threadIdx.x % kWarp;
  for (int pixel = threadIdx.x / kWarp; pixel < tile.window.num_pixels; pixel += kTileWarps) {
    const int end = tile.first_share[pixel + 1];
    float sum = 0;
#pragma unroll 4
    for (int i = tile.first_share[pixel]; i < end; ++i) {
      const Share share = tile.shares[i];
      sum += share.weight * tile.grads[share.bin * kPixelStride + lane];
    }
    tile.pixels[pixel * kPixelStride + lane] = sum;
  }
}

// Adds the window to the gradients of `channels` channels, planes of the features.
__device__ inline void add_pixels(const BackwardTile& tile, int channels, int64_t plane,
                                  float* planes) {
  const int lane = threadIdx.x % kWarp;
  for (int pixel = lane; pixel < tile.window.num_pixels; pixel += kWarp) {
    float* const at = planes + tile.window.offsets[pixel];
#pragma unroll 4
    for (int channel = threadIdx.x / kWarp; channel < channels; channel += kTileWarps) {
      atomicAdd(at + channel * plane, tile.pixels[pixel * kPixelStride + channel]);
    }
  }
}

// Spreads the gradients of bins sample by sample. Not inlined: its registers would be taken from
// what all RoIs need.
template <typename T>
__device__ __noinline__ void spread_bins(const T* grad_pooled, const RotatedRoi<float>& roi,
                                         BinRange range, int channels,
                                         const RoiAlignRotatedShape& shape, float* planes) {
  const int64_t plane = shape.height * shape.width;
  const int64_t bins = shape.pooled_height * shape.pooled_width;
  const int64_t range_bins = int64_t{range.height} * range.width;
  const float weight = sample_weight(roi);
  for (int64_t i = threadIdx.x; i < range_bins * channels; i += kTileThreads) {
    const int64_t channel = i / range_bins;
    const int64_t bin_y = range.y + i % range_bins / range.width;
    const int64_t bin_x = range.x + i % range_bins % range.width;
    const float grad =
        widen(grad_pooled[channel * bins + bin_y * shape.pooled_width + bin_x]) * weight;
    float* const pixels = planes + channel * plane;
    for (int64_t sample_y = 0; sample_y < roi.samples_y; ++sample_y) {
      for (int64_t sample_x = 0; sample_x < roi.samples_x; ++sample_x) {
        const BilinearSample<float> sample =
            bilinear_sample(roi, bin_y, bin_x, sample_y, sample_x, shape);
        if (sample.inside) {
#pragma unroll
          for (int corner = 0; corner < 4; ++corner) {
            atomicAdd(pixels + sample.offset[corner], sample.weight[corner] * grad);
          }
        }
      }
    }
  }
}

// A block takes a RoI and kBackwardChannels channels.
template <typename T>
__global__ void __launch_bounds__(kTileThreads, 3)
    backward_tile_kernel(const T* grad_pooled, const float* rois,
                         const __grid_constant__ RoiAlignRotatedShape shape, float* grad_features) {
  extern __shared__ uint4 shared[];
  BackwardTile& tile = *reinterpret_cast<BackwardTile*>(shared);
  const int64_t k = blockIdx.x % shape.num_rois;
  const int64_t first_channel = blockIdx.x / shape.num_rois * kBackwardChannels;
  const int channels =
      static_cast<int>(min(shape.channels - first_channel, int64_t{kBackwardChannels}));
  const int64_t plane = shape.height * shape.width;
  const int64_t bins = shape.pooled_height * shape.pooled_width;
  grad_pooled += (k * shape.channels + first_channel) * bins;

  if (threadIdx.x < kWarp) {
    const TilePlan plan = plan_tiles(rois + k * kRoiSize, shape);
    if (threadIdx.x == 0) {
      tile.plan = plan;
    }
  }
  __syncthreads();
  const RotatedRoi<float>& roi = tile.plan.roi;
  if (roi.batch_index < 0 || roi.samples_y == 0 || roi.samples_x == 0) {
    return;
  }
  float* const planes = grad_features + (roi.batch_index * shape.channels + first_channel) * plane;
  const int pooled_height = static_cast<int>(shape.pooled_height);
  const int pooled_width = static_cast<int>(shape.pooled_width);
  const int tile_height = tile.plan.height;
  const int tile_width = tile.plan.width;
  if (tile_height == 0) {
    spread_bins(grad_pooled, roi, {0, 0, pooled_height, pooled_width}, channels, shape, planes);
    return;
  }
  const int bin_samples = static_cast<int>(roi.samples_y * roi.samples_x);
  const float weight = sample_weight(roi);
  for (int y = 0; y < pooled_height; y += tile_height) {
    for (int x = 0; x < pooled_width; x += tile_width) {
      const BinRange range = {y, x, min(tile_height, pooled_height - y),
                              min(tile_width, pooled_width - x)};
      const int num_bins = range.height * range.width;
      if (!lay_out_tile(roi, range, shape, tile.samples, tile.window)) {
        spread_bins(grad_pooled, roi, range, channels, shape, planes);
        __syncthreads();
        continue;
      }
      for (int i = threadIdx.x; i < num_bins; i += kTileThreads) {
        tile.bin_offsets[i] = (y + i / range.width) * pooled_width + x + i % range.width;
      }
      __syncthreads();
      sort_shares(num_bins * bin_samples, bin_samples, tile);
      __syncthreads();
      for (int pass = 0; pass < channels; pass += kWarp) {
        const int pass_channels = min(kWarp, channels - pass);
        load_grads(grad_pooled + pass * bins, num_bins, pass_channels, bins, weight, tile);
        __syncthreads();
        sum_shares(tile);
        __syncthreads();
        add_pixels(tile, pass_channels, plane, planes + pass * plane);
      }
      __syncthreads();
    }
  }
}

}  // namespace roi_align_rotated_detail
}  // namespace detectron2
