// Kernels of torch.ops.detectron2.roi_align_rotated_forward and _backward.
//
// T is the type of the features, R = Accumulator<T> that of RoIs, weights and sums. Tensors are
// contiguous: features (batch_size, channels, height, width), rois (num_rois, 6), pooled features
// (num_rois, channels, pooled_height, pooled_width).

#pragma once

#include <cstdint>

#include "csrc/common/half.h"
#include "csrc/common/parallel_for.h"

namespace detectron2 {

struct RoiAlignRotatedShape {
  int64_t num_rois;
  int64_t batch_size;
  int64_t channels;
  int64_t height;
  int64_t width;
  int64_t pooled_height;
  int64_t pooled_width;
  int64_t sampling_ratio;  // along each side of a bin; 0 or less: as many as pixels
  double spatial_scale;
};

// How RoIs are stored that are read as float32: rows of six, side by side.
enum class RoiType { kFloat, kHalf, kBFloat16 };

struct RoiRows {
  const void* rows;
  RoiType type;
};

// T is float or double. The batch index of every RoI that is finite must be in range.
template <typename T>
void roi_align_rotated_forward_cpu(const T* features, const T* rois,
                                   const RoiAlignRotatedShape& shape, T* pooled,
                                   ParallelFor parallel_for);

// Adds to grad_features, the same bits for any number of threads.
template <typename T>
void roi_align_rotated_backward_cpu(const T* grad_pooled, const T* rois,
                                    const RoiAlignRotatedShape& shape, T* grad_features,
                                    ParallelFor parallel_for);

// T is float, double, Half or BFloat16; on the current device, `stream` is a cudaStream_t. `pooled`
// may not be empty. RoIs that cannot be pooled, a batch index out of range included, give zeros.
template <typename T>
void roi_align_rotated_forward_cuda(const T* features, const Accumulator<T>* rois,
                                    const RoiAlignRotatedShape& shape, T* pooled, void* stream);

// Pooling of features whose channels are side by side in memory, several times as quick, for float,
// Half and BFloat16: image by image and row by row, a pixel every `pixel_stride` elements, which
// are a multiple of 16 bytes, as is the address.
//
// Whether the shape allows it.
bool roi_align_rotated_can_pool_channels_last(const RoiAlignRotatedShape& shape);

// Whether it pays to bring features into that form first.
bool roi_align_rotated_prefers_channels_last(const RoiAlignRotatedShape& shape);

// Copies (batch_size, channels, height, width) to (batch_size, height, width, pixel_stride), save
// for pixels that none of the RoIs can sample.
template <typename T>
void roi_align_rotated_channels_last_cuda(const T* features, RoiRows rois,
                                          const RoiAlignRotatedShape& shape, int64_t pixel_stride,
                                          T* channels_last, void* stream);

// `just_copied`: whether the call above, for these features, is the last work in the stream.
template <typename T>
void roi_align_rotated_pool_channels_last_cuda(const T* features, int64_t pixel_stride,
                                               bool just_copied, RoiRows rois,
                                               const RoiAlignRotatedShape& shape, T* pooled,
                                               void* stream);

// Adds to grad_features with atomics, so in no fixed order.
template <typename T>
void roi_align_rotated_backward_cuda(const T* grad_pooled, const Accumulator<T>* rois,
                                     const RoiAlignRotatedShape& shape,
                                     Accumulator<T>* grad_features, void* stream);

}  // namespace detectron2
