// Kernel of torch.ops.detectron2.resize_bilinear.

#pragma once

#include <cstdint>

#include "csrc/common/parallel_for.h"

namespace detectron2 {

// Bytes of an image, at rows * row_stride + columns * column_stride + channels * channel_stride.
struct ByteImage {
  const uint8_t* bytes;
  int64_t channels;
  int64_t rows;
  int64_t columns;
  int64_t channel_stride;
  int64_t row_stride;
  int64_t column_stride;
};

// Writes (channels, rows, columns), contiguous. No size is zero; sizes are less than 2^29.
void resize_bilinear_cpu(const ByteImage& image, int64_t rows, int64_t columns, uint8_t* resized,
                         ParallelFor parallel_for);

}  // namespace detectron2
