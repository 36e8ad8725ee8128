// Kernels of torch.ops.detectron2.paste_masks.

#pragma once

#include <cstdint>

#include "csrc/common/half.h"
#include "csrc/common/parallel_for.h"

namespace detectron2 {

struct PasteMasksShape {
  int64_t num_masks;
  int64_t mask_height;
  int64_t mask_width;
  int64_t height;  // of the image
  int64_t width;
};

// masks (num_masks, mask_height, mask_width), boxes (num_masks, 4) and pasted (num_masks, height,
// width) are contiguous. A pixel of `pasted` is whether the mask's value there reaches `threshold`,
// or, for a negative threshold, the value in 255ths. T is float or double.
template <typename T>
void paste_masks_cpu(const T* masks, const T* boxes, const PasteMasksShape& shape, T threshold,
                     uint8_t* pasted, ParallelFor parallel_for);

// As above, on the current device; `stream` is a cudaStream_t. `pasted` may not be empty. S is what
// masks are stored as: float, double, Half or BFloat16.
template <typename S>
void paste_masks_cuda(const S* masks, const Accumulator<S>* boxes, const PasteMasksShape& shape,
                      Accumulator<S> threshold, uint8_t* pasted, void* stream);

}  // namespace detectron2
