// Kernels of torch.ops.detectron2.roi_align_forward and _backward: RoIAlign of upright boxes, from
// the levels of a feature pyramid at once.
//
// T is the type of the features, R = Accumulator<T> that of RoIs, weights and sums. RoIs are rows
// (batch index, x0, y0, x1, y1); pooled features are (num_rois, channels, pooled_height,
// pooled_width) and contiguous.

#pragma once

#include <cstdint>

#include "csrc/common/half.h"
#include "csrc/common/parallel_for.h"

namespace detectron2 {

constexpr int kMaxPyramidLevels = 8;

// The features of a level: (batch_size, channels, height, width) with strides in elements.
struct PyramidLevel {
  int64_t height;
  int64_t width;
  double spatial_scale;
  int64_t image_stride;
  int64_t channel_stride;
  int64_t row_stride;
  int64_t column_stride;
};

struct RoiAlignShape {
  int64_t num_rois;
  int64_t batch_size;
  int64_t channels;
  int64_t pooled_height;
  int64_t pooled_width;
  int64_t sampling_ratio;  // along each side of a bin; 0 or less: as many as pixels
  bool aligned;
  int num_levels;
  PyramidLevel levels[kMaxPyramidLevels];
};

// T* or const T* for each level.
template <typename Pointer>
struct PyramidData {
  Pointer levels[kMaxPyramidLevels];
};

template <typename R>
struct LeveledRois {
  const R* rows;
  const int64_t* levels;  // of each RoI; nullptr: all are of the only level
};

// T is float or double. The batch index of every RoI that is finite, and each level, must be in
// range.
template <typename T>
void roi_align_forward_cpu(const PyramidData<const T*>& features, const LeveledRois<T>& rois,
                           const RoiAlignShape& shape, T* pooled, ParallelFor parallel_for);

// Adds to grad_features, the same bits for any number of threads.
template <typename T>
void roi_align_backward_cpu(const T* grad_pooled, const LeveledRois<T>& rois,
                            const RoiAlignShape& shape, const PyramidData<T*>& grad_features,
                            ParallelFor parallel_for);

// The CUDA kernels: T is float, double, Half or BFloat16; on the current device, `stream` is a
// cudaStream_t. RoIs that cannot be pooled, a batch index or a level out of range included, give
// zeros. All give the same bits on every run.

// Features of any strides. `pooled` may not be empty.
template <typename T>
void roi_align_forward_cuda(const PyramidData<const T*>& features,
                            const LeveledRois<Accumulator<T>>& rois, const RoiAlignShape& shape,
                            T* pooled, void* stream);

// Pooling of features whose channels are side by side in memory, several times as quick: the
// channel stride is 1, all others are multiples of 16 bytes, as are the addresses, and channels are
// readable up to such a multiple.
//
// Whether the shape allows it.
bool roi_align_can_pool_channels_last(const RoiAlignShape& shape);

// Whether it pays to bring features into that form first.
bool roi_align_prefers_channels_last(const RoiAlignShape& shape, int64_t element_size);

template <typename T>
void roi_align_pool_channels_last_cuda(const PyramidData<const T*>& features,
                                       const LeveledRois<Accumulator<T>>& rois,
                                       const RoiAlignShape& shape, T* pooled, void* stream);

// Copies matrices (count, rows, columns) to (count, columns, row_stride): images, or pooled
// features, whose channels come to be side by side. What is beyond the rows becomes zeros.
template <typename T>
void roi_align_channels_last_cuda(const T* planes, int64_t count, int64_t rows, int64_t columns,
                                  int64_t row_stride, T* channels_last, void* stream);

// Whether the backward kernel can be used.
bool roi_align_has_backward(const RoiAlignShape& shape);

// Bytes of memory that the backward kernel needs besides, aligned to 16.
template <typename T>
int64_t roi_align_backward_workspace(int64_t num_rois);

// Overwrites grad_features, whose levels have either their channels or their columns side by side.
// grad_pooled is (num_rois, pooled_height * pooled_width, bin_stride), bin_stride and the address
// multiples of 16 bytes.
template <typename T>
void roi_align_backward_cuda(const T* grad_pooled, int64_t bin_stride,
                             const LeveledRois<Accumulator<T>>& rois, const RoiAlignShape& shape,
                             void* workspace, const PyramidData<T*>& grad_features, void* stream);

}  // namespace detectron2
