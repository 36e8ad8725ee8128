// What the CPU and the CUDA binding of mask_bounding_boxes share: its checks and its output.

#pragma once

#include "csrc/torch_abi/torch_abi.h"

namespace detectron2 {

struct MaskBoundingBoxesArgs {
  Tensor masks;  // contiguous
  Tensor boxes;
};

inline MaskBoundingBoxesArgs mask_bounding_boxes_args(const Tensor& masks) {
  constexpr const char* op = "mask_bounding_boxes";
  check_shape(op, "masks", masks, {-1, -1, -1}, "(N, height, width)");
  DETECTRON2_CHECK(masks.scalar_type() == ScalarType::Bool, op, ": masks must be bool, got ",
                   dtype_name(masks.scalar_type()));
  return {contiguous_as(masks, ScalarType::Bool),
          new_empty(masks, {masks.size(0), 4}, ScalarType::Float)};
}

}  // namespace detectron2
