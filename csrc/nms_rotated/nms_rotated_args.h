// What the CPU and the CUDA binding of nms_rotated share: its checks.

#pragma once

#include "csrc/common/rotated_box.h"
#include "csrc/torch_abi/torch_abi.h"

namespace detectron2 {

inline void check_nms_rotated_args(const Tensor& boxes, const Tensor& scores) {
  constexpr const char* op = "nms_rotated";
  check_shape(op, "boxes", boxes, {-1, kRotatedBoxSize}, "(N, 5)");
  check_shape(op, "scores", scores, {-1}, "(N,)");
  DETECTRON2_CHECK(boxes.size(0) == scores.size(0), op,
                   ": boxes and scores must have the same length, got ", boxes.size(0), " and ",
                   scores.size(0));
  check_float(op, "boxes", boxes);
  check_same_dtype(op, "boxes", boxes, "scores", scores);
  check_same_device(op, "boxes", boxes, "scores", scores);
}

}  // namespace detectron2
