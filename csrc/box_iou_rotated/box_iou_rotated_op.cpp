#include "csrc/box_iou_rotated/box_iou_rotated.h"
#include "csrc/box_iou_rotated/box_iou_rotated_args.h"
#include "csrc/torch_abi/torch_abi.h"

namespace detectron2 {
namespace {

Tensor box_iou_rotated(const Tensor& boxes1, const Tensor& boxes2) {
  const BoxIouRotatedArgs args = box_iou_rotated_args(boxes1, boxes2);
  if (args.ious.numel() == 0) {
    return args.ious;
  }
  dispatch_compute_dtype(args.ious.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    box_iou_rotated_cpu<T>(data_of<T>(args.boxes1), args.boxes1.size(0), data_of<T>(args.boxes2),
                           args.boxes2.size(0), mutable_data_of<T>(args.ious), parallel_for);
  });
  return args.ious;
}

}  // namespace
}  // namespace detectron2

STABLE_TORCH_LIBRARY_FRAGMENT(detectron2, m) {
  m.def("box_iou_rotated(Tensor boxes1, Tensor boxes2) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(detectron2, CPU, m) {
  m.impl("box_iou_rotated", TORCH_BOX(&detectron2::box_iou_rotated));
}
