// The highest point of a heatmap that is resized to the pixels of its RoI, shared by all kernels.
//
// The resized map is never made. Its points fall into the cells between four neighbouring values of
// the heatmap, and what a cell's points can reach at most follows from the values around it: cells
// that cannot reach the best point so far are passed over, which leaves a handful around a peak.
//
// Products are rounded by themselves, so that the host and the device find the same point.

#pragma once

#include <cmath>
#include <cstdint>

#include "csrc/common/degrees.h"
#include "csrc/common/host_device.h"

namespace detectron2 {

constexpr int kHeatmapRoiSize = 4;
constexpr int kKeypointSize = 4;

// Points of the resized map to one value of the heatmap, along a side, at most. The position then
// has steps of 1/512 of a heatmap's pixel: beyond that a larger RoI would take more time for
// nothing.
constexpr int32_t kMaxPointsPerValue = 512;

// Sides up to this length have a number of points, and of cells, that 32 bits hold.
constexpr int64_t kMaxHeatmapSide = 1 << 21;

// One side of a resized map.
template <typename T>
struct ResizedSide {
  T origin;        // of the RoI
  T length;        // of the RoI, at least 1
  int32_t values;  // of the heatmap
  int32_t points;  // of the resized map
  T scale;         // values / points
};

template <typename T>
DETECTRON2_HOST_DEVICE ResizedSide<T> resized_side(T low, T high, int32_t values) {
  ResizedSide<T> side;
  side.origin = low;
  side.length = high - low > 1 ? high - low : T(1);
  side.values = values;
  const T limit = static_cast<T>(values * kMaxPointsPerValue);
  const T points = std::ceil(side.length);
  side.points = static_cast<int32_t>(points < limit ? points : limit);
  side.scale = static_cast<T>(values) / static_cast<T>(side.points);
  return side;
}

// Where a point of the resized map is among the heatmap's values, which are at whole numbers.
template <typename T>
DETECTRON2_HOST_DEVICE T source_of(const ResizedSide<T>& side, int32_t point) {
  return product(static_cast<T>(point) + T(0.5), side.scale) - T(0.5);
}

// Where a point of the resized map is in the image.
template <typename T>
DETECTRON2_HOST_DEVICE T image_position(const ResizedSide<T>& side, int32_t point) {
  const T pixel = side.length / static_cast<T>(side.points);
  return product(static_cast<T>(point) + T(0.5), pixel) + side.origin;
}

// The first point in cell `cell`, which reaches from value `cell` to the next one, or in a later
// cell. There are cells from -1, before the first value, to `values` - 1, after the last one.
template <typename T>
DETECTRON2_HOST_DEVICE int32_t first_point_of(const ResizedSide<T>& side, int32_t cell) {
  const T start = static_cast<T>(cell);
  const T guess = (start + T(0.5)) / side.scale;
  const T limit = static_cast<T>(side.points);
  int32_t point = guess > 0 ? static_cast<int32_t>(guess < limit ? guess : limit) : 0;
  // The guess is off by one at most, or by what rounding adds.
  while (point > 0 && source_of(side, point - 1) >= start) {
    --point;
  }
  while (point < side.points && source_of(side, point) < start) {
    ++point;
  }
  return point;
}

// A RoI that is not finite, or whose sides are not, has no resized map.
template <typename T>
struct ResizedMap {
  bool defined;
  ResizedSide<T> x;
  ResizedSide<T> y;
};

// `row` is (x0, y0, x1, y1).
template <typename T>
DETECTRON2_HOST_DEVICE ResizedMap<T> resized_map(const T* row, int32_t height, int32_t width) {
  ResizedMap<T> map = {};
  const T sides = (row[2] - row[0]) + (row[3] - row[1]);
  // The difference of an infinite value or NaN with itself is NaN.
  map.defined = sides - sides == 0;
  if (map.defined) {
    map.x = resized_side(row[0], row[2], width);
    map.y = resized_side(row[1], row[3], height);
  }
  return map;
}

// A point of the resized map, by its row and, in the lower half, its column; none while negative.
template <typename T>
struct Peak {
  T value;
  int64_t position;
};

// The higher point, and of two as high the first.
template <typename T>
DETECTRON2_HOST_DEVICE bool is_higher(const Peak<T>& a, const Peak<T>& b) {
  if (a.position < 0 || b.position < 0) {
    return b.position < 0 && a.position >= 0;
  }
  return a.value > b.value || (a.value == b.value && a.position < b.position);
}

// Weights of the four values around a point that is `offset`, in [0, 1), past the second one: cubic
// convolution (Keys, 1981) with a = -0.75, as torch.nn.functional.interpolate has it.
template <typename T>
DETECTRON2_HOST_DEVICE void cubic_weights(T offset, T* weights) {
  const T rest = 1 - offset;
  const T both = product(T(-0.75), product(offset, rest));
  weights[0] = product(both, rest);
  weights[1] = product(product(product(T(1.25), offset) - T(2.25), offset), offset) + 1;
  weights[2] = product(product(product(T(1.25), rest) - T(2.25), rest), rest) + 1;
  weights[3] = product(both, offset);
}

template <typename T>
DETECTRON2_HOST_DEVICE T lesser(T a, T b) {
  return a < b ? a : b;
}

template <typename T>
DETECTRON2_HOST_DEVICE T greater(T a, T b) {
  return a < b ? b : a;
}

// What cubic convolution can reach at most between two values of which the higher is `inner`, with
// `outer` the lower of the next two outwards. The outer weights sum up to -0.75 t (1 - t), between
// 0 and -3/16; the last summand is above all rounding.
template <typename T>
DETECTRON2_HOST_DEVICE T upper_bound(T inner, T outer) {
  const T slack = sizeof(T) == 8 ? T(1e-14) : T(4e-6);
  const T difference = inner - outer;
  // 3/16 of it where it is positive, else 0; compilers make no vector instruction of a choice here.
  const T overshoot = (difference + std::fabs(difference)) * T(0.09375);
  return inner + overshoot + (std::fabs(inner) + std::fabs(outer)) * slack;
}

template <typename T>
DETECTRON2_HOST_DEVICE T lower_bound(T inner, T outer) {
  return -upper_bound(-inner, -outer);
}

// `index` moved into [0, size).
DETECTRON2_HOST_DEVICE int32_t clamp_index(int32_t index, int32_t size) {
  return index < 0 ? 0 : (index < size ? index : size - 1);
}

// The 4 x 4 values around a cell; those beyond the heatmap repeat its border.
template <typename T>
struct Cell {
  T values[4][4];

