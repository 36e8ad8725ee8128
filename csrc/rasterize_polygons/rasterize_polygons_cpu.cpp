// The rasterisation of COCO's annotations, pixel for pixel as pycocotools' frPyObjects has it.
//
// That rule works on a lattice of five points a pixel. A vertex goes to a lattice point; an edge
// becomes the digital line that takes one step a point along the axis in which it is longer and
// rounds the other coordinate. The middle of pixel column c lies between the lattice columns
// 5 c + 2 and 5 c + 3. Where a line passes between these two, the column changes from outside to
// inside, or back, at the first pixel row whose middle is not above the upper of the two points.
// Instead of walking along the lines, this finds the crossings of each edge column by column.

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "csrc/common/huge_pages.h"
#include "csrc/rasterize_polygons/rasterize_polygons.h"

namespace detectron2 {
namespace {

// Fewer pixels than this cost less to fill than to hand to a thread.
constexpr int64_t kPixelsPerRange = 1 << 17;

constexpr int64_t kLattice = 5;                  // points a pixel
constexpr int64_t kBeforeMiddle = kLattice / 2;  // the last point before a pixel's middle
// Beyond any image. Vertices further away are drawn in to here, so that nothing overflows.
constexpr double kFarthest = 2147483647;

struct LatticePoint {
  int64_t x;
  int64_t y;
};

struct Crossing {
  int64_t row;
  int64_t column;
};

// Rounds half up where positive, and to the integer above where negative, as the rule has it.
int64_t round_to_lattice(double value) { return static_cast<int64_t>(value + 0.5); }

LatticePoint to_lattice(const double* vertex) {
  const auto scaled = [](double coordinate) {
    return round_to_lattice(std::clamp(coordinate * kLattice, -kFarthest, kFarthest));
  };
  return {scaled(vertex[0]), scaled(vertex[1])};
}

int64_t floor_divide(int64_t value, int64_t divisor) {
  return value >= 0 ? value / divisor : -((-value + divisor - 1) / divisor);
}

// The first pixel whose middle is not before the lattice coordinate.
int64_t first_pixel_from(int64_t coordinate) {
  return floor_divide(coordinate - kBeforeMiddle + kLattice - 1, kLattice);
}

class Rasterizer {
 public:
  Rasterizer(int64_t height, int64_t width) : height_(height), width_(width) {}

  // Adds a polygon to `mask`; `is_blank` says that the mask is all zeros still.
  void draw(const double* vertices, int64_t count, uint8_t* mask, bool is_blank) {
    crossings_.clear();
    LatticePoint previous = to_lattice(vertices + 2 * (count - 1));
    for (int64_t i = 0; i < count; ++i) {
      const LatticePoint point = to_lattice(vertices + 2 * i);
      cross_columns(previous, point);
      previous = point;
    }
    if (crossings_.empty()) {
      return;
    }
    Crossing first = crossings_.front();
    Crossing last = first;
    for (const Crossing& crossing : crossings_) {
      first.row = std::min(first.row, crossing.row);
      first.column = std::min(first.column, crossing.column);
      last.row = std::max(last.row, crossing.row);
      last.column = std::max(last.column, crossing.column);
    }
    const int64_t columns = last.column - first.column + 1;
    const int64_t rows = std::min(last.row, height_) - first.row;
    if (rows <= 0) {
      return;
    }
    uint8_t* corner = mask + first.row * width_ + first.column;
    if (is_blank) {
      fill(corner, width_, first, rows, columns);
      return;
    }
    part_.assign(rows * columns, 0);
    fill(part_.data(), columns, first, rows, columns);
    for (int64_t row = 0; row < rows; ++row) {
      const uint8_t* from = part_.data() + row * columns;
      uint8_t* to = corner + row * width_;
      for (int64_t column = 0; column < columns; ++column) {
        to[column] |= from[column];
      }
    }
  }

 private:
  // Fills a window of zeros, whose first pixel is `first`, from the crossings in it.
  void fill(uint8_t* window, int64_t stride, const Crossing& first, int64_t rows,
            int64_t columns) const {
    for (const Crossing& crossing : crossings_) {
      if (crossing.row - first.row < rows) {
        window[(crossing.row - first.row) * stride + crossing.column - first.column] ^= 1;
      }
    }
    for (int64_t row = 1; row < rows; ++row) {
      const uint8_t* above = window + (row - 1) * stride;
      uint8_t* here = window + row * stride;
      for (int64_t column = 0; column < columns; ++column) {
        here[column] ^= above[column];
      }
    }
  }

