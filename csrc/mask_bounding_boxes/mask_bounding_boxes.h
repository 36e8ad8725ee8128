// Kernels of torch.ops.detectron2.mask_bounding_boxes.

#pragma once

#include <cstdint>

#include "csrc/common/parallel_for.h"

namespace detectron2 {

// masks (count, height, width) is contiguous; a pixel is set unless its byte is 0. boxes (count, 4)
// becomes the first column and row with a pixel set, and one more than the last; zeros without one.
void mask_bounding_boxes_cpu(const uint8_t* masks, int64_t count, int64_t height, int64_t width,
                             float* boxes, ParallelFor parallel_for);

// Slices of a mask that mask_bounding_boxes_cuda looks at separately.
int64_t mask_bounding_boxes_slices(int64_t count, int64_t height, int64_t width);

// As above, on the current device; `stream` is a cudaStream_t. `masks` may not be empty. `extents`
// (count, mask_bounding_boxes_slices(...), 4) is scratch memory.
void mask_bounding_boxes_cuda(const uint8_t* masks, int64_t count, int64_t height, int64_t width,
                              int64_t* extents, float* boxes, void* stream);

}  // namespace detectron2
