#include <limits>

#include "csrc/nms_rotated/nms_rotated.h"
#include "csrc/nms_rotated/nms_rotated_args.h"
#include "csrc/torch_abi/torch_abi.h"

namespace detectron2 {
namespace {

// Where CUDA sorts, a NaN comes first or last by its sign, and bfloat16's never first.
Tensor stable_argsort_descending(const Tensor& float_scores) {
  Tensor nan = new_empty(float_scores, {1});
  torch::stable::fill_(nan, std::numeric_limits<double>::quiet_NaN());
  return aten::stable_argsort_descending(
      aten::where(aten::not_equal(float_scores, float_scores), nan, float_scores));
}

Tensor nms_rotated(const Tensor& boxes, const Tensor& scores, double iou_threshold) {
  check_nms_rotated_args(boxes, scores);
  const int64_t count = boxes.size(0);
  Tensor kept = new_empty(boxes, {count}, ScalarType::Long);
  if (count == 0) {
    return kept;
  }
  const DeviceGuard guard(boxes.get_device_index());
  const ScalarType dtype = compute_dtype(boxes.scalar_type());
  const Tensor contiguous_boxes = contiguous_as(boxes, dtype);
  const Tensor contiguous_scores = contiguous_as(scores, dtype);
  const bool wants_order = nms_rotated_wants_order(count);
  const Tensor order = wants_order ? stable_argsort_descending(contiguous_scores) : kept;
  const Tensor total = empty_pinned_int64();
  int64_t num_kept = 0;
  dispatch_compute_dtype(dtype, [&](auto zero) {
    using T = decltype(zero);
    const Tensor workspace =
        new_empty(boxes, {nms_rotated_workspace(count, sizeof(T))}, ScalarType::Byte);
    num_kept =
        nms_rotated_cuda<T>(data_of<T>(contiguous_boxes), data_of<T>(contiguous_scores),
                            wants_order ? data_of<int64_t>(order) : nullptr, count, iou_threshold,
                            mutable_data_of<char>(workspace), mutable_data_of<int64_t>(kept),
                            mutable_data_of<int64_t>(total), current_cuda_stream(boxes));
  });
  return torch::stable::narrow(kept, 0, 0, num_kept);
}

}  // namespace
}  // namespace detectron2

STABLE_TORCH_LIBRARY_IMPL(detectron2, CUDA, m) {
  m.impl("nms_rotated", TORCH_BOX(&detectron2::nms_rotated));
}
