// Kernels of torch.ops.detectron2.box_iou_rotated; T is float or double.

#pragma once

#include <cstdint>

#include "csrc/common/parallel_for.h"

namespace detectron2 {

// boxes1 (count1, 5), boxes2 (count2, 5) and ious (count1, count2) are contiguous, row by row.
template <typename T>
void box_iou_rotated_cpu(const T* boxes1, int64_t count1, const T* boxes2, int64_t count2, T* ious,
                         ParallelFor parallel_for);

// As above, on the current device; `stream` is a cudaStream_t. Neither count may be 0.
template <typename T>
void box_iou_rotated_cuda(const T* boxes1, int64_t count1, const T* boxes2, int64_t count2, T* ious,
                          void* stream);

}  // namespace detectron2
