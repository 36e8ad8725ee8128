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

// Aligned so that the corners are one load.
template <typename T>
struct alignas(4 * sizeof(T)) AlignedBox {
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

namespace aligned_box_detail {

// In a form that is one instruction. If one of the values is NaN, it must be `a`, and is left out.

template <typename T>
DETECTRON2_HOST_DEVICE T least(T a, T b) {
#ifdef __CUDA_ARCH__
  return fmin(a, b);
#else
  return a < b ? a : b;
#endif
}

template <typename T>
DETECTRON2_HOST_DEVICE T greatest(T a, T b) {
#ifdef __CUDA_ARCH__
  return fmax(a, b);
#else
  return a > b ? a : b;
#endif
}

}  // namespace aligned_box_detail

// Overlap of two boxes from load_aligned_box: 0 where they do not meet, and where the quotient of
// two infinities has no value. `divide` gives NaN or 0 for a quotient of 0 and anything.
template <OverlapOf of, typename T, typename Divide>
DETECTRON2_HOST_DEVICE T overlap(const AlignedBox<T>& a, const AlignedBox<T>& b,
                                 const Divide& divide) {
  using aligned_box_detail::greatest;
  using aligned_box_detail::least;
  const T width = greatest(least(a.x1, b.x1) - greatest(a.x0, b.x0), T(0));
  const T height = greatest(least(a.y1, b.y1) - greatest(a.y0, b.y0), T(0));
  const T intersection = product(width, height);
  const T whole = of == OverlapOf::kUnion ? a.area + b.area - intersection : b.area;
  // Without a branch for boxes that do not meet, so that a loop can be vectorised.
  return greatest(divide(intersection, whole), T(0));
}

}  // namespace detectron2
