// Kernels of torch.ops.detectron2.pairwise_iou and pairwise_ioa; T is float or double.

#pragma once

#include <cstdint>

#include "csrc/common/aligned_box.h"
#include "csrc/common/parallel_for.h"

namespace detectron2 {

// boxes1 (count1, 4), boxes2 (count2, 4) and overlaps (count1, count2) are contiguous, row by row.
template <typename T>
void pairwise_iou_cpu(OverlapOf of, const T* boxes1, int64_t count1, const T* boxes2,
                      int64_t count2, T* overlaps, ParallelFor parallel_for);

// As above, on the current device; `stream` is a cudaStream_t. Neither count may be 0.
template <typename T>
void pairwise_iou_cuda(OverlapOf of, const T* boxes1, int64_t count1, const T* boxes2,
                       int64_t count2, T* overlaps, void* stream);

}  // namespace detectron2
