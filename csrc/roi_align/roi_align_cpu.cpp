#include <algorithm>
#include <cstdint>
#include <vector>

#include "csrc/roi_align/roi_align.h"
#include "csrc/roi_align/sampling.h"

namespace detectron2 {
namespace {

// Channels that a thread takes at a time: where they are side by side, at least a cache line, so
// that no two threads write to the same one.
constexpr int64_t kChannels = 16;

template <typename T>
struct WeightedPixel {
  int64_t offset;  // index times the stride along the axis
  T weight;
};

// The pixels, with their weights, of each bin of a RoI along one axis. Samples at most a pixel
// apart share most of their pixels; each is kept once.
template <typename T>
class AxisPixels {
 public:
  void find(const RoiAxis<T>& axis, int64_t bins, int64_t size, int64_t stride) {
    pixels_.clear();
    ends_.assign(1, 0);
    const T samples = static_cast<T>(axis.samples);
    for (int bin = 0; bin < bins; ++bin) {
      const std::size_t begin = pixels_.size();
      const IndexRange range = samples_on_map(axis, bin, size);
      for (int i = range.begin; i < range.end; ++i) {
        const LinearSample<T> sample = linear_sample(sample_position(axis, bin, i), size);
        if (sample.inside) {
          add(begin, sample.first * stride, sample.first_weight);
          add(begin, sample.second * stride, sample.second_weight);
        }
      }
      for (std::size_t i = begin; i < pixels_.size(); ++i) {
        pixels_[i].weight /= samples;
      }
      ends_.push_back(pixels_.size());
    }
  }

  const WeightedPixel<T>* begin(int64_t bin) const { return pixels_.data() + ends_[bin]; }
  const WeightedPixel<T>* end(int64_t bin) const { return pixels_.data() + ends_[bin + 1]; }

 private:
  // Samples come in order: a pixel met before is among the last two.
  void add(std::size_t begin, int64_t offset, T weight) {
    const std::size_t count = pixels_.size();
    for (std::size_t i = std::max(begin + 2, count) - 2; i < count; ++i) {
      if (pixels_[i].offset == offset) {
        pixels_[i].weight += weight;
        return;
      }
    }
    pixels_.push_back({offset, weight});
  }

  std::vector<WeightedPixel<T>> pixels_;
  std::vector<std::size_t> ends_;
};

// What a thread works with.
template <typename T>
struct Workspace {
  AxisPixels<T> rows;
  AxisPixels<T> columns;
  std::vector<T> sums;

