#include <cstdint>
#include <optional>

#include "csrc/roi_align_rotated/roi_align_rotated.h"
#include "csrc/roi_align_rotated/roi_align_rotated_args.h"
#include "csrc/torch_abi/torch_abi.h"

namespace detectron2 {
namespace {

// Elements of 16 bytes.
template <typename T>
constexpr int64_t kVector = 16 / sizeof(T);

// Whether the channels of a pixel are side by side, pixels follow one another, and all of them can
// be read 16 bytes at a time.
template <typename T>
bool is_channels_last(const Tensor& input) {
  const int64_t channels = input.size(1);
  const int64_t row = input.size(3) * channels;
  return channels % kVector<T> == 0 && input.stride(1) == 1 && input.stride(3) == channels &&
         input.stride(2) == row && input.stride(0) == input.size(2) * row &&
         reinterpret_cast<uintptr_t>(input.const_data_ptr()) % 16 == 0;
}

// RoIs as the kernels for channels that are side by side read them.
struct NarrowRois {
  explicit NarrowRois(const Tensor& rois)
      : tensor(contiguous_as(rois, rois.scalar_type() == ScalarType::Double ? ScalarType::Float
                                                                            : rois.scalar_type())),
        rows{tensor.const_data_ptr(), type_of(tensor.scalar_type())} {}

  static RoiType type_of(ScalarType dtype) {
    return dtype == ScalarType::Half       ? RoiType::kHalf
           : dtype == ScalarType::BFloat16 ? RoiType::kBFloat16
                                           : RoiType::kFloat;
  }

  Tensor tensor;
  RoiRows rows;
};

Tensor new_pooled(const Tensor& input, const RoiAlignRotatedShape& shape) {
  return new_empty(input, {shape.num_rois, shape.channels, shape.pooled_height, shape.pooled_width},
                   input.scalar_type());
}

// Pools features whose channels are, or are first brought, side by side.
template <typename T>
Tensor pool_channels_last(const Tensor& input, const Tensor& rois, bool as_they_are,
                          const RoiAlignRotatedShape& shape) {
  void* const stream = current_cuda_stream(input);
  const NarrowRois narrow(rois);
  Tensor features = input;
  int64_t pixel_stride = shape.channels;
  if (!as_they_are) {
    const Tensor planes = contiguous_as(input, input.scalar_type());
    pixel_stride = (shape.channels + kVector<T> - 1) / kVector<T> * kVector<T>;
    features = new_empty(input, {shape.batch_size, shape.height, shape.width, pixel_stride},
                         input.scalar_type());
    roi_align_rotated_channels_last_cuda(data_of<T>(planes), narrow.rows, shape, pixel_stride,
                                         mutable_data_of<T>(features), stream);
  }
  const Tensor pooled = new_pooled(input, shape);  // only now, while the device is at work
  roi_align_rotated_pool_channels_last_cuda(data_of<T>(features), pixel_stride, !as_they_are,
                                            narrow.rows, shape, mutable_data_of<T>(pooled), stream);
  return pooled;
}

template <typename T>
Tensor pool(const Tensor& input, const Tensor& rois, const RoiAlignRotatedShape& shape) {
  if constexpr (sizeof(T) < sizeof(double)) {
    const bool as_they_are =
        is_channels_last<T>(input) && roi_align_rotated_can_pool_channels_last(shape);
    if (as_they_are || roi_align_rotated_prefers_channels_last(shape)) {
      return pool_channels_last<T>(input, rois, as_they_are, shape);
    }
  }
  const Tensor planes = contiguous_as(input, input.scalar_type());
  const Tensor cast_rois = contiguous_as(rois, compute_dtype(input.scalar_type()));
  const Tensor pooled = new_pooled(input, shape);
  roi_align_rotated_forward_cuda<T>(data_of<T>(planes), data_of<Accumulator<T>>(cast_rois), shape,
                                    mutable_data_of<T>(pooled), current_cuda_stream(input));
  return pooled;
}

Tensor roi_align_rotated_forward(const Tensor& input, const Tensor& rois, double spatial_scale,
                                 int64_t pooled_height, int64_t pooled_width,
                                 int64_t sampling_ratio) {
  const RoiAlignRotatedShape shape = check_roi_align_rotated_forward(
      input, rois, spatial_scale, pooled_height, pooled_width, sampling_ratio);
  if (shape.num_rois == 0 || shape.channels == 0) {
    return new_pooled(input, shape);
  }
  const DeviceGuard guard(input.get_device_index());
  std::optional<Tensor> pooled;
  dispatch_storage_dtype(input.scalar_type(),
                         [&](auto zero) { pooled = pool<decltype(zero)>(input, rois, shape); });
  return *pooled;
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
