// What the CPU and the CUDA binding of nms_rotated share: its checks, the order and the result.

#pragma once

#include "csrc/common/rotated_box.h"
#include "csrc/torch_abi/torch_abi.h"

namespace detectron2 {

struct NmsRotatedArgs {
  Tensor order;  // indices of the boxes by descending score, equal scores by index
  Tensor boxes;  // in that order, contiguous, of the dtype that is computed in
  Tensor keep;   // bool, in that order
};

inline NmsRotatedArgs nms_rotated_args(const Tensor& boxes, const Tensor& scores) {
  constexpr const char* op = "nms_rotated";
  check_shape(op, "boxes", boxes, {-1, kRotatedBoxSize}, "(N, 5)");
  check_shape(op, "scores", scores, {-1}, "(N,)");
  DETECTRON2_CHECK(boxes.size(0) == scores.size(0), op,
                   ": boxes and scores must have the same length, got ", boxes.size(0), " and ",
                   scores.size(0));
  check_float(op, "boxes", boxes);
  check_same_dtype(op, "boxes", boxes, "scores", scores);
  check_same_device(op, "boxes", boxes, "scores", scores);
  const Tensor order = aten::stable_argsort_descending(scores);
  const Tensor sorted = aten::index_select(boxes, 0, order);
  return {order, contiguous_as(sorted, compute_dtype(boxes.scalar_type())),
          torch::stable::new_empty(boxes, {boxes.size(0)}, ScalarType::Bool)};
}

// The kept indices, int64. On CUDA this waits for the device: their number is the output's size.
inline Tensor nms_rotated_result(const NmsRotatedArgs& args) {
  return aten::masked_select(args.order, args.keep);
}

}  // namespace detectron2
