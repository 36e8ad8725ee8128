// What the CPU and the CUDA binding of sigmoid_focal_loss share: its checks.

#pragma once

#include "csrc/sigmoid_focal_loss/sigmoid_focal_loss.h"
#include "csrc/torch_abi/torch_abi.h"

namespace detectron2 {

inline FocalLossShape check_focal_loss_args(const Tensor& logits, const Tensor& labels,
                                            double alpha, double gamma) {
  constexpr const char* op = "sigmoid_focal_loss";
  check_shape(op, "logits", logits, {-1, -1}, "(M, K)");
  check_shape(op, "labels", labels, {-1}, "(M,)");
  DETECTRON2_CHECK(logits.size(0) == labels.size(0), op,
                   ": logits and labels must have the same length, got ", logits.size(0), " and ",
                   labels.size(0));
  check_float(op, "logits", logits);
  DETECTRON2_CHECK(labels.scalar_type() == ScalarType::Long, op, ": labels must be int64, got ",
                   dtype_name(labels.scalar_type()));
  check_same_device(op, "logits", logits, "labels", labels);
  DETECTRON2_CHECK(gamma >= 0, op, ": gamma must not be negative, got ", gamma);
  DETECTRON2_CHECK(logits.size(1) <= int64_t{1} << 30, op,
                   ": there are too many classes: ", logits.size(1));
  return {logits.size(0), logits.size(1), alpha, gamma};
}

}  // namespace detectron2
