// The checks that the CPU and the CUDA binding of roi_align_rotated share.

#pragma once

#include <cmath>

#include "csrc/roi_align_rotated/roi_align_rotated.h"
#include "csrc/roi_align_rotated/sampling.h"
#include "csrc/torch_abi/torch_abi.h"

namespace detectron2 {

inline void check_roi_align_rotated(const char* op, const RoiAlignRotatedShape& shape,
                                    const Tensor& rois, const char* features_name,
                                    const Tensor& features) {
  check_shape(op, "rois", rois, {-1, kRoiSize}, "(K, 6)");
  check_float(op, features_name, features);
  check_float(op, "rois", rois);
  check_same_device(op, features_name, features, "rois", rois);
  DETECTRON2_CHECK(std::isfinite(shape.spatial_scale) && shape.spatial_scale > 0, op,
                   ": spatial_scale must be finite and positive, got ", shape.spatial_scale);
  DETECTRON2_CHECK(shape.pooled_height > 0 && shape.pooled_width > 0, op,
                   ": pooled_height and pooled_width must be positive, got ", shape.pooled_height,
                   " and ", shape.pooled_width);
  DETECTRON2_CHECK(shape.batch_size >= 0 && shape.channels >= 0, op,
                   ": batch_size and channels must not be negative, got ", shape.batch_size,
                   " and ", shape.channels);
  DETECTRON2_CHECK(shape.height > 0 && shape.width > 0, op,
                   ": the features must have at least one pixel, got height ", shape.height,
                   " and width ", shape.width);
  // So that the samples of a bin can be counted in 64 bits.
  DETECTRON2_CHECK(shape.sampling_ratio <= 0x7fffffff, op,
                   ": sampling_ratio must be below 2**31, got ", shape.sampling_ratio);
}

inline RoiAlignRotatedShape check_roi_align_rotated_forward(const Tensor& input, const Tensor& rois,
                                                            double spatial_scale,
                                                            int64_t pooled_height,
                                                            int64_t pooled_width,
                                                            int64_t sampling_ratio) {
  constexpr const char* op = "roi_align_rotated_forward";
  check_shape(op, "input", input, {-1, -1, -1, -1}, "(N, C, H, W)");
  check_shape(op, "rois", rois, {-1, kRoiSize}, "(K, 6)");
  const RoiAlignRotatedShape shape = {rois.size(0),  input.size(0),  input.size(1),
                                      input.size(2), input.size(3),  pooled_height,
                                      pooled_width,  sampling_ratio, spatial_scale};
  check_roi_align_rotated(op, shape, rois, "input", input);
  return shape;
}

inline RoiAlignRotatedShape check_roi_align_rotated_backward(
    const Tensor& grad, const Tensor& rois, double spatial_scale, int64_t pooled_height,
    int64_t pooled_width, int64_t batch_size, int64_t channels, int64_t height, int64_t width,
    int64_t sampling_ratio) {
  constexpr const char* op = "roi_align_rotated_backward";
  check_shape(op, "rois", rois, {-1, kRoiSize}, "(K, 6)");
  check_shape(op, "grad", grad, {rois.size(0), channels, pooled_height, pooled_width},
              "(K, channels, pooled_height, pooled_width)");
  const RoiAlignRotatedShape shape = {rois.size(0), batch_size,     channels,
                                      height,       width,          pooled_height,
                                      pooled_width, sampling_ratio, spatial_scale};
  check_roi_align_rotated(op, shape, rois, "grad", grad);
  return shape;
}

}  // namespace detectron2
