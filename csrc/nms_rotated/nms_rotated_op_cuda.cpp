#include "csrc/nms_rotated/nms_rotated.h"
#include "csrc/nms_rotated/nms_rotated_args.h"
#include "csrc/torch_abi/torch_abi.h"

namespace detectron2 {
namespace {

Tensor nms_rotated(const Tensor& boxes, const Tensor& scores, double iou_threshold) {
  const NmsRotatedArgs args = nms_rotated_args(boxes, scores);
  const int64_t count = args.boxes.size(0);
  if (count == 0) {
    return args.order;
  }
  NmsWorkspace workspace = nms_rotated_workspace(count);
  const Tensor overlaps = torch::stable::new_empty(
      boxes, {workspace.rows_per_panel * workspace.words}, ScalarType::Long);
  const Tensor removed = torch::stable::new_zeros(boxes, {workspace.words}, ScalarType::Long);
  workspace.overlaps = mutable_data_of<uint64_t>(overlaps);
  workspace.removed = mutable_data_of<uint64_t>(removed);

  const DeviceGuard guard(boxes.get_device_index());
  dispatch_compute_dtype(args.boxes.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    nms_rotated_cuda<T>(data_of<T>(args.boxes), count, iou_threshold, workspace,
                        mutable_data_of<bool>(args.keep), current_cuda_stream(boxes));
  });
  return nms_rotated_result(args);
}

}  // namespace
}  // namespace detectron2

STABLE_TORCH_LIBRARY_IMPL(detectron2, CUDA, m) {
  m.impl("nms_rotated", TORCH_BOX(&detectron2::nms_rotated));
}
