// Kernels of torch.ops.detectron2.nms_rotated; T is float or double.
//
// Boxes are (count, 5), contiguous. By descending score, a box is kept unless its IoU with a kept
// box before it is above the threshold. CPU and CUDA compare the same bits, so they keep the same
// boxes.

#pragma once

#include <cstdint>

#include "csrc/common/parallel_for.h"

namespace detectron2 {

// Takes boxes by descending score, and sets keep[i] where box i is kept.
template <typename T>
void nms_rotated_cpu(const T* boxes, int64_t count, double iou_threshold, bool* keep,
                     ParallelFor parallel_for);

// Whether nms_rotated_cuda wants to be told the order of this many boxes. Fewer it ranks by itself.
bool nms_rotated_wants_order(int64_t count);

// Bytes of work space, on the device, for `count` boxes of T, which are `element_size` bytes. What
// grows with the square of `count` is bounded.
int64_t nms_rotated_workspace(int64_t count, int64_t element_size);

// Takes boxes in any order, and either their scores or, if it wants it, their `order`: the indices
// by descending score, equal scores by index. Writes the indices of those kept, by descending
// score, to `kept`, (count,), waits for the device and returns their number. On the current device;
// `total` is memory of the host that the device can write to, `stream` a cudaStream_t. `count` may
// not be 0.
template <typename T>
int64_t nms_rotated_cuda(const T* boxes, const T* scores, const int64_t* order, int64_t count,
                         double iou_threshold, void* workspace, int64_t* kept, int64_t* total,
                         void* stream);

}  // namespace detectron2
