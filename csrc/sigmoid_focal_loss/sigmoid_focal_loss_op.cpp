#include "csrc/sigmoid_focal_loss/sigmoid_focal_loss.h"
#include "csrc/sigmoid_focal_loss/sigmoid_focal_loss_args.h"
#include "csrc/torch_abi/torch_abi.h"

namespace detectron2 {
namespace {

Tensor sigmoid_focal_loss(const Tensor& logits, const Tensor& labels, double alpha, double gamma) {
  const FocalLossShape shape = check_focal_loss_args(logits, labels, alpha, gamma);
  const ScalarType dtype = compute_dtype(logits.scalar_type());
  const Tensor values = contiguous_as(logits, dtype);
  const Tensor classes = contiguous_as(labels, ScalarType::Long);
  const Tensor losses = new_empty(values, {shape.rows}, dtype);
  dispatch_compute_dtype(dtype, [&](auto zero) {
    using T = decltype(zero);
    sigmoid_focal_loss_cpu<T>(data_of<T>(values), data_of<int64_t>(classes), shape,
                              mutable_data_of<T>(losses), parallel_for);
  });
  return aten::sum(losses);
}

Tensor sigmoid_focal_loss_backward(const Tensor& grad, const Tensor& logits, const Tensor& labels,
                                   double alpha, double gamma) {
  const FocalLossShape shape = check_focal_loss_args(logits, labels, alpha, gamma);
  const ScalarType dtype = compute_dtype(logits.scalar_type());
  const Tensor scale = contiguous_as(grad, dtype);
  const Tensor values = contiguous_as(logits, dtype);
  const Tensor classes = contiguous_as(labels, ScalarType::Long);
  const Tensor result = new_empty(values, {shape.rows, shape.classes}, dtype);
  dispatch_compute_dtype(dtype, [&](auto zero) {
    using T = decltype(zero);
    sigmoid_focal_loss_backward_cpu<T>(*data_of<T>(scale), data_of<T>(values),
                                       data_of<int64_t>(classes), shape, mutable_data_of<T>(result),
                                       parallel_for);
  });
  return contiguous_as(result, logits.scalar_type());
}

}  // namespace
}  // namespace detectron2

STABLE_TORCH_LIBRARY_FRAGMENT(detectron2, m) {
  m.def("sigmoid_focal_loss(Tensor logits, Tensor labels, float alpha, float gamma) -> Tensor");
  m.def(
      "sigmoid_focal_loss_backward(Tensor grad, Tensor logits, Tensor labels, float alpha, float "
      "gamma) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(detectron2, CPU, m) {
  m.impl("sigmoid_focal_loss", TORCH_BOX(&detectron2::sigmoid_focal_loss));
  m.impl("sigmoid_focal_loss_backward", TORCH_BOX(&detectron2::sigmoid_focal_loss_backward));
}
