#include "csrc/mask_bounding_boxes/mask_bounding_boxes.h"
#include "csrc/mask_bounding_boxes/mask_bounding_boxes_args.h"
#include "csrc/torch_abi/torch_abi.h"

namespace detectron2 {
namespace {

Tensor mask_bounding_boxes(const Tensor& masks) {
  const MaskBoundingBoxesArgs args = mask_bounding_boxes_args(masks);
  mask_bounding_boxes_cpu(data_of<uint8_t>(args.masks), masks.size(0), masks.size(1), masks.size(2),
                          mutable_data_of<float>(args.boxes), parallel_for);
  return args.boxes;
}

}  // namespace
}  // namespace detectron2

STABLE_TORCH_LIBRARY_FRAGMENT(detectron2, m) {
  m.def("mask_bounding_boxes(Tensor masks) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(detectron2, CPU, m) {
  m.impl("mask_bounding_boxes", TORCH_BOX(&detectron2::mask_bounding_boxes));
}
