// The focal loss of one logit, and its derivative, for all kernels.
//
// With x the logit where the target is 0 and its negative where it is 1, p = sigmoid(x) is how
// wrong the prediction is, and the loss is weight * p^gamma * log(1 + exp(x)).

#pragma once

#include <cmath>

#include "csrc/common/host_device.h"

namespace detectron2 {

template <typename T>
struct FocalTerm {
  T loss;
  T slope;  // with respect to the logit
};

template <typename T>
DETECTRON2_HOST_DEVICE FocalTerm<T> focal_term(T logit, bool is_target, T alpha, T gamma) {
  const T x = is_target ? -logit : logit;
  const T weight = is_target ? alpha : 1 - alpha;
  // Neither of the exponentials overflows.
  const T e = std::exp(x < 0 ? x : -x);
  const T log_term = (x > 0 ? x : T(0)) + std::log1p(e);
  const T p = (x < 0 ? e : T(1)) / (1 + e);
  const T q = (x < 0 ? T(1) : e) / (1 + e);
  const T factor = weight * (gamma == 2 ? p * p : std::pow(p, gamma));
  const T slope = factor * (p + gamma * q * log_term);
  return {factor * log_term, is_target ? -slope : slope};
}

}  // namespace detectron2
