// Intersection over union of rotated boxes, robust for any shape of box, shared by all kernels.
//
// A box is (center_x, center_y, width, height, angle); the angle is in degrees and turns the width
// vector counter-clockwise on screen, where y points down. A box has no area, and so an IoU of 0
// with any box, itself included, if one of its values is not finite, if a side is not positive, or
// if the product of its sides leaves the range of float64.

#pragma once

#include <cmath>
#include <cstdint>
#include <type_traits>

#include "csrc/common/degrees.h"
#include "csrc/common/host_device.h"

namespace detectron2 {

constexpr int kRotatedBoxSize = 5;

// A box with what all pairs that it takes part in need. Eight values, so that a load is aligned.
template <typename T>
struct RotatedBox {
  T center_x;
  T center_y;
  T width;
  T height;
  T angle;  // in (-360, 360)
  T sine;
  T cosine;
  T radius;  // of the circle around the corners; NaN for a box without area
};

template <typename T>
DETECTRON2_HOST_DEVICE RotatedBox<T> make_rotated_box(T center_x, T center_y, T width, T height,
                                                      T angle) {
  // The difference of an infinite value or NaN with itself is NaN.
  const T finite = (center_x - center_x) + (center_y - center_y) + (width - width) +
                   (height - height) + (angle - angle);
  const double area = static_cast<double>(width) * static_cast<double>(height);
  const bool has_area = finite == 0 && width > 0 && height > 0 && area > 0 && area - area == 0;
  RotatedBox<T> box;
  box.center_x = center_x;
  box.center_y = center_y;
  box.width = width;
  box.height = height;
  box.angle = has_area ? wrap_degrees(angle) : T(0);
  const SineCosine<T> turn = sine_cosine(box.angle);
  box.sine = turn.sine;
  box.cosine = turn.cosine;
  box.radius = has_area ? std::sqrt(product(width, width) + product(height, height)) / 2 : T(NAN);
  return box;
}

// `row` is five values in memory.
template <typename T>
DETECTRON2_HOST_DEVICE RotatedBox<T> load_rotated_box(const T* row) {
  return make_rotated_box(row[0], row[1], row[2], row[3], row[4]);
}

namespace rotated_box_detail {

template <typename T>
DETECTRON2_HOST_DEVICE T clamp(T value, T limit) {
  return value < -limit ? -limit : (value > limit ? limit : value);
}

// The integral over x of y, along the straight edge from (x0, y0) to (x1, y1), with x kept inside
// [-limit_x, limit_x] and y clamped to [-limit_y, limit_y].
template <typename T>
DETECTRON2_HOST_DEVICE T edge_integral(T x0, T y0, T x1, T y1, T limit_x, T limit_y) {
  const T inner_x0 = clamp(x0, limit_x);
  const T inner_x1 = clamp(x1, limit_x);
  const T run = inner_x1 - inner_x0;
  if (run == 0) {
    return 0;
  }
  const T rise = y1 - y0;
  const T inner_y0 = y0 + product((inner_x0 - x0) / (x1 - x0), rise);
  const T inner_y1 = y1 + product((inner_x1 - x1) / (x1 - x0), rise);
  const T clamped_y0 = clamp(inner_y0, limit_y);
  const T clamped_y1 = clamp(inner_y1, limit_y);
  const T sum = clamped_y0 + clamped_y1;
  T mean = sum;
  if (clamped_y0 != clamped_y1) {
    // The shares of the run that lie at either limit pull the mean towards it.
    const T beyond = (sum - (inner_y0 + inner_y1)) / (inner_y1 - inner_y0);
    mean += product(beyond, clamped_y0 - clamped_y1);
  }
  return product(run, mean) / 2;
}

// Area of the intersection, in the frame of box a, where a is the rectangle |x| <= a.width / 2,
// |y| <= a.height / 2. A vertical line cuts the convex box b in one segment, and the length of that
// segment inside a is the difference of its ends clamped to a's height: so the area is the sum of
// the edge integrals around b (Green's theorem). No vertex is classified and no tolerance is
// needed: the result is continuous in every input, and rounding a corner of b by some distance
// moves it by at most that distance times a's perimeter.
template <typename T>
DETECTRON2_HOST_DEVICE T intersection_area(const RotatedBox<T>& a, const RotatedBox<T>& b) {
  const T dx = b.center_x - a.center_x;
  const T dy = b.center_y - a.center_y;
  const T x = product(dx, a.cosine) - product(dy, a.sine);
  const T y = product(dx, a.sine) + product(dy, a.cosine);
  // Of the difference, not a difference of sines: nearly parallel slivers depend on it.
  const SineCosine<T> turn = sine_cosine(b.angle - a.angle);
  const T width_x = product(b.width, turn.cosine) / 2;
  const T width_y = product(b.width, -turn.sine) / 2;
  const T height_x = product(b.height, turn.sine) / 2;
  const T height_y = product(b.height, turn.cosine) / 2;

  const T x0 = x - width_x - height_x;
  const T y0 = y - width_y - height_y;
  const T x1 = x + width_x - height_x;
  const T y1 = y + width_y - height_y;
  const T x2 = x + width_x + height_x;
  const T y2 = y + width_y + height_y;
  const T x3 = x - width_x + height_x;
  const T y3 = y - width_y + height_y;

  const T limit_x = a.width / 2;
  const T limit_y = a.height / 2;
  const T area = edge_integral(x0, y0, x1, y1, limit_x, limit_y) +
                 edge_integral(x1, y1, x2, y2, limit_x, limit_y) +
                 edge_integral(x2, y2, x3, y3, limit_x, limit_y) +
                 edge_integral(x3, y3, x0, y0, limit_x, limit_y);
  return area < 0 ? -area : area;
}

// In [0, 1]: the intersection is bounded by both areas.
template <typename T>
DETECTRON2_HOST_DEVICE T overlapping_iou(const RotatedBox<T>& a, const RotatedBox<T>& b) {
  const T area_a = product(a.width, a.height);
  const T area_b = product(b.width, b.height);
  const T smaller = area_a < area_b ? area_a : area_b;
  T intersection = intersection_area(a, b);
  intersection = intersection < smaller ? intersection : smaller;
  return intersection / (area_a + area_b - intersection);
}

// Whether float32 keeps the IoU of a pair right to about 1e-5. Corners are off by some units in the
// last place of the longest side; that distance times the perimeter must be small beside the union,
// which long thin boxes fail. The bounds keep squares within float32's range.
DETECTRON2_HOST_DEVICE bool is_well_conditioned(const RotatedBox<float>& a,
                                                const RotatedBox<float>& b) {
  const float longest_a = a.width > a.height ? a.width : a.height;
  const float longest_b = b.width > b.height ? b.width : b.height;
  const float longest = longest_a > longest_b ? longest_a : longest_b;
  const float area_a = a.width * a.height;
  const float area_b = b.width * b.height;
  const float largest = area_a > area_b ? area_a : area_b;
  return longest > 1e-15f && longest < 1e15f && longest * longest <= 16 * largest;
}

DETECTRON2_HOST_DEVICE RotatedBox<double> widen(const RotatedBox<float>& box) {
  return make_rotated_box<double>(box.center_x, box.center_y, box.width, box.height, box.angle);
}

}  // namespace rotated_box_detail

// Whether the circles around two boxes, by their centres and radii, may meet. The factor is above
// all rounding, the summand above what underflows; a comparison with NaN is false, so a box without
// area meets none.
template <typename T>
DETECTRON2_HOST_DEVICE bool circles_meet(T x1, T y1, T radius1, T x2, T y2, T radius2) {
  const T dx = x2 - x1;
  const T dy = y2 - y1;
  const T reach = radius1 + radius2;
  const T bound = product(product(reach, reach), T(1.00001)) + T(1e-36);
  return product(dx, dx) + product(dy, dy) <= bound;
}

// Intersection over union of two boxes, in [0, 1]; the same bits on the host and on the device.
template <typename T>
DETECTRON2_HOST_DEVICE T rotated_iou(const RotatedBox<T>& a, const RotatedBox<T>& b) {
  if (!circles_meet(a.center_x, a.center_y, a.radius, b.center_x, b.center_y, b.radius)) {
    return 0;
  }
  if constexpr (std::is_same_v<T, float>) {
    if (!rotated_box_detail::is_well_conditioned(a, b)) {
      return static_cast<float>(rotated_box_detail::overlapping_iou(rotated_box_detail::widen(a),
                                                                    rotated_box_detail::widen(b)));
    }
  }
  return rotated_box_detail::overlapping_iou(a, b);
}

// What tells quickly that the IoU of a pair is not above a threshold, for most pairs that do not
// meet or are of unlike size. The margins are above all rounding, fused or not.
template <typename T>
struct alignas(4 * sizeof(T)) PairProbe {
  T center_x;
  T center_y;
  T radius;  // with a margin beyond that of circles_meet; NaN for a box without area
  T area;
};

template <typename T>
DETECTRON2_HOST_DEVICE PairProbe<T> make_pair_probe(const RotatedBox<T>& box) {
  // Drawing areas to a range brings no two of them farther apart in ratio, and keeps them and
  // their quotients clear of overflow and underflow.
  const T least = std::is_same_v<T, double> ? T(1e-290) : T(1e-30);
  const T area = product(box.width, box.height);
  return {box.center_x, box.center_y, box.radius * T(1.00001),
          area > least ? (area < 1 / least ? area : 1 / least) : least};
}

// A box of which the IoUs with others are compared with a threshold.
template <typename T>
struct ThresholdProbe {
  PairProbe<T> box;
  T least_area;
  T largest_area;

  // `true` unless rotated_iou of the two, in either order, is certainly not above the threshold.
  // Without branches, so that a loop can be vectorised.
  DETECTRON2_HOST_DEVICE bool may_exceed(const PairProbe<T>& other) const {
    const T dx = box.center_x - other.center_x;
    const T dy = box.center_y - other.center_y;
    const T reach = box.radius + other.radius;
    return (dx * dx + dy * dy <= reach * reach + T(2e-36)) & (other.area >= least_area) &
           (other.area <= largest_area);
  }
};

// For a threshold that is not negative: a pair that does not meet has an IoU of 0.
template <typename T>
DETECTRON2_HOST_DEVICE ThresholdProbe<T> make_threshold_probe(const RotatedBox<T>& box,
                                                              T threshold) {
  // The IoU is at most the smaller area over the larger. The margin is above all rounding.
  const PairProbe<T> probe = make_pair_probe(box);
  return {probe, probe.area * (threshold * T(0.99999)), probe.area / (threshold * T(0.99999))};
}

}  // namespace detectron2
