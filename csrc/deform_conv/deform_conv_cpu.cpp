#include <algorithm>
#include <cstdint>

#include "csrc/deform_conv/deform_conv.h"
#include "csrc/deform_conv/sampling.h"

namespace detectron2 {
namespace {

// The least work that is worth handing to another thread: pixels of the output, and channels.
constexpr int64_t kPixelsPerTask = 16;
constexpr int64_t kChannelsPerTask = 16;

// Calls visit(first, last, in_columns) for each run of channels in [begin, end) that lies within
// one group; in_columns is where the run starts in the columns of a pixel and tap of the range.
template <typename Visit>
void for_each_run(const DeformConvShape& shape, PixelRange pixels, int64_t pixel, int64_t tap,
                  int64_t begin, int64_t end, const Visit& visit) {
  const int64_t taps = shape.kernel_h * shape.kernel_w;
  const int64_t channels = shape.in_channels / shape.groups;
  while (begin < end) {
    const int64_t group = begin / channels;
    const int64_t last = std::min(end, (group + 1) * channels);
    const int64_t row = group * (pixels.end - pixels.begin) + pixel - pixels.begin;
    visit(begin, last, (row * taps + tap) * channels + begin - group * channels);
    begin = last;
  }
}

template <typename T>
SamplePoint<T> load_point(const T* offset, const OutputPixel& at, int64_t offset_group, int64_t tap,
                          const DeformConvShape& shape) {
  const T* place = offset + offset_index(at, offset_group, tap, shape);
  return sample_point(at, tap, place[0], place[shape.out_height * shape.out_width], shape);
}

constexpr int kLanes = 8;

// As kLanes sums, which the compiler can keep in vectors without reordering any.
template <typename T>
T dot(const T* a, const T* b, int64_t count) {
  T sums[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane) {
      sums[lane] += a[i + lane] * b[i + lane];
    }
  }
  T total = 0;
  for (; i < count; ++i) {
    total += a[i] * b[i];
  }
  for (int lane = 0; lane < kLanes; ++lane) {
    total += sums[lane];
  }
  return total;
}

template <typename T>
void sample_run(const T* image, const SamplePoint<T>& point, T factor, int64_t channels,
                int64_t count, T* __restrict__ samples) {
  const bool all = point.exists[0] && point.exists[1] && point.exists[2] && point.exists[3];
  if (all) {
    const T* __restrict__ p0 = image + point.corner[0] * channels;
    const T* __restrict__ p1 = image + point.corner[1] * channels;
    const T* __restrict__ p2 = image + point.corner[2] * channels;
    const T* __restrict__ p3 = image + point.corner[3] * channels;
    const T w0 = point.weight[0] * factor;
    const T w1 = point.weight[1] * factor;
    const T w2 = point.weight[2] * factor;
    const T w3 = point.weight[3] * factor;
    for (int64_t i = 0; i < count; ++i) {
      samples[i] = w0 * p0[i] + w1 * p1[i] + w2 * p2[i] + w3 * p3[i];
    }
    return;
  }
  // NaN where the mask is not finite, which a sample of zero must not hide.
  std::fill(samples, samples + count, 0 * factor);
  for (int corner = 0; corner < 4; ++corner) {
    if (point.exists[corner]) {
      const T* __restrict__ pixels = image + point.corner[corner] * channels;
      const T weight = point.weight[corner] * factor;
      for (int64_t i = 0; i < count; ++i) {
        samples[i] += weight * pixels[i];
      }
    }
  }
}

// The part of the gradients that belongs to the points: of a range's pixels alone, so threads may
// share the pixels.
template <typename T>
void point_gradients(const T* grad_columns, const T* input, const T* offset, const T* mask,
                     const DeformConvShape& shape, PixelRange pixels, T* grad_offset, T* grad_mask,
                     ParallelFor parallel_for) {
  const int64_t taps = shape.kernel_h * shape.kernel_w;
  const int64_t plane = shape.out_height * shape.out_width;
  const int64_t shared = shape.in_channels / shape.offset_groups;
  parallel_for(pixels.begin, pixels.end, kPixelsPerTask, [&](int64_t begin, int64_t end) {
    for (int64_t pixel = begin; pixel < end; ++pixel) {
      const OutputPixel at = output_pixel(pixel, shape);
      const T* image = input + at.image * shape.height * shape.width * shape.in_channels;
      for (int64_t group = 0; group < shape.offset_groups; ++group) {
        for (int64_t tap = 0; tap < taps; ++tap) {
          const SamplePoint<T> point = load_point(offset, at, group, tap, shape);
          T values[4] = {};
          if (point.inside) {
            for_each_run(shape, pixels, pixel, tap, group * shared, (group + 1) * shared,
                         [&](int64_t first, int64_t last, int64_t in_columns) {
                           for (int corner = 0; corner < 4; ++corner) {
                             if (point.exists[corner]) {
                               values[corner] +=
                                   dot(grad_columns + in_columns,
                                       image + point.corner[corner] * shape.in_channels + first,
                                       last - first);
                             }
                           }
                         });
          }
          const SampleDerivatives<T> derivatives = sample_derivatives(point, values);
          T factor = 1;
          if (mask != nullptr) {
            const int64_t in_mask = mask_index(at, group, tap, shape);
            factor = point.inside ? mask[in_mask] : T(0);
            grad_mask[in_mask] = derivatives.mask;
          }
          T* place = grad_offset + offset_index(at, group, tap, shape);
          place[0] = factor * derivatives.y;
          place[plane] = factor * derivatives.x;
        }
      }
    }
  });
}

// The part that belongs to the input. Points overlap, channels do not: so threads share these.
template <typename T>
void input_gradient(const T* grad_columns, const T* offset, const T* mask,
                    const DeformConvShape& shape, PixelRange pixels, T* grad_input,
                    ParallelFor parallel_for) {
  const int64_t taps = shape.kernel_h * shape.kernel_w;
  const int64_t shared = shape.in_channels / shape.offset_groups;
  parallel_for(0, shape.in_channels, kChannelsPerTask, [&](int64_t begin, int64_t end) {
    for (int64_t pixel = pixels.begin; pixel < pixels.end; ++pixel) {
      const OutputPixel at = output_pixel(pixel, shape);
      T* grad_image = grad_input + at.image * shape.height * shape.width * shape.in_channels;
      for (int64_t group = begin / shared; group * shared < end; ++group) {
        for (int64_t tap = 0; tap < taps; ++tap) {
          const SamplePoint<T> point = load_point(offset, at, group, tap, shape);
          if (!point.inside) {
            continue;
          }
          const T factor = mask == nullptr ? T(1) : mask[mask_index(at, group, tap, shape)];
          for_each_run(shape, pixels, pixel, tap, std::max(begin, group * shared),
                       std::min(end, (group + 1) * shared),
                       [&](int64_t first, int64_t last, int64_t in_columns) {
                         const T* __restrict__ grad = grad_columns + in_columns;
                         for (int corner = 0; corner < 4; ++corner) {
                           if (!point.exists[corner]) {
                             continue;
                           }
                           T* __restrict__ sum =
                               grad_image + point.corner[corner] * shape.in_channels + first;
                           const T weight = point.weight[corner] * factor;
                           for (int64_t i = 0; i < last - first; ++i) {
                             sum[i] += weight * grad[i];
                           }
                         }
                       });
        }
      }
    }
  });
}

}  // namespace

