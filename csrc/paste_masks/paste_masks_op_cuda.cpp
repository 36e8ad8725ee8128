#include "csrc/paste_masks/paste_masks.h"
#include "csrc/paste_masks/paste_masks_args.h"
#include "csrc/torch_abi/torch_abi.h"

namespace detectron2 {
namespace {

Tensor paste_masks(const Tensor& masks, const Tensor& boxes, int64_t height, int64_t width,
                   double threshold) {
  const PasteMasksArgs args = paste_masks_args(masks, boxes, height, width, threshold);
  if (args.pasted.numel() == 0) {
    return args.pasted;
  }
  const DeviceGuard guard(args.pasted.get_device_index());
  dispatch_storage_dtype(args.masks.scalar_type(), [&](auto zero) {
    using S = decltype(zero);
    using T = Accumulator<S>;
    paste_masks_cuda<S>(data_of<S>(args.masks), data_of<T>(args.boxes), args.shape,
                        static_cast<T>(threshold), mutable_data_of<uint8_t>(args.pasted),
                        current_cuda_stream(args.pasted));
  });
  return args.pasted;
}

}  // namespace
}  // namespace detectron2

STABLE_TORCH_LIBRARY_IMPL(detectron2, CUDA, m) {
  m.impl("paste_masks", TORCH_BOX(&detectron2::paste_masks));
}
