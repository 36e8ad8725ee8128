// torch.ops.detectron2.coco_encode_masks, coco_mask_areas and coco_mask_iou, on the CPU.

#include <algorithm>
#include <atomic>
#include <tuple>
#include <vector>

#include "csrc/cocoeval/mask_codes.h"
#include "csrc/cocoeval/mask_iou.h"
#include "csrc/cocoeval/op_inputs.h"
#include "csrc/torch_abi/torch_abi.h"

namespace detectron2 {
namespace {

constexpr int64_t kMasksPerBlock = 64;
constexpr int64_t kGroupsPerBlock = 16;

// CodedMasks with the storage that it points to. `num_pixels` gives the sides' product of each.
class CodedMasksInput {
 public:
  CodedMasksInput(const char* op, const Tensor& codes, const Tensor& begin, const Tensor& end,
                  const Tensor& num_pixels)
      : codes_(checked_input(op, "codes", codes, ScalarType::Byte, {-1}, "(characters,)")),
        begin_(checked_input(op, "begin", begin, ScalarType::Long, {-1}, "(N,)")),
        end_(checked_input(op, "end", end, ScalarType::Long, {begin.size(0)}, "(N,)")),
        num_pixels_(checked_input(op, "num_pixels", num_pixels, ScalarType::Long, {begin.size(0)},
                                  "(N,)")) {
    const CodedMasks masks = view();
    for (int64_t n = 0; n < size(); ++n) {
      DETECTRON2_CHECK(
          0 <= masks.begin[n] && masks.begin[n] <= masks.end[n] && masks.end[n] <= codes_.numel(),
          op, ": mask ", n, " must lie within the ", codes_.numel(), " characters, got ",
          masks.begin[n], " to ", masks.end[n]);
    }
  }

  int64_t size() const { return begin_.numel(); }
  CodedMasks view() const {
    return {data_of<uint8_t>(codes_), data_of<int64_t>(begin_), data_of<int64_t>(end_),
            data_of<int64_t>(num_pixels_)};
  }

 private:
  Tensor codes_;
  Tensor begin_;
  Tensor end_;
  Tensor num_pixels_;
};

std::tuple<Tensor, Tensor> coco_encode_masks_cpu(const Tensor& masks) {
  const Tensor pixels = checked_input("coco_encode_masks", "masks", masks, ScalarType::Bool,
                                      {-1, -1, -1}, "(N, H, W)");
  const int64_t count = pixels.size(0);
  const int64_t height = pixels.size(1);
  const int64_t width = pixels.size(2);
  std::vector<std::vector<uint8_t>> codes(count);
  parallel_blocks(count, 1, [&](int64_t begin, int64_t end) {
    std::vector<uint8_t> scratch;
    for (int64_t n = begin; n < end; ++n) {
      encode_mask(data_of<uint8_t>(pixels) + n * height * width, height, width, &codes[n],
                  &scratch);
    }
  });
  Tensor lengths = torch::stable::empty({count}, ScalarType::Long);
  int64_t total = 0;
  for (int64_t n = 0; n < count; ++n) {
    mutable_data_of<int64_t>(lengths)[n] = static_cast<int64_t>(codes[n].size());
    total += static_cast<int64_t>(codes[n].size());
  }
  Tensor characters = torch::stable::empty({total}, ScalarType::Byte);
  uint8_t* out = mutable_data_of<uint8_t>(characters);
  for (const std::vector<uint8_t>& code : codes) out = std::copy(code.begin(), code.end(), out);
  return {characters, lengths};
}

Tensor coco_mask_areas_cpu(const Tensor& codes, const Tensor& begin, const Tensor& end,
                           const Tensor& num_pixels) {
  constexpr const char* op = "coco_mask_areas";
  const CodedMasksInput masks(op, codes, begin, end, num_pixels);
  Tensor areas = torch::stable::empty({masks.size()}, ScalarType::Double);
  std::atomic<int64_t> malformed{-1};
  parallel_blocks(masks.size(), kMasksPerBlock, [&](int64_t first, int64_t last) {
    const int64_t bad = coco_mask_areas(masks.view(), first, last, mutable_data_of<double>(areas));
    if (bad >= 0) malformed = bad;
  });
  const int64_t bad = malformed;
  DETECTRON2_CHECK(bad < 0, op, ": mask ", bad, " is not the run lengths of ",
                   masks.view().num_pixels[std::max<int64_t>(bad, 0)], " pixels");
  return areas;
}

Tensor coco_mask_iou_cpu(const Tensor& dt_codes, const Tensor& dt_begin, const Tensor& dt_end,
                         const Tensor& dt_num_pixels, const Tensor& gt_codes,
                         const Tensor& gt_begin, const Tensor& gt_end, const Tensor& gt_num_pixels,
                         const Tensor& gt_crowd, const Tensor& dt_offsets,
                         const Tensor& gt_offsets) {
  constexpr const char* op = "coco_mask_iou";
  const CodedMasksInput dt(op, dt_codes, dt_begin, dt_end, dt_num_pixels);
  const CodedMasksInput gt(op, gt_codes, gt_begin, gt_end, gt_num_pixels);
  const Tensor crowd =
      checked_input(op, "gt_crowd", gt_crowd, ScalarType::Bool, {gt.size()}, "(G,)");
  const GroupsInput groups(op, dt_offsets, dt.size(), gt_offsets, gt.size());
  Tensor ious = torch::stable::empty({groups.num_ious()}, ScalarType::Double);
  std::atomic<bool> all_valid{true};
  parallel_blocks(groups.size(), kGroupsPerBlock, [&](int64_t begin, int64_t end) {
    if (!coco_mask_iou(dt.view(), gt.view(), data_of<bool>(crowd), groups.view(), begin, end,
                       mutable_data_of<double>(ious))) {
      all_valid = false;
    }
  });
  DETECTRON2_CHECK(all_valid, op, ": a mask is not the run lengths of its number of pixels");
  return ious;
}

}  // namespace
}  // namespace detectron2

STABLE_TORCH_LIBRARY_FRAGMENT(detectron2, m) {
  m.def("coco_encode_masks(Tensor masks) -> (Tensor, Tensor)");
  m.def("coco_mask_areas(Tensor codes, Tensor begin, Tensor end, Tensor num_pixels) -> Tensor");
  m.def(
      "coco_mask_iou(Tensor dt_codes, Tensor dt_begin, Tensor dt_end, Tensor dt_num_pixels, "
      "Tensor gt_codes, Tensor gt_begin, Tensor gt_end, Tensor gt_num_pixels, Tensor gt_crowd, "
      "Tensor dt_offsets, Tensor gt_offsets) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(detectron2, CPU, m) {
  m.impl("coco_encode_masks", TORCH_BOX(&detectron2::coco_encode_masks_cpu));
  m.impl("coco_mask_areas", TORCH_BOX(&detectron2::coco_mask_areas_cpu));
  m.impl("coco_mask_iou", TORCH_BOX(&detectron2::coco_mask_iou_cpu));
}