  void find(const AlignedRoi<T>& roi, const RoiAlignShape& shape) {
    const PyramidLevel& level = shape.levels[roi.level];
    rows.find(roi.y, shape.pooled_height, level.height, level.row_stride);
    columns.find(roi.x, shape.pooled_width, level.width, level.column_stride);
  }
};

// Channels that lie in planes, kPlanes at a time, so that their sums do not wait for one another.
constexpr int64_t kPlanes = 4;

template <int channels, typename T>
void pool_planes(const T* planes, int64_t channel_stride, const Workspace<T>& work,
                 const RoiAlignShape& shape, T* pooled) {
  const int64_t bins = shape.pooled_height * shape.pooled_width;
  for (int64_t i = 0; i < shape.pooled_height; ++i) {
    for (int64_t j = 0; j < shape.pooled_width; ++j) {
      const WeightedPixel<T>* const begin = work.columns.begin(j);
      const WeightedPixel<T>* const end = work.columns.end(j);
      T sums[channels] = {};
      for (const WeightedPixel<T>* y = work.rows.begin(i); y != work.rows.end(i); ++y) {
        const T* const row = planes + y->offset;
        T row_sums[channels] = {};
        for (const WeightedPixel<T>* x = begin; x != end; ++x) {
          for (int channel = 0; channel < channels; ++channel) {
            row_sums[channel] += x->weight * row[channel * channel_stride + x->offset];
          }
        }
        for (int channel = 0; channel < channels; ++channel) {
          sums[channel] += y->weight * row_sums[channel];
        }
      }
      for (int channel = 0; channel < channels; ++channel) {
        pooled[channel * bins + i * shape.pooled_width + j] = sums[channel];
      }
    }
  }
}

template <typename T>
void pool_side_by_side(const T* image, int64_t channels, Workspace<T>& work,
                       const RoiAlignShape& shape, T* pooled) {
  const int64_t bins = shape.pooled_height * shape.pooled_width;
  for (int64_t i = 0; i < shape.pooled_height; ++i) {
    for (int64_t j = 0; j < shape.pooled_width; ++j) {
      work.sums.assign(channels, T(0));
      T* const sums = work.sums.data();
      for (const WeightedPixel<T>* y = work.rows.begin(i); y != work.rows.end(i); ++y) {
        for (const WeightedPixel<T>* x = work.columns.begin(j); x != work.columns.end(j); ++x) {
          const T weight = y->weight * x->weight;
          const T* const pixel = image + y->offset + x->offset;
          for (int64_t channel = 0; channel < channels; ++channel) {
            sums[channel] += weight * pixel[channel];
          }
        }
      }
      for (int64_t channel = 0; channel < channels; ++channel) {
        pooled[channel * bins + i * shape.pooled_width + j] = sums[channel];
      }
    }
  }
}

template <int channels, typename T>
void spread_planes(const T* grad_pooled, int64_t channel_stride, const Workspace<T>& work,
                   const RoiAlignShape& shape, T* planes) {
  const int64_t bins = shape.pooled_height * shape.pooled_width;
  for (int64_t i = 0; i < shape.pooled_height; ++i) {
    for (int64_t j = 0; j < shape.pooled_width; ++j) {
      for (const WeightedPixel<T>* y = work.rows.begin(i); y != work.rows.end(i); ++y) {
        T* const row = planes + y->offset;
        T grads[channels];
        for (int channel = 0; channel < channels; ++channel) {
          grads[channel] = y->weight * grad_pooled[channel * bins + i * shape.pooled_width + j];
        }
        for (const WeightedPixel<T>* x = work.columns.begin(j); x != work.columns.end(j); ++x) {
          for (int channel = 0; channel < channels; ++channel) {
            row[channel * channel_stride + x->offset] += x->weight * grads[channel];
          }
        }
      }
    }
  }
}

template <typename T>
void spread_side_by_side(const T* grad_pooled, int64_t channels, Workspace<T>& work,
                         const RoiAlignShape& shape, T* image) {
  const int64_t bins = shape.pooled_height * shape.pooled_width;
  work.sums.resize(channels);
  T* const grads = work.sums.data();
  for (int64_t i = 0; i < shape.pooled_height; ++i) {
    for (int64_t j = 0; j < shape.pooled_width; ++j) {
      for (int64_t channel = 0; channel < channels; ++channel) {
        grads[channel] = grad_pooled[channel * bins + i * shape.pooled_width + j];
      }
      for (const WeightedPixel<T>* y = work.rows.begin(i); y != work.rows.end(i); ++y) {
        for (const WeightedPixel<T>* x = work.columns.begin(j); x != work.columns.end(j); ++x) {
          const T weight = y->weight * x->weight;
          T* const pixel = image + y->offset + x->offset;
          for (int64_t channel = 0; channel < channels; ++channel) {
            pixel[channel] += weight * grads[channel];
          }
        }
      }
    }
  }
}

}  // namespace

template <typename T>
void roi_align_forward_cpu(const PyramidData<const T*>& features, const LeveledRois<T>& rois,
                           const RoiAlignShape& shape, T* pooled, ParallelFor parallel_for) {
  const int64_t bins = shape.pooled_height * shape.pooled_width;
  const int64_t blocks = (shape.channels + kChannels - 1) / kChannels;
  parallel_for(0, shape.num_rois * blocks, 1, [&](int64_t begin, int64_t end) {
    Workspace<T> work;
    for (int64_t k = begin / blocks; k * blocks < end; ++k) {
      const int64_t first = std::max(begin - k * blocks, int64_t{0}) * kChannels;
      const int64_t last = std::min((end - k * blocks) * kChannels, shape.channels);
      T* const pooled_roi = pooled + k * shape.channels * bins;
      const AlignedRoi<T> roi = load_aligned_roi(rois, k, shape);
      if (roi.image < 0) {
        std::fill(pooled_roi + first * bins, pooled_roi + last * bins, T(0));
        continue;
      }
      work.find(roi, shape);
      const PyramidLevel& level = shape.levels[roi.level];
      const T* const image = features.levels[roi.level] + roi.image * level.image_stride;
      if (level.channel_stride == 1 && level.column_stride != 1) {
        pool_side_by_side(image + first, last - first, work, shape, pooled_roi + first * bins);
        continue;
      }
      int64_t channel = first;
      for (; channel + kPlanes <= last; channel += kPlanes) {
        pool_planes<kPlanes>(image + channel * level.channel_stride, level.channel_stride, work,
                             shape, pooled_roi + channel * bins);
      }
      for (; channel < last; ++channel) {
        pool_planes<1>(image + channel * level.channel_stride, level.channel_stride, work, shape,
                       pooled_roi + channel * bins);
      }
    }
  });
}

template <typename T>
void roi_align_backward_cpu(const T* grad_pooled, const LeveledRois<T>& rois,
                            const RoiAlignShape& shape, const PyramidData<T*>& grad_features,
                            ParallelFor parallel_for) {
  const int64_t bins = shape.pooled_height * shape.pooled_width;
  const int64_t blocks = (shape.channels + kChannels - 1) / kChannels;
  // Over channels: RoIs overlap, channels do not.
  parallel_for(0, blocks, 1, [&](int64_t begin, int64_t end) {
    Workspace<T> work;
    const int64_t first = begin * kChannels;
    const int64_t last = std::min(end * kChannels, shape.channels);
    for (int64_t k = 0; k < shape.num_rois; ++k) {
      const AlignedRoi<T> roi = load_aligned_roi(rois, k, shape);
      if (roi.image < 0) {
        continue;
      }
      work.find(roi, shape);
      const PyramidLevel& level = shape.levels[roi.level];
      const T* const grad_roi = grad_pooled + k * shape.channels * bins;
      T* const image = grad_features.levels[roi.level] + roi.image * level.image_stride;
      if (level.channel_stride == 1 && level.column_stride != 1) {
        spread_side_by_side(grad_roi + first * bins, last - first, work, shape, image + first);
        continue;
      }
      int64_t channel = first;
      for (; channel + kPlanes <= last; channel += kPlanes) {
        spread_planes<kPlanes>(grad_roi + channel * bins, level.channel_stride, work, shape,
                               image + channel * level.channel_stride);
      }
      for (; channel < last; ++channel) {
        spread_planes<1>(grad_roi + channel * bins, level.channel_stride, work, shape,
                         image + channel * level.channel_stride);
      }
    }
  });
}

template void roi_align_forward_cpu<float>(const PyramidData<const float*>&,
                                           const LeveledRois<float>&, const RoiAlignShape&, float*,
                                           ParallelFor);
template void roi_align_forward_cpu<double>(const PyramidData<const double*>&,
                                            const LeveledRois<double>&, const RoiAlignShape&,
                                            double*, ParallelFor);
template void roi_align_backward_cpu<float>(const float*, const LeveledRois<float>&,
                                            const RoiAlignShape&, const PyramidData<float*>&,
                                            ParallelFor);
template void roi_align_backward_cpu<double>(const double*, const LeveledRois<double>&,
                                             const RoiAlignShape&, const PyramidData<double*>&,
                                             ParallelFor);

}  // namespace detectron2
