// The checks that the CPU and the CUDA binding of heatmaps_to_keypoints share.

#pragma once

#include "csrc/heatmaps_to_keypoints/heatmaps_to_keypoints.h"
#include "csrc/heatmaps_to_keypoints/peak_search.h"
#include "csrc/torch_abi/torch_abi.h"

namespace detectron2 {

inline HeatmapsShape check_heatmaps_to_keypoints(const Tensor& maps, const Tensor& rois) {
  constexpr const char* op = "heatmaps_to_keypoints";
  check_shape(op, "maps", maps, {-1, -1, -1, -1}, "(R, K, H, W)");
  check_shape(op, "rois", rois, {-1, kHeatmapRoiSize}, "(R, 4)");
  DETECTRON2_CHECK(maps.size(0) == rois.size(0), op,
                   ": maps and rois must have the same length, got ", maps.size(0), " and ",
                   rois.size(0));
  check_float(op, "maps", maps);
  check_float(op, "rois", rois);
  check_same_device(op, "maps", maps, "rois", rois);
  const int64_t height = maps.size(2);
  const int64_t width = maps.size(3);
  DETECTRON2_CHECK(height > 0 && width > 0, op,
                   ": maps must have at least one pixel, got the shape ", shape_name(maps));
  DETECTRON2_CHECK(height <= kMaxHeatmapSide && width <= kMaxHeatmapSide &&
                       (height + 1) * (width + 1) <= 0x7fffffff,
                   op,
                   ": maps must have sides up to 2**21 and fewer than 2**31 pixels, got the shape ",
                   shape_name(maps));
  return {maps.size(0), maps.size(1), static_cast<int32_t>(height), static_cast<int32_t>(width)};
}

}  // namespace detectron2
