// Kernels of torch.ops.detectron2.heatmaps_to_keypoints.
//
// T is the type of the heatmaps, R = Accumulator<T> that of RoIs and results. Tensors are
// contiguous: heatmaps (num_rois, num_keypoints, height, width), rois (num_rois, 4), keypoints
// (num_rois, num_keypoints, 4), rows (x, y, logit, score).

#pragma once

#include <cstdint>

#include "csrc/common/half.h"
#include "csrc/common/parallel_for.h"

namespace detectron2 {

struct HeatmapsShape {
  int64_t num_rois;
  int64_t num_keypoints;
  int32_t height;
  int32_t width;
};

// T is float or double.
template <typename T>
void heatmaps_to_keypoints_cpu(const T* heatmaps, const T* rois, const HeatmapsShape& shape,
                               T* keypoints, ParallelFor parallel_for);

// T is float, double, Half or BFloat16; on the current device, `stream` is a cudaStream_t.
// `keypoints` may not be empty.
template <typename T>
void heatmaps_to_keypoints_cuda(const T* heatmaps, const Accumulator<T>* rois,
                                const HeatmapsShape& shape, Accumulator<T>* keypoints,
                                void* stream);

}  // namespace detectron2
