// torch.ops.detectron2.coco_results_json, on the CPU.

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "csrc/cocoeval/op_inputs.h"
#include "csrc/cocoeval/results_json.h"
#include "csrc/torch_abi/torch_abi.h"

namespace detectron2 {
namespace {

constexpr const char* kOp = "coco_results_json";
constexpr int64_t kDetectionsPerBlock = 1024;

Tensor checked_finite(const char* name, const Tensor& tensor, std::initializer_list<int64_t> sizes,
                      const char* shape) {
  Tensor numbers = checked_input(kOp, name, tensor, ScalarType::Double, sizes, shape);
  const double* data = data_of<double>(numbers);
  for (int64_t i = 0; i < numbers.numel(); ++i) {
    DETECTRON2_CHECK(std::isfinite(data[i]), kOp, ": ", name, " must be finite, got ", data[i],
                     " at ", i);
  }
  return numbers;
}

Tensor checked_indices(const char* name, const Tensor& tensor, int64_t count, int64_t bound) {
  Tensor indices = checked_input(kOp, name, tensor, ScalarType::Long, {count}, "(D,)");
  const int64_t* data = data_of<int64_t>(indices);
  for (int64_t i = 0; i < count; ++i) {
    DETECTRON2_CHECK(0 <= data[i] && data[i] < bound, kOp, ": ", name, " must be in [0, ", bound,
                     "), got ", data[i], " at ", i);
  }
  return indices;
}

Tensor coco_results_json_cpu(const Tensor& image_ids, const Tensor& image_id_offsets,
                             const Tensor& images, const Tensor& category_ids, const Tensor& boxes,
                             const Tensor& scores, const Tensor& mask_codes,
                             const Tensor& mask_begin, const Tensor& mask_end,
                             const Tensor& mask_sizes, const Tensor& keypoints) {
  const Tensor ids =
      checked_input(kOp, "image_ids", image_ids, ScalarType::Byte, {-1}, "(characters,)");
  const Tensor id_offsets =
      checked_offsets(kOp, "image_id_offsets", image_id_offsets, -1, ids.numel());
  const Tensor score = checked_finite("scores", scores, {-1}, "(D,)");
  const int64_t count = score.numel();
  const Tensor image = checked_indices("images", images, count, id_offsets.numel() - 1);
  const Tensor category =
      checked_input(kOp, "category_ids", category_ids, ScalarType::Long, {count}, "(D,)");
  const Tensor box = checked_finite("boxes", boxes, {count, -1}, "(D, B)");
  const Tensor points = checked_finite("keypoints", keypoints, {count, -1}, "(D, 3 K)");
  const Tensor codes =
      checked_input(kOp, "mask_codes", mask_codes, ScalarType::Byte, {-1}, "(characters,)");
  const bool has_masks = mask_begin.numel() > 0;
  const int64_t num_masks = has_masks ? count : 0;
  const Tensor begin = checked_indices("mask_begin", mask_begin, num_masks, codes.numel() + 1);
  const Tensor end = checked_indices("mask_end", mask_end, num_masks, codes.numel() + 1);
  const Tensor sizes =
      checked_input(kOp, "mask_sizes", mask_sizes, ScalarType::Long, {num_masks, 2}, "(D, 2)");

  DetectionColumns columns{};
  columns.image_ids = data_of<uint8_t>(ids);
  columns.image_id_offsets = data_of<int64_t>(id_offsets);
  columns.images = data_of<int64_t>(image);
  columns.category_ids = data_of<int64_t>(category);
  columns.box_length = box.size(1);
  columns.boxes = box.size(1) > 0 ? data_of<double>(box) : nullptr;
  columns.scores = data_of<double>(score);
  if (has_masks) {
    columns.mask_codes = data_of<uint8_t>(codes);
    columns.mask_begin = data_of<int64_t>(begin);
    columns.mask_end = data_of<int64_t>(end);
    columns.mask_sizes = data_of<int64_t>(sizes);
  }
  columns.keypoints_length = points.size(1);
  columns.keypoints = points.size(1) > 0 ? data_of<double>(points) : nullptr;

  std::vector<std::string> parts((count + kDetectionsPerBlock - 1) / kDetectionsPerBlock);
  parallel_blocks(static_cast<int64_t>(parts.size()), 1, [&](int64_t first, int64_t last) {
    for (int64_t part = first; part < last; ++part) {
      const int64_t from = part * kDetectionsPerBlock;
      append_results(columns, from, std::min(from + kDetectionsPerBlock, count), &parts[part]);
    }
  });
  int64_t total = 0;
  for (const std::string& part : parts) total += static_cast<int64_t>(part.size());
  Tensor text = torch::stable::empty({total}, ScalarType::Byte);
  uint8_t* out = mutable_data_of<uint8_t>(text);
  for (const std::string& part : parts) out = std::copy(part.begin(), part.end(), out);
  return text;
}

}  // namespace
}  // namespace detectron2

STABLE_TORCH_LIBRARY_FRAGMENT(detectron2, m) {
  m.def(
      "coco_results_json(Tensor image_ids, Tensor image_id_offsets, Tensor images, "
      "Tensor category_ids, Tensor boxes, Tensor scores, Tensor mask_codes, Tensor mask_begin, "
      "Tensor mask_end, Tensor mask_sizes, Tensor keypoints) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(detectron2, CPU, m) {
  m.impl("coco_results_json", TORCH_BOX(&detectron2::coco_results_json_cpu));
}
