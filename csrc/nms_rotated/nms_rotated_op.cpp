#include "csrc/nms_rotated/nms_rotated.h"
#include "csrc/nms_rotated/nms_rotated_args.h"
#include "csrc/torch_abi/torch_abi.h"

namespace detectron2 {
namespace {

Tensor nms_rotated(const Tensor& boxes, const Tensor& scores, double iou_threshold) {
  const NmsRotatedArgs args = nms_rotated_args(boxes, scores);
  dispatch_compute_dtype(args.boxes.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    nms_rotated_cpu<T>(data_of<T>(args.boxes), args.boxes.size(0), iou_threshold,
                       mutable_data_of<bool>(args.keep), parallel_for);
  });
  return nms_rotated_result(args);
}

}  // namespace
}  // namespace detectron2

STABLE_TORCH_LIBRARY_FRAGMENT(detectron2, m) {
  m.def("nms_rotated(Tensor boxes, Tensor scores, float iou_threshold) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(detectron2, CPU, m) {
  m.impl("nms_rotated", TORCH_BOX(&detectron2::nms_rotated));
}
