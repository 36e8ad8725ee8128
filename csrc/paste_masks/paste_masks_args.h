// What the CPU and the CUDA binding of paste_masks share: its checks and its output.

#pragma once

#include <cstdint>
#include <limits>

#include "csrc/paste_masks/paste_masks.h"
#include "csrc/paste_masks/sampling.h"
#include "csrc/torch_abi/torch_abi.h"

namespace detectron2 {

struct PasteMasksArgs {
  Tensor masks;  // contiguous
  Tensor boxes;  // contiguous, of the dtype that masks of this dtype are computed in
  Tensor pasted;
  PasteMasksShape shape;
};

inline PasteMasksArgs paste_masks_args(const Tensor& masks, const Tensor& boxes, int64_t height,
                                       int64_t width, double threshold) {
  constexpr const char* op = "paste_masks";
  check_shape(op, "masks", masks, {-1, -1, -1}, "(N, mask height, mask width)");
  check_shape(op, "boxes", boxes, {masks.size(0), kPasteBoxSize}, "(N, 4), N as in masks");
  check_float(op, "masks", masks);
  check_float(op, "boxes", boxes);
  check_same_device(op, "masks", masks, "boxes", boxes);
  DETECTRON2_CHECK(height >= 0 && width >= 0, op, ": height and width must not be negative, got ",
                   height, " and ", width);
  DETECTRON2_CHECK(threshold == threshold, op, ": threshold must not be NaN");
  constexpr int64_t largest = std::numeric_limits<int32_t>::max();
  DETECTRON2_CHECK(masks.size(1) < largest && masks.size(2) < largest, op,
                   ": the sides of a mask must be below 2**31 - 1, got ", masks.size(1), " and ",
                   masks.size(2));
  const bool is_double = compute_dtype(boxes.scalar_type()) == ScalarType::Double;
  const Tensor stored = contiguous_as(masks, is_double ? ScalarType::Double : masks.scalar_type());
  return {stored,
          contiguous_as(boxes, compute_dtype(stored.scalar_type())),
          new_empty(masks, {masks.size(0), height, width},
                    threshold >= 0 ? ScalarType::Bool : ScalarType::Byte),
          {masks.size(0), masks.size(1), masks.size(2), height, width}};
}

}  // namespace detectron2
