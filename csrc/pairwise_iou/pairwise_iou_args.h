// What the CPU and the CUDA binding of pairwise_iou and pairwise_ioa share: checks and output.

#pragma once

#include "csrc/pairwise_iou/pairwise_iou.h"
#include "csrc/torch_abi/torch_abi.h"

namespace detectron2 {

struct PairwiseIouArgs {
  Tensor boxes1;  // contiguous, of the dtype that is computed in
  Tensor boxes2;
  Tensor overlaps;
};

inline PairwiseIouArgs pairwise_iou_args(OverlapOf of, const Tensor& boxes1, const Tensor& boxes2) {
  const char* op = of == OverlapOf::kUnion ? "pairwise_iou" : "pairwise_ioa";
  check_shape(op, "boxes1", boxes1, {-1, kAlignedBoxSize}, "(N, 4)");
  check_shape(op, "boxes2", boxes2, {-1, kAlignedBoxSize}, "(M, 4)");
  check_float(op, "boxes1", boxes1);
  check_same_dtype(op, "boxes1", boxes1, "boxes2", boxes2);
  check_same_device(op, "boxes1", boxes1, "boxes2", boxes2);
  const ScalarType dtype = compute_dtype(boxes1.scalar_type());
  return {contiguous_as(boxes1, dtype), contiguous_as(boxes2, dtype),
          new_empty(boxes1, {boxes1.size(0), boxes2.size(0)}, dtype)};
}

}  // namespace detectron2
