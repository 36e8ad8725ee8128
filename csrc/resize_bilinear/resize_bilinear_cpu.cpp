// Two passes, each along one side of the image. A byte of the result is a sum of bytes under a
// triangle, with weights in units of 2^-22, rounded to the nearest byte after each pass: Pillow's
// arithmetic, and the bytes of all its releases before 13, which at times filters columns first.

#include "csrc/resize_bilinear/resize_bilinear.h"

#include <algorithm>
#include <memory>
#include <vector>

namespace detectron2 {
namespace {

constexpr int kPrecision = 22;
constexpr int32_t kHalf = 1 << (kPrecision - 1);

// Rows that the pass along them takes at a time: their sums do not wait for one another.
constexpr int64_t kRowsAtOnce = 4;

// Elements below which another thread does not pay.
constexpr int64_t kGrain = 1 << 16;

// For each output position the first input position, and the weights of those from it on.
struct Weights {
  std::vector<int64_t> first;
  std::vector<int64_t> offset;  // in `values`; one more than there are positions
  std::vector<int32_t> values;
};

Weights find_weights(int64_t in_size, int64_t out_size) {
  const double scale = static_cast<double>(in_size) / static_cast<double>(out_size);
  const double stretch = std::max(scale, 1.0);  // of the triangle, whose half width is 1
  const double inverse = 1.0 / stretch;
  Weights weights;
  weights.first.reserve(out_size);
  weights.offset.reserve(out_size + 1);
  weights.offset.push_back(0);
  std::vector<double> triangle;
  for (int64_t i = 0; i < out_size; ++i) {
    const double center = (static_cast<double>(i) + 0.5) * scale;
    const int64_t first = std::max<int64_t>(static_cast<int64_t>(center - stretch + 0.5), 0);
    const int64_t end = std::min(static_cast<int64_t>(center + stretch + 0.5), in_size);
    triangle.clear();
    double sum = 0;
    for (int64_t j = first; j < end; ++j) {
      const double distance = (static_cast<double>(j) - center + 0.5) * inverse;
      triangle.push_back(std::max(1.0 - (distance < 0 ? -distance : distance), 0.0));
      sum += triangle.back();
    }
    for (const double value : triangle) {
      weights.values.push_back(static_cast<int32_t>(value / sum * (1 << kPrecision) + 0.5));
    }
    weights.first.push_back(first);
    weights.offset.push_back(static_cast<int64_t>(weights.values.size()));
  }
  return weights;
}

uint8_t to_byte(int32_t sum) {
  return static_cast<uint8_t>(std::min(sum >> kPrecision, 255));  // weights are not negative
}

// Along rows: `rows` of `in`, at `row_stride`, to rows of `weights.first.size()` at `out`.
void resize_rows(const uint8_t* in, int64_t rows, int64_t row_stride, int64_t column_stride,
                 const Weights& weights, uint8_t* out) {
  const int64_t columns = static_cast<int64_t>(weights.first.size());
  int64_t row = 0;
  for (; row + kRowsAtOnce <= rows; row += kRowsAtOnce) {
    const uint8_t* base = in + row * row_stride;
    uint8_t* to = out + row * columns;
    for (int64_t i = 0; i < columns; ++i) {
      const uint8_t* at = base + weights.first[i] * column_stride;
      int32_t sums[kRowsAtOnce] = {kHalf, kHalf, kHalf, kHalf};
      for (int64_t k = weights.offset[i]; k < weights.offset[i + 1]; ++k) {
        const int32_t weight = weights.values[k];
        for (int64_t j = 0; j < kRowsAtOnce; ++j) {
          sums[j] += at[j * row_stride] * weight;
        }
        at += column_stride;
      }
      for (int64_t j = 0; j < kRowsAtOnce; ++j) {
        to[j * columns + i] = to_byte(sums[j]);
      }
    }
  }
  for (; row < rows; ++row) {
    const uint8_t* base = in + row * row_stride;
    for (int64_t i = 0; i < columns; ++i) {
      const uint8_t* at = base + weights.first[i] * column_stride;
      int32_t sum = kHalf;
      for (int64_t k = weights.offset[i]; k < weights.offset[i + 1]; ++k) {
        sum += *at * weights.values[k];
        at += column_stride;
      }
      out[row * columns + i] = to_byte(sum);
    }
  }
}

// One row, of sums over rows at `in`. Compiled for processors with wide vectors, too.
__attribute__((target_clones("avx2", "default"))) void sum_rows(const uint8_t* __restrict in,
                                                                int64_t columns,
                                                                const int32_t* weights,
                                                                int64_t taps,
                                                                uint8_t* __restrict out) {
  constexpr int64_t kBlock = 64;
  int64_t column = 0;
  for (; column + kBlock <= columns; column += kBlock) {
    int32_t sums[kBlock];
    for (int64_t i = 0; i < kBlock; ++i) {
      sums[i] = kHalf;
    }
    for (int64_t k = 0; k < taps; ++k) {
      const uint8_t* row = in + k * columns + column;
      const int32_t weight = weights[k];
      for (int64_t i = 0; i < kBlock; ++i) {
        sums[i] += row[i] * weight;
      }
    }
    for (int64_t i = 0; i < kBlock; ++i) {
      out[column + i] = static_cast<uint8_t>(std::min(sums[i] >> kPrecision, 255));
    }
  }
  for (; column < columns; ++column) {
    int32_t sum = kHalf;
    for (int64_t k = 0; k < taps; ++k) {
      sum += in[k * columns + column] * weights[k];
    }
    out[column] = to_byte(sum);
  }
}

// Writes (image.channels, image.rows, columns).
void resize_along_rows(const ByteImage& image, int64_t columns, uint8_t* resized,
                       ParallelFor parallel_for) {
  const Weights weights = find_weights(image.columns, columns);
  const int64_t grain = std::max<int64_t>(kGrain / (columns * image.channels), kRowsAtOnce);
  parallel_for(0, image.rows, grain, [&](int64_t begin, int64_t end) {
    for (int64_t channel = 0; channel < image.channels; ++channel) {
      resize_rows(image.bytes + channel * image.channel_stride + begin * image.row_stride,
                  end - begin, image.row_stride, image.column_stride, weights,
                  resized + (channel * image.rows + begin) * columns);
    }
  });
}

// (channels, rows, columns) to (channels, new_rows, columns).
void resize_along_columns(const uint8_t* planes, int64_t channels, int64_t rows, int64_t columns,
                          int64_t new_rows, uint8_t* resized, ParallelFor parallel_for) {
  const Weights weights = find_weights(rows, new_rows);
  const int64_t grain = std::max<int64_t>(kGrain / (columns * channels), 1);
  parallel_for(0, new_rows, grain, [&](int64_t begin, int64_t end) {
    for (int64_t channel = 0; channel < channels; ++channel) {
      for (int64_t row = begin; row < end; ++row) {
        sum_rows(planes + (channel * rows + weights.first[row]) * columns, columns,
                 weights.values.data() + weights.offset[row],
                 weights.offset[row + 1] - weights.offset[row],
                 resized + (channel * new_rows + row) * columns);
      }
    }
  });
}

}  // namespace

void resize_bilinear_cpu(const ByteImage& image, int64_t rows, int64_t columns, uint8_t* resized,
                         ParallelFor parallel_for) {
  if (rows == image.rows) {
    resize_along_rows(image, columns, resized, parallel_for);
    return;
  }
  const std::unique_ptr<uint8_t[]> wide(new uint8_t[image.channels * image.rows * columns]);
  resize_along_rows(image, columns, wide.get(), parallel_for);
  resize_along_columns(wide.get(), image.channels, image.rows, columns, rows, resized,
                       parallel_for);
}

}  // namespace detectron2
