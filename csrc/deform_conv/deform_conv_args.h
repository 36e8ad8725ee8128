// What the CPU and the CUDA binding of deform_conv share: checks, memory layouts, and the
// convolution as samples in bounded chunks that feed matrix products.

#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <tuple>
#include <vector>

#include "csrc/deform_conv/deform_conv.h"
#include "csrc/torch_abi/torch_abi.h"

namespace detectron2 {

// ---- Arguments --------------------------------------------------------------------------------

inline int64_t convolved_size(int64_t size, int64_t kernel, int64_t stride, int64_t padding,
                              int64_t dilation) {
  // Rounded towards minus infinity where nothing is left, so that the message tells.
  const int64_t room = size + 2 * padding - (dilation * (kernel - 1) + 1);
  return (room >= 0 ? room / stride : -((-room + stride - 1) / stride)) + 1;
}

inline void check_pair(const char* op, const char* name, const std::vector<int64_t>& pair,
                       int64_t least) {
  DETECTRON2_CHECK(pair.size() == 2, op, ": ", name, " must have two values, got ", pair.size());
  DETECTRON2_CHECK(
      pair[0] >= least && pair[1] >= least && pair[0] <= 0x7fffffff && pair[1] <= 0x7fffffff, op,
      ": ", name, " must be at least ", least, " and below 2**31, got ", pair[0], " and ", pair[1]);
}

inline DeformConvShape check_deform_conv(const char* op, const Tensor& input, const Tensor& offset,
                                         const std::optional<Tensor>& mask, const Tensor& weight,
                                         const std::optional<Tensor>& bias,
                                         const std::vector<int64_t>& stride,
                                         const std::vector<int64_t>& padding,
                                         const std::vector<int64_t>& dilation, int64_t groups,
                                         int64_t offset_groups) {
  check_shape(op, "input", input, {-1, -1, -1, -1}, "(N, C, H, W)");
  check_shape(op, "weight", weight, {-1, -1, -1, -1}, "(O, C / groups, KH, KW)");
  check_shape(op, "offset", offset, {-1, -1, -1, -1}, "(N, offset_groups * KH * KW * 2, OH, OW)");
  check_pair(op, "stride", stride, 1);
  check_pair(op, "padding", padding, 0);
  check_pair(op, "dilation", dilation, 1);
  DETECTRON2_CHECK(groups > 0 && offset_groups > 0, op,
                   ": groups and offset_groups must be positive, got ", groups, " and ",
                   offset_groups);
  DETECTRON2_CHECK(weight.numel() > 0, op, ": weight must not be empty, got the shape ",
                   shape_name(weight));

  DeformConvShape shape = {};
  shape.batch = input.size(0);
  shape.in_channels = input.size(1);
  shape.height = input.size(2);
  shape.width = input.size(3);
  shape.out_channels = weight.size(0);
  shape.kernel_h = weight.size(2);
  shape.kernel_w = weight.size(3);
  shape.stride_h = stride[0];
  shape.stride_w = stride[1];
  shape.pad_h = padding[0];
  shape.pad_w = padding[1];
  shape.dilation_h = dilation[0];
  shape.dilation_w = dilation[1];
  shape.groups = groups;
  shape.offset_groups = offset_groups;

  DETECTRON2_CHECK(shape.in_channels % groups == 0 && shape.out_channels % groups == 0, op,
                   ": groups must divide the channels, got groups ", groups, " with ",
                   shape.in_channels, " channels of input and ", shape.out_channels, " of output");
  DETECTRON2_CHECK(shape.in_channels % offset_groups == 0, op,
                   ": offset_groups must divide the channels of input, got ", offset_groups,
                   " with ", shape.in_channels, " channels");
  DETECTRON2_CHECK(weight.size(1) * groups == shape.in_channels, op,
                   ": weight must have the shape (O, C / groups, KH, KW) with C = ",
                   shape.in_channels, " and groups = ", groups, ", got ", shape_name(weight));

  shape.out_height =
      convolved_size(shape.height, shape.kernel_h, shape.stride_h, shape.pad_h, shape.dilation_h);
  shape.out_width =
      convolved_size(shape.width, shape.kernel_w, shape.stride_w, shape.pad_w, shape.dilation_w);
  DETECTRON2_CHECK(shape.out_height > 0 && shape.out_width > 0, op,
                   ": the output must have at least one pixel, got ", shape.out_height, " x ",
                   shape.out_width, " from an input of ", shape.height, " x ", shape.width);

  const int64_t taps = shape.kernel_h * shape.kernel_w;
  check_shape(op, "offset", offset,
              {shape.batch, offset_groups * taps * 2, shape.out_height, shape.out_width},
              "(N, offset_groups * KH * KW * 2, OH, OW) of the output");
  check_float(op, "input", input);
  check_float(op, "offset", offset);
  check_same_dtype(op, "input", input, "weight", weight);
  check_same_device(op, "input", input, "offset", offset);
  check_same_device(op, "input", input, "weight", weight);
  if (mask.has_value()) {
    check_shape(op, "mask", *mask,
                {shape.batch, offset_groups * taps, shape.out_height, shape.out_width},
                "(N, offset_groups * KH * KW, OH, OW) of the output");
    check_float(op, "mask", *mask);
    check_same_device(op, "input", input, "mask", *mask);
  }
  if (bias.has_value()) {
    check_shape(op, "bias", *bias, {shape.out_channels}, "(O,)");
    check_same_dtype(op, "input", input, "bias", *bias);
    check_same_device(op, "input", input, "bias", *bias);
  }
  return shape;
}

inline void check_grad_output(const char* op, const DeformConvShape& shape, const Tensor& input,
                              const Tensor& grad_output) {
  check_shape(op, "grad_output", grad_output,
              {shape.batch, shape.out_channels, shape.out_height, shape.out_width},
              "(N, O, OH, OW) of the output");
  check_same_dtype(op, "input", input, "grad_output", grad_output);
  check_same_device(op, "input", input, "grad_output", grad_output);
}

// ---- Memory layouts ---------------------------------------------------------------------------

using torch::headeronly::MemoryFormat;

// Whether the tensor, (N, C, H, W), is laid out as (N, H, W, C) and not also as it is written.
inline bool is_channels_last(const Tensor& tensor) {
  if (tensor.is_contiguous()) {
    return false;
  }
  int64_t expected = 1;
  for (const int64_t dim : {1, 3, 2, 0}) {
    if (tensor.size(dim) != 1) {
      if (tensor.stride(dim) != expected) {
        return false;
      }
      expected *= tensor.size(dim);
    }
  }
  return true;
}

// `tensor`, (N, C, H, W), as one of `dtype` in that order of memory; itself where it is that.
inline Tensor in_format(const Tensor& tensor, ScalarType dtype, MemoryFormat format) {
  const Tensor cast =
      tensor.scalar_type() == dtype ? tensor : torch::stable::to(tensor, std::optional(dtype));
  // Asked here, for a call that finds nothing to do costs as much as half a launch.
  const bool channels_last = format == MemoryFormat::ChannelsLast;
  const bool ordered = channels_last ? is_channels_last(cast) : cast.is_contiguous();
  return ordered ? cast : torch::stable::contiguous(cast, format);
}

inline MemoryFormat format_of(const Tensor& input) {
  return is_channels_last(input) ? MemoryFormat::ChannelsLast : MemoryFormat::Contiguous;
}

inline std::optional<Tensor> contiguous_if_any(const std::optional<Tensor>& tensor,
                                               ScalarType dtype) {
  return tensor.has_value() ? std::optional(contiguous_as(*tensor, dtype)) : std::nullopt;
}

template <typename T>
const T* data_if_any(const std::optional<Tensor>& tensor) {
  return tensor.has_value() ? data_of<T>(*tensor) : nullptr;
}

// ---- Gradients --------------------------------------------------------------------------------

struct DeformConvGradients {
  Tensor input;
  Tensor offset;
  Tensor mask;
  Tensor weight;
};

using DeformConvResults = std::tuple<Tensor, Tensor, Tensor, Tensor>;

// The gradients in the dtypes of the arguments that they belong to, and that of the input in its
// memory order, too. Those that are not defined, for they were not asked for or there is no mask,
// have the shape (0,).
inline DeformConvResults as_given(const DeformConvGradients& gradients, const Tensor& input,
                                  const Tensor& offset, const std::optional<Tensor>& mask) {
  const auto cast_or_none = [&](const Tensor& gradient, ScalarType dtype) {
    return gradient.defined() ? contiguous_as(gradient, dtype) : new_empty(input, {0}, dtype);
  };
  const ScalarType dtype = input.scalar_type();
  return {gradients.input.defined() ? in_format(gradients.input, dtype, format_of(input))
                                    : new_empty(input, {0}),
          cast_or_none(gradients.offset, offset.scalar_type()),
          cast_or_none(gradients.mask, mask.has_value() ? mask->scalar_type() : dtype),
          cast_or_none(gradients.weight, dtype)};
}

// ---- The convolution in chunks ----------------------------------------------------------------

// What the columns of a chunk may take: enough rows for a matrix product to run at full speed.
constexpr int64_t kColumnBytes = int64_t{32} << 20;

// The tensors that say what is sampled where, as kernels take them.
struct DeformConvSamples {
  Tensor input;  // (N, C, H, W) in the memory order NHWC
  Tensor offset;
  std::optional<Tensor> mask;
};

inline DeformConvSamples deform_conv_samples(const Tensor& input, const Tensor& offset,
                                             const std::optional<Tensor>& mask, ScalarType dtype) {
  const ScalarType point_dtype = compute_dtype(dtype);
  return {in_format(input, dtype, MemoryFormat::ChannelsLast), contiguous_as(offset, point_dtype),
          contiguous_if_any(mask, point_dtype)};
}

// Calls visit(range, columns) for ranges that cover all pixels of the output; `columns` is for a
// range (groups, pixels, KH * KW * C / groups), of `dtype`, and its memory serves all ranges.
template <typename Visit>
void for_each_chunk(const Tensor& like, const DeformConvShape& shape, ScalarType dtype,
                    const Visit& visit) {
  const int64_t total = shape.batch * shape.out_height * shape.out_width;
  if (total == 0) {
    return;
  }
  const int64_t depth = shape.kernel_h * shape.kernel_w * (shape.in_channels / shape.groups);
  const int64_t row_bytes = shape.groups * depth * static_cast<int64_t>(like.element_size());
  const int64_t limit = std::max<int64_t>(kColumnBytes / row_bytes, 1);
  // Of equal size, as far as that goes: a small last one would take nearly the time of a full one.
  const int64_t chunks = (total + limit - 1) / limit;
  const int64_t step = (total + chunks - 1) / chunks;
  Tensor memory = new_empty(like, {shape.groups * step * depth}, dtype);
  for (int64_t begin = 0; begin < total; begin += step) {
    const int64_t count = std::min(step, total - begin);
    const Tensor part = torch::stable::narrow(memory, 0, 0, shape.groups * count * depth);
    visit(PixelRange{begin, begin + count},
          torch::stable::view(part, {shape.groups, count, depth}));
  }
}

// The weight, (O, C / groups, KH, KW), as (groups, KH * KW * C / groups, O / groups).
inline Tensor weight_matrices(const Tensor& weight, const DeformConvShape& shape) {
  const int64_t taps = shape.kernel_h * shape.kernel_w;
  const int64_t inputs = shape.in_channels / shape.groups;
  const int64_t outputs = shape.out_channels / shape.groups;
  const Tensor parts = torch::stable::reshape(weight, {shape.groups, outputs, inputs, taps});
  return torch::stable::reshape(torch::stable::permute(parts, {0, 3, 2, 1}),
                                {shape.groups, taps * inputs, outputs});
}

// The inverse of weight_matrices.
inline Tensor weight_from_matrices(const Tensor& matrices, const DeformConvShape& shape) {
  const int64_t taps = shape.kernel_h * shape.kernel_w;
  const int64_t inputs = shape.in_channels / shape.groups;
  const int64_t outputs = shape.out_channels / shape.groups;
  const Tensor parts = torch::stable::view(matrices, {shape.groups, taps, inputs, outputs});
  return torch::stable::reshape(torch::stable::permute(parts, {0, 3, 2, 1}),
                                {shape.out_channels, inputs, shape.kernel_h, shape.kernel_w});
}

// The gradient of the output, (N, O, OH, OW), as (groups, N * OH * OW, O / groups).
inline Tensor output_matrices(const Tensor& output, const DeformConvShape& shape) {
  const int64_t plane = shape.out_height * shape.out_width;
  const int64_t outputs = shape.out_channels / shape.groups;
  const Tensor parts = torch::stable::reshape(output, {shape.batch, shape.groups, outputs, plane});
  return torch::stable::reshape(torch::stable::permute(parts, {1, 0, 3, 2}),
                                {shape.groups, shape.batch * plane, outputs});
}

// Its inverse, with memory in the order that the matrices have where that is possible.
inline Tensor output_from_matrices(const Tensor& matrices, const DeformConvShape& shape) {
  const int64_t outputs = shape.out_channels / shape.groups;
  const Tensor parts = torch::stable::view(
      matrices, {shape.groups, shape.batch, shape.out_height, shape.out_width, outputs});
  return torch::stable::reshape(
      torch::stable::permute(parts, {1, 0, 4, 2, 3}),
      {shape.batch, shape.out_channels, shape.out_height, shape.out_width});
}

// The output in the dtype of `samples.input`. sample(range, columns) fills the columns of a
// range of pixels.
template <typename Sample>
Tensor convolve(const DeformConvSamples& samples, const Tensor& weight,
                const std::optional<Tensor>& bias, const DeformConvShape& shape,
                const Sample& sample) {
  const int64_t total = shape.batch * shape.out_height * shape.out_width;
  const int64_t outputs = shape.out_channels / shape.groups;
  const ScalarType dtype = samples.input.scalar_type();
  const Tensor matrices = weight_matrices(contiguous_as(weight, dtype), shape);
  Tensor output = new_empty(samples.input, {shape.groups, total, outputs});
  for_each_chunk(samples.input, shape, dtype, [&](PixelRange range, const Tensor& columns) {
    sample(range, columns);
    aten::bmm_out(columns, matrices,
                  torch::stable::narrow(output, 1, range.begin, range.end - range.begin));
  });
  if (bias.has_value()) {
    const Tensor cast_bias = contiguous_as(*bias, dtype);
    output = aten::add(output, torch::stable::view(cast_bias, {shape.groups, 1, outputs}));
  }
  return output_from_matrices(output, shape);
}

// Gradients in the dtypes that sums are kept in, of the data and of the weight as far as they are
// asked for. `grad_output` has the dtype of `samples.input`. sample(range, columns) is as above;
// spread(range, columns, gradients) takes the columns' gradient apart and adds to gradients.input,
// which is in NHWC order.
template <typename Sample, typename Spread>
DeformConvGradients convolve_backward(const Tensor& grad_output, const DeformConvSamples& samples,
                                      const Tensor& weight, const DeformConvShape& shape,
                                      bool need_data_gradients, bool need_weight_gradient,
                                      const Sample& sample, const Spread& spread) {
  const ScalarType dtype = samples.input.scalar_type();
  const ScalarType sum_dtype = compute_dtype(dtype);
  DeformConvGradients gradients;
  if (!need_data_gradients && !need_weight_gradient) {
    return gradients;
  }
  Tensor matrices = weight_matrices(contiguous_as(weight, dtype), shape);
  Tensor grads = output_matrices(grad_output, shape);
  Tensor sum;
  if (need_data_gradients) {
    const Tensor memory = torch::stable::new_zeros(
        samples.input, {shape.batch, shape.height, shape.width, shape.in_channels}, sum_dtype);
    gradients.input = torch::stable::permute(memory, {0, 3, 1, 2});
    gradients.offset = torch::stable::empty_like(samples.offset);
    if (samples.mask.has_value()) {
      gradients.mask = torch::stable::empty_like(*samples.mask);
    }
  }
  if (need_weight_gradient) {
    sum = torch::stable::new_zeros(samples.input,
                                   {shape.groups, matrices.size(1), matrices.size(2)}, sum_dtype);
  }
  const Tensor transposed = torch::stable::transpose(matrices, 1, 2);
  for_each_chunk(samples.input, shape, dtype, [&](PixelRange range, const Tensor& columns) {
    const Tensor part = torch::stable::narrow(grads, 1, range.begin, range.end - range.begin);
    if (need_weight_gradient) {
      sample(range, columns);
      sum = aten::add(sum, aten::bmm(torch::stable::transpose(columns, 1, 2), part));
    }
    if (need_data_gradients) {
      aten::bmm_out(part, transposed, columns);
      spread(range, columns, gradients);
    }
  });
  if (need_weight_gradient) {
    gradients.weight = weight_from_matrices(sum, shape);
  }
  return gradients;
}

}  // namespace detectron2
