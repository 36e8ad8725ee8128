// Where the pixels of an image lie in a mask that is stretched over a box, shared by all kernels.
//
// The arithmetic, its order and its fused multiply-adds are those of PyTorch's grid_sample on CUDA
// and on processors with AVX2, so that values that meet the threshold exactly, as half-covered
// pixels of a binary mask do, fall on the same side of it.

#pragma once

#include <cmath>
#include <cstdint>

#include "csrc/common/host_device.h"

namespace detectron2 {

constexpr int kPasteBoxSize = 4;  // x0, y0, x1, y1

// A box along one axis of the image.
template <typename T>
struct PasteAxis {
  T start;
  T length;
  T mask_size;
  int64_t begin;  // the pixels that the mask may cover: one beyond the box on either side
  int64_t end;    // `begin` for a box without positive, finite length
};

template <typename T>
DETECTRON2_HOST_DEVICE int64_t clamp_to_image(T position, int64_t image_size) {
  if (!(position > 0)) {
    return 0;
  }
  if (position >= static_cast<T>(image_size)) {
    return image_size;
  }
  const int64_t pixel = static_cast<int64_t>(position);
  return pixel < image_size ? pixel : image_size;
}

template <typename T>
DETECTRON2_HOST_DEVICE PasteAxis<T> paste_axis(T start, T end, int64_t mask_size,
                                               int64_t image_size) {
  PasteAxis<T> axis = {start, end - start, static_cast<T>(mask_size), 0, 0};
  // Infinity minus itself, and NaN, compare unequal to 0.
  if (axis.length > 0 && axis.length - axis.length == 0) {
    axis.begin = clamp_to_image(std::floor(start) - 1, image_size);
    axis.end = clamp_to_image(std::ceil(end) + 1, image_size);
  }
  return axis;
}

// The mask's value at a pixel is near * mask[cell] + far * mask[cell + 1], where indices outside
// [0, mask_size) stand for zeros; where the mask does not reach, both do.
template <typename T>
struct PasteSample {
  T near;
  T far;
  int32_t cell;
};

template <typename T>
DETECTRON2_HOST_DEVICE PasteSample<T> paste_sample(const PasteAxis<T>& axis, int64_t pixel) {
  const T normalized = (static_cast<T>(pixel) + T(0.5) - axis.start) / axis.length * T(2) - T(1);
  const T position = std::fma(normalized + T(1), axis.mask_size / T(2), T(-0.5));
  if (!(position > T(-1) && position < axis.mask_size)) {
    return {T(0), T(0), -2};
  }
  const T cell = std::floor(position);
  const T far = position - cell;
  return {T(1) - far, far, static_cast<int32_t>(cell)};
}

// The bilinear sum of four neighbours: top left, top right, bottom left, bottom right.
template <typename T>
DETECTRON2_HOST_DEVICE T paste_value(const PasteSample<T>& row, T column_near, T column_far,
                                     T top_near, T top_far, T bottom_near, T bottom_far) {
  T value = top_near * (column_near * row.near);
  value = std::fma(top_far, column_far * row.near, value);
  value = std::fma(bottom_near, column_near * row.far, value);
  return std::fma(bottom_far, column_far * row.far, value);
}

// Value in 255ths, rounded towards 0; NaN gives 0 and what is outside [0, 1] the nearer end.
template <typename T>
DETECTRON2_HOST_DEVICE uint8_t quantized_value(T value) {
  const T scaled = value * T(255);
  return static_cast<uint8_t>(scaled > T(0) ? (scaled < T(255) ? scaled : T(255)) : T(0));
}

}  // namespace detectron2
