#include <cstdint>
#include <limits>

#include "csrc/common/cuda_launch.h"
#include "csrc/common/dependent_launch_cuda.h"
#include "csrc/roi_align_rotated/backward_cuda.h"
#include "csrc/roi_align_rotated/channels_last_cuda.h"
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
// channel, whose samples are near one another in memory. Slow, but of any shape, and for a few RoIs
// quicker than to bring a large map into another order.
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

constexpr int64_t kMaxBlocks = std::numeric_limits<int32_t>::max();

// Whether the kernels that count pixels, bins and blocks in 32 bits can be used, with blocks of at
// least `block_channels` channels.
inline bool fits_32_bits(const RoiAlignRotatedShape& shape, int64_t block_channels) {
  constexpr int64_t kMaxBins = int64_t{1} << 22;  // times a block's channels, still in 32 bits
  return shape.height < kMaxBlocks && shape.width < kMaxBlocks &&
         shape.height * shape.width < kMaxBlocks - kSquare && shape.pooled_height < kMaxBins &&
         shape.pooled_width < kMaxBins && shape.pooled_height * shape.pooled_width < kMaxBins &&
         shape.num_rois <= kMaxBlocks / divide_up(shape.channels, block_channels);
}

template <int words, typename T>
void pool_channels_last(const T* features, int64_t pixel_stride, bool depends, RoiRows rois,
                        const RoiAlignRotatedShape& shape, T* pooled, cudaStream_t stream) {
  const int64_t bins = shape.pooled_height * shape.pooled_width;
  const int64_t parts = divide_up(bins, kPoolBins);
  const int64_t blocks =
      shape.num_rois * divide_up(shape.channels, kWarp * words * kWordChannels<T>);
  constexpr int kShared = sizeof(PooledTile<T, words>);
  static_assert(kShared <= 48 * 1024);
  const auto kernel = pool_channels_last_kernel<T, words>;
  launch(depends && can_depend(kernel), kernel, static_cast<unsigned int>(blocks), kPoolThreads,
         kShared, stream, reinterpret_cast<const uint32_t*>(features),
         static_cast<int>(pixel_stride / kWordChannels<T>), rois, shape,
         static_cast<int>(divide_up(bins, parts)), pooled);
  check_launch("roi_align_rotated pool_channels_last_kernel");
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

bool roi_align_rotated_can_pool_channels_last(const RoiAlignRotatedShape& shape) {
  using namespace roi_align_rotated_detail;
  return fits_32_bits(shape, kWarp) && shape.channels < (int64_t{1} << 28);
}

bool roi_align_rotated_prefers_channels_last(const RoiAlignRotatedShape& shape) {
  using namespace roi_align_rotated_detail;
  // On an H100, forward_kernel takes 57 ps for a bin of a channel with 2 x 2 samples; to bring a
  // pixel of a channel into another order takes 3 ps.
  constexpr int64_t kPixelsPerBin = 16;
  const int64_t squares = divide_up(shape.height * shape.width, kSquare);
  return roi_align_rotated_can_pool_channels_last(shape) && shape.channels >= kWarp / 2 &&
         shape.batch_size > 0 &&
         shape.batch_size <= kMaxBlocks / squares / divide_up(shape.channels, kSquare) &&
         shape.num_rois * shape.pooled_height * shape.pooled_width * kPixelsPerBin >=
             shape.batch_size * shape.height * shape.width;
}

template <typename T>
void roi_align_rotated_channels_last_cuda(const T* features, RoiRows rois,
                                          const RoiAlignRotatedShape& shape, int64_t pixel_stride,
                                          T* channels_last, void* stream) {
  using namespace roi_align_rotated_detail;
  bring_channels_side_by_side(features, shape.batch_size, shape.channels,
                              shape.height * shape.width, pixel_stride, SampledSquares{rois, shape},
                              channels_last, static_cast<cudaStream_t>(stream));
  check_launch("roi_align_rotated channels_last_kernel");
}

template <typename T>
void roi_align_rotated_pool_channels_last_cuda(const T* features, int64_t pixel_stride,
                                               bool just_copied, RoiRows rois,
                                               const RoiAlignRotatedShape& shape, T* pooled,
                                               void* stream) {
  using namespace roi_align_rotated_detail;
  const auto cuda_stream = static_cast<cudaStream_t>(stream);
  const int64_t words = divide_up(shape.channels, kWordChannels<T>);
  if (words <= kWarp) {
    pool_channels_last<1>(features, pixel_stride, just_copied, rois, shape, pooled, cuda_stream);
  } else if (words <= 2 * kWarp) {
    pool_channels_last<2>(features, pixel_stride, just_copied, rois, shape, pooled, cuda_stream);
  } else {
    pool_channels_last<4>(features, pixel_stride, just_copied, rois, shape, pooled, cuda_stream);
  }
}

template <typename T>
void roi_align_rotated_backward_cuda(const T* grad_pooled, const Accumulator<T>* rois,
                                     const RoiAlignRotatedShape& shape,
                                     Accumulator<T>* grad_features, void* stream) {
  using namespace roi_align_rotated_detail;
  const auto cuda_stream = static_cast<cudaStream_t>(stream);
  if constexpr (sizeof(T) < sizeof(double)) {
    if (fits_32_bits(shape, kBackwardChannels)) {
      const int64_t blocks = shape.num_rois * divide_up(shape.channels, kBackwardChannels);
      static_assert(sizeof(BackwardTile) <= 64 * 1024);  // what sm_75 has at most
      // Above 48 KiB it must be asked for; if there is less, the launch fails.
      cudaFuncSetAttribute(backward_tile_kernel<T>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                           sizeof(BackwardTile));
      backward_tile_kernel<T>
          <<<static_cast<unsigned int>(blocks), kTileThreads, sizeof(BackwardTile), cuda_stream>>>(
              grad_pooled, rois, shape, grad_features);
      check_launch("roi_align_rotated backward_tile_kernel");
      return;
    }
  }
  const int64_t count = shape.num_rois * shape.channels * shape.pooled_height * shape.pooled_width;
  backward_kernel<T><<<grid_for(count, kThreads), kThreads, 0, cuda_stream>>>(
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
#undef DETECTRON2_INSTANTIATE

#define DETECTRON2_INSTANTIATE(T)                                          \
  template void roi_align_rotated_channels_last_cuda<T>(                   \
      const T*, RoiRows, const RoiAlignRotatedShape&, int64_t, T*, void*); \
  template void roi_align_rotated_pool_channels_last_cuda<T>(              \
      const T*, int64_t, bool, RoiRows, const RoiAlignRotatedShape&, T*, void*);
DETECTRON2_INSTANTIATE(float)
DETECTRON2_INSTANTIATE(Half)
DETECTRON2_INSTANTIATE(BFloat16)
#undef DETECTRON2_INSTANTIATE

}  // namespace detectron2
