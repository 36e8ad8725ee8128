// torch.ops.detectron2.coco_box_iou, coco_keypoint_similarity, coco_match and coco_accumulate, on
// the CPU.

#include <tuple>
#include <vector>

#include "csrc/cocoeval/accumulate.h"
#include "csrc/cocoeval/box_iou.h"
#include "csrc/cocoeval/keypoint_similarity.h"
#include "csrc/cocoeval/matching.h"
#include "csrc/cocoeval/op_inputs.h"
#include "csrc/torch_abi/torch_abi.h"

namespace detectron2 {
namespace {

// A group is a matter of microseconds, less than handing it to a thread costs.
constexpr int64_t kGroupsPerBlock = 256;
// Neighbouring curves are written into the same cache lines, which threads should not share.
constexpr int64_t kCurvesPerBlock = 16;

Tensor coco_box_iou_cpu(const Tensor& dt_boxes, const Tensor& gt_boxes, const Tensor& gt_crowd,
                        const Tensor& dt_offsets, const Tensor& gt_offsets) {
  constexpr const char* op = "coco_box_iou";
  const Tensor dt = checked_numbers(op, "dt_boxes", dt_boxes, {-1, 4}, "(D, 4)");
  const Tensor gt = checked_numbers(op, "gt_boxes", gt_boxes, {-1, 4}, "(G, 4)");
  const Tensor crowd =
      checked_input(op, "gt_crowd", gt_crowd, ScalarType::Bool, {gt.size(0)}, "(G,)");
  const GroupsInput groups(op, dt_offsets, dt.size(0), gt_offsets, gt.size(0));

  Tensor ious = torch::stable::empty({groups.num_ious()}, ScalarType::Double);
  parallel_blocks(groups.size(), kGroupsPerBlock, [&](int64_t begin, int64_t end) {
    coco_box_iou(data_of<double>(dt), data_of<double>(gt), data_of<bool>(crowd), groups.view(),
                 begin, end, mutable_data_of<double>(ious));
  });
  return ious;
}

Tensor coco_keypoint_similarity_cpu(const Tensor& dt_keypoints, const Tensor& gt_keypoints,
                                    const Tensor& gt_boxes, const Tensor& gt_areas,
                                    const Tensor& sigmas, const Tensor& dt_offsets,
                                    const Tensor& gt_offsets) {
  constexpr const char* op = "coco_keypoint_similarity";
  const Tensor sigma = checked_numbers(op, "sigmas", sigmas, {-1}, "(K,)");
  const int64_t count = sigma.size(0);
  const Tensor dt = checked_numbers(op, "dt_keypoints", dt_keypoints, {-1, count, 3}, "(D, K, 3)");
  const Tensor gt = checked_numbers(op, "gt_keypoints", gt_keypoints, {-1, count, 3}, "(G, K, 3)");
  const Tensor boxes = checked_numbers(op, "gt_boxes", gt_boxes, {gt.size(0), 4}, "(G, 4)");
  const Tensor areas = checked_numbers(op, "gt_areas", gt_areas, {gt.size(0)}, "(G,)");
  const GroupsInput groups(op, dt_offsets, dt.size(0), gt_offsets, gt.size(0));

  std::vector<double> variances(count);
  for (int64_t k = 0; k < count; ++k) {
    const double doubled = data_of<double>(sigma)[k] * 2;
    DETECTRON2_CHECK(doubled > 0, op, ": sigmas must be positive, got ", doubled / 2, " at ", k);
    variances[k] = doubled * doubled;
  }
  KeypointInputs inputs;
  inputs.num_keypoints = count;
  inputs.dt_keypoints = data_of<double>(dt);
  inputs.gt_keypoints = data_of<double>(gt);
  inputs.gt_boxes = data_of<double>(boxes);
  inputs.gt_areas = data_of<double>(areas);
  inputs.variances = variances.data();
  Tensor similarities = torch::stable::empty({groups.num_ious()}, ScalarType::Double);
  parallel_blocks(groups.size(), kGroupsPerBlock, [&](int64_t begin, int64_t end) {
    coco_keypoint_similarity(inputs, groups.view(), begin, end,
                             mutable_data_of<double>(similarities));
  });
  return similarities;
}

std::tuple<Tensor, Tensor, Tensor> coco_match_cpu(
    const Tensor& ious, const Tensor& dt_areas, const Tensor& gt_areas, const Tensor& dt_ignore,
    const Tensor& gt_crowd, const Tensor& gt_ignore, const Tensor& dt_offsets,
    const Tensor& gt_offsets, const Tensor& area_ranges, const Tensor& iou_thresholds,
    bool return_matches) {
  constexpr const char* op = "coco_match";
  const Tensor dt_area = checked_numbers(op, "dt_areas", dt_areas, {-1}, "(D,)");
  const Tensor gt_area = checked_numbers(op, "gt_areas", gt_areas, {-1}, "(G,)");
  const int64_t num_dt = dt_area.size(0);
  const int64_t num_gt = gt_area.size(0);
  const Tensor unmatched_ignore =
      checked_input(op, "dt_ignore", dt_ignore, ScalarType::Bool, {num_dt}, "(D,)");
  const Tensor crowd = checked_input(op, "gt_crowd", gt_crowd, ScalarType::Bool, {num_gt}, "(G,)");
  const Tensor ignore =
      checked_input(op, "gt_ignore", gt_ignore, ScalarType::Bool, {num_gt}, "(G,)");
  const GroupsInput groups(op, dt_offsets, num_dt, gt_offsets, num_gt);
  const Tensor iou =
      checked_numbers(op, "ious", ious, {groups.num_ious()}, "(pairs within groups,)");
  const Tensor ranges = checked_numbers(op, "area_ranges", area_ranges, {-1, 2}, "(A, 2)");
  const Tensor thresholds = checked_numbers(op, "iou_thresholds", iou_thresholds, {-1}, "(T,)");

  MatchingInputs inputs;
  inputs.groups = groups.view();
  inputs.ious = data_of<double>(iou);
  inputs.num_dt = num_dt;
  inputs.num_gt = num_gt;
  inputs.dt_areas = data_of<double>(dt_area);
  inputs.gt_areas = data_of<double>(gt_area);
  inputs.dt_ignore = data_of<bool>(unmatched_ignore);
  inputs.gt_crowd = data_of<bool>(crowd);
  inputs.gt_ignore = data_of<bool>(ignore);
  inputs.num_areas = ranges.size(0);
  inputs.area_ranges = data_of<double>(ranges);
  inputs.num_thresholds = thresholds.size(0);
  inputs.iou_thresholds = data_of<double>(thresholds);

  Tensor dt_status =
      torch::stable::empty({inputs.num_areas, inputs.num_thresholds, num_dt}, ScalarType::Byte);
  Tensor gt_ignored = torch::stable::empty({inputs.num_areas, num_gt}, ScalarType::Bool);
  Tensor dt_matches = torch::stable::empty(
      {inputs.num_areas, inputs.num_thresholds, return_matches ? num_dt : 0}, ScalarType::Long);
  MatchingOutputs outputs;
  outputs.dt_status = mutable_data_of<DetectionStatus>(dt_status);
  outputs.gt_ignored = mutable_data_of<bool>(gt_ignored);
  outputs.dt_matches = return_matches ? mutable_data_of<int64_t>(dt_matches) : nullptr;
  parallel_blocks(groups.size(), kGroupsPerBlock,
                  [&](int64_t begin, int64_t end) { coco_match(inputs, begin, end, outputs); });
  return {dt_status, gt_ignored, dt_matches};
}

std::tuple<Tensor, Tensor, Tensor> coco_accumulate_cpu(
    const Tensor& dt_status, const Tensor& gt_ignored, const Tensor& dt_scores,
    const Tensor& dt_ranks, const Tensor& dt_category_offsets, const Tensor& gt_category_offsets,
    const Tensor& recall_thresholds, const Tensor& max_dets, bool return_scores) {
  constexpr const char* op = "coco_accumulate";
  const Tensor status =
      checked_input(op, "dt_status", dt_status, ScalarType::Byte, {-1, -1, -1}, "(A, T, D)");
  const Tensor ignored =
      checked_input(op, "gt_ignored", gt_ignored, ScalarType::Bool, {status.size(0), -1}, "(A, G)");
  const int64_t num_dt = status.size(2);
  const int64_t num_gt = ignored.size(1);
  const Tensor dt_score = checked_numbers(op, "dt_scores", dt_scores, {num_dt}, "(D,)");
  const Tensor dt_rank =
      checked_input(op, "dt_ranks", dt_ranks, ScalarType::Long, {num_dt}, "(D,)");
  const Tensor dt_runs =
      checked_offsets(op, "dt_category_offsets", dt_category_offsets, -1, num_dt);
  const int64_t num_categories = dt_runs.numel() - 1;
  const Tensor gt_runs =
      checked_offsets(op, "gt_category_offsets", gt_category_offsets, num_categories, num_gt);
  const Tensor recalls = checked_numbers(op, "recall_thresholds", recall_thresholds, {-1}, "(R,)");
  const Tensor limits = checked_input(op, "max_dets", max_dets, ScalarType::Long, {-1}, "(M,)");

  AccumulationInputs inputs;
  inputs.num_dt = num_dt;
  inputs.num_gt = num_gt;
  inputs.dt_status = data_of<DetectionStatus>(status);
  inputs.gt_ignored = data_of<bool>(ignored);
  inputs.dt_scores = data_of<double>(dt_score);
  inputs.dt_ranks = data_of<int64_t>(dt_rank);
  inputs.dt_category_offsets = data_of<int64_t>(dt_runs);
  inputs.gt_category_offsets = data_of<int64_t>(gt_runs);
  inputs.num_thresholds = status.size(1);
  inputs.num_recalls = recalls.size(0);
  inputs.recall_thresholds = data_of<double>(recalls);
  inputs.num_categories = num_categories;
  inputs.num_areas = status.size(0);
  inputs.num_max_dets = limits.size(0);
  inputs.max_dets = data_of<int64_t>(limits);

  Tensor precision = torch::stable::empty({inputs.num_thresholds, inputs.num_recalls,
                                           num_categories, inputs.num_areas, inputs.num_max_dets},
                                          ScalarType::Double);
  Tensor recall = torch::stable::empty(
      {inputs.num_thresholds, num_categories, inputs.num_areas, inputs.num_max_dets},
      ScalarType::Double);
  Tensor scores =
      torch::stable::empty({inputs.num_thresholds, return_scores ? inputs.num_recalls : 0,
                            num_categories, inputs.num_areas, inputs.num_max_dets},
                           ScalarType::Double);
  const AccumulationOutputs outputs = {mutable_data_of<double>(precision),
                                       mutable_data_of<double>(recall),
                                       return_scores ? mutable_data_of<double>(scores) : nullptr};
  std::vector<int64_t> order(num_dt);
  parallel_blocks(num_categories, 1, [&](int64_t begin, int64_t end) {
    for (int64_t k = begin; k < end; ++k) coco_sort_category(inputs, k, order.data());
  });
  const int64_t num_curves = num_categories * inputs.num_areas * inputs.num_max_dets;
  parallel_blocks(num_curves, kCurvesPerBlock, [&](int64_t begin, int64_t end) {
    for (int64_t curve = begin; curve < end; ++curve) {
      coco_accumulate_curve(inputs, order.data(), curve, outputs);
    }
  });
  return {precision, recall, scores};
}

}  // namespace
}  // namespace detectron2

