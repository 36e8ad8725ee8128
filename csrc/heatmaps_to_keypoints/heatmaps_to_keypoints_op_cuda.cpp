#include "csrc/heatmaps_to_keypoints/heatmaps_to_keypoints.h"
#include "csrc/heatmaps_to_keypoints/heatmaps_to_keypoints_args.h"
#include "csrc/torch_abi/torch_abi.h"

namespace detectron2 {
namespace {

Tensor heatmaps_to_keypoints(const Tensor& maps, const Tensor& rois) {
  const HeatmapsShape shape = check_heatmaps_to_keypoints(maps, rois);
  const ScalarType dtype = compute_dtype(maps.scalar_type());
  const Tensor keypoints =
      new_empty(maps, {shape.num_rois, shape.num_keypoints, kKeypointSize}, dtype);
  if (keypoints.numel() == 0) {
    return keypoints;
  }
  const Tensor heatmaps = contiguous_as(maps, maps.scalar_type());
  const Tensor cast_rois = contiguous_as(rois, dtype);
  const DeviceGuard guard(maps.get_device_index());
  dispatch_storage_dtype(maps.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    heatmaps_to_keypoints_cuda<T>(data_of<T>(heatmaps), data_of<Accumulator<T>>(cast_rois), shape,
                                  mutable_data_of<Accumulator<T>>(keypoints),
                                  current_cuda_stream(maps));
  });
  return keypoints;
}

}  // namespace
}  // namespace detectron2

STABLE_TORCH_LIBRARY_IMPL(detectron2, CUDA, m) {
  m.impl("heatmaps_to_keypoints", TORCH_BOX(&detectron2::heatmaps_to_keypoints));
}