  // `pixel(row, column)` is a value of the heatmap.
  template <typename Pixel>
  DETECTRON2_HOST_DEVICE Cell(const Pixel& pixel, const ResizedMap<T>& map, int32_t cell_y,
                              int32_t cell_x) {
    int32_t columns[4];
    for (int j = 0; j < 4; ++j) {
      columns[j] = clamp_index(cell_x - 1 + j, map.x.values);
    }
    for (int i = 0; i < 4; ++i) {
      const int32_t row = clamp_index(cell_y - 1 + i, map.y.values);
      for (int j = 0; j < 4; ++j) {
        values[i][j] = pixel(row, columns[j]);
      }
    }
  }

  DETECTRON2_HOST_DEVICE bool is_flat() const {
    bool flat = true;
    for (int i = 0; i < 4; ++i) {
      for (int j = 0; j < 4; ++j) {
        flat = flat && values[i][j] == values[0][0];
      }
    }
    return flat;
  }

  // No point of the cell is higher.
  DETECTRON2_HOST_DEVICE T highest_possible() const {
    T high[4];
    T low[4];
    for (int j = 0; j < 4; ++j) {
      const T* column = &values[0][j];
      high[j] = upper_bound(greater(column[4], column[8]), lesser(column[0], column[12]));
      low[j] = lower_bound(lesser(column[4], column[8]), greater(column[0], column[12]));
    }
    return upper_bound(greater(high[1], high[2]), lesser(low[0], low[3]));
  }

  DETECTRON2_HOST_DEVICE T interpolate(const T* weights_y, const T* weights_x) const {
    T sum = 0;
    for (int i = 0; i < 4; ++i) {
      T row = 0;
      for (int j = 0; j < 4; ++j) {
        row += product(weights_x[j], values[i][j]);
      }
      sum += product(weights_y[i], row);
    }
    return sum;
  }
};

// Looks at points `first`, `first + step`, ... of a cell, and keeps the highest in `peak`.
template <typename T>
DETECTRON2_HOST_DEVICE void search_cell(const Cell<T>& cell, const ResizedMap<T>& map,
                                        int32_t cell_y, int32_t cell_x, int32_t first, int32_t step,
                                        Peak<T>& peak) {
  const int32_t begin_y = first_point_of(map.y, cell_y);
  const int32_t begin_x = first_point_of(map.x, cell_x);
  const int32_t rows = first_point_of(map.y, cell_y + 1) - begin_y;
  const int32_t columns = first_point_of(map.x, cell_x + 1) - begin_x;
  // Of equal points the first counts: rounding would choose another.
  const bool flat = cell.is_flat();
  const int32_t count = flat && rows * columns > 0 ? 1 : rows * columns;
  for (int32_t i = first; i < count; i += step) {
    const int32_t row = begin_y + i / columns;
    const int32_t column = begin_x + i % columns;
    T weights_y[4];
    T weights_x[4];
    cubic_weights(source_of(map.y, row) - static_cast<T>(cell_y), weights_y);
    cubic_weights(source_of(map.x, column) - static_cast<T>(cell_x), weights_x);
    const Peak<T> point = {flat ? cell.values[0][0] : cell.interpolate(weights_y, weights_x),
                           int64_t{row} << 32 | column};
    // NaN, which sums of enormous values can be, is not higher than anything.
    if (point.value == point.value && is_higher(point, peak)) {
      peak = point;
    }
  }
}

// Writes (x, y, logit, score) of a heatmap; `sum` is that of the exponentials of all of the
// heatmap's values less the peak's.
template <typename T>
DETECTRON2_HOST_DEVICE void write_keypoint(const ResizedMap<T>& map, const Peak<T>& peak, T sum,
                                           T* keypoint) {
  keypoint[0] = image_position(map.x, static_cast<int32_t>(peak.position & 0x7fffffff));
  keypoint[1] = image_position(map.y, static_cast<int32_t>(peak.position >> 32));
  keypoint[2] = peak.value;
  keypoint[3] = 1 / sum;
}

template <typename T>
DETECTRON2_HOST_DEVICE void write_undefined_keypoint(T* keypoint) {
  for (int i = 0; i < kKeypointSize; ++i) {
    keypoint[i] = static_cast<T>(NAN);
  }
}

}  // namespace detectron2
