#include "csrc/heatmaps_to_keypoints/heatmaps_to_keypoints.h"
#include "csrc/heatmaps_to_keypoints/heatmaps_to_keypoints_args.h"
#include "csrc/torch_abi/torch_abi.h"

namespace detectron2 {
namespace {

Tensor heatmaps_to_keypoints(const Tensor& maps, const Tensor& rois) {
  const HeatmapsShape shape = check_heatmaps_to_keypoints(maps, rois);
  const ScalarType dtype = compute_dtype(maps.scalar_type());
  const Tensor heatmaps = contiguous_as(maps, dtype);
  const Tensor cast_rois = contiguous_as(rois, dtype);
  const Tensor keypoints =
      new_empty(maps, {shape.num_rois, shape.num_keypoints, kKeypointSize}, dtype);
  dispatch_compute_dtype(dtype, [&](auto zero) {
    using T = decltype(zero);
    heatmaps_to_keypoints_cpu<T>(data_of<T>(heatmaps), data_of<T>(cast_rois), shape,
                                 mutable_data_of<T>(keypoints), parallel_for);
  });
  return keypoints;
}

}  // namespace
}  // namespace detectron2

STABLE_TORCH_LIBRARY_FRAGMENT(detectron2, m) {
  m.def("heatmaps_to_keypoints(Tensor maps, Tensor rois) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(detectron2, CPU, m) {
  m.impl("heatmaps_to_keypoints", TORCH_BOX(&detectron2::heatmaps_to_keypoints));
}
