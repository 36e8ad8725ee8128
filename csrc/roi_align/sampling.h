// Where RoIAlign samples the features of a RoI, shared by all its kernels.
//
// The samples of a bin form a grid along the axes of the map, so all that is done along one axis is
// the same as along the other: a pixel's weight is the product of that of its row and that of its
// column. Products are rounded by themselves, so that the host and the device sample the same
// points: the features that a point sees change at once where it leaves the map.

#pragma once

#include <cmath>
#include <cstdint>

#include "csrc/common/degrees.h"
#include "csrc/common/host_device.h"
#include "csrc/roi_align/roi_align.h"

namespace detectron2 {

constexpr int kBoxRowSize = 5;

// A RoI along one axis of its map, in pixels, their centres at whole numbers.
template <typename R>
struct RoiAxis {
  R start;
  R bin;        // length of a bin; may be negative
  int samples;  // of a bin; 0: nothing to sample
};

template <typename R>
struct AlignedRoi {
  int64_t image;  // -1: nothing to sample, all pooled values are zero
  int level;
  RoiAxis<R> y;
  RoiAxis<R> x;
};

// Two neighbouring pixels, the same one at the end of the map, and their weights at a point.
// `inside` is false more than a pixel outside, where features count as zero; within that pixel the
// nearest row or column is extended.
template <typename R>
struct LinearSample {
  bool inside;
  int first;
  int second;
  R first_weight;
  R second_weight;
};

struct IndexRange {
  int begin;
  int end;
};

// Adaptive samples of a bin; more of them than fit in an int's float cannot be told apart.
template <typename R>
DETECTRON2_HOST_DEVICE int adaptive_samples(R bin) {
  constexpr R kMost = R(1 << 20);
  return static_cast<int>(bin > 0 ? (bin < kMost ? std::ceil(bin) : kMost) : R(0));
}

template <typename R>
DETECTRON2_HOST_DEVICE RoiAxis<R> roi_axis(R low, R high, R scale, int64_t bins,
                                           const RoiAlignShape& shape) {
  const R offset = shape.aligned ? R(0.5) : R(0);
  const R start = product(low, scale) - offset;
  R side = product(high, scale) - offset - start;
  side = !shape.aligned && side < 1 ? R(1) : side;
  RoiAxis<R> axis;
  axis.start = start;
  axis.bin = side / static_cast<R>(bins);
  axis.samples = shape.sampling_ratio > 0 ? static_cast<int>(shape.sampling_ratio)
                                          : adaptive_samples(axis.bin);
  return axis;
}

// A RoI with a value that is not finite, in the map's pixels either, or with a batch index or a
// level out of range has nothing to sample.
template <typename R>
DETECTRON2_HOST_DEVICE AlignedRoi<R> load_aligned_roi(const LeveledRois<R>& rois, int64_t k,
                                                      const RoiAlignShape& shape) {
  const R* const row = rois.rows + k * kBoxRowSize;
  const int64_t level = rois.levels == nullptr ? 0 : rois.levels[k];
  AlignedRoi<R> roi = {};
  roi.image = -1;
  if (level < 0 || level >= shape.num_levels || !(row[0] >= 0) ||
      !(row[0] < static_cast<R>(shape.batch_size))) {
    return roi;
  }
  const R scale = static_cast<R>(shape.levels[level].spatial_scale);
  roi.level = static_cast<int>(level);
  roi.x = roi_axis(row[1], row[3], scale, shape.pooled_width, shape);
  roi.y = roi_axis(row[2], row[4], scale, shape.pooled_height, shape);
  // An infinite value or NaN times 0, or less itself, is NaN.
  const bool finite = (row[1] * 0 + row[2] * 0 + row[3] * 0 + row[4] * 0) +
                          (roi.x.start - roi.x.start) + (roi.x.bin - roi.x.bin) +
                          (roi.y.start - roi.y.start) + (roi.y.bin - roi.y.bin) ==
                      0;
  if (finite && roi.x.samples > 0 && roi.y.samples > 0) {
    roi.image = static_cast<int64_t>(row[0]);
  }
  return roi;
}

template <typename R>
DETECTRON2_HOST_DEVICE R sample_position(const RoiAxis<R>& axis, int bin, int sample) {
  return axis.start + product(static_cast<R>(bin), axis.bin) +
         product(static_cast<R>(sample) + R(0.5), axis.bin) / static_cast<R>(axis.samples);
}

template <typename R>
DETECTRON2_HOST_DEVICE LinearSample<R> linear_sample(R position, int64_t size) {
  LinearSample<R> sample = {};
  sample.inside = position >= -1 && position <= static_cast<R>(size);
  if (sample.inside) {
    const R last = static_cast<R>(size - 1);
    const R clamped = position < 0 ? R(0) : (position > last ? last : position);
    sample.first = static_cast<int>(clamped);
    sample.second = sample.first + 1 < size ? sample.first + 1 : sample.first;
    sample.second_weight = clamped - static_cast<R>(sample.first);
    sample.first_weight = 1 - sample.second_weight;
  }
  return sample;
}

// Samples of a bin that can lie in [low, high]: all of them if they are few, else not many more
// than do, so that a box far larger than the map takes no longer.
template <typename R>
DETECTRON2_HOST_DEVICE IndexRange samples_between(const RoiAxis<R>& axis, int bin, R low, R high) {
  constexpr int kFew = 4;
  if (axis.samples <= kFew || axis.bin == 0) {
    return {0, axis.samples};
  }
  const R samples = static_cast<R>(axis.samples);
  const R step = axis.bin / samples;
  const R start = axis.start + product(static_cast<R>(bin), axis.bin);
  const R one = (low - start) / step;
  const R other = (high - start) / step;
  // Rounding moves them by less than a sample and a ten-thousandth of their number.
  const R slack = 2 + samples / 10000;
  const R begin = (one < other ? one : other) - slack;
  const R end = (one < other ? other : one) + slack;
  if (!(begin < samples) || !(end > 0)) {
    return {0, 0};
  }
  return {begin > 0 ? static_cast<int>(begin) : 0,
          end < samples ? static_cast<int>(end) + 1 : axis.samples};
}

template <typename R>
DETECTRON2_HOST_DEVICE IndexRange samples_on_map(const RoiAxis<R>& axis, int bin, int64_t size) {
  return samples_between(axis, bin, R(-1), static_cast<R>(size));
}

// The weight of a pixel in a bin, along one axis.
template <typename R>
DETECTRON2_HOST_DEVICE R pixel_weight(const RoiAxis<R>& axis, int bin, int pixel, int64_t size) {
  const R low = pixel == 0 ? R(-1) : static_cast<R>(pixel - 1);
  const R high = pixel == size - 1 ? static_cast<R>(size) : static_cast<R>(pixel + 1);
  const IndexRange range = samples_between(axis, bin, low, high);
  R sum = 0;
  for (int i = range.begin; i < range.end; ++i) {
    const LinearSample<R> sample = linear_sample(sample_position(axis, bin, i), size);
    if (sample.inside) {
      sum += (sample.first == pixel ? sample.first_weight : R(0)) +
             (sample.second == pixel ? sample.second_weight : R(0));
    }
  }
  return sum / static_cast<R>(axis.samples);
}

// Pixels that the RoI may sample.
template <typename R>
DETECTRON2_HOST_DEVICE IndexRange pixels_of(const RoiAxis<R>& axis, int64_t bins, int64_t size) {
  const R one = sample_position(axis, 0, 0);
  const R other = sample_position(axis, static_cast<int>(bins - 1), axis.samples - 1);
  const R low = one < other ? one : other;
  const R high = one < other ? other : one;
  if (!(high >= -1) || !(low <= static_cast<R>(size))) {
    return {0, 0};
  }
  const R last = static_cast<R>(size - 1);
  const int begin = static_cast<int>(low < 0 ? R(0) : (low > last ? last : low));
  const int end = static_cast<int>(high < 0 ? R(0) : (high > last ? last : high)) + 2;
  return {begin, end < size ? end : static_cast<int>(size)};
}

}  // namespace detectron2
