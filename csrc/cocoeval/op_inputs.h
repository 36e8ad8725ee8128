// Checked inputs of the COCO evaluation ops, and how their work is spread over threads.

#pragma once

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <initializer_list>
#include <vector>

#include "csrc/cocoeval/groups.h"
#include "csrc/torch_abi/torch_abi.h"

namespace detectron2 {

// `tensor` made contiguous, once it is known to have the type and shape that a kernel reads.
inline Tensor checked_input(const char* op, const char* name, const Tensor& tensor,
                            ScalarType dtype, std::initializer_list<int64_t> sizes,
                            const char* shape) {
  DETECTRON2_CHECK(tensor.scalar_type() == dtype, op, ": ", name, " must be ", dtype_name(dtype),
                   ", got ", dtype_name(tensor.scalar_type()));
  check_shape(op, name, tensor, sizes, shape);
  return torch::stable::contiguous(tensor);
}

// The same for float64 numbers. NaN is refused: it has no place in an order, nor in a range.
inline Tensor checked_numbers(const char* op, const char* name, const Tensor& tensor,
                              std::initializer_list<int64_t> sizes, const char* shape) {
  Tensor numbers = checked_input(op, name, tensor, ScalarType::Double, sizes, shape);
  const double* data = data_of<double>(numbers);
  for (int64_t i = 0; i < numbers.numel(); ++i) {
    DETECTRON2_CHECK(!std::isnan(data[i]), op, ": ", name, " must not hold NaN, got one at ", i);
  }
  return numbers;
}

// The same for int64 offsets that cut `total` elements into runs. `num_runs` may be -1: any number.
inline Tensor checked_offsets(const char* op, const char* name, const Tensor& tensor,
                              int64_t num_runs, int64_t total) {
  Tensor offsets = checked_input(op, name, tensor, ScalarType::Long, {-1}, "(runs + 1,)");
  const int64_t size = offsets.numel();
  DETECTRON2_CHECK(size > 0 && (num_runs < 0 || size == num_runs + 1), op, ": ", name,
                   " must have one element more than there are runs, got ", size, " for ",
                   num_runs < 0 ? 0 : num_runs);
  const int64_t* data = data_of<int64_t>(offsets);
  DETECTRON2_CHECK(data[0] == 0 && data[size - 1] == total, op, ": ", name, " must run from 0 to ",
                   total, ", got ", data[0], " to ", data[size - 1]);
  for (int64_t i = 1; i < size; ++i) {
    DETECTRON2_CHECK(data[i - 1] <= data[i], op, ": ", name, " must not decrease, got ", data[i],
                     " after ", data[i - 1]);
  }
  return offsets;
}

// EvaluationGroups with the storage that it points to.
class GroupsInput {
 public:
  GroupsInput(const char* op, const Tensor& dt_offsets, int64_t num_dt, const Tensor& gt_offsets,
              int64_t num_gt)
      : dt_offsets_(checked_offsets(op, "dt_offsets", dt_offsets, -1, num_dt)),
        gt_offsets_(checked_offsets(op, "gt_offsets", gt_offsets, size(), num_gt)),
        iou_offsets_(size() + 1, 0) {
    const EvaluationGroups groups = view();
    for (int64_t group = 0; group < size(); ++group) {
      iou_offsets_[group + 1] = iou_offsets_[group] + groups.num_dt(group) * groups.num_gt(group);
    }
  }

  int64_t size() const { return dt_offsets_.numel() - 1; }
  int64_t num_ious() const { return iou_offsets_.back(); }
  EvaluationGroups view() const {
    return {data_of<int64_t>(dt_offsets_), data_of<int64_t>(gt_offsets_), iou_offsets_.data()};
  }

 private:
  Tensor dt_offsets_;
  Tensor gt_offsets_;
  std::vector<int64_t> iou_offsets_;
};

// Calls body(begin, end) on blocks that cover [0, size), on all threads. Each thread takes the next
// block when it is free: equal shares of the blocks can be far from equal shares of the work.
inline void parallel_blocks(int64_t size, int64_t block, const RangeBody& body) {
  std::atomic<int64_t> next{0};
  parallel_for(0, torch::stable::get_num_threads(), 1, [&](int64_t, int64_t) {
    for (int64_t begin = next.fetch_add(block); begin < size; begin = next.fetch_add(block)) {
      body(begin, std::min(begin + block, size));
    }
  });
}

}  // namespace detectron2
