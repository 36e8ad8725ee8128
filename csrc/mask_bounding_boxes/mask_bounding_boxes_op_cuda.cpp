#include "csrc/mask_bounding_boxes/mask_bounding_boxes.h"
#include "csrc/mask_bounding_boxes/mask_bounding_boxes_args.h"
#include "csrc/torch_abi/torch_abi.h"

namespace detectron2 {
namespace {

Tensor mask_bounding_boxes(const Tensor& masks) {
  const MaskBoundingBoxesArgs args = mask_bounding_boxes_args(masks);
  const int64_t count = masks.size(0), height = masks.size(1), width = masks.size(2);
  const DeviceGuard guard(args.boxes.get_device_index());
  if (masks.numel() == 0) {
    return torch::stable::new_zeros(args.boxes, {count, 4});
  }
  const Tensor extents = new_empty(
      masks, {count, mask_bounding_boxes_slices(count, height, width), 4}, ScalarType::Long);
  mask_bounding_boxes_cuda(data_of<uint8_t>(args.masks), count, height, width,
                           mutable_data_of<int64_t>(extents), mutable_data_of<float>(args.boxes),
                           current_cuda_stream(args.boxes));
  return args.boxes;
}

}  // namespace
}  // namespace detectron2

STABLE_TORCH_LIBRARY_IMPL(detectron2, CUDA, m) {
  m.impl("mask_bounding_boxes", TORCH_BOX(&detectron2::mask_bounding_boxes));
}
