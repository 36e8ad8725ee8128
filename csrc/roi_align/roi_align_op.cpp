#include <cmath>
#include <optional>
#include <vector>

#include "csrc/roi_align/roi_align.h"
#include "csrc/roi_align/roi_align_args.h"
#include "csrc/torch_abi/torch_abi.h"

namespace detectron2 {
namespace {

// A RoI that is not finite is pooled as zeros, which a diverging model may ask for; an index out of
// range is an error, which the CPU, unlike CUDA, can see without waiting.
template <typename T>
void check_rois(const char* op, const LeveledRois<T>& rois, const RoiAlignShape& shape) {
  for (int64_t k = 0; k < shape.num_rois; ++k) {
    const T* const row = rois.rows + k * kBoxRowSize;
    bool finite = true;
    for (int value = 0; value < kBoxRowSize; ++value) {
      finite = finite && std::isfinite(row[value]);
    }
    DETECTRON2_CHECK(!finite || (row[0] >= 0 && row[0] < static_cast<T>(shape.batch_size)), op,
                     ": rois[", k, "] has the batch index ", row[0], ", but the batch has ",
                     shape.batch_size, " image(s)");
    DETECTRON2_CHECK(
        rois.levels == nullptr || (rois.levels[k] >= 0 && rois.levels[k] < shape.num_levels), op,
        ": levels[", k, "] is ", rois.levels[k], ", but there are ", shape.num_levels, " level(s)");
  }
}

Tensor roi_align_forward(const std::vector<Tensor>& features, const Tensor& rois,
                         const std::optional<Tensor>& levels,
                         const std::vector<double>& spatial_scales, int64_t pooled_height,
                         int64_t pooled_width, int64_t sampling_ratio, bool aligned) {
  RoiAlignShape shape = check_roi_align_forward(
      features, rois, levels, spatial_scales, pooled_height, pooled_width, sampling_ratio, aligned);
  const ScalarType dtype = compute_dtype(features[0].scalar_type());
  std::vector<Tensor> cast;
  for (int i = 0; i < shape.num_levels; ++i) {
    cast.push_back(features[i].scalar_type() == dtype
                       ? features[i]
                       : torch::stable::to(features[i], std::optional(dtype)));
    set_strides(cast[i], shape.levels[i]);
  }
  const RoiTensors roi_tensors(rois, levels, dtype);
  const Tensor pooled = new_pooled(features[0], shape, dtype);
  dispatch_compute_dtype(dtype, [&](auto zero) {
    using T = decltype(zero);
    PyramidData<const T*> data = {};
    for (int i = 0; i < shape.num_levels; ++i) {
      data.levels[i] = data_of<T>(cast[i]);
    }
    check_rois("roi_align_forward", roi_tensors.as<T>(), shape);
    roi_align_forward_cpu<T>(data, roi_tensors.as<T>(), shape, mutable_data_of<T>(pooled),
                             parallel_for);
  });
  return contiguous_as(pooled, features[0].scalar_type());
}

std::vector<Tensor> roi_align_backward(const Tensor& grad, const Tensor& rois,
                                       const std::optional<Tensor>& levels,
                                       const std::vector<double>& spatial_scales,
                                       int64_t batch_size, const std::vector<int64_t>& heights,
                                       const std::vector<int64_t>& widths, int64_t sampling_ratio,
                                       bool aligned, bool channels_last) {
  RoiAlignShape shape = check_roi_align_backward(grad, rois, levels, spatial_scales, batch_size,
                                                 heights, widths, sampling_ratio, aligned);
  const ScalarType dtype = compute_dtype(grad.scalar_type());
  const Tensor grad_pooled = contiguous_as(grad, dtype);
  const RoiTensors roi_tensors(rois, levels, dtype);
  std::vector<Tensor> gradients = new_gradients(grad, channels_last, dtype, shape);
  dispatch_compute_dtype(dtype, [&](auto zero) {
    using T = decltype(zero);
    PyramidData<T*> data = {};
    for (int i = 0; i < shape.num_levels; ++i) {
      torch::stable::zero_(gradients[i]);
      data.levels[i] = mutable_data_of<T>(gradients[i]);
    }
    check_rois("roi_align_backward", roi_tensors.as<T>(), shape);
    roi_align_backward_cpu<T>(data_of<T>(grad_pooled), roi_tensors.as<T>(), shape, data,
                              parallel_for);
  });
  if (dtype != grad.scalar_type()) {
    for (Tensor& gradient : gradients) {
      gradient = torch::stable::to(gradient, std::optional(grad.scalar_type()));
    }
  }
  return gradients;
}

}  // namespace
}  // namespace detectron2

STABLE_TORCH_LIBRARY_FRAGMENT(detectron2, m) {
  m.def(
      "roi_align_forward(Tensor[] features, Tensor rois, Tensor? levels, float[] spatial_scales, "
      "SymInt pooled_height, SymInt pooled_width, int sampling_ratio, bool aligned) -> Tensor");
  m.def(
      "roi_align_backward(Tensor grad, Tensor rois, Tensor? levels, float[] spatial_scales, "
      "SymInt batch_size, SymInt[] heights, SymInt[] widths, int sampling_ratio, bool aligned, "
      "bool channels_last) -> Tensor[]");
}

STABLE_TORCH_LIBRARY_IMPL(detectron2, CPU, m) {
  m.impl("roi_align_forward", TORCH_BOX(&detectron2::roi_align_forward));
  m.impl("roi_align_backward", TORCH_BOX(&detectron2::roi_align_backward));
}
