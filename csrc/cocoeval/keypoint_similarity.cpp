#include "csrc/cocoeval/keypoint_similarity.h"

#include <algorithm>
#include <cstring>
#include <limits>

namespace detectron2 {
namespace {

// exp(-value) for value >= 0, to about an ulp; 0 where the result would be denormal. The C
// library's exp is bound to another version of glibc than this library may need (abi_floor.cpp).
double exp_of_negative(double value) {
  constexpr double kLog2E = 1.4426950408889634;
  // log(2) as a sum; the first part times a small integer is exact.
  constexpr double kLn2High = 6.93147180369123816490e-01;
  constexpr double kLn2Low = 1.90821492927058770002e-10;
  if (!(value < 708)) return 0;
  const auto power = static_cast<int64_t>(value * kLog2E + 0.5);
  const auto halvings = static_cast<double>(power);
  // exp(-value) = 2^-power * exp(rest), |rest| <= log(2) / 2.
  const double rest = (halvings * kLn2High - value) + halvings * kLn2Low;
  // Taylor's series up to rest^13, whose remainder is below 5e-18.
  double sum = 1;
  for (int term = 13; term > 1; --term) sum = 1 + sum * rest / term;
  const double result = 1 + rest * sum;
  double scale;
  const int64_t bits = (1023 - power) << 52;
  std::memcpy(&scale, &bits, sizeof(scale));
  return result * scale;
}

double square(double value) { return value * value; }

// Distance along one axis to the box of three times the size.
double distance_to_box(double at, double corner, double size) {
  return std::max(0.0, corner - size - at) + std::max(0.0, at - (corner + size * 2));
}

double similarity(const KeypointInputs& in, const double* dt, const double* gt, const double* box,
                  double area) {
  const int64_t count = in.num_keypoints;
  bool any_labelled = false;
  for (int64_t k = 0; k < count; ++k) any_labelled |= gt[3 * k + 2] > 0;
  // In the order of the COCO API's operations.
  const double scale = area + std::numeric_limits<double>::epsilon();
  double sum = 0;
  int64_t counted = 0;
  for (int64_t k = 0; k < count; ++k) {
    const double x = dt[3 * k];
    const double y = dt[3 * k + 1];
    double squared;
    if (!any_labelled) {
      squared =
          square(distance_to_box(x, box[0], box[2])) + square(distance_to_box(y, box[1], box[3]));
    } else if (gt[3 * k + 2] > 0) {
      squared = square(x - gt[3 * k]) + square(y - gt[3 * k + 1]);
    } else {
      continue;
    }
    ++counted;
    sum += exp_of_negative(squared / in.variances[k] / scale / 2);
  }
  return counted == 0 ? 0 : sum / static_cast<double>(counted);
}

}  // namespace

void coco_keypoint_similarity(const KeypointInputs& in, const EvaluationGroups& groups,
                              int64_t begin, int64_t end, double* similarities) {
  const int64_t length = 3 * in.num_keypoints;
  for (int64_t group = begin; group < end; ++group) {
    double* out = similarities + groups.iou_offsets[group];
    for (int64_t d = groups.dt_offsets[group]; d < groups.dt_offsets[group + 1]; ++d) {
      for (int64_t g = groups.gt_offsets[group]; g < groups.gt_offsets[group + 1]; ++g) {
        *out++ = similarity(in, in.dt_keypoints + d * length, in.gt_keypoints + g * length,
                            in.gt_boxes + 4 * g, in.gt_areas[g]);
      }
    }
  }
}

}  // namespace detectron2
