// The fast CUDA kernels of the deformable convolution: samples go from shared memory straight into
// tensor-core matrix products, and no matrix of samples is ever written to memory.
//
// They serve float32 (each value split into two of float16 with exact scales, so with float32's
// precision), float16 and bfloat16 (accumulated in float32), on GPUs from sm_80 on and for shapes
// that deform_conv_fused_supports; all others take the kernels of deform_conv.h.

#pragma once

#include <cstdint>

#include "csrc/common/half.h"
#include "csrc/deform_conv/shape.h"

namespace detectron2 {

// Whether the current device and the shape can take the kernels below.
bool deform_conv_fused_supports(const DeformConvShape& shape);

// Memory layout of the tensors with channels: (batch, channels, height, width) in the order of the
// name; in kNhwc they start at a multiple of 16 bytes. Offsets and masks are always contiguous in
// NCHW order, weights in (O, C, H, W) order.
enum class Layout { kNchw, kNhwc };

// Bytes of work space that the forward pass needs, besides its tensors.
int64_t deform_conv_fused_forward_workspace(const DeformConvShape& shape, int64_t element_size,
                                            Layout layout);

// output = conv(...) + bias; `mask` and `bias` (out_channels) may be null. T is float, Half or
// BFloat16. `input` and `output` are in `layout`. The same bits on every run. `workspace` is
// aligned to 256 bytes. `stream` is a cudaStream_t.
template <typename T>
void deform_conv_fused_forward(const T* input, const T* offset, const T* mask, const T* weight,
                               const T* bias, const DeformConvShape& shape, Layout layout,
                               void* workspace, T* output, void* stream);

// Bytes of work space that the gradient of the weight needs, besides its tensors.
int64_t deform_conv_fused_backward_weight_workspace(const DeformConvShape& shape,
                                                    int64_t element_size, Layout layout);

// grad_weight, written whole, by adding with atomics in no fixed order. `mask` may be null;
// `grad_output` and `input` are in `layout`.
template <typename T>
void deform_conv_fused_backward_weight(const T* grad_output, const T* input, const T* offset,
                                       const T* mask, const DeformConvShape& shape, Layout layout,
                                       void* workspace, T* grad_weight, void* stream);

// Bytes of work space that the gradients of the data need, besides their tensors.
int64_t deform_conv_fused_backward_data_workspace(const DeformConvShape& shape,
                                                  int64_t element_size, Layout layout);

// grad_input, grad_offset and grad_mask, each written whole, by adding with atomics in no fixed
// order; any of them may be null, if not needed, and grad_mask is without a mask. `grad_output`,
// `input` and `grad_input` are in `layout`.
template <typename T>
void deform_conv_fused_backward_data(const T* grad_output, const T* input, const T* offset,
                                     const T* mask, const T* weight, const DeformConvShape& shape,
                                     Layout layout, void* workspace, T* grad_input, T* grad_offset,
                                     T* grad_mask, void* stream);

}  // namespace detectron2
