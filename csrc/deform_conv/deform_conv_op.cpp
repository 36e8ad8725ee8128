#include "csrc/deform_conv/deform_conv.h"
#include "csrc/deform_conv/deform_conv_args.h"
#include "csrc/torch_abi/torch_abi.h"

namespace detectron2 {
namespace {

void sample(const DeformConvShape& shape, const DeformConvSamples& samples, PixelRange range,
            const Tensor& columns) {
  dispatch_compute_dtype(columns.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    deform_conv_sample_cpu<T>(data_of<T>(samples.input), data_of<T>(samples.offset),
                              data_if_any<T>(samples.mask), shape, range,
                              mutable_data_of<T>(columns), parallel_for);
  });
}

Tensor deform_conv(const Tensor& input, const Tensor& offset, std::optional<Tensor> mask,
                   const Tensor& weight, std::optional<Tensor> bias, std::vector<int64_t> stride,
                   std::vector<int64_t> padding, std::vector<int64_t> dilation, int64_t groups,
                   int64_t offset_groups) {
  const DeformConvShape shape = check_deform_conv("deform_conv", input, offset, mask, weight, bias,
                                                  stride, padding, dilation, groups, offset_groups);
  const DeformConvSamples samples =
      deform_conv_samples(input, offset, mask, compute_dtype(input.scalar_type()));
  const Tensor output = convolve(
      samples, weight, bias, shape,
      [&](PixelRange range, const Tensor& columns) { sample(shape, samples, range, columns); });
  return in_format(output, input.scalar_type(), format_of(input));
}

DeformConvResults deform_conv_backward(const Tensor& grad_output, const Tensor& input,
                                       const Tensor& offset, std::optional<Tensor> mask,
                                       const Tensor& weight, std::vector<int64_t> stride,
                                       std::vector<int64_t> padding, std::vector<int64_t> dilation,
                                       int64_t groups, int64_t offset_groups,
                                       bool need_data_gradients, bool need_weight_gradient) {
  constexpr const char* op = "deform_conv_backward";
  const DeformConvShape shape = check_deform_conv(op, input, offset, mask, weight, std::nullopt,
                                                  stride, padding, dilation, groups, offset_groups);
  check_grad_output(op, shape, input, grad_output);
  const ScalarType dtype = compute_dtype(input.scalar_type());
  const DeformConvSamples samples = deform_conv_samples(input, offset, mask, dtype);
  const DeformConvGradients gradients = convolve_backward(
      contiguous_as(grad_output, dtype), samples, weight, shape, need_data_gradients,
      need_weight_gradient,
      [&](PixelRange range, const Tensor& columns) { sample(shape, samples, range, columns); },
      [&](PixelRange range, const Tensor& columns, const DeformConvGradients& into) {
        dispatch_compute_dtype(dtype, [&](auto zero) {
          using T = decltype(zero);
          deform_conv_spread_cpu<T>(
              data_of<T>(columns), data_of<T>(samples.input), data_of<T>(samples.offset),
              data_if_any<T>(samples.mask), shape, range, mutable_data_of<T>(into.input),
              mutable_data_of<T>(into.offset),
              samples.mask.has_value() ? mutable_data_of<T>(into.mask) : nullptr, parallel_for);
        });
      });
  return as_given(gradients, input, offset, mask);
}

}  // namespace
}  // namespace detectron2

STABLE_TORCH_LIBRARY_FRAGMENT(detectron2, m) {
  m.def(
      "deform_conv(Tensor input, Tensor offset, Tensor? mask, Tensor weight, Tensor? bias, "
      "int[2] stride, int[2] padding, int[2] dilation, int groups, int offset_groups) -> Tensor");
  m.def(
      "deform_conv_backward(Tensor grad_output, Tensor input, Tensor offset, Tensor? mask, "
      "Tensor weight, int[2] stride, int[2] padding, int[2] dilation, int groups, "
      "int offset_groups, bool need_data_gradients, bool need_weight_gradient) -> "
      "(Tensor grad_input, Tensor grad_offset, Tensor grad_mask, Tensor grad_weight)");
}

STABLE_TORCH_LIBRARY_IMPL(detectron2, CPU, m) {
  m.impl("deform_conv", TORCH_BOX(&detectron2::deform_conv));
  m.impl("deform_conv_backward", TORCH_BOX(&detectron2::deform_conv_backward));
}