STABLE_TORCH_LIBRARY_FRAGMENT(detectron2, m) {
  m.def(
      "coco_box_iou(Tensor dt_boxes, Tensor gt_boxes, Tensor gt_crowd, Tensor dt_offsets, "
      "Tensor gt_offsets) -> Tensor");
  m.def(
      "coco_keypoint_similarity(Tensor dt_keypoints, Tensor gt_keypoints, Tensor gt_boxes, "
      "Tensor gt_areas, Tensor sigmas, Tensor dt_offsets, Tensor gt_offsets) -> Tensor");
  m.def(
      "coco_match(Tensor ious, Tensor dt_areas, Tensor gt_areas, Tensor dt_ignore, "
      "Tensor gt_crowd, Tensor gt_ignore, Tensor dt_offsets, Tensor gt_offsets, "
      "Tensor area_ranges, Tensor iou_thresholds, bool return_matches) -> (Tensor, Tensor, "
      "Tensor)");
  m.def(
      "coco_accumulate(Tensor dt_status, Tensor gt_ignored, Tensor dt_scores, Tensor dt_ranks, "
      "Tensor dt_category_offsets, Tensor gt_category_offsets, Tensor recall_thresholds, "
      "Tensor max_dets, bool return_scores) -> (Tensor, Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(detectron2, CPU, m) {
  m.impl("coco_box_iou", TORCH_BOX(&detectron2::coco_box_iou_cpu));
  m.impl("coco_keypoint_similarity", TORCH_BOX(&detectron2::coco_keypoint_similarity_cpu));
  m.impl("coco_match", TORCH_BOX(&detectron2::coco_match_cpu));
  m.impl("coco_accumulate", TORCH_BOX(&detectron2::coco_accumulate_cpu));
}
