#include <algorithm>
#include <cstdint>

#include "csrc/common/cuda_launch.h"
#include "csrc/sigmoid_focal_loss/focal_term.h"
#include "csrc/sigmoid_focal_loss/sigmoid_focal_loss.h"

namespace detectron2 {
namespace sigmoid_focal_loss_detail {

constexpr int kThreads = 256;
constexpr int kWarp = 32;

// Logits that a block takes at a time: whole rows, so that it divides 32-bit numbers only.
constexpr int64_t kChunk = 4096;

// Enough blocks for every GPU, and not more partial sums than one block adds up.
constexpr int64_t kMostBlocks = 2048;

__host__ __device__ constexpr int64_t rows_per_chunk(int64_t classes) {
  return classes < kChunk ? kChunk / classes : 1;
}

int64_t num_blocks(const FocalLossShape& shape) {
  return std::min(divide_up(shape.rows, rows_per_chunk(shape.classes)), kMostBlocks);
}

// Calls `body(index, logit, is_target, is_counted)` for each logit of the block's chunks.
template <typename T, typename Body>
__device__ void for_each_logit(const T* logits, const int64_t* labels, int64_t rows, int classes,
                               const Body& body) {
  const int64_t step = rows_per_chunk(classes);
  for (int64_t first = blockIdx.x * step; first < rows; first += gridDim.x * step) {
    const int count = static_cast<int>(min(step, rows - first)) * classes;
    const int64_t start = first * classes;
    for (int i = threadIdx.x; i < count; i += kThreads) {
      const int row = i / classes;
      const int64_t label = labels[first + row];
      body(start + i, widen(logits[start + i]), label == i - row * classes, label >= 0);
    }
  }
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    loss_kernel(const T* logits, const int64_t* labels, int64_t rows, int classes,
                Accumulator<T> alpha, Accumulator<T> gamma, Accumulator<T>* partials) {
  using A = Accumulator<T>;
  __shared__ A sums[kThreads / kWarp];
  A sum = 0;
  for_each_logit(logits, labels, rows, classes,
                 [&](int64_t, A logit, bool is_target, bool is_counted) {
                   if (is_counted) {
                     sum += focal_term(logit, is_target, alpha, gamma).loss;
                   }
                 });
#pragma unroll
  for (int step = kWarp / 2; step > 0; step /= 2) {
    sum += __shfl_down_sync(0xffffffffu, sum, step);
  }
  if (threadIdx.x % kWarp == 0) {
    sums[threadIdx.x / kWarp] = sum;
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    for (int i = 1; i < kThreads / kWarp; ++i) {
      sum += sums[i];
    }
    partials[blockIdx.x] = sum;
  }
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    gradient_kernel(const Accumulator<T>* grad, const T* logits, const int64_t* labels,
                    int64_t rows, int classes, Accumulator<T> alpha, Accumulator<T> gamma,
                    T* grad_logits) {
  using A = Accumulator<T>;
  const A scale = *grad;
  for_each_logit(logits, labels, rows, classes,
                 [&](int64_t index, A logit, bool is_target, bool is_counted) {
                   const A slope =
                       is_counted ? scale * focal_term(logit, is_target, alpha, gamma).slope : A(0);
                   grad_logits[index] = narrow<T>(slope);
                 });
}

}  // namespace sigmoid_focal_loss_detail

int64_t sigmoid_focal_loss_partials(const FocalLossShape& shape) {
  return sigmoid_focal_loss_detail::num_blocks(shape);
}

template <typename T>
void sigmoid_focal_loss_cuda(const T* logits, const int64_t* labels, const FocalLossShape& shape,
                             Accumulator<T>* partials, void* stream) {
  using namespace sigmoid_focal_loss_detail;
  loss_kernel<T><<<static_cast<unsigned int>(num_blocks(shape)), kThreads, 0,
                   static_cast<cudaStream_t>(stream)>>>(
      logits, labels, shape.rows, static_cast<int>(shape.classes),
      static_cast<Accumulator<T>>(shape.alpha), static_cast<Accumulator<T>>(shape.gamma), partials);
  check_launch("sigmoid_focal_loss loss_kernel");
}

template <typename T>
void sigmoid_focal_loss_backward_cuda(const Accumulator<T>* grad, const T* logits,
                                      const int64_t* labels, const FocalLossShape& shape,
                                      T* grad_logits, void* stream) {
  using namespace sigmoid_focal_loss_detail;
  gradient_kernel<T><<<static_cast<unsigned int>(num_blocks(shape)), kThreads, 0,
                       static_cast<cudaStream_t>(stream)>>>(
      grad, logits, labels, shape.rows, static_cast<int>(shape.classes),
      static_cast<Accumulator<T>>(shape.alpha), static_cast<Accumulator<T>>(shape.gamma),
      grad_logits);
  check_launch("sigmoid_focal_loss gradient_kernel");
}

#define DETECTRON2_INSTANTIATE(T)                                                           \
  template void sigmoid_focal_loss_cuda<T>(const T*, const int64_t*, const FocalLossShape&, \
                                           Accumulator<T>*, void*);                         \
  template void sigmoid_focal_loss_backward_cuda<T>(                                        \
      const Accumulator<T>*, const T*, const int64_t*, const FocalLossShape&, T*, void*);
DETECTRON2_INSTANTIATE(float)
DETECTRON2_INSTANTIATE(double)
DETECTRON2_INSTANTIATE(Half)
DETECTRON2_INSTANTIATE(BFloat16)
#undef DETECTRON2_INSTANTIATE

}  // namespace detectron2
