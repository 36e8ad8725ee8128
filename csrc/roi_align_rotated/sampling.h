// Where RoIAlignRotated samples the features of a RoI, shared by all its kernels.
//
// Products are rounded by themselves, so that the host and the device sample the same points: the
// features that a point sees change at once where it leaves the map.

#pragma once

#include <cmath>
#include <cstdint>

#include "csrc/common/degrees.h"
#include "csrc/common/host_device.h"
#include "csrc/roi_align_rotated/roi_align_rotated.h"

namespace detectron2 {

constexpr int kRoiSize = 6;

// A RoI in the pixels of the feature map, pixel centres at whole numbers.
template <typename R>
struct RotatedRoi {
  int64_t batch_index;  // -1: nothing to sample, all pooled values are zero
  R center_x;
  R center_y;
  R sine;
  R cosine;
  R bin_width;
  R bin_height;
  int64_t samples_x;  // of each bin
  int64_t samples_y;
};

// A point of the map. `inside` is false more than a pixel outside, where features count as zero;
// within that pixel the nearest row and column are extended, so that y and x are the map's.
template <typename R>
struct SamplePoint {
  bool inside;
  R y;
  R x;
};

// Bilinear interpolation at a point: four pixels, as offsets into a channel, with their weights.
template <typename R>
struct BilinearSample {
  bool inside;
  int64_t offset[4];
  R weight[4];
};

// Samples along a side of a bin that has this many pixels along it. Past twice the diagonal of the
// map, nearly all of the bin is outside the map; further samples would only take time, without
// bound as a RoI grows.
template <typename R>
DETECTRON2_HOST_DEVICE int64_t adaptive_samples(R bin_side, const RoiAlignRotatedShape& shape) {
  const R height = static_cast<R>(shape.height);
  const R width = static_cast<R>(shape.width);
  const R limit = std::ceil(2 * std::sqrt(product(height, height) + product(width, width)));
  const R samples = std::ceil(bin_side);
  return static_cast<int64_t>(samples < limit ? samples : limit);
}

// `row` is (batch index, center_x, center_y, width, height, angle in degrees, counter-clockwise).
// A RoI with a value that is not finite, with a negative side or with a batch index out of range
// has nothing to sample.
template <typename R>
DETECTRON2_HOST_DEVICE RotatedRoi<R> load_rotated_roi(const R* row,
                                                      const RoiAlignRotatedShape& shape) {
  const R scale = static_cast<R>(shape.spatial_scale);
  const R center_x = product(row[1], scale) - R(0.5);
  const R center_y = product(row[2], scale) - R(0.5);
  const R width = row[3] * scale;
  const R height = row[4] * scale;
  // The difference of an infinite value or NaN with itself is NaN.
  const bool finite = (row[0] - row[0]) + (center_x - center_x) + (center_y - center_y) +
                          (width - width) + (height - height) + (row[5] - row[5]) ==
                      0;
  RotatedRoi<R> roi = {};
  roi.batch_index = -1;
  if (!finite || width < 0 || height < 0 || row[0] < 0 ||
      row[0] >= static_cast<R>(shape.batch_size)) {
    return roi;
  }
  roi.batch_index = static_cast<int64_t>(row[0]);
  roi.center_x = center_x;
  roi.center_y = center_y;
  const SineCosine<R> turn = sine_cosine(wrap_degrees(row[5]));
  roi.sine = turn.sine;
  roi.cosine = turn.cosine;
  roi.bin_width = width / static_cast<R>(shape.pooled_width);
  roi.bin_height = height / static_cast<R>(shape.pooled_height);
  roi.samples_x =
      shape.sampling_ratio > 0 ? shape.sampling_ratio : adaptive_samples(roi.bin_width, shape);
  roi.samples_y =
      shape.sampling_ratio > 0 ? shape.sampling_ratio : adaptive_samples(roi.bin_height, shape);
  return roi;
}

// What the sum over a bin's samples is multiplied by; a RoI without extent may have no sample.
template <typename R>
DETECTRON2_HOST_DEVICE R sample_weight(const RotatedRoi<R>& roi) {
  const int64_t samples = roi.samples_x * roi.samples_y;
  return R(1) / static_cast<R>(samples > 1 ? samples : 1);
}

// Sample (sample_y, sample_x) of bin (bin_y, bin_x): placed in the RoI's own frame, then turned.
// Never decreasing or never increasing in each of the four numbers, rounding included.
template <typename R>
DETECTRON2_HOST_DEVICE SamplePoint<R> sample_point(const RotatedRoi<R>& roi, R bin_y, R bin_x,
                                                   R sample_y, R sample_x,
                                                   const RoiAlignRotatedShape& shape) {
  const R along_y = bin_y - static_cast<R>(shape.pooled_height) / 2 +
                    (sample_y + R(0.5)) / static_cast<R>(roi.samples_y);
  const R along_x = bin_x - static_cast<R>(shape.pooled_width) / 2 +
                    (sample_x + R(0.5)) / static_cast<R>(roi.samples_x);
  const R down = product(along_y, roi.bin_height);
  const R right = product(along_x, roi.bin_width);
  const R y = product(down, roi.cosine) - product(right, roi.sine) + roi.center_y;
  const R x = product(down, roi.sine) + product(right, roi.cosine) + roi.center_x;
  const R last_y = static_cast<R>(shape.height - 1);
  const R last_x = static_cast<R>(shape.width - 1);

  SamplePoint<R> point;
  point.inside =
      y >= -1 && y <= static_cast<R>(shape.height) && x >= -1 && x <= static_cast<R>(shape.width);
  point.y = y < 0 ? R(0) : (y > last_y ? last_y : y);
  point.x = x < 0 ? R(0) : (x > last_x ? last_x : x);
  return point;
}

template <typename R>
DETECTRON2_HOST_DEVICE BilinearSample<R> bilinear_sample(const RotatedRoi<R>& roi, int64_t bin_y,
                                                         int64_t bin_x, int64_t sample_y,
                                                         int64_t sample_x,
                                                         const RoiAlignRotatedShape& shape) {
  const SamplePoint<R> point =
      sample_point(roi, static_cast<R>(bin_y), static_cast<R>(bin_x), static_cast<R>(sample_y),
                   static_cast<R>(sample_x), shape);
  BilinearSample<R> sample;
  sample.inside = point.inside;
  if (!sample.inside) {
    return sample;
  }
  const int64_t top = static_cast<int64_t>(point.y);
  const int64_t left = static_cast<int64_t>(point.x);
  const int64_t below = top + 1 < shape.height ? top + 1 : top;
  const int64_t next = left + 1 < shape.width ? left + 1 : left;
  const R part_y = point.y - static_cast<R>(top);
  const R part_x = point.x - static_cast<R>(left);
  sample.offset[0] = top * shape.width + left;
  sample.offset[1] = top * shape.width + next;
  sample.offset[2] = below * shape.width + left;
  sample.offset[3] = below * shape.width + next;
  sample.weight[0] = (1 - part_y) * (1 - part_x);
  sample.weight[1] = (1 - part_y) * part_x;
  sample.weight[2] = part_y * (1 - part_x);
  sample.weight[3] = part_y * part_x;
  return sample;
}

}  // namespace detectron2
