// The checks that the CPU and the CUDA binding of roi_align share.

#pragma once

#include <cmath>
#include <optional>
#include <string>
#include <vector>

#include "csrc/roi_align/roi_align.h"
#include "csrc/roi_align/sampling.h"
#include "csrc/torch_abi/torch_abi.h"

namespace detectron2 {

// Checks all but the features themselves, and fills in what is the same for all levels.
inline RoiAlignShape check_roi_align(const char* op, const Tensor& rois,
                                     const std::optional<Tensor>& levels,
                                     const std::vector<double>& spatial_scales, int64_t num_levels,
                                     int64_t batch_size, int64_t channels, int64_t pooled_height,
                                     int64_t pooled_width, int64_t sampling_ratio, bool aligned) {
  check_shape(op, "rois", rois, {-1, kBoxRowSize}, "(K, 5)");
  check_float(op, "rois", rois);
  DETECTRON2_CHECK(num_levels >= 1 && num_levels <= kMaxPyramidLevels, op,
                   ": there must be the features of 1 to ", kMaxPyramidLevels, " levels, got ",
                   num_levels);
  DETECTRON2_CHECK(static_cast<int64_t>(spatial_scales.size()) == num_levels, op,
                   ": each level needs a scale, got ", spatial_scales.size(), " for ", num_levels,
                   " level(s)");
  DETECTRON2_CHECK(levels.has_value() || num_levels == 1, op,
                   ": levels may be None for one level only, got the features of ", num_levels);
  if (levels.has_value()) {
    DETECTRON2_CHECK(levels->dim() == 1 && levels->size(0) == rois.size(0), op,
                     ": levels must have the shape (K,) = (", rois.size(0), ",), got ",
                     shape_name(*levels));
    DETECTRON2_CHECK(levels->scalar_type() == ScalarType::Long, op, ": levels must be int64, got ",
                     dtype_name(levels->scalar_type()));
    check_same_device(op, "levels", *levels, "rois", rois);
  }
  DETECTRON2_CHECK(pooled_height > 0 && pooled_width > 0, op,
                   ": pooled_height and pooled_width must be positive, got ", pooled_height,
                   " and ", pooled_width);
  // So that the samples along a bin can be counted in 32 bits.
  DETECTRON2_CHECK(
      pooled_height <= 0x7fffffff && pooled_width <= 0x7fffffff && sampling_ratio <= 0x7fffffff, op,
      ": pooled_height, pooled_width and sampling_ratio must be below 2**31, got ", pooled_height,
      ", ", pooled_width, " and ", sampling_ratio);
  DETECTRON2_CHECK(batch_size >= 0 && channels >= 0, op,
                   ": batch_size and channels must not be negative, got ", batch_size, " and ",
                   channels);
  RoiAlignShape shape = {};
  shape.num_rois = rois.size(0);
  shape.batch_size = batch_size;
  shape.channels = channels;
  shape.pooled_height = pooled_height;
  shape.pooled_width = pooled_width;
  shape.sampling_ratio = sampling_ratio;
  shape.aligned = aligned;
  shape.num_levels = static_cast<int>(num_levels);
  return shape;
}

inline PyramidLevel check_pyramid_level(const char* op, int64_t height, int64_t width,
                                        double spatial_scale) {
  DETECTRON2_CHECK(std::isfinite(spatial_scale) && spatial_scale > 0, op,
                   ": spatial_scales must be finite and positive, got ", spatial_scale);
  DETECTRON2_CHECK(height > 0 && width > 0, op,
                   ": the features must have at least one pixel, got height ", height,
                   " and width ", width);
  DETECTRON2_CHECK(height < 0x7fffffff && width < 0x7fffffff, op,
                   ": the features' height and width must be below 2**31 - 1, got ", height,
                   " and ", width);
  PyramidLevel level = {};
  level.height = height;
  level.width = width;
  level.spatial_scale = spatial_scale;
  return level;
}

inline void set_strides(const Tensor& tensor, PyramidLevel& level) {
  level.image_stride = tensor.stride(0);
  level.channel_stride = tensor.stride(1);
  level.row_stride = tensor.stride(2);
  level.column_stride = tensor.stride(3);
}

inline RoiAlignShape check_roi_align_forward(const std::vector<Tensor>& features,
                                             const Tensor& rois,
                                             const std::optional<Tensor>& levels,
                                             const std::vector<double>& spatial_scales,
                                             int64_t pooled_height, int64_t pooled_width,
                                             int64_t sampling_ratio, bool aligned) {
  constexpr const char* op = "roi_align_forward";
  const int64_t num_levels = static_cast<int64_t>(features.size());
  if (num_levels > 0) {
    check_shape(op, "features[0]", features[0], {-1, -1, -1, -1}, "(N, C, H, W)");
  }
  RoiAlignShape shape = check_roi_align(op, rois, levels, spatial_scales, num_levels,
                                        num_levels > 0 ? features[0].size(0) : 0,
                                        num_levels > 0 ? features[0].size(1) : 0, pooled_height,
                                        pooled_width, sampling_ratio, aligned);
  for (int i = 0; i < shape.num_levels; ++i) {
    const Tensor& level = features[i];
    const std::string name = "features[" + std::to_string(i) + "]";
    check_float(op, name.c_str(), level);
    if (i > 0) {
      check_shape(op, name.c_str(), level, {shape.batch_size, shape.channels, -1, -1},
                  "(N, C, H, W) with the N and C of features[0]");
      check_same_dtype(op, name.c_str(), level, "features[0]", features[0]);
    }
    check_same_device(op, name.c_str(), level, "rois", rois);
    shape.levels[i] = check_pyramid_level(op, level.size(2), level.size(3), spatial_scales[i]);
    set_strides(level, shape.levels[i]);
  }
  return shape;
}

inline RoiAlignShape check_roi_align_backward(const Tensor& grad, const Tensor& rois,
                                              const std::optional<Tensor>& levels,
                                              const std::vector<double>& spatial_scales,
                                              int64_t batch_size,
                                              const std::vector<int64_t>& heights,
                                              const std::vector<int64_t>& widths,
                                              int64_t sampling_ratio, bool aligned) {
  constexpr const char* op = "roi_align_backward";
  check_shape(op, "rois", rois, {-1, kBoxRowSize}, "(K, 5)");
  check_shape(op, "grad", grad, {rois.size(0), -1, -1, -1}, "(K, C, rows, columns)");
  check_float(op, "grad", grad);
  check_same_device(op, "grad", grad, "rois", rois);
  DETECTRON2_CHECK(heights.size() == widths.size(), op, ": each level needs a height and a width, ",
                   "got ", heights.size(), " height(s) and ", widths.size(), " width(s)");
  RoiAlignShape shape = check_roi_align(
      op, rois, levels, spatial_scales, static_cast<int64_t>(heights.size()), batch_size,
      grad.size(1), grad.size(2), grad.size(3), sampling_ratio, aligned);
  for (int i = 0; i < shape.num_levels; ++i) {
    shape.levels[i] = check_pyramid_level(op, heights[i], widths[i], spatial_scales[i]);
  }
  return shape;
}

// ---- Tensors ------------------------------------------------------------------------------------

// RoIs, and their levels, as kernels read them.
struct RoiTensors {
  RoiTensors(const Tensor& rois, const std::optional<Tensor>& levels, ScalarType dtype)
      : rows(contiguous_as(rois, dtype)) {
    if (levels.has_value()) {
      levels_of_rows = contiguous_as(*levels, ScalarType::Long);
    }
  }

