#include <algorithm>
#include <cstdint>
#include <vector>

#include "csrc/roi_align_rotated/roi_align_rotated.h"
#include "csrc/roi_align_rotated/sampling.h"

namespace detectron2 {
namespace {

// Channels that are worked on side by side: their sums do not wait for one another, and the pixels
// of that many windows stay in the cache closest to the processor.
constexpr int64_t kChannels = 4;

// Samples whose pixels are kept at a time for the backward kernel, unless one RoI has more.
constexpr int64_t kMaxSamples = int64_t{1} << 18;

template <typename T>
struct WeightedPixel {
  int64_t offset;
  T weight;
};

// What RoIs' bins sum up: pixels with their weights, the same for all channels.
template <typename T>
class BinPixels {
 public:
  explicit BinPixels(const RoiAlignRotatedShape& shape)
      : shape_(shape), places_(shape.height * shape.width) {}

  void clear() {
    pixels_.clear();
    ends_.clear();
  }

  // Appends the bins of a RoI, row by row. Samples at most a pixel apart share most of their
  // pixels: a bin then keeps each once.
  void append(const RotatedRoi<T>& roi) {
    const T weight = sample_weight(roi);
    const bool dense = roi.bin_height * roi.bin_width * weight <= 1;
    for (int64_t bin_y = 0; bin_y < shape_.pooled_height; ++bin_y) {
      for (int64_t bin_x = 0; bin_x < shape_.pooled_width; ++bin_x) {
        const int64_t begin = size();
        for (int64_t sample_y = 0; sample_y < roi.samples_y; ++sample_y) {
          for (int64_t sample_x = 0; sample_x < roi.samples_x; ++sample_x) {
            const BilinearSample<T> sample =
                bilinear_sample(roi, bin_y, bin_x, sample_y, sample_x, shape_);
            if (sample.inside) {
              for (int corner = 0; corner < 4; ++corner) {
                add(dense, begin, sample.offset[corner], sample.weight[corner]);
              }
            }
          }
        }
        for (int64_t i = begin; i < size(); ++i) {
          pixels_[i].weight *= weight;
        }
        ends_.push_back(size());
      }
    }
  }

  // Of the bins appended, in their order.
  const WeightedPixel<T>* begin(int64_t bin) const {
    return pixels_.data() + (bin > 0 ? ends_[bin - 1] : 0);
  }
  const WeightedPixel<T>* end(int64_t bin) const { return pixels_.data() + ends_[bin]; }

 private:
  int64_t size() const { return static_cast<int64_t>(pixels_.size()); }

  void add(bool dense, int64_t begin, int64_t offset, T weight) {
    if (!dense) {
      pixels_.push_back({offset, weight});
      return;
    }
    // A place may be left from another bin; it counts if it is one of this bin and of this pixel.
    const int64_t place = places_[offset];
    if (place >= begin && place < size() && pixels_[place].offset == offset) {
      pixels_[place].weight += weight;
    } else {
      places_[offset] = size();
      pixels_.push_back({offset, weight});
    }
  }

