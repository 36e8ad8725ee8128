#include "csrc/nms_groups/nms_groups.h"
#include "csrc/nms_groups/nms_groups_args.h"
#include "csrc/torch_abi/torch_abi.h"

namespace detectron2 {
namespace {

Tensor nms_groups(const Tensor& boxes, const Tensor& valid, std::optional<Tensor> classes,
                  double iou_threshold) {
  const NmsGroupsArgs args = nms_groups_args(boxes, valid, classes);
  const int64_t groups = boxes.size(0);
  const int64_t size = boxes.size(1);
  if (groups * size == 0) {
    return args.keep;
  }
  const DeviceGuard guard(boxes.get_device_index());
  const Tensor workspace = new_empty(boxes, {nms_groups_workspace(groups, size)}, ScalarType::Byte);
  dispatch_compute_dtype(args.boxes.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    nms_groups_cuda<T>(data_of<T>(args.boxes), args.classes_data(), data_of<bool>(args.valid),
                       groups, size, iou_threshold, mutable_data_of<char>(workspace),
                       mutable_data_of<bool>(args.keep), current_cuda_stream(boxes));
  });
  return args.keep;
}

}  // namespace
}  // namespace detectron2

STABLE_TORCH_LIBRARY_IMPL(detectron2, CUDA, m) {
  m.impl("nms_groups", TORCH_BOX(&detectron2::nms_groups));
}
