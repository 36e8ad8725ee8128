#include <cmath>

#include "csrc/roi_align_rotated/roi_align_rotated.h"
#include "csrc/roi_align_rotated/roi_align_rotated_args.h"
#include "csrc/torch_abi/torch_abi.h"

namespace detectron2 {
namespace {

// A RoI that is not finite is pooled as zeros, which a diverging model may ask for; one that no
// caller can mean is an error, which the CPU, unlike CUDA, can see without waiting.
template <typename T>
void check_rois(const char* op, const T* rois, const RoiAlignRotatedShape& shape) {
  for (int64_t k = 0; k < shape.num_rois; ++k) {
    const T* roi = rois + k * kRoiSize;
    bool finite = true;
    for (int value = 0; value < kRoiSize; ++value) {
      finite = finite && std::isfinite(roi[value]);
    }
    if (!finite) {
      continue;
    }
    DETECTRON2_CHECK(roi[0] >= 0 && roi[0] < static_cast<T>(shape.batch_size), op, ": rois[", k,
                     "] has the batch index ", roi[0], ", but the batch has ", shape.batch_size,
                     " image(s)");
    DETECTRON2_CHECK(roi[3] >= 0 && roi[4] >= 0, op, ": rois[", k,
                     "] must not have a negative side, got width ", roi[3], " and height ", roi[4]);
  }
}

Tensor roi_align_rotated_forward(const Tensor& input, const Tensor& rois, double spatial_scale,
                                 int64_t pooled_height, int64_t pooled_width,
                                 int64_t sampling_ratio) {
  const RoiAlignRotatedShape shape = check_roi_align_rotated_forward(
      input, rois, spatial_scale, pooled_height, pooled_width, sampling_ratio);
  const ScalarType dtype = compute_dtype(input.scalar_type());
  const Tensor features = contiguous_as(input, dtype);
  const Tensor cast_rois = contiguous_as(rois, dtype);
  const Tensor pooled =
      new_empty(input, {shape.num_rois, shape.channels, pooled_height, pooled_width}, dtype);
  dispatch_compute_dtype(dtype, [&](auto zero) {
    using T = decltype(zero);
    check_rois("roi_align_rotated_forward", data_of<T>(cast_rois), shape);
    roi_align_rotated_forward_cpu<T>(data_of<T>(features), data_of<T>(cast_rois), shape,
                                     mutable_data_of<T>(pooled), parallel_for);
  });
  return contiguous_as(pooled, input.scalar_type());
}

Tensor roi_align_rotated_backward(const Tensor& grad, const Tensor& rois, double spatial_scale,
                                  int64_t pooled_height, int64_t pooled_width, int64_t batch_size,
                                  int64_t channels, int64_t height, int64_t width,
                                  int64_t sampling_ratio) {
  const RoiAlignRotatedShape shape =
      check_roi_align_rotated_backward(grad, rois, spatial_scale, pooled_height, pooled_width,
                                       batch_size, channels, height, width, sampling_ratio);
  const ScalarType dtype = compute_dtype(grad.scalar_type());
  const Tensor grad_pooled = contiguous_as(grad, dtype);
  const Tensor cast_rois = contiguous_as(rois, dtype);
  const Tensor grad_features =
      torch::stable::new_zeros(grad, {batch_size, channels, height, width}, dtype);
  dispatch_compute_dtype(dtype, [&](auto zero) {
    using T = decltype(zero);
    check_rois("roi_align_rotated_backward", data_of<T>(cast_rois), shape);
    roi_align_rotated_backward_cpu<T>(data_of<T>(grad_pooled), data_of<T>(cast_rois), shape,
                                      mutable_data_of<T>(grad_features), parallel_for);
  });
  return contiguous_as(grad_features, grad.scalar_type());
}

}  // namespace
}  // namespace detectron2

STABLE_TORCH_LIBRARY_FRAGMENT(detectron2, m) {
  m.def(
      "roi_align_rotated_forward(Tensor input, Tensor rois, float spatial_scale, "
      "SymInt pooled_height, SymInt pooled_width, int sampling_ratio) -> Tensor");
  m.def(
      "roi_align_rotated_backward(Tensor grad, Tensor rois, float spatial_scale, "
      "SymInt pooled_height, SymInt pooled_width, SymInt batch_size, SymInt channels, "
      "SymInt height, SymInt width, int sampling_ratio) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(detectron2, CPU, m) {
  m.impl("roi_align_rotated_forward", TORCH_BOX(&detectron2::roi_align_rotated_forward));
  m.impl("roi_align_rotated_backward", TORCH_BOX(&detectron2::roi_align_rotated_backward));
}
