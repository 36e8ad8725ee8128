#include "csrc/sigmoid_focal_loss/sigmoid_focal_loss.h"
#include "csrc/sigmoid_focal_loss/sigmoid_focal_loss_args.h"
#include "csrc/torch_abi/torch_abi.h"

namespace detectron2 {
namespace {

Tensor sigmoid_focal_loss(const Tensor& logits, const Tensor& labels, double alpha, double gamma) {
  const FocalLossShape shape = check_focal_loss_args(logits, labels, alpha, gamma);
  const ScalarType dtype = logits.scalar_type();
  const bool is_empty = logits.numel() == 0;
  const Tensor partials =
      new_empty(logits, {is_empty ? 0 : sigmoid_focal_loss_partials(shape)}, compute_dtype(dtype));
  if (!is_empty) {
    const DeviceGuard guard(logits.get_device_index());
    const Tensor values = contiguous_as(logits, dtype);
    const Tensor classes = contiguous_as(labels, ScalarType::Long);
    dispatch_storage_dtype(dtype, [&](auto zero) {
      using T = decltype(zero);
      sigmoid_focal_loss_cuda<T>(data_of<T>(values), data_of<int64_t>(classes), shape,
                                 mutable_data_of<Accumulator<T>>(partials),
                                 current_cuda_stream(logits));
    });
  }
  return aten::sum(partials);
}

Tensor sigmoid_focal_loss_backward(const Tensor& grad, const Tensor& logits, const Tensor& labels,
                                   double alpha, double gamma) {
  const FocalLossShape shape = check_focal_loss_args(logits, labels, alpha, gamma);
  const ScalarType dtype = logits.scalar_type();
  const Tensor result = new_empty(logits, {shape.rows, shape.classes}, dtype);
  if (logits.numel() == 0) {
    return result;
  }
  const DeviceGuard guard(logits.get_device_index());
  const Tensor scale = contiguous_as(grad, compute_dtype(dtype));
  const Tensor values = contiguous_as(logits, dtype);
  const Tensor classes = contiguous_as(labels, ScalarType::Long);
  dispatch_storage_dtype(dtype, [&](auto zero) {
    using T = decltype(zero);
    sigmoid_focal_loss_backward_cuda<T>(data_of<Accumulator<T>>(scale), data_of<T>(values),
                                        data_of<int64_t>(classes), shape,
                                        mutable_data_of<T>(result), current_cuda_stream(logits));
  });
  return result;
}

}  // namespace
}  // namespace detectron2

STABLE_TORCH_LIBRARY_IMPL(detectron2, CUDA, m) {
  m.impl("sigmoid_focal_loss", TORCH_BOX(&detectron2::sigmoid_focal_loss));
  m.impl("sigmoid_focal_loss_backward", TORCH_BOX(&detectron2::sigmoid_focal_loss_backward));
}
