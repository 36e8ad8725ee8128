#include <type_traits>

#include "csrc/deform_conv/deform_conv.h"
#include "csrc/deform_conv/deform_conv_args.h"
#include "csrc/deform_conv/fused.h"
#include "csrc/torch_abi/torch_abi.h"

namespace detectron2 {
namespace {

// ---- The fused kernels -----------------------------------------------------------------------

// They read offsets in the dtype of the features. Offsets in another one were made to keep their
// digits, which the general kernels do.
bool takes_fused(const DeformConvShape& shape, const Tensor& input, const Tensor& offset) {
  return shape.batch > 0 && input.scalar_type() != ScalarType::Double &&
         offset.scalar_type() == input.scalar_type() && deform_conv_fused_supports(shape);
}

// Calls `body` with a zero of the type that the fused kernels store `dtype` in.
template <typename Body>
void dispatch_fused_dtype(ScalarType dtype, const Body& body) {
  dispatch_storage_dtype(dtype, [&](auto zero) {
    if constexpr (!std::is_same_v<decltype(zero), double>) {
      body(zero);
    }
  });
}

Layout layout_of(const Tensor& input) {
  return format_of(input) == MemoryFormat::ChannelsLast ? Layout::kNhwc : Layout::kNchw;
}

Tensor new_workspace(const Tensor& like, int64_t bytes) {
  return torch::stable::new_empty(like, {bytes}, ScalarType::Byte);
}

Tensor fused_forward(const Tensor& input, const Tensor& offset, const std::optional<Tensor>& mask,
                     const Tensor& weight, const std::optional<Tensor>& bias,
                     const DeformConvShape& shape) {
  const ScalarType dtype = input.scalar_type();
  const MemoryFormat format = format_of(input);
  const Layout layout = layout_of(input);
  const Tensor pixels = in_format(input, dtype, format);
  const Tensor offsets = contiguous_as(offset, dtype);
  const std::optional<Tensor> masks = contiguous_if_any(mask, dtype);
  const Tensor weights = contiguous_as(weight, dtype);
  const std::optional<Tensor> biases = contiguous_if_any(bias, dtype);
  const Tensor output = new_in_format(
      input, {shape.batch, shape.out_channels, shape.out_height, shape.out_width}, dtype, format);
  const Tensor workspace =
      new_workspace(input, deform_conv_fused_forward_workspace(
                               shape, static_cast<int64_t>(input.element_size()), layout));
  dispatch_fused_dtype(dtype, [&](auto zero) {
    using T = decltype(zero);
    deform_conv_fused_forward<T>(data_of<T>(pixels), data_of<T>(offsets), data_if_any<T>(masks),
                                 data_of<T>(weights), data_if_any<T>(biases), shape, layout,
                                 workspace.mutable_data_ptr(), mutable_data_of<T>(output),
                                 current_cuda_stream(input));
  });
  return output;
}

DeformConvGradients fused_backward(const Tensor& grad_output, const Tensor& input,
                                   const Tensor& offset, const std::optional<Tensor>& mask,
                                   const Tensor& weight, const DeformConvShape& shape,
                                   bool need_data_gradients, bool need_weight_gradient) {
  const ScalarType dtype = input.scalar_type();
  const int64_t element_size = static_cast<int64_t>(input.element_size());
  const MemoryFormat format = format_of(input);
  const Layout layout = layout_of(input);
  const Tensor grad = in_format(grad_output, dtype, format);
  const Tensor pixels = in_format(input, dtype, format);
  const Tensor offsets = contiguous_as(offset, dtype);
  const std::optional<Tensor> masks = contiguous_if_any(mask, dtype);
  void* stream = current_cuda_stream(input);
  Tensor grad_input = no_gradient(input);
  Tensor grad_offset = no_gradient(input);
  Tensor grad_mask = no_gradient(input);
  Tensor grad_weight = no_gradient(input);
  if (need_data_gradients) {
    const Tensor weights = contiguous_as(weight, dtype);
    grad_input = new_in_format(input, {shape.batch, shape.in_channels, shape.height, shape.width},
                               dtype, format);
    grad_offset = torch::stable::empty_like(offsets);
    if (masks.has_value()) {
      grad_mask = torch::stable::empty_like(*masks);
    }
    const Tensor workspace = new_workspace(
        input, deform_conv_fused_backward_data_workspace(shape, element_size, layout));
    dispatch_fused_dtype(dtype, [&](auto zero) {
      using T = decltype(zero);
      deform_conv_fused_backward_data<T>(
          data_of<T>(grad), data_of<T>(pixels), data_of<T>(offsets), data_if_any<T>(masks),
          data_of<T>(weights), shape, layout, workspace.mutable_data_ptr(),
          mutable_data_of<T>(grad_input), mutable_data_of<T>(grad_offset),
          masks.has_value() ? mutable_data_of<T>(grad_mask) : nullptr, stream);
    });
  }
  return {grad_input, grad_offset, grad_mask, grad_weight};
}

// ---- The general kernels ---------------------------------------------------------------------

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

// ---- The operators ---------------------------------------------------------------------------

Tensor deform_conv(const Tensor& input, const Tensor& offset, std::optional<Tensor> mask,
                   const Tensor& weight, std::optional<Tensor> bias, std::vector<int64_t> stride,
                   std::vector<int64_t> padding, std::vector<int64_t> dilation, int64_t groups,
                   int64_t offset_groups) {
  const DeformConvShape shape = check_deform_conv("deform_conv", input, offset, mask, weight, bias,
                                                  stride, padding, dilation, groups, offset_groups);
  const DeviceGuard guard(input.get_device_index());
  if (takes_fused(shape, input, offset)) {
    return fused_forward(input, offset, mask, weight, bias, shape);
  }
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
  if (takes_fused(shape, input, offset)) {
    auto result = fused_backward(grad_output, input, offset, mask, weight, shape,
                                 need_data_gradients, need_weight_gradient);
    const DeformConvSamples samples = deform_conv_samples(input, offset, mask, dtype);
    if (need_weight_gradient)
      std::get<3>(result) = std::get<3>(convolve_backward(
          contiguous_as(grad_output, dtype), samples, weight, shape, false, true,
          [&](PixelRange range, const Tensor& columns) { sample(shape, samples, range, columns); },
          [](auto&&...) {}));
    return as_given(result, input, offset, mask);
  }
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
