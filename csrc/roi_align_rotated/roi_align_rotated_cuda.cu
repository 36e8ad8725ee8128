#include <cstdint>

#include "csrc/common/cuda_launch.h"
#include "csrc/roi_align_rotated/roi_align_rotated.h"
#include "csrc/roi_align_rotated/sampling.h"

namespace detectron2 {
namespace roi_align_rotated_detail {

constexpr int kThreads = 256;

// Where in the pooled features a thread works.
struct PooledIndex {
  int64_t roi;
  int64_t channel;
  int64_t bin_y;
  int64_t bin_x;
};

__device__ __forceinline__ PooledIndex pooled_index(int64_t index,
                                                    const RoiAlignRotatedShape& shape) {
  PooledIndex result;
  result.bin_x = index % shape.pooled_width;
  index /= shape.pooled_width;
  result.bin_y = index % shape.pooled_height;
  index /= shape.pooled_height;
  result.channel = index % shape.channels;
  result.roi = index / shape.channels;
  return result;
}

// A thread computes a pooled value. Neighbouring threads have neighbouring bins of the same RoI and
// channel, whose samples are near one another in memory.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    forward_kernel(const T* features, const Accumulator<T>* rois, RoiAlignRotatedShape shape,
                   int64_t count, T* pooled) {
  using R = Accumulator<T>;
  const int64_t stride = int64_t{gridDim.x} * kThreads;
  for (int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x; i < count; i += stride) {
    const PooledIndex at = pooled_index(i, shape);
    const RotatedRoi<R> roi = load_rotated_roi(rois + at.roi * kRoiSize, shape);
    R sum = 0;
    if (roi.batch_index >= 0) {
      const T* pixels =
          features + (roi.batch_index * shape.channels + at.channel) * shape.height * shape.width;
      for (int64_t sample_y = 0; sample_y < roi.samples_y; ++sample_y) {
        for (int64_t sample_x = 0; sample_x < roi.samples_x; ++sample_x) {
          const BilinearSample<R> sample =
              bilinear_sample(roi, at.bin_y, at.bin_x, sample_y, sample_x, shape);
          if (sample.inside) {
#pragma unroll
            for (int corner = 0; corner < 4; ++corner) {
              sum += sample.weight[corner] * widen(pixels[sample.offset[corner]]);
            }
          }
        }
      }
      sum *= sample_weight(roi);
    }
    pooled[i] = narrow<T>(sum);
  }
}

// A thread spreads the gradient of a pooled value over the pixels that it was computed from.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    backward_kernel(const T* grad_pooled, const Accumulator<T>* rois, RoiAlignRotatedShape shape,
                    int64_t count, Accumulator<T>* grad_features) {
  using R = Accumulator<T>;
  const int64_t stride = int64_t{gridDim.x} * kThreads;
  for (int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x; i < count; i += stride) {
    const PooledIndex at = pooled_index(i, shape);
    const RotatedRoi<R> roi = load_rotated_roi(rois + at.roi * kRoiSize, shape);
    if (roi.batch_index < 0) {
      continue;
    }
    const R grad = widen(grad_pooled[i]) * sample_weight(roi);
    R* pixels = grad_features +
                (roi.batch_index * shape.channels + at.channel) * shape.height * shape.width;
    for (int64_t sample_y = 0; sample_y < roi.samples_y; ++sample_y) {
      for (int64_t sample_x = 0; sample_x < roi.samples_x; ++sample_x) {
        const BilinearSample<R> sample =
            bilinear_sample(roi, at.bin_y, at.bin_x, sample_y, sample_x, shape);
        if (sample.inside) {
#pragma unroll
          for (int corner = 0; corner < 4; ++corner) {
            atomicAdd(pixels + sample.offset[corner], sample.weight[corner] * grad);
          }
        }
      }
    }
  }
}

}  // namespace roi_align_rotated_detail

template <typename T>
void roi_align_rotated_forward_cuda(const T* features, const Accumulator<T>* rois,
                                    const RoiAlignRotatedShape& shape, T* pooled, void* stream) {
  using namespace roi_align_rotated_detail;
  const int64_t count = shape.num_rois * shape.channels * shape.pooled_height * shape.pooled_width;
  forward_kernel<T><<<grid_for(count, kThreads), kThreads, 0, static_cast<cudaStream_t>(stream)>>>(
      features, rois, shape, count, pooled);
  check_launch("roi_align_rotated forward_kernel");
}

template <typename T>
void roi_align_rotated_backward_cuda(const T* grad_pooled, const Accumulator<T>* rois,
                                     const RoiAlignRotatedShape& shape,
                                     Accumulator<T>* grad_features, void* stream) {
  using namespace roi_align_rotated_detail;
  const int64_t count = shape.num_rois * shape.channels * shape.pooled_height * shape.pooled_width;
  backward_kernel<T><<<grid_for(count, kThreads), kThreads, 0, static_cast<cudaStream_t>(stream)>>>(
      grad_pooled, rois, shape, count, grad_features);
  check_launch("roi_align_rotated backward_kernel");
}

#define DETECTRON2_INSTANTIATE(T)                                                          \
  template void roi_align_rotated_forward_cuda<T>(const T*, const Accumulator<T>*,         \
                                                  const RoiAlignRotatedShape&, T*, void*); \
  template void roi_align_rotated_backward_cuda<T>(                                        \
      const T*, const Accumulator<T>*, const RoiAlignRotatedShape&, Accumulator<T>*, void*);
DETECTRON2_INSTANTIATE(float)
DETECTRON2_INSTANTIATE(double)
DETECTRON2_INSTANTIATE(Half)
DETECTRON2_INSTANTIATE(BFloat16)

}  // namespace detectron2
