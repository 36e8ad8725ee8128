// Overlap of axis-aligned boxes, for all kernels; the same bits on the host and on the device.
//
// A box is (x0, y0, x1, y1). Boxes overlap nothing if one of their values is NaN.

#pragma once

#include <cmath>

#include "csrc/common/degrees.h"
#include "csrc/common/host_device.h"

namespace detectron2 {

constexpr int kAlignedBoxSize = 4;

// What the intersection of two boxes is divided by.
enum class OverlapOf { kUnion, kSecond };

template <typename T>
struct AlignedBox {
  T x0;
  T y0;
  T x1;
  T y1;
  T area;  // negative if one side is inverted
};

// `row` is four values in memory.
template <typename T>
DETECTRON2_HOST_DEVICE AlignedBox<T> load_aligned_box(const T* row) {
  const AlignedBox<T> box = {row[0], row[1], row[2], row[3],
                             product(row[2] - row[0], row[3] - row[1])};
  const bool is_number =
      box.x0 == box.x0 && box.y0 == box.y0 && box.x1 == box.x1 && box.y1 == box.y1;
  // Inside out, so that it is apart from every box.
  const T infinity = INFINITY;
  return is_number ? box : AlignedBox<T>{infinity, infinity, -infinity, -infinity, 0};
}

// Overlap of two boxes, of which none of the values is NaN. 0, without a division by 0, where they
// do not meet, and where the quotient of two infinities has no value.
template <OverlapOf of, typename T>
DETECTRON2_HOST_DEVICE T overlap(const AlignedBox<T>& a, const AlignedBox<T>& b) {
  const T width = (a.x1 < b.x1 ? a.x1 : b.x1) - (a.x0 > b.x0 ? a.x0 : b.x0);
  const T height = (a.y1 < b.y1 ? a.y1 : b.y1) - (a.y0 > b.y0 ? a.y0 : b.y0);
  const T intersection = product(width > 0 ? width : T(0), height > 0 ? height : T(0));
  const T whole = of == OverlapOf::kUnion ? a.area + b.area - intersection : b.area;
  // NaN where 0 or infinity is divided by itself, and then not above 0. A loop without branches can
  // be vectorised, so nothing else asks whether the boxes meet.
  const T quotient = intersection / whole;
  return quotient > 0 ? quotient : T(0);
}

}  // namespace detectron2
