// Kernels of torch.ops.detectron2.sigmoid_focal_loss and its backward.
//
// logits (rows, classes) and labels (rows,) are contiguous. A label is the class of the target that
// is 1; another one from 0 on has no such target, and a negative one leaves its row out: loss and
// gradient are 0 there, whatever the logits.

#pragma once

#include <cstdint>

#include "csrc/common/half.h"
#include "csrc/common/parallel_for.h"

namespace detectron2 {

struct FocalLossShape {
  int64_t rows;
  int64_t classes;
  double alpha;
  double gamma;
};

// Writes the sum of each row to `losses`, (rows,); T is float or double.
template <typename T>
void sigmoid_focal_loss_cpu(const T* logits, const int64_t* labels, const FocalLossShape& shape,
                            T* losses, ParallelFor parallel_for);

// Writes the gradient with respect to the logits of `grad` times the sum of all.
template <typename T>
void sigmoid_focal_loss_backward_cpu(T grad, const T* logits, const int64_t* labels,
                                     const FocalLossShape& shape, T* grad_logits,
                                     ParallelFor parallel_for);

// Partial sums that sigmoid_focal_loss_cuda writes; the same on every device.
int64_t sigmoid_focal_loss_partials(const FocalLossShape& shape);

// Of logits of any storage type, on the current device; `stream` is a cudaStream_t. Neither rows
// nor classes may be 0, nor classes above 2^30. `partials` are to be added up.
template <typename T>
void sigmoid_focal_loss_cuda(const T* logits, const int64_t* labels, const FocalLossShape& shape,
                             Accumulator<T>* partials, void* stream);

// `grad` is on the device.
template <typename T>
void sigmoid_focal_loss_backward_cuda(const Accumulator<T>* grad, const T* logits,
                                      const int64_t* labels, const FocalLossShape& shape,
                                      T* grad_logits, void* stream);

}  // namespace detectron2
