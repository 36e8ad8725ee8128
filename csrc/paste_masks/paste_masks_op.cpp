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
  const ScalarType dtype = compute_dtype(args.masks.scalar_type());
  const Tensor values = contiguous_as(args.masks, dtype);
  dispatch_compute_dtype(dtype, [&](auto zero) {
    using T = decltype(zero);
    paste_masks_cpu<T>(data_of<T>(values), data_of<T>(args.boxes), args.shape,
                       static_cast<T>(threshold), mutable_data_of<uint8_t>(args.pasted),
                       parallel_for);
  });
  return args.pasted;
}

}  // namespace
}  // namespace detectron2

STABLE_TORCH_LIBRARY_FRAGMENT(detectron2, m) {
  m.def(
      "paste_masks(Tensor masks, Tensor boxes, SymInt height, SymInt width, float threshold) -> "
      "Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(detectron2, CPU, m) {
  m.impl("paste_masks", TORCH_BOX(&detectron2::paste_masks));
}
