#include <array>
#include <cstdint>
#include <type_traits>

#include "csrc/deform_conv/deform_conv.h"
#include "csrc/deform_conv/deform_conv_args.h"
#include "csrc/deform_conv/fused.h"
#include "csrc/torch_abi/torch_abi.h"

namespace detectron2 {
namespace {

// ---- The fused kernels ------------------------------------------------------------------------

// They read offsets in the dtype of the features. Offsets in another one were made to keep their
// digits, which the general kernels do. The bound on the padding lets positions be 32-bit numbers.
bool takes_fused(const DeformConvShape& shape, const Tensor& input, const Tensor& offset) {
  constexpr int64_t kMostPadding = int64_t{1} << 28;
  return shape.batch > 0 && input.scalar_type() != ScalarType::Double &&
         offset.scalar_type() == input.scalar_type() && shape.pad_h < kMostPadding &&
         shape.pad_w < kMostPadding && deform_conv_fused_supports(shape);
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

// An uninitialised (N, C, H, W) tensor on the device of `like`.
Tensor new_in_format(const Tensor& like, const std::array<int64_t, 4>& size, ScalarType dtype,
                     MemoryFormat format) {
  const auto [n, c, h, w] = size;
  if (format == MemoryFormat::ChannelsLast) {
    return empty_strided<4>(like, size, {c * h * w, 1, w * c, c}, dtype);
  }
  return empty_strided<4>(like, size, {c * h * w, h * w, w, 1}, dtype);
}

// `tensor` as the fused kernels read it: in that order of memory and, as they read 16 bytes at
// once, from a multiple of 16 bytes on, which a view need not start at.
Tensor for_fused(const Tensor& tensor, ScalarType dtype, MemoryFormat format) {
  const Tensor ordered = in_format(tensor, dtype, format);
  const bool aligned = reinterpret_cast<uintptr_t>(ordered.const_data_ptr()) % 16 == 0;
  return aligned ? ordered : torch::stable::clone(ordered);
}

// The same for a contiguous tensor, with its size and dtype.
Tensor new_like(const Tensor& tensor) {
  return empty_strided(tensor, tensor.dim(), tensor.sizes().data(), tensor.strides().data(),
                       tensor.scalar_type());
}

Tensor new_workspace(const Tensor& like, int64_t bytes) {
  return empty_strided<1>(like, {bytes}, {1}, ScalarType::Byte);
}

// The tensors that say what is sampled where, as the fused kernels take them.
struct FusedSamples {
  FusedSamples(const Tensor& input, const Tensor& offset, const std::optional<Tensor>& mask)
      : dtype(input.scalar_type()),
        element_size(static_cast<int64_t>(input.element_size())),
        format(format_of(input)),
        layout(format == MemoryFormat::ChannelsLast ? Layout::kNhwc : Layout::kNchw),
        input(for_fused(input, dtype, format)),
        offset(contiguous_as(offset, dtype)),
        mask(contiguous_if_any(mask, dtype)) {}

  ScalarType dtype;
  int64_t element_size;
  MemoryFormat format;  // of input, and of what has channels of output
  Layout layout;        // the same to the kernels
  Tensor input;
  Tensor offset;
  std::optional<Tensor> mask;
};

Tensor fused_forward(const FusedSamples& samples, const Tensor& weight,
                     const std::optional<Tensor>& bias, const DeformConvShape& shape) {
  const Tensor weights = contiguous_as(weight, samples.dtype);
  const std::optional<Tensor> biases = contiguous_if_any(bias, samples.dtype);
  const Tensor output = new_in_format(
      samples.input, {shape.batch, shape.out_channels, shape.out_height, shape.out_width},
      samples.dtype, samples.format);
  const Tensor workspace = new_workspace(
      samples.input,
      deform_conv_fused_forward_workspace(shape, samples.element_size, samples.layout));
  dispatch_fused_dtype(samples.dtype, [&](auto zero) {
    using T = decltype(zero);
    deform_conv_fused_forward<T>(
        data_of<T>(samples.input), data_of<T>(samples.offset), data_if_any<T>(samples.mask),
        data_of<T>(weights), data_if_any<T>(biases), shape, samples.layout,
        workspace.mutable_data_ptr(), mutable_data_of<T>(output), current_cuda_stream(output));
  });
  return output;
}

// `grad_output` is in the memory order of the input.
void fused_data_gradients(const Tensor& grad_output, const FusedSamples& samples,
                          const Tensor& weight, const DeformConvShape& shape,
                          DeformConvGradients& gradients) {
  const Tensor weights = contiguous_as(weight, samples.dtype);
  gradients.input =
      new_in_format(samples.input, {shape.batch, shape.in_channels, shape.height, shape.width},
                    samples.dtype, samples.format);
  gradients.offset = new_like(samples.offset);
  if (samples.mask.has_value()) {
    gradients.mask = new_like(*samples.mask);
  }
  const Tensor workspace = new_workspace(
      samples.input,
      deform_conv_fused_backward_data_workspace(shape, samples.element_size, samples.layout));
  dispatch_fused_dtype(samples.dtype, [&](auto zero) {
    using T = decltype(zero);
    deform_conv_fused_backward_data<T>(
        data_of<T>(grad_output), data_of<T>(samples.input), data_of<T>(samples.offset),
        data_if_any<T>(samples.mask), data_of<T>(weights), shape, samples.layout,
        workspace.mutable_data_ptr(), mutable_data_of<T>(gradients.input),
        mutable_data_of<T>(gradients.offset),
        samples.mask.has_value() ? mutable_data_of<T>(gradients.mask) : nullptr,
        current_cuda_stream(grad_output));
  });
}

// `grad_output` is in the memory order of the input.
Tensor fused_weight_gradient(const Tensor& grad_output, const FusedSamples& samples,
                             const DeformConvShape& shape) {
  const Tensor gradient = new_in_format(
      samples.input,
      {shape.out_channels, shape.in_channels / shape.groups, shape.kernel_h, shape.kernel_w},
      samples.dtype, MemoryFormat::Contiguous);
  const Tensor workspace = new_workspace(
      samples.input,
      deform_conv_fused_backward_weight_workspace(shape, samples.element_size, samples.layout));
  dispatch_fused_dtype(samples.dtype, [&](auto zero) {
    using T = decltype(zero);
    deform_conv_fused_backward_weight<T>(
        data_of<T>(grad_output), data_of<T>(samples.input), data_of<T>(samples.offset),
        data_if_any<T>(samples.mask), shape, samples.layout, workspace.mutable_data_ptr(),
        mutable_data_of<T>(gradient), current_cuda_stream(grad_output));
  });
  return gradient;
}

// ---- The general kernels ----------------------------------------------------------------------

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

void spread(const DeformConvShape& shape, const DeformConvSamples& samples, PixelRange range,
            const Tensor& grad_columns, const DeformConvGradients& into) {
  dispatch_storage_dtype(grad_columns.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    using R = Accumulator<T>;
    deform_conv_spread_cuda<T>(data_of<T>(grad_columns), data_of<T>(samples.input),
                               data_of<R>(samples.offset), data_if_any<R>(samples.mask), shape,
                               range, mutable_data_of<R>(into.input),
                               mutable_data_of<R>(into.offset),
                               samples.mask.has_value() ? mutable_data_of<R>(into.mask) : nullptr,
                               current_cuda_stream(grad_columns));
  });
}

// ---- The operators ----------------------------------------------------------------------------

Tensor deform_conv(const Tensor& input, const Tensor& offset, std::optional<Tensor> mask,
                   const Tensor& weight, std::optional<Tensor> bias, std::vector<int64_t> stride,
                   std::vector<int64_t> padding, std::vector<int64_t> dilation, int64_t groups,
                   int64_t offset_groups) {
  const DeformConvShape shape = check_deform_conv("deform_conv", input, offset, mask, weight, bias,
                                                  stride, padding, dilation, groups, offset_groups);
  const DeviceGuard guard(input.get_device_index());
  if (takes_fused(shape, input, offset)) {
    return fused_forward(FusedSamples(input, offset, mask), weight, bias, shape);
  }
  const ScalarType dtype = input.scalar_type();
  const DeformConvSamples samples = deform_conv_samples(input, offset, mask, dtype);
  const Tensor output = convolve(
      samples, weight, bias, shape,
      [&](PixelRange range, const Tensor& columns) { sample(shape, samples, range, columns); });
  return in_format(output, dtype, format_of(input));
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
  const DeviceGuard guard(input.get_device_index());
  const ScalarType dtype = input.scalar_type();
  if (takes_fused(shape, input, offset)) {
    const FusedSamples samples(input, offset, mask);
    const Tensor grad = for_fused(grad_output, dtype, samples.format);
    DeformConvGradients gradients;
    if (need_data_gradients) {
      fused_data_gradients(grad, samples, weight, shape, gradients);
    }
    if (need_weight_gradient) {
      gradients.weight = fused_weight_gradient(grad, samples, shape);
    }
    return as_given(gradients, input, offset, mask);
  }
  const DeformConvSamples samples = deform_conv_samples(input, offset, mask, dtype);
  const DeformConvGradients gradients = convolve_backward(
      contiguous_as(grad_output, dtype), samples, weight, shape, need_data_gradients,
      need_weight_gradient,
      [&](PixelRange range, const Tensor& columns) { sample(shape, samples, range, columns); },
      [&](PixelRange range, const Tensor& grad_columns, const DeformConvGradients& into) {
        spread(shape, samples, range, grad_columns, into);
      });
  return as_given(gradients, input, offset, mask);
}

}  // namespace
}  // namespace detectron2

STABLE_TORCH_LIBRARY_IMPL(detectron2, CUDA, m) {
  m.impl("deform_conv", TORCH_BOX(&detectron2::deform_conv));
  m.impl("deform_conv_backward", TORCH_BOX(&detectron2::deform_conv_backward));
}
