#include "csrc/deform_conv/deform_conv.h"
#include "csrc/deform_conv/deform_conv_args.h"
#include "csrc/torch_abi/torch_abi.h"

namespace detectron2 {
namespace {

void sample(const DeformConvShape& shape, const DeformConvSamples& samples, PixelRange range,
            const Tensor& columns) {
  dispatch_storage_dtype(columns.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    using R = Accumulator<T>;
    deform_conv_sample_cuda<T>(data_of<T>(samples.input), data_of<R>(samples.offset),
                               data_if_any<R>(samples.mask), shape, range,
                               mutable_data_of<T>(columns), current_cuda_stream(columns));
  });
}

Tensor deform_conv(const Tensor& input, const Tensor& offset, std::optional<Tensor> mask,
                   const Tensor& weight, std::optional<Tensor> bias, std::vector<int64_t> stride,
                   std::vector<int64_t> padding, std::vector<int64_t> dilation, int64_t groups,
                   int64_t offset_groups) {
  const DeformConvShape shape = check_deform_conv("deform_conv", input, offset, mask, weight, bias,
                                                  stride, padding, dilation, groups, offset_groups);
  const DeviceGuard guard(input.get_device_index());
  const ScalarType dtype = input.scalar_type();
  const DeformConvSamples samples = deform_conv_samples(input, offset, mask, dtype);
  const Tensor output = convolve(
      samples, weight, bias, shape,
      [&](PixelRange range, const Tensor& columns) { sample(shape, samples, range, columns); });
  return in_format(output, dtype, format_of(input));
}

DeformConvGradients deform_conv_backward(const Tensor& grad_output, const Tensor& input,
                                         const Tensor& offset, std::optional<Tensor> mask,
                                         const Tensor& weight, std::vector<int64_t> stride,
                                         std::vector<int64_t> padding,
                                         std::vector<int64_t> dilation, int64_t groups,
                                         int64_t offset_groups, bool need_data_gradients,
                                         bool need_weight_gradient) {
  constexpr const char* op = "deform_conv_backward";
  const DeformConvShape shape = check_deform_conv(op, input, offset, mask, weight, std::nullopt,
                                                  stride, padding, dilation, groups, offset_groups);
  check_grad_output(op, shape, input, grad_output);
  const DeviceGuard guard(input.get_device_index());
  const ScalarType dtype = input.scalar_type();
  const DeformConvSamples samples = deform_conv_samples(input, offset, mask, dtype);
  const DeformConvGradients gradients = convolve_backward(
      contiguous_as(grad_output, dtype), samples, weight, shape, need_data_gradients,
      need_weight_gradient,
      [&](PixelRange range, const Tensor& columns) { sample(shape, samples, range, columns); },
      [&](PixelRange range, const Tensor& columns, const Tensor& grad_input,
          const Tensor& grad_offset, const Tensor& grad_mask) {
        dispatch_storage_dtype(dtype, [&](auto zero) {
          using T = decltype(zero);
          using R = Accumulator<T>;
          deform_conv_spread_cuda<T>(
              data_of<T>(columns), data_of<T>(samples.input), data_of<R>(samples.offset),
              data_if_any<R>(samples.mask), shape, range, mutable_data_of<R>(grad_input),
              mutable_data_of<R>(grad_offset),
              samples.mask.has_value() ? mutable_data_of<R>(grad_mask) : nullptr,
              current_cuda_stream(input));
        });
      });
  return as_given(gradients, input, offset, mask);
}

}  // namespace
}  // namespace detectron2

STABLE_TORCH_LIBRARY_IMPL(detectron2, CUDA, m) {
  m.impl("deform_conv", TORCH_BOX(&detectron2::deform_conv));
  m.impl("deform_conv_backward", TORCH_BOX(&detectron2::deform_conv_backward));
}
