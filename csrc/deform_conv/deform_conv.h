// Kernels of torch.ops.detectron2.deform_conv and _backward for any shape: they fill a matrix of
// samples for the matrix product, or take its gradient apart.
//
// That matrix, the columns, is (groups, pixels, kernel_h * kernel_w, in_channels / groups) and
// covers a range of the pixels of the output, counted over (batch, out_height, out_width). `input`
// and `grad_input` are in NHWC order, so that threads and vectors run along the channels; offsets
// and masks are as in shape.h, `mask` may be null. T is the type of the features, R =
// Accumulator<T> that of offsets, masks and sums.

#pragma once

#include <cstdint>

#include "csrc/common/half.h"
#include "csrc/common/parallel_for.h"
#include "csrc/deform_conv/shape.h"

namespace detectron2 {

struct PixelRange {
  int64_t begin;
  int64_t end;
};

// T is float or double.
template <typename T>
void deform_conv_sample_cpu(const T* input, const T* offset, const T* mask,
                            const DeformConvShape& shape, PixelRange pixels, T* columns,
                            ParallelFor parallel_for);

// Adds to grad_input, and writes the range's part of grad_offset and, unless there is no mask, of
// grad_mask; the same bits for any number of threads.
template <typename T>
void deform_conv_spread_cpu(const T* grad_columns, const T* input, const T* offset, const T* mask,
                            const DeformConvShape& shape, PixelRange pixels, T* grad_input,
                            T* grad_offset, T* grad_mask, ParallelFor parallel_for);

// T is float, double, Half or BFloat16; on the current device, `stream` is a cudaStream_t. The
// range may not be empty.
template <typename T>
void deform_conv_sample_cuda(const T* input, const Accumulator<T>* offset,
                             const Accumulator<T>* mask, const DeformConvShape& shape,
                             PixelRange pixels, T* columns, void* stream);

// As on the CPU, but adds to grad_input with atomics, so in no fixed order.
template <typename T>
void deform_conv_spread_cuda(const T* grad_columns, const T* input, const Accumulator<T>* offset,
                             const Accumulator<T>* mask, const DeformConvShape& shape,
                             PixelRange pixels, Accumulator<T>* grad_input,
                             Accumulator<T>* grad_offset, Accumulator<T>* grad_mask, void* stream);

}  // namespace detectron2
