// What the CPU and the CUDA binding of box_iou_rotated share: its checks and its output.

#pragma once

#include "csrc/common/rotated_box.h"
#include "csrc/torch_abi/torch_abi.h"

namespace detectron2 {

struct BoxIouRotatedArgs {
  Tensor boxes1;  // contiguous, of the dtype that is computed in
  Tensor boxes2;
  Tensor ious;
};

inline BoxIouRotatedArgs box_iou_rotated_args(const Tensor& boxes1, const Tensor& boxes2) {
  constexpr const char* op = "box_iou_rotated";
  check_shape(op, "boxes1", boxes1, {-1, kRotatedBoxSize}, "(N, 5)");
  check_shape(op, "boxes2", boxes2, {-1, kRotatedBoxSize}, "(M, 5)");
  check_float(op, "boxes1", boxes1);
  check_same_dtype(op, "boxes1", boxes1, "boxes2", boxes2);
  check_same_device(op, "boxes1", boxes1, "boxes2", boxes2);
  const ScalarType dtype = compute_dtype(boxes1.scalar_type());
  return {contiguous_as(boxes1, dtype), contiguous_as(boxes2, dtype),
          new_empty(boxes1, {boxes1.size(0), boxes2.size(0)}, dtype)};
}

}  // namespace detectron2
