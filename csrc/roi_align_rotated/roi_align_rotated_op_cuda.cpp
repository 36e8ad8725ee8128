#include "csrc/roi_align_rotated/roi_align_rotated.h"
#include "csrc/roi_align_rotated/roi_align_rotated_args.h"
#include "csrc/torch_abi/torch_abi.h"

namespace detectron2 {
namespace {

Tensor roi_align_rotated_forward(const Tensor& input, const Tensor& rois, double spatial_scale,
                                 int64_t pooled_height, int64_t pooled_width,
                                 int64_t sampling_ratio) {
  const RoiAlignRotatedShape shape = check_roi_align_rotated_forward(
      input, rois, spatial_scale, pooled_height, pooled_width, sampling_ratio);
  const Tensor pooled = torch::stable::new_empty(
      input, {shape.num_rois, shape.channels, pooled_height, pooled_width});
  if (pooled.numel() == 0) {
    return pooled;
  }
  const Tensor features = contiguous_as(input, input.scalar_type());
  const Tensor cast_rois = contiguous_as(rois, compute_dtype(input.scalar_type()));
  const DeviceGuard guard(input.get_device_index());
  dispatch_storage_dtype(input.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    roi_align_rotated_forward_cuda<T>(data_of<T>(features), data_of<Accumulator<T>>(cast_rois),
                                      shape, mutable_data_of<T>(pooled),
                                      current_cuda_stream(input));
  });
  return pooled;
}

Tensor roi_align_rotated_backward(const Tensor& grad, const Tensor& rois, double spatial_scale,
                                  int64_t pooled_height, int64_t pooled_width, int64_t batch_size,
                                  int64_t channels, int64_t height, int64_t width,
                                  int64_t sampling_ratio) {
  const RoiAlignRotatedShape shape =
      check_roi_align_rotated_backward(grad, rois, spatial_scale, pooled_height, pooled_width,
                                       batch_size, channels, height, width, sampling_ratio);
  const ScalarType dtype = compute_dtype(grad.scalar_type());
  const Tensor grad_features =
      torch::stable::new_zeros(grad, {batch_size, channels, height, width}, dtype);
  if (grad.numel() > 0) {
    const Tensor grad_pooled = contiguous_as(grad, grad.scalar_type());
    const Tensor cast_rois = contiguous_as(rois, dtype);
    const DeviceGuard guard(grad.get_device_index());
    dispatch_storage_dtype(grad.scalar_type(), [&](auto zero) {
      using T = decltype(zero);
      roi_align_rotated_backward_cuda<T>(
          data_of<T>(grad_pooled), data_of<Accumulator<T>>(cast_rois), shape,
          mutable_data_of<Accumulator<T>>(grad_features), current_cuda_stream(grad));
    });
  }
  return contiguous_as(grad_features, grad.scalar_type());
}

}  // namespace
}  // namespace detectron2

STABLE_TORCH_LIBRARY_IMPL(detectron2, CUDA, m) {
  m.impl("roi_align_rotated_forward", TORCH_BOX(&detectron2::roi_align_rotated_forward));
  m.impl("roi_align_rotated_backward", TORCH_BOX(&detectron2::roi_align_rotated_backward));
}
