// Kernels of torch.ops.detectron2.nms_rotated; T is float or double.
//
// Both take boxes (count, 5), contiguous, by descending score, and set keep[i] where box i has an
// IoU above the threshold with no kept box before it. They compare the same bits, so they keep the
// same boxes.

#pragma once

#include <cstdint>

#include "csrc/common/parallel_for.h"

namespace detectron2 {

template <typename T>
void nms_rotated_cpu(const T* boxes, int64_t count, double iou_threshold, bool* keep,
                     ParallelFor parallel_for);

// The work space of the CUDA kernels, in words of 64 bits.
struct NmsWorkspace {
  uint64_t* overlaps;      // rows_per_panel * words, any content
  uint64_t* removed;       // words, zeros
  int64_t words;           // one bit for each box
  int64_t rows_per_panel;  // boxes whose overlaps are held at a time, a multiple of 64
};

// Sizes for `count` boxes, with the pointers null. What is held does not grow with the square of
// `count`.
NmsWorkspace nms_rotated_workspace(int64_t count);

// On the current device, without waiting for it; `stream` is a cudaStream_t. `count` may not be 0.
template <typename T>
void nms_rotated_cuda(const T* boxes, int64_t count, double iou_threshold,
                      const NmsWorkspace& workspace, bool* keep, void* stream);

}  // namespace detectron2
