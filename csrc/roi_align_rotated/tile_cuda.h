// How a block of threads works on one RoI with the pixels that it samples in shared memory. Only
// .cu files include it.
//
// A tile is a rectangle of the RoI's bins, all of them if they fit. Its samples lie in a turned
// rectangle of the map: of each row of the map that they touch, the tile's window holds the pixels
// from the first to the last one touched. The block finds the window and each sample's place in it
// once, for all channels.

#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "csrc/common/warp_cuda.h"
#include "csrc/roi_align_rotated/roi_align_rotated.h"
#include "csrc/roi_align_rotated/sampling.h"

namespace detectron2 {
namespace roi_align_rotated_detail {

constexpr int kTileThreads = 256;
constexpr int kTileWarps = kTileThreads / kWarp;

// What a tile may hold. All bins of the usual 7 x 7 with 2 x 2 samples each are one tile if the RoI
// covers up to about 250 pixels; three blocks fit on a multiprocessor of sm_90, one on sm_75.
constexpr int kTilePixels = 320;
constexpr int kTileSamples = 208;
constexpr int kTileBins = 64;
constexpr int kTileRows = 48;  // of the map

// A rectangle of bins.
struct BinRange {
  int y;
  int x;
  int height;
  int width;
};

// A RoI, and how to cut its bins into tiles.
struct TilePlan {
  RotatedRoi<float> roi;
  int height;  // of a tile, in bins; 0: the samples are too far apart, or too many, for tiles
  int width;
};

struct Samples {
  float4 weights[kTileSamples];
  int2 pixels[kTileSamples];  // the top and the bottom left one in the window; -1: outside the map
};

struct Window {
  int offsets[kTilePixels];  // of each pixel, into a channel
  int begin[kTileRows];      // of a row, the columns from ...
  int end[kTileRows];        // ... up to here
  int base[kTileRows];       // where column 0 of a row would be in the window
  int first_row;
  int num_rows;
  int num_pixels;
};

// Whether tiles of height x width bins fit, from the area around their samples. A window may turn
// out a little larger when it is laid out.
__device__ inline bool tile_fits(const RotatedRoi<float>& roi, int height, int width,
                                 const RoiAlignRotatedShape& shape) {
  const float bins = static_cast<float>(height) * static_cast<float>(width);
  const float samples_y = static_cast<float>(roi.samples_y);
  const float samples_x = static_cast<float>(roi.samples_x);
  if (bins > kTileBins || bins * samples_y * samples_x > kTileSamples) {
    return false;
  }
  // From the first to the last sample, in the RoI's frame and in the map's.
  const float down = roi.bin_height * (static_cast<float>(height) - 1 / samples_y);
  const float along = roi.bin_width * (static_cast<float>(width) - 1 / samples_x);
  const float cosine = fabsf(roi.cosine);
  const float sine = fabsf(roi.sine);
  const float rows = fminf(sine * along + cosine * down, static_cast<float>(shape.height));
  const float columns = fminf(cosine * along + sine * down, static_cast<float>(shape.width));
  // A sample touches the pixels less than one away: that many lie around a rectangle on average.
  const float pixels = fminf(along * down, rows * columns) + 2 * (rows + columns) + 4;
  return rows + 3 <= kTileRows && 1.04f * pixels + 4 <= kTilePixels;
}

__device__ inline TilePlan plan_tiles(const float* row, const RoiAlignRotatedShape& shape) {
  TilePlan plan = {load_rotated_roi(row, shape), 0, 0};
  const RotatedRoi<float>& roi = plan.roi;
  // Above that, the window would hold little else than pixels which no sample touches.
  constexpr float kMaxPixelsPerSample = 24;
  const float samples = static_cast<float>(roi.samples_y) * static_cast<float>(roi.samples_x);
  if (roi.batch_index < 0 || !(roi.bin_height * roi.bin_width <= kMaxPixelsPerSample * samples)) {
    return plan;
  }
  int height = static_cast<int>(shape.pooled_height);
  int width = static_cast<int>(shape.pooled_width);
  while (!tile_fits(roi, height, width, shape)) {
    if (height > 1) {
      height = (height + 1) / 2;
    } else if (width > 1) {
      width = (width + 1) / 2;
    } else {
      return plan;
    }
  }
  plan.height = height;
  plan.width = width;
  return plan;
}

// Lays out the window of a tile and finds each sample's pixels in it; false if they are too many.
// To be called by all threads; `samples` and `window` may be read after the next barrier.
//
// The window has a column beyond the map's last one, which it repeats: so the pixel to the right of
// a sample is always the next one.
__device__ inline bool lay_out_tile(const RotatedRoi<float>& roi, const BinRange& range,
                                    const RoiAlignRotatedShape& shape, Samples& samples,
                                    Window& window) {
  const int warp = threadIdx.x / kWarp;
  const int lane = threadIdx.x % kWarp;
  const int map_width = static_cast<int>(shape.width);
  const int map_height = static_cast<int>(shape.height);
  const int samples_x = static_cast<int>(roi.samples_x);
  const int samples_y = static_cast<int>(roi.samples_y);
  const int bin_samples = samples_x * samples_y;
  const int num_samples = range.height * range.width * bin_samples;

  if (warp == 0) {
    // The first and the last row are those of a sample in a corner.
    const bool low = lane & 1;
    const bool right = lane & 2;
    const float y = sample_point(roi, static_cast<float>(range.y + (low ? range.height - 1 : 0)),
                                 static_cast<float>(range.x + (right ? range.width - 1 : 0)),
                                 static_cast<float>(low ? samples_y - 1 : 0),
                                 static_cast<float>(right ? samples_x - 1 : 0), shape)
                        .y;
    float first = y;
    float last = y;
#pragma unroll
    for (int mask = 1; mask < 4; mask *= 2) {
      first = fminf(first, __shfl_xor_sync(kAllLanes, first, mask));
      last = fmaxf(last, __shfl_xor_sync(kAllLanes, last, mask));
    }
    if (lane == 0) {
      window.first_row = static_cast<int>(first);
      window.num_rows = min(static_cast<int>(last) + 2, map_height) - static_cast<int>(first);
    }
  }
  for (int i = threadIdx.x; i < kTileRows; i += kTileThreads) {
    window.begin[i] = map_width;
    window.end[i] = 0;
  }
  __syncthreads();
  const int num_rows = window.num_rows;
  if (num_rows > kTileRows) {
    return false;
  }

  // Row, column and weights of each sample, and what columns of each row are touched.
  for (int i = threadIdx.x; i < num_samples; i += kTileThreads) {
    const int bin = i / bin_samples;
    const int sample = i % bin_samples;
    const SamplePoint<float> point = sample_point(
        roi, static_cast<float>(range.y + bin / range.width),
        static_cast<float>(range.x + bin % range.width), static_cast<float>(sample / samples_x),
        static_cast<float>(sample % samples_x), shape);
    int2 place = {-1, -1};
    if (point.inside) {
      place = {static_cast<int>(point.y), static_cast<int>(point.x)};
      const float part_y = point.y - static_cast<float>(place.x);
      const float part_x = point.x - static_cast<float>(place.y);
      samples.weights[i] = {(1 - part_y) * (1 - part_x), (1 - part_y) * part_x,
                            part_y * (1 - part_x), part_y * part_x};
      const int row = place.x - window.first_row;
      const int below = min(row + 1, num_rows - 1);
      atomicMin(&window.begin[row], place.y);
      atomicMax(&window.end[row], place.y + 2);
      atomicMin(&window.begin[below], place.y);
      atomicMax(&window.end[below], place.y + 2);
    }
    samples.pixels[i] = place;
  }
  __syncthreads();

  if (warp == 0) {
    const int sum = warp_prefix_sums(
        num_rows, [&](int row) { return max(window.end[row] - window.begin[row], 0); },
        [&](int row, int pixels) { window.base[row] = pixels - window.begin[row]; });
    if (lane == 0) {
      window.num_pixels = sum;
    }
  }
  __syncthreads();
  if (window.num_pixels > kTilePixels) {
    return false;
  }

  for (int row = warp; row < num_rows; row += kTileWarps) {
    const int offset = (window.first_row + row) * map_width;
    for (int x = window.begin[row] + lane; x < window.end[row]; x += kWarp) {
      window.offsets[window.base[row] + x] = offset + min(x, map_width - 1);
    }
  }
  for (int i = threadIdx.x; i < num_samples; i += kTileThreads) {
    const int2 place = samples.pixels[i];
    if (place.x >= 0) {
      const int row = place.x - window.first_row;
      const int below = min(row + 1, num_rows - 1);
      samples.pixels[i] = {window.base[row] + place.y, window.base[below] + place.y};
    }
  }
  return true;
}

}  // namespace roi_align_rotated_detail
}  // namespace detectron2
