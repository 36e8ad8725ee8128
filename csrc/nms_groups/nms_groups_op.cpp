#include "csrc/nms_groups/nms_groups.h"
#include "csrc/nms_groups/nms_groups_args.h"
#include "csrc/torch_abi/torch_abi.h"

namespace detectron2 {
namespace {

Tensor nms_groups(const Tensor& boxes, const Tensor& valid, std::optional<Tensor> classes,
                  double iou_threshold) {
  const NmsGroupsArgs args = nms_groups_args(boxes, valid, classes);
  dispatch_compute_dtype(args.boxes.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    nms_groups_cpu<T>(data_of<T>(args.boxes), args.classes_data(), data_of<bool>(args.valid),
                      boxes.size(0), boxes.size(1), iou_threshold, mutable_data_of<bool>(args.keep),
                      parallel_for);
  });
  return args.keep;
}

}  // namespace
}  // namespace detectron2

STABLE_TORCH_LIBRARY_FRAGMENT(detectron2, m) {
  m.def("nms_groups(Tensor boxes, Tensor valid, Tensor? classes, float iou_threshold) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(detectron2, CPU, m) {
  m.impl("nms_groups", TORCH_BOX(&detectron2::nms_groups));
}
