#include "csrc/cocoeval/matching.h"

#include <algorithm>
#include <limits>
#include <vector>

namespace detectron2 {
namespace {

// The protocol lets an IoU of 1, rounded down, still pass a threshold of 1.
constexpr double kMaxThreshold = 1 - 1e-10;

// A ground truth whose IoU with a detection reaches the lowest of the thresholds.
struct Candidate {
  int64_t gt;  // position within the group
  double iou;
};

bool out_of_range(double area, const double* range) { return area < range[0] || area > range[1]; }

// Matches one group after another, keeping its buffers.
class GroupMatcher {
 public:
  GroupMatcher(const MatchingInputs& inputs, const MatchingOutputs& outputs)
      : in_(inputs), out_(outputs) {
    for (int64_t t = 0; t < in_.num_thresholds; ++t) {
      lowest_threshold_ = std::min(lowest_threshold_, threshold(t));
    }
  }

  void match(int64_t group) {
    dt_begin_ = in_.groups.dt_offsets[group];
    gt_begin_ = in_.groups.gt_offsets[group];
    num_dt_ = in_.groups.num_dt(group);
    num_gt_ = in_.groups.num_gt(group);
    collect_candidates(in_.ious + in_.groups.iou_offsets[group]);
    for (int64_t a = 0; a < in_.num_areas; ++a) {
      bool* ignored = out_.gt_ignored + a * in_.num_gt + gt_begin_;
      for (int64_t g = 0; g < num_gt_; ++g) {
        ignored[g] = in_.gt_ignore[gt_begin_ + g] ||
                     out_of_range(in_.gt_areas[gt_begin_ + g], in_.area_ranges + 2 * a);
      }
      for (int64_t t = 0; t < in_.num_thresholds; ++t) match_at(a, t, ignored);
    }
  }

 private:
  double threshold(int64_t t) const { return std::min(in_.iou_thresholds[t], kMaxThreshold); }

  // Most pairs do not overlap: leaving them out once saves a visit per area range and threshold.
  void collect_candidates(const double* ious) {
    candidates_.clear();
    candidate_offsets_.assign(1, 0);
    for (int64_t d = 0; d < num_dt_; ++d) {
      for (int64_t g = 0; g < num_gt_; ++g) {
        const double iou = ious[d * num_gt_ + g];
        if (iou >= lowest_threshold_) candidates_.push_back({g, iou});
      }
      candidate_offsets_.push_back(candidates_.size());
    }
  }

  void match_at(int64_t a, int64_t t, const bool* ignored) {
    taken_.assign(num_gt_, false);
    const int64_t row = (a * in_.num_thresholds + t) * in_.num_dt + dt_begin_;
    for (int64_t d = 0; d < num_dt_; ++d) {
      int64_t gt = best_free(d, t, ignored, false);
      if (gt < 0) gt = best_free(d, t, ignored, true);
      DetectionStatus status = DetectionStatus::kTruePositive;
      if (gt >= 0) {
        taken_[gt] = !in_.gt_crowd[gt_begin_ + gt];
        if (ignored[gt]) status = DetectionStatus::kIgnored;
      } else {
        status = in_.dt_ignore[dt_begin_ + d] ||
                         out_of_range(in_.dt_areas[dt_begin_ + d], in_.area_ranges + 2 * a)
                     ? DetectionStatus::kIgnored
                     : DetectionStatus::kFalsePositive;
      }
      out_.dt_status[row + d] = status;
      if (out_.dt_matches != nullptr) out_.dt_matches[row + d] = gt < 0 ? -1 : gt_begin_ + gt;
    }
  }

  // The best of the free ground truths that are ignored, or that are not; -1 if there is none.
  int64_t best_free(int64_t d, int64_t t, const bool* ignored, bool among_ignored) const {
    int64_t best = -1;
    double best_iou = threshold(t);
    for (size_t c = candidate_offsets_[d]; c < candidate_offsets_[d + 1]; ++c) {
      const Candidate& candidate = candidates_[c];
      if (ignored[candidate.gt] != among_ignored || taken_[candidate.gt]) continue;
      if (candidate.iou >= best_iou) {
        best = candidate.gt;
        best_iou = candidate.iou;
      }
    }
    return best;
  }

  const MatchingInputs& in_;
  const MatchingOutputs& out_;
  double lowest_threshold_ = std::numeric_limits<double>::infinity();
  int64_t dt_begin_ = 0;
  int64_t gt_begin_ = 0;
  int64_t num_dt_ = 0;
  int64_t num_gt_ = 0;
  std::vector<Candidate> candidates_;
  std::vector<size_t> candidate_offsets_;
  std::vector<uint8_t> taken_;
};

}  // namespace

void coco_match(const MatchingInputs& inputs, int64_t begin, int64_t end,
                const MatchingOutputs& outputs) {
  GroupMatcher matcher(inputs, outputs);
  for (int64_t group = begin; group < end; ++group) matcher.match(group);
}

}  // namespace detectron2