  void add(int64_t column, int64_t upper_y) {
    crossings_.push_back({std::clamp(first_pixel_from(upper_y), int64_t{0}, height_), column});
  }

  void cross_columns(LatticePoint begin, LatticePoint end) {
    const int64_t left = std::min(begin.x, end.x);
    const int64_t right = std::max(begin.x, end.x);
    const int64_t first = std::max<int64_t>(0, first_pixel_from(left));
    const int64_t last = std::min(width_ - 1, floor_divide(right - kBeforeMiddle - 1, kLattice));
    if (first > last) {
      return;
    }
    const int64_t height = std::max(begin.y, end.y) - std::min(begin.y, end.y);
    if (right - left >= height) {
      if (begin.x > end.x) {
        std::swap(begin, end);
      }
      cross_columns_of_flat(begin, end, first, last);
    } else {
      if (begin.y > end.y) {
        std::swap(begin, end);
      }
      cross_columns_of_steep(begin, end, first, last);
    }
  }

  // An edge with a point in each lattice column, from left to right.
  void cross_columns_of_flat(LatticePoint begin, LatticePoint end, int64_t first, int64_t last) {
    const double y = static_cast<double>(begin.y);
    const double slope =
        static_cast<double>(end.y - begin.y) / static_cast<double>(end.x - begin.x);
    for (int64_t column = first; column <= last; ++column) {
      const int64_t step = column * kLattice + kBeforeMiddle - begin.x;
      add(column, std::min(round_to_lattice(y + slope * static_cast<double>(step)),
                           round_to_lattice(y + slope * static_cast<double>(step + 1))));
    }
  }

  // An edge with a point in each lattice row, downwards.
  void cross_columns_of_steep(LatticePoint begin, LatticePoint end, int64_t first, int64_t last) {
    const double x = static_cast<double>(begin.x);
    const double slope =
        static_cast<double>(end.x - begin.x) / static_cast<double>(end.y - begin.y);
    const int64_t steps = end.y - begin.y;
    for (int64_t column = first; column <= last; ++column) {
      const int64_t before = column * kLattice + kBeforeMiddle;
      const auto has_crossed = [&](int64_t step) {
        const int64_t at = round_to_lattice(x + slope * static_cast<double>(step));
        return slope > 0 ? at > before : at <= before;
      };
      // Exact but for rounding, which the loops undo.
      const double middle = static_cast<double>(before) + 0.5;
      int64_t step = std::clamp<int64_t>(static_cast<int64_t>((middle - x) / slope), 1, steps);
      while (step > 1 && has_crossed(step - 1)) {
        --step;
      }
      while (step < steps && !has_crossed(step)) {
        ++step;
      }
      add(column, begin.y + step - 1);
    }
  }

  int64_t height_;
  int64_t width_;
  std::vector<Crossing> crossings_;
  std::vector<uint8_t> part_;
};

}  // namespace

void rasterize_polygons_cpu(const PackedPolygons& polygons, int64_t height, int64_t width,
                            uint8_t* masks, ParallelFor parallel_for) {
  advise_huge_pages(masks, polygons.num_instances * height * width);
  const int64_t instances_per_range =
      std::max<int64_t>(1, kPixelsPerRange / std::max<int64_t>(1, height * width));
  parallel_for(0, polygons.num_instances, instances_per_range, [&](int64_t begin, int64_t end) {
    Rasterizer rasterizer(height, width);
    for (int64_t n = begin; n < end; ++n) {
      uint8_t* mask = masks + n * height * width;
      std::memset(mask, 0, height * width);
      const int64_t first = polygons.instance_offsets[n];
      for (int64_t p = first; p < polygons.instance_offsets[n + 1]; ++p) {
        const int64_t offset = polygons.polygon_offsets[p];
        rasterizer.draw(polygons.vertices + 2 * offset, polygons.polygon_offsets[p + 1] - offset,
                        mask, p == first);
      }
    }
  });
}

}  // namespace detectron2
