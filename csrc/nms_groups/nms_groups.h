// Kernels of torch.ops.detectron2.nms_groups; T is float or double.
//
// boxes (groups, size, 4), classes, valid and keep (groups, size) are contiguous; `classes` may be
// nullptr: all boxes are of one class. In each group, boxes come by descending score. A valid box
// is kept unless its IoU with a kept one of its class before it is above the threshold; keep[i] is
// set to whether box i is. CPU and CUDA compare the same bits, so they keep the same boxes.

#pragma once

#include <cstdint>

#include "csrc/common/parallel_for.h"

namespace detectron2 {

template <typename T>
void nms_groups_cpu(const T* boxes, const int64_t* classes, const bool* valid, int64_t groups,
                    int64_t size, double iou_threshold, bool* keep, ParallelFor parallel_for);

// Bytes of work space, on the device.
int64_t nms_groups_workspace(int64_t groups, int64_t size);

// On the current device, without waiting for it; `stream` is a cudaStream_t. Neither `groups` nor
// `size` may be 0, and `size` not be above 2^18.
template <typename T>
void nms_groups_cuda(const T* boxes, const int64_t* classes, const bool* valid, int64_t groups,
                     int64_t size, double iou_threshold, void* workspace, bool* keep, void* stream);

}  // namespace detectron2
