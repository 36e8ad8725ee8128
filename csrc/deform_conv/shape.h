// The sizes that all kernels of the deformable convolution share.

#pragma once

#include <cstdint>

namespace detectron2 {

// A convolution of `input` (batch, in_channels, height, width) with `weight` (out_channels,
// in_channels / groups, kernel_h, kernel_w) into (batch, out_channels, out_height, out_width).
//
// `offset` is (batch, offset_groups * kernel_h * kernel_w * 2, out_height, out_width): for each
// group of in_channels / offset_groups channels and each tap (row by row) the pixels that its
// sampling point is moved by, y before x. `mask`, which may be absent, is (batch, offset_groups *
// kernel_h * kernel_w, out_height, out_width): what the sample is multiplied by.
//
// Tap (i, j) of output (y, x) samples at y * stride_h - pad_h + i * dilation_h + dy, and likewise
// in x, bilinearly; pixels outside the input count as zero, so a point a pixel or more outside
// contributes nothing.
struct DeformConvShape {
  int64_t batch;
  int64_t in_channels;
  int64_t height;
  int64_t width;
  int64_t out_channels;
  int64_t out_height;
  int64_t out_width;
  int64_t kernel_h;
  int64_t kernel_w;
  int64_t stride_h;
  int64_t stride_w;
  int64_t pad_h;
  int64_t pad_w;
  int64_t dilation_h;
  int64_t dilation_w;
  int64_t groups;
  int64_t offset_groups;
};

}  // namespace detectron2
