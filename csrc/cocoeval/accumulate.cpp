#include "csrc/cocoeval/accumulate.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <vector>

namespace detectron2 {
namespace {

// The points of a precision-recall curve at which recall rises: one a true positive. Between them
// precision only falls, so no other point can show in the interpolated curve.
struct RecallSteps {
  std::vector<double> precision;
  std::vector<double> score;
};

void trace_steps(const AccumulationInputs& in, const std::vector<int64_t>& ranking,
                 const DetectionStatus* status, RecallSteps* steps) {
  steps->precision.clear();
  steps->score.clear();
  double true_positives = 0;
  double false_positives = 0;
  for (const int64_t d : ranking) {
    if (status[d] == DetectionStatus::kFalsePositive) {
      false_positives += 1;
    } else if (status[d] == DetectionStatus::kTruePositive) {
      true_positives += 1;
      // The COCO API's epsilon, added in its order, so that precisions agree to the last bit.
      const double detections =
          false_positives + true_positives + std::numeric_limits<double>::epsilon();
      steps->precision.push_back(true_positives / detections);
      steps->score.push_back(in.dt_scores[d]);
    }
  }
  // Interpolation: the precision at a recall is the best at this recall or a higher one.
  for (size_t i = steps->precision.size(); i > 1; --i) {
    steps->precision[i - 2] = std::max(steps->precision[i - 2], steps->precision[i - 1]);
  }
}

// The first step at which recall reaches `threshold`, steps.size() if none does.
size_t find_step(size_t num_steps, double num_positives, double threshold) {
  size_t low = 0;
  size_t high = num_steps;
  while (low < high) {
    const size_t middle = (low + high) / 2;
    if (static_cast<double>(middle + 1) / num_positives < threshold) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

}  // namespace

void coco_sort_category(const AccumulationInputs& in, int64_t category, int64_t* order) {
  int64_t* begin = order + in.dt_category_offsets[category];
  int64_t* end = order + in.dt_category_offsets[category + 1];
  std::iota(begin, end, in.dt_category_offsets[category]);
  std::stable_sort(begin, end, [scores = in.dt_scores](int64_t left, int64_t right) {
    return scores[left] > scores[right];
  });
}

void coco_accumulate_curve(const AccumulationInputs& in, const int64_t* order, int64_t curve,
                           const AccumulationOutputs& out) {
  const int64_t num_curves = in.num_categories * in.num_areas * in.num_max_dets;
  const int64_t area = curve / in.num_max_dets % in.num_areas;
  const int64_t category = curve / in.num_max_dets / in.num_areas;
  const bool* gt_ignored = in.gt_ignored + area * in.num_gt;
  const auto num_positives =
      static_cast<double>(std::count(gt_ignored + in.gt_category_offsets[category],
                                     gt_ignored + in.gt_category_offsets[category + 1], false));

  std::vector<int64_t> ranking;
  const int64_t max_dets = in.max_dets[curve % in.num_max_dets];
  for (int64_t i = in.dt_category_offsets[category]; i < in.dt_category_offsets[category + 1];
       ++i) {
    if (in.dt_ranks[order[i]] < max_dets) ranking.push_back(order[i]);
  }

  RecallSteps steps;
  for (int64_t t = 0; t < in.num_thresholds; ++t) {
    double* recall = out.recall + t * num_curves + curve;
    double* precision = out.precision + t * in.num_recalls * num_curves + curve;
    double* scores =
        out.scores == nullptr ? nullptr : out.scores + t * in.num_recalls * num_curves + curve;
    if (num_positives == 0) {
      *recall = -1;
      for (int64_t r = 0; r < in.num_recalls; ++r) {
        precision[r * num_curves] = -1;
        if (scores != nullptr) scores[r * num_curves] = -1;
      }
      continue;
    }
    trace_steps(in, ranking, in.dt_status + (area * in.num_thresholds + t) * in.num_dt, &steps);
    const size_t num_steps = steps.precision.size();
    *recall = static_cast<double>(num_steps) / num_positives;
    for (int64_t r = 0; r < in.num_recalls; ++r) {
      const double threshold = in.recall_thresholds[r];
      const size_t step = find_step(num_steps, num_positives, threshold);
      precision[r * num_curves] = step < num_steps ? steps.precision[step] : 0;
      if (scores == nullptr) continue;
      scores[r * num_curves] = step < num_steps ? steps.score[step] : 0;
      // Recall 0 is there from the first detection on, whatever that counts as.
      if (threshold <= 0 && !ranking.empty()) scores[r * num_curves] = in.dt_scores[ranking[0]];
    }
  }
}

}  // namespace detectron2
