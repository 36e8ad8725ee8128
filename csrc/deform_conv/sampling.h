// Where the deformable convolution samples its input, shared by the kernels of deform_conv.h.

#pragma once

#include <cmath>
#include <cstdint>

#include "csrc/common/host_device.h"
#include "csrc/deform_conv/shape.h"

namespace detectron2 {

// A pixel of the output.
struct OutputPixel {
  int64_t image;
  int64_t y;
  int64_t x;
};

// `index` counts over (batch, out_height, out_width).
DETECTRON2_HOST_DEVICE OutputPixel output_pixel(int64_t index, const DeformConvShape& shape) {
  OutputPixel pixel;
  pixel.x = index % shape.out_width;
  index /= shape.out_width;
  pixel.y = index % shape.out_height;
  pixel.image = index / shape.out_height;
  return pixel;
}

// Where the mask of a tap of an offset group has its value for a pixel.
DETECTRON2_HOST_DEVICE int64_t mask_index(const OutputPixel& pixel, int64_t offset_group,
                                          int64_t tap, const DeformConvShape& shape) {
  const int64_t taps = shape.kernel_h * shape.kernel_w;
  const int64_t plane = (pixel.image * shape.offset_groups + offset_group) * taps + tap;
  return (plane * shape.out_height + pixel.y) * shape.out_width + pixel.x;
}

// Where the offsets have theirs along y; the one along x is a plane, out_height * out_width, later.
DETECTRON2_HOST_DEVICE int64_t offset_index(const OutputPixel& pixel, int64_t offset_group,
                                            int64_t tap, const DeformConvShape& shape) {
  const int64_t taps = shape.kernel_h * shape.kernel_w;
  const int64_t plane = ((pixel.image * shape.offset_groups + offset_group) * taps + tap) * 2;
  return (plane * shape.out_height + pixel.y) * shape.out_width + pixel.x;
}

// Bilinear interpolation between the pixels at (top, left) to (top + 1, left + 1), of which those
// outside the input count as zero. The corners are numbered row by row.
template <typename R>
struct SamplePoint {
  bool inside;  // whether any corner is; false where an offset is not finite
  bool exists[4];
  int64_t corner[4];  // pixel index into the image, row by row
  R weight[4];
  R part_y;
  R part_x;
};

template <typename R>
DETECTRON2_HOST_DEVICE SamplePoint<R> sample_point(const OutputPixel& pixel, int64_t tap,
                                                   R offset_y, R offset_x,
                                                   const DeformConvShape& shape) {
  const int64_t tap_y = tap / shape.kernel_w;
  const int64_t tap_x = tap % shape.kernel_w;
  const R y =
      static_cast<R>(pixel.y * shape.stride_h - shape.pad_h + tap_y * shape.dilation_h) + offset_y;
  const R x =
      static_cast<R>(pixel.x * shape.stride_w - shape.pad_w + tap_x * shape.dilation_w) + offset_x;
  SamplePoint<R> point = {};
  // Comparisons with NaN are false.
  point.inside =
      y > -1 && x > -1 && y < static_cast<R>(shape.height) && x < static_cast<R>(shape.width);
  if (!point.inside) {
    return point;
  }
  const R top = std::floor(y);
  const R left = std::floor(x);
  point.part_y = y - top;
  point.part_x = x - left;
  const int64_t row = static_cast<int64_t>(top);
  const int64_t column = static_cast<int64_t>(left);
  const bool has_top = row >= 0 && row < shape.height;
  const bool has_bottom = row + 1 < shape.height;
  const bool has_left = column >= 0 && column < shape.width;
  const bool has_right = column + 1 < shape.width;
  point.exists[0] = has_top && has_left;
  point.exists[1] = has_top && has_right;
  point.exists[2] = has_bottom && has_left;
  point.exists[3] = has_bottom && has_right;
  point.corner[0] = row * shape.width + column;
  point.corner[1] = point.corner[0] + 1;
  point.corner[2] = point.corner[0] + shape.width;
  point.corner[3] = point.corner[2] + 1;
  point.weight[0] = (1 - point.part_y) * (1 - point.part_x);
  point.weight[1] = (1 - point.part_y) * point.part_x;
  point.weight[2] = point.part_y * (1 - point.part_x);
  point.weight[3] = point.part_y * point.part_x;
  return point;
}

// The derivatives of the sample with respect to the point, and the sample itself, where `values`
// stands for the corners' pixels (or for their products with the sample's gradient, summed over
// channels, which gives the derivatives of the loss).
template <typename R>
struct SampleDerivatives {
  R y;
  R x;
  R mask;
};

template <typename R>
DETECTRON2_HOST_DEVICE SampleDerivatives<R> sample_derivatives(const SamplePoint<R>& point,
                                                               const R* values) {
  SampleDerivatives<R> result;
  result.y = (1 - point.part_x) * (values[2] - values[0]) + point.part_x * (values[3] - values[1]);
  result.x = (1 - point.part_y) * (values[1] - values[0]) + point.part_y * (values[3] - values[2]);
  result.mask = point.weight[0] * values[0] + point.weight[1] * values[1] +
                point.weight[2] * values[2] + point.weight[3] * values[3];
  return result;
}

}  // namespace detectron2
