#include "csrc/nms_rotated/nms_rotated.h"
#include "csrc/nms_rotated/nms_rotated_args.h"
#include "csrc/torch_abi/torch_abi.h"

namespace detectron2 {
namespace {

Tensor nms_rotated(const Tensor& boxes, const Tensor& scores, double iou_threshold) {
  check_nms_rotated_args(boxes, scores);
  const Tensor order = aten::stable_argsort_descending(scores);
  const Tensor sorted =
      contiguous_as(aten::index_select(boxes, 0, order), compute_dtype(boxes.scalar_type()));
  const Tensor keep = new_empty(boxes, {boxes.size(0)}, ScalarType::Bool);
  dispatch_compute_dtype(sorted.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    nms_rotated_cpu<T>(data_of<T>(sorted), sorted.size(0), iou_threshold,
                       mutable_data_of<bool>(keep), parallel_for);
  });
  return aten::masked_select(order, keep);
}

}  // namespace
}  // namespace detectron2

STABLE_TORCH_LIBRARY_FRAGMENT(detectron2, m) {
  m.def("nms_rotated(Tensor boxes, Tensor scores, float iou_threshold) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(detectron2, CPU, m) {
  m.impl("nms_rotated", TORCH_BOX(&detectron2::nms_rotated));
}
