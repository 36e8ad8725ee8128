// What the CPU and the CUDA binding of nms_groups share: checks and output.

#pragma once

#include "csrc/common/aligned_box.h"
#include "csrc/torch_abi/torch_abi.h"

namespace detectron2 {

struct NmsGroupsArgs {
  Tensor boxes;  // contiguous, of the dtype that is computed in
  Tensor valid;
  std::optional<Tensor> classes;
  Tensor keep;

  const int64_t* classes_data() const {
    return classes.has_value() ? data_of<int64_t>(*classes) : nullptr;
  }
};

inline void check_nms_groups_mask(const char* name, const Tensor& boxes, const Tensor& tensor,
                                  ScalarType dtype) {
  constexpr const char* op = "nms_groups";
  DETECTRON2_CHECK(
      tensor.dim() == 2 && tensor.size(0) == boxes.size(0) && tensor.size(1) == boxes.size(1), op,
      ": ", name, " must have the shape (", boxes.size(0), ", ", boxes.size(1),
      ") beside boxes of ", shape_name(boxes), ", got ", shape_name(tensor));
  DETECTRON2_CHECK(tensor.scalar_type() == dtype, op, ": ", name, " must be ", dtype_name(dtype),
                   ", got ", dtype_name(tensor.scalar_type()));
  check_same_device(op, "boxes", boxes, name, tensor);
}

inline NmsGroupsArgs nms_groups_args(const Tensor& boxes, const Tensor& valid,
                                     const std::optional<Tensor>& classes) {
  constexpr const char* op = "nms_groups";
  constexpr int64_t kMostBoxes = int64_t{1} << 18;
  check_shape(op, "boxes", boxes, {-1, -1, kAlignedBoxSize}, "(G, K, 4)");
  check_float(op, "boxes", boxes);
  DETECTRON2_CHECK(boxes.size(1) <= kMostBoxes, op, ": a group has at most ", kMostBoxes,
                   " boxes, got ", boxes.size(1));
  check_nms_groups_mask("valid", boxes, valid, ScalarType::Bool);
  std::optional<Tensor> contiguous_classes;
  if (classes.has_value()) {
    check_nms_groups_mask("classes", boxes, *classes, ScalarType::Long);
    contiguous_classes = contiguous_as(*classes, ScalarType::Long);
  }
  return {contiguous_as(boxes, compute_dtype(boxes.scalar_type())),
          contiguous_as(valid, ScalarType::Bool), contiguous_classes,
          new_empty(boxes, {boxes.size(0), boxes.size(1)}, ScalarType::Bool)};
}

}  // namespace detectron2