template <typename T>
void deform_conv_sample_cpu(const T* input, const T* offset, const T* mask,
                            const DeformConvShape& shape, PixelRange pixels, T* columns,
                            ParallelFor parallel_for) {
  const int64_t taps = shape.kernel_h * shape.kernel_w;
  const int64_t shared = shape.in_channels / shape.offset_groups;
  parallel_for(pixels.begin, pixels.end, kPixelsPerTask, [&](int64_t begin, int64_t end) {
    for (int64_t pixel = begin; pixel < end; ++pixel) {
      const OutputPixel at = output_pixel(pixel, shape);
      const T* image = input + at.image * shape.height * shape.width * shape.in_channels;
      for (int64_t group = 0; group < shape.offset_groups; ++group) {
        for (int64_t tap = 0; tap < taps; ++tap) {
          const SamplePoint<T> point = load_point(offset, at, group, tap, shape);
          const T factor = mask == nullptr ? T(1) : mask[mask_index(at, group, tap, shape)];
          for_each_run(shape, pixels, pixel, tap, group * shared, (group + 1) * shared,
                       [&](int64_t first, int64_t last, int64_t in_columns) {
                         sample_run(image + first, point, factor, shape.in_channels, last - first,
                                    columns + in_columns);
                       });
        }
      }
    }
  });
}

template <typename T>
void deform_conv_spread_cpu(const T* grad_columns, const T* input, const T* offset, const T* mask,
                            const DeformConvShape& shape, PixelRange pixels, T* grad_input,
                            T* grad_offset, T* grad_mask, ParallelFor parallel_for) {
  point_gradients(grad_columns, input, offset, mask, shape, pixels, grad_offset, grad_mask,
                  parallel_for);
  input_gradient(grad_columns, offset, mask, shape, pixels, grad_input, parallel_for);
}

#define DETECTRON2_INSTANTIATE(T)                                                               \
  template void deform_conv_sample_cpu<T>(const T*, const T*, const T*, const DeformConvShape&, \
                                          PixelRange, T*, ParallelFor);                         \
  template void deform_conv_spread_cpu<T>(const T*, const T*, const T*, const T*,               \
                                          const DeformConvShape&, PixelRange, T*, T*, T*,       \
                                          ParallelFor);
DETECTRON2_INSTANTIATE(float)
DETECTRON2_INSTANTIATE(double)

}  // namespace detectron2
