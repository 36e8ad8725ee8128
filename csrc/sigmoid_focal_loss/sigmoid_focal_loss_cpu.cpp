#include <algorithm>
#include <cstdint>

#include "csrc/sigmoid_focal_loss/focal_term.h"
#include "csrc/sigmoid_focal_loss/sigmoid_focal_loss.h"

namespace detectron2 {
namespace {

// A range of logits below this costs less to compute than to hand to a thread.
constexpr int64_t kLogitsPerRange = 8192;

int64_t rows_per_range(const FocalLossShape& shape) {
  return std::max<int64_t>(1, kLogitsPerRange / std::max<int64_t>(1, shape.classes));
}

}  // namespace

template <typename T>
void sigmoid_focal_loss_cpu(const T* logits, const int64_t* labels, const FocalLossShape& shape,
                            T* losses, ParallelFor parallel_for) {
  const T alpha = static_cast<T>(shape.alpha);
  const T gamma = static_cast<T>(shape.gamma);
  parallel_for(0, shape.rows, rows_per_range(shape), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      T sum = 0;
      for (int64_t c = 0; labels[row] >= 0 && c < shape.classes; ++c) {
        sum += focal_term(logits[row * shape.classes + c], labels[row] == c, alpha, gamma).loss;
      }
      losses[row] = sum;
    }
  });
}

template <typename T>
void sigmoid_focal_loss_backward_cpu(T grad, const T* logits, const int64_t* labels,
                                     const FocalLossShape& shape, T* grad_logits,
                                     ParallelFor parallel_for) {
  const T alpha = static_cast<T>(shape.alpha);
  const T gamma = static_cast<T>(shape.gamma);
  parallel_for(0, shape.rows, rows_per_range(shape), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      for (int64_t c = 0; c < shape.classes; ++c) {
        const int64_t i = row * shape.classes + c;
        grad_logits[i] = labels[row] < 0
                             ? T(0)
                             : grad * focal_term(logits[i], labels[row] == c, alpha, gamma).slope;
      }
    }
  });
}

template void sigmoid_focal_loss_cpu<float>(const float*, const int64_t*, const FocalLossShape&,
                                            float*, ParallelFor);
template void sigmoid_focal_loss_cpu<double>(const double*, const int64_t*, const FocalLossShape&,
                                             double*, ParallelFor);
template void sigmoid_focal_loss_backward_cpu<float>(float, const float*, const int64_t*,
                                                     const FocalLossShape&, float*, ParallelFor);
template void sigmoid_focal_loss_backward_cpu<double>(double, const double*, const int64_t*,
                                                      const FocalLossShape&, double*, ParallelFor);

}  // namespace detectron2
