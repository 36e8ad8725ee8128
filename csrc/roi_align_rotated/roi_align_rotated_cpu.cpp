#include <algorithm>
#include <cstdint>
#include <vector>

#include "csrc/roi_align_rotated/roi_align_rotated.h"
#include "csrc/roi_align_rotated/sampling.h"

namespace detectron2 {
namespace {

// The samples of one bin that are inside the map. All channels share them.
template <typename T>
void collect_samples(const RotatedRoi<T>& roi, int64_t bin_y, int64_t bin_x,
                     const RoiAlignRotatedShape& shape, std::vector<BilinearSample<T>>& samples) {
  samples.clear();
  for (int64_t sample_y = 0; sample_y < roi.samples_y; ++sample_y) {
    for (int64_t sample_x = 0; sample_x < roi.samples_x; ++sample_x) {
      const BilinearSample<T> sample =
          bilinear_sample(roi, bin_y, bin_x, sample_y, sample_x, shape);
      if (sample.inside) {
        samples.push_back(sample);
      }
    }
  }
}

// Calls visit(bin, samples) for each bin of a RoI, row by row.
template <typename T, typename Visit>
void for_each_bin(const RotatedRoi<T>& roi, const RoiAlignRotatedShape& shape,
                  std::vector<BilinearSample<T>>& samples, const Visit& visit) {
  for (int64_t bin_y = 0; bin_y < shape.pooled_height; ++bin_y) {
    for (int64_t bin_x = 0; bin_x < shape.pooled_width; ++bin_x) {
      collect_samples(roi, bin_y, bin_x, shape, samples);
      visit(bin_y * shape.pooled_width + bin_x);
    }
  }
}

}  // namespace

template <typename T>
void roi_align_rotated_forward_cpu(const T* features, const T* rois,
                                   const RoiAlignRotatedShape& shape, T* pooled,
                                   ParallelFor parallel_for) {
  const int64_t plane = shape.height * shape.width;
  const int64_t bins = shape.pooled_height * shape.pooled_width;
  parallel_for(0, shape.num_rois, 1, [&](int64_t begin, int64_t end) {
    std::vector<BilinearSample<T>> samples;
    for (int64_t k = begin; k < end; ++k) {
      T* pooled_roi = pooled + k * shape.channels * bins;
      const RotatedRoi<T> roi = load_rotated_roi(rois + k * kRoiSize, shape);
      if (roi.batch_index < 0) {
        std::fill(pooled_roi, pooled_roi + shape.channels * bins, T(0));
        continue;
      }
      const T* image = features + roi.batch_index * shape.channels * plane;
      const T weight = sample_weight(roi);
      for_each_bin(roi, shape, samples, [&](int64_t bin) {
        for (int64_t channel = 0; channel < shape.channels; ++channel) {
          const T* pixels = image + channel * plane;
          T sum = 0;
          for (const BilinearSample<T>& sample : samples) {
            for (int corner = 0; corner < 4; ++corner) {
              sum += sample.weight[corner] * pixels[sample.offset[corner]];
            }
          }
          pooled_roi[channel * bins + bin] = sum * weight;
        }
      });
    }
  });
}

template <typename T>
void roi_align_rotated_backward_cpu(const T* grad_pooled, const T* rois,
                                    const RoiAlignRotatedShape& shape, T* grad_features,
                                    ParallelFor parallel_for) {
  const int64_t plane = shape.height * shape.width;
  const int64_t bins = shape.pooled_height * shape.pooled_width;
  // Over channels: RoIs overlap, channels do not.
  parallel_for(0, shape.channels, 1, [&](int64_t begin, int64_t end) {
    std::vector<BilinearSample<T>> samples;
    for (int64_t k = 0; k < shape.num_rois; ++k) {
      const RotatedRoi<T> roi = load_rotated_roi(rois + k * kRoiSize, shape);
      if (roi.batch_index < 0) {
        continue;
      }
      const T* grad_roi = grad_pooled + k * shape.channels * bins;
      T* grad_image = grad_features + roi.batch_index * shape.channels * plane;
      const T weight = sample_weight(roi);
      for_each_bin(roi, shape, samples, [&](int64_t bin) {
        for (int64_t channel = begin; channel < end; ++channel) {
          const T grad = grad_roi[channel * bins + bin] * weight;
          T* pixels = grad_image + channel * plane;
          for (const BilinearSample<T>& sample : samples) {
            for (int corner = 0; corner < 4; ++corner) {
              pixels[sample.offset[corner]] += sample.weight[corner] * grad;
            }
          }
        }
      });
    }
  });
}

template void roi_align_rotated_forward_cpu<float>(const float*, const float*,
                                                   const RoiAlignRotatedShape&, float*,
                                                   ParallelFor);
template void roi_align_rotated_forward_cpu<double>(const double*, const double*,
                                                    const RoiAlignRotatedShape&, double*,
                                                    ParallelFor);
template void roi_align_rotated_backward_cpu<float>(const float*, const float*,
                                                    const RoiAlignRotatedShape&, float*,
                                                    ParallelFor);
template void roi_align_rotated_backward_cpu<double>(const double*, const double*,
                                                     const RoiAlignRotatedShape&, double*,
                                                     ParallelFor);

}  // namespace detectron2