  const RoiAlignRotatedShape& shape_;
  std::vector<WeightedPixel<T>> pixels_;
  std::vector<int64_t> ends_;
  std::vector<int64_t> places_;  // for each pixel of the map, where in pixels_ it may be
};

template <int channels, typename T>
void pool_channels(const T* image, int64_t plane, const BinPixels<T>& bin_pixels, int64_t bins,
                   T* pooled) {
  for (int64_t bin = 0; bin < bins; ++bin) {
    T sums[channels] = {};
    const WeightedPixel<T>* const end = bin_pixels.end(bin);
    for (const WeightedPixel<T>* pixel = bin_pixels.begin(bin); pixel != end; ++pixel) {
      for (int channel = 0; channel < channels; ++channel) {
        sums[channel] += pixel->weight * image[channel * plane + pixel->offset];
      }
    }
    for (int channel = 0; channel < channels; ++channel) {
      pooled[channel * bins + bin] = sums[channel];
    }
  }
}

// `first_bin` is the RoI's first one among those appended.
template <int channels, typename T>
void spread_channels(const T* grad_pooled, int64_t plane, const BinPixels<T>& bin_pixels,
                     int64_t first_bin, int64_t bins, T* grad_image) {
  for (int64_t bin = 0; bin < bins; ++bin) {
    T grads[channels];
    for (int channel = 0; channel < channels; ++channel) {
      grads[channel] = grad_pooled[channel * bins + bin];
    }
    const WeightedPixel<T>* const end = bin_pixels.end(first_bin + bin);
    for (const WeightedPixel<T>* pixel = bin_pixels.begin(first_bin + bin); pixel != end; ++pixel) {
      for (int channel = 0; channel < channels; ++channel) {
        grad_image[channel * plane + pixel->offset] += pixel->weight * grads[channel];
      }
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
  const int64_t blocks = (shape.channels + kChannels - 1) / kChannels;
  parallel_for(0, shape.num_rois * blocks, 1, [&](int64_t begin, int64_t end) {
    BinPixels<T> bin_pixels(shape);
    for (int64_t k = begin / blocks; k * blocks < end; ++k) {
      const int64_t first = std::max(begin - k * blocks, int64_t{0}) * kChannels;
      const int64_t last = std::min((end - k * blocks) * kChannels, shape.channels);
      T* pooled_roi = pooled + k * shape.channels * bins;
      const RotatedRoi<T> roi = load_rotated_roi(rois + k * kRoiSize, shape);
      if (roi.batch_index < 0) {
        std::fill(pooled_roi + first * bins, pooled_roi + last * bins, T(0));
        continue;
      }
      bin_pixels.clear();
      bin_pixels.append(roi);
      const T* image = features + roi.batch_index * shape.channels * plane;
      int64_t channel = first;
      for (; channel + kChannels <= last; channel += kChannels) {
        pool_channels<kChannels>(image + channel * plane, plane, bin_pixels, bins,
                                 pooled_roi + channel * bins);
      }
      for (; channel < last; ++channel) {
        pool_channels<1>(image + channel * plane, plane, bin_pixels, bins,
                         pooled_roi + channel * bins);
      }
    }
  });
}

template <typename T>
void roi_align_rotated_backward_cpu(const T* grad_pooled, const T* rois,
                                    const RoiAlignRotatedShape& shape, T* grad_features,
                                    ParallelFor parallel_for) {
  const int64_t plane = shape.height * shape.width;
  const int64_t bins = shape.pooled_height * shape.pooled_width;
  const int64_t blocks = (shape.channels + kChannels - 1) / kChannels;
  BinPixels<T> bin_pixels(shape);
  std::vector<int64_t> indices;  // into the batch, of the RoIs in bin_pixels; -1: not in it
  for (int64_t first = 0; first < shape.num_rois;) {
    bin_pixels.clear();
    indices.clear();
    for (int64_t samples = 0; first + static_cast<int64_t>(indices.size()) < shape.num_rois;) {
      const RotatedRoi<T> roi =
          load_rotated_roi(rois + (first + static_cast<int64_t>(indices.size())) * kRoiSize, shape);
      if (roi.batch_index >= 0) {
        samples += bins * roi.samples_y * roi.samples_x;
        if (samples > kMaxSamples && !indices.empty()) {
          break;
        }
        bin_pixels.append(roi);
      }
      indices.push_back(roi.batch_index);
    }
    // Over channels: RoIs overlap, channels do not.
    parallel_for(0, blocks, 1, [&](int64_t begin, int64_t end) {
      for (int64_t block = begin; block < end; ++block) {
        const int64_t first_channel = block * kChannels;
        const int64_t last_channel = std::min(first_channel + kChannels, shape.channels);
        int64_t first_bin = 0;
        for (std::size_t i = 0; i < indices.size(); ++i) {
          if (indices[i] < 0) {
            continue;
          }
          const int64_t k = first + static_cast<int64_t>(i);
          const T* grad_roi = grad_pooled + (k * shape.channels + first_channel) * bins;
          T* grad_image = grad_features + (indices[i] * shape.channels + first_channel) * plane;
          if (last_channel - first_channel == kChannels) {
            spread_channels<kChannels>(grad_roi, plane, bin_pixels, first_bin, bins, grad_image);
          } else {
            for (int64_t channel = 0; channel < last_channel - first_channel; ++channel) {
              spread_channels<1>(grad_roi + channel * bins, plane, bin_pixels, first_bin, bins,
                                 grad_image + channel * plane);
            }
          }
          first_bin += bins;
        }
      }
    });
    first += static_cast<int64_t>(indices.size());
  }
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