  template <typename R>
  LeveledRois<R> as() const {
    return {data_of<R>(rows),
            levels_of_rows.has_value() ? data_of<int64_t>(*levels_of_rows) : nullptr};
  }

  Tensor rows;
  std::optional<Tensor> levels_of_rows;
};

inline Tensor new_pooled(const Tensor& like, const RoiAlignShape& shape, ScalarType dtype) {
  const int64_t bins = shape.pooled_height * shape.pooled_width;
  return empty_strided<4>(like,
                          {shape.num_rois, shape.channels, shape.pooled_height, shape.pooled_width},
                          {shape.channels * bins, bins, shape.pooled_width, 1}, dtype);
}

// Uninitialised gradients of the levels, whose strides are put into `shape`.
inline std::vector<Tensor> new_gradients(const Tensor& like, bool channels_last, ScalarType dtype,
                                         RoiAlignShape& shape) {
  std::vector<Tensor> gradients;
  for (int i = 0; i < shape.num_levels; ++i) {
    PyramidLevel& level = shape.levels[i];
    const int64_t image = shape.channels * level.height * level.width;
    const std::array<int64_t, 4> strides =
        channels_last
            ? std::array<int64_t, 4>{image, 1, level.width * shape.channels, shape.channels}
            : std::array<int64_t, 4>{image, level.height * level.width, level.width, 1};
    gradients.push_back(empty_strided<4>(
        like, {shape.batch_size, shape.channels, level.height, level.width}, strides, dtype));
    level.image_stride = strides[0];
    level.channel_stride = strides[1];
    level.row_stride = strides[2];
    level.column_stride = strides[3];
  }
  return gradients;
}

}  // namespace detectron2
