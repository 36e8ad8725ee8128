#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "csrc/heatmaps_to_keypoints/heatmaps_to_keypoints.h"
#include "csrc/heatmaps_to_keypoints/peak_search.h"

namespace detectron2 {
namespace {

// What the columns of a row of cells can reach, and the cells themselves. Kept between rows and
// heatmaps, so that nothing is allocated for each.
template <typename T>
struct RowBounds {
  explicit RowBounds(int32_t width) : high(width + 3), low(width + 3), cells(width + 1) {}

  std::vector<T> high;  // of columns -2 .. width, those beyond the heatmap repeat its border
  std::vector<T> low;
  std::vector<T> cells;  // of cells -1 .. width - 1
};

// The bounds that Cell::highest_possible gives, for a row of cells at once.
template <typename T>
void bound_row(const T* heatmap, const HeatmapsShape& shape, int32_t cell_y, RowBounds<T>& bounds) {
  const int32_t width = shape.width;
  const T* rows[4];
  for (int i = 0; i < 4; ++i) {
    rows[i] = heatmap + clamp_index(cell_y - 1 + i, shape.height) * width;
  }
  T* high = bounds.high.data() + 2;
  T* low = bounds.low.data() + 2;
  for (int32_t x = 0; x < width; ++x) {
    high[x] = upper_bound(greater(rows[1][x], rows[2][x]), lesser(rows[0][x], rows[3][x]));
    low[x] = lower_bound(lesser(rows[1][x], rows[2][x]), greater(rows[0][x], rows[3][x]));
  }
  high[-2] = high[-1] = high[0];
  low[-2] = low[-1] = low[0];
  high[width] = high[width - 1];
  low[width] = low[width - 1];
  T* cells = bounds.cells.data() + 1;
  for (int32_t x = -1; x < width - 1; ++x) {
    cells[x] = upper_bound(greater(high[x], high[x + 1]), lesser(low[x - 1], low[x + 2]));
  }
  cells[width - 1] =
      upper_bound(greater(high[width - 1], high[width]), lesser(low[width - 2], low[width]));
}

// Where the highest value is, or -1 if there is one that is not finite. Column by column, which
// compilers make vector instructions of.
template <typename T>
int32_t find_highest_value(const T* heatmap, const HeatmapsShape& shape, RowBounds<T>& bounds) {
  T* highest = bounds.high.data();
  T* differences = bounds.low.data();
  std::copy(heatmap, heatmap + shape.width, highest);
  std::fill(differences, differences + shape.width, T(0));
  for (int32_t y = 0; y < shape.height; ++y) {
    const T* row = heatmap + y * shape.width;
    for (int32_t x = 0; x < shape.width; ++x) {
      highest[x] = greater(highest[x], row[x]);
      // NaN for an infinite value or NaN.
      differences[x] += row[x] - row[x];
    }
  }
  if (!std::all_of(differences, differences + shape.width, [](T value) { return value == 0; })) {
    return -1;
  }
  const T* column = std::max_element(highest, highest + shape.width);
  int32_t position = static_cast<int32_t>(column - highest);
  while (heatmap[position] < *column) {
    position += shape.width;
  }
  return position;
}

template <typename T>
Peak<T> find_peak(const T* heatmap, const HeatmapsShape& shape, const ResizedMap<T>& map,
                  RowBounds<T>& bounds) {
  const int32_t highest_value = find_highest_value(heatmap, shape, bounds);
  Peak<T> peak = {0, -1};
  if (highest_value < 0) {
    return peak;
  }
  const auto pixel = [&](int32_t y, int32_t x) { return heatmap[y * shape.width + x]; };
  const auto search = [&](int32_t cell_y, int32_t cell_x) {
    search_cell(Cell<T>(pixel, map, cell_y, cell_x), map, cell_y, cell_x, 0, 1, peak);
  };
  // A good start, after which most cells can be passed over.
  const int32_t start_y = highest_value / shape.width;
  const int32_t start_x = highest_value % shape.width;
  for (int32_t cell_y = start_y - 1; cell_y <= start_y; ++cell_y) {
    for (int32_t cell_x = start_x - 1; cell_x <= start_x; ++cell_x) {
      search(cell_y, cell_x);
    }
  }
  for (int32_t cell_y = -1; cell_y < shape.height; ++cell_y) {
    bound_row(heatmap, shape, cell_y, bounds);
    for (int32_t cell_x = -1; cell_x < shape.width; ++cell_x) {
      if (peak.position < 0 || !(bounds.cells[cell_x + 1] < peak.value)) {
        search(cell_y, cell_x);
      }
    }
  }
  return peak;
}

template <typename T>
void find_keypoint(const T* heatmap, const HeatmapsShape& shape, const ResizedMap<T>& map,
                   RowBounds<T>& bounds, T* keypoint) {
  const Peak<T> peak = map.defined ? find_peak(heatmap, shape, map, bounds) : Peak<T>{0, -1};
  if (peak.position < 0) {
    write_undefined_keypoint(keypoint);
    return;
  }
  const int32_t size = shape.height * shape.width;
  double sum = 0;
  for (int32_t i = 0; i < size; ++i) {
    sum += std::exp(heatmap[i] - peak.value);
  }
  write_keypoint(map, peak, static_cast<T>(sum), keypoint);
}

}  // namespace

template <typename T>
void heatmaps_to_keypoints_cpu(const T* heatmaps, const T* rois, const HeatmapsShape& shape,
                               T* keypoints, ParallelFor parallel_for) {
  const int64_t count = shape.num_rois * shape.num_keypoints;
  parallel_for(0, count, 1, [&](int64_t begin, int64_t end) {
    RowBounds<T> bounds(shape.width);
    for (int64_t i = begin; i < end; ++i) {
      const T* roi = rois + i / shape.num_keypoints * kHeatmapRoiSize;
      find_keypoint(heatmaps + i * (shape.height * shape.width), shape,
                    resized_map(roi, shape.height, shape.width), bounds,
                    keypoints + i * kKeypointSize);
    }
  });
}

template void heatmaps_to_keypoints_cpu<float>(const float*, const float*, const HeatmapsShape&,
                                               float*, ParallelFor);
template void heatmaps_to_keypoints_cpu<double>(const double*, const double*, const HeatmapsShape&,
                                                double*, ParallelFor);

}  // namespace detectron2
