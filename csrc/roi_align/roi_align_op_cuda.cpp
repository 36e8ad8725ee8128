#include <cstdint>
#include <optional>
#include <vector>

#include "csrc/roi_align/roi_align.h"
#include "csrc/roi_align/roi_align_args.h"
#include "csrc/torch_abi/torch_abi.h"

namespace detectron2 {
namespace {

// Elements of 16 bytes.
template <typename T>
constexpr int64_t kVector = 16 / sizeof(T);

template <typename T>
int64_t whole_vectors(int64_t channels) {
  return (channels + kVector<T> - 1) / kVector<T> * kVector<T>;
}

// Whether all of a pixel's channels are side by side and can be read 16 bytes at a time.
template <typename T>
bool has_channels_last(const Tensor& tensor) {
  return tensor.size(1) % kVector<T> == 0 && tensor.stride(1) == 1 &&
         tensor.stride(0) % kVector<T> == 0 && tensor.stride(2) % kVector<T> == 0 &&
         tensor.stride(3) % kVector<T> == 0 && tensor.stride(3) <= 0x7fffffff &&
         reinterpret_cast<uintptr_t>(tensor.const_data_ptr()) % 16 == 0;
}

// A copy with the channels side by side: (N, H, W, whole vectors of channels).
template <typename T>
Tensor with_channels_last(const Tensor& tensor) {
  const int64_t channels = tensor.size(1);
  const int64_t height = tensor.size(2);
  const int64_t width = tensor.size(3);
  const int64_t stride = whole_vectors<T>(channels);
  const Tensor planes = contiguous_as(tensor, tensor.scalar_type());
  const Tensor copy =
      empty_strided<4>(tensor, {tensor.size(0), height, width, stride},
                       {height * width * stride, width * stride, stride, 1}, tensor.scalar_type());
  roi_align_channels_last_cuda(data_of<T>(planes), tensor.size(0), channels, height * width, stride,
                               mutable_data_of<T>(copy), current_cuda_stream(tensor));
  return copy;
}

template <typename T>
void pool(const std::vector<Tensor>& features, const RoiTensors& rois, RoiAlignShape& shape,
          const Tensor& pooled) {
  void* const stream = current_cuda_stream(pooled);
  bool as_they_are = true;
  for (const Tensor& level : features) {
    as_they_are = as_they_are && has_channels_last<T>(level);
  }
  const bool channels_last = as_they_are ? roi_align_can_pool_channels_last(shape)
                                         : roi_align_prefers_channels_last(shape, sizeof(T));
  PyramidData<const T*> data = {};
  std::vector<Tensor> copies;
  for (int i = 0; i < shape.num_levels; ++i) {
    data.levels[i] = data_of<T>(features[i]);
    if (channels_last && !has_channels_last<T>(features[i])) {
      copies.push_back(with_channels_last<T>(features[i]));
      data.levels[i] = data_of<T>(copies.back());
      PyramidLevel& level = shape.levels[i];
      level.column_stride = whole_vectors<T>(shape.channels);
      level.row_stride = level.width * level.column_stride;
      level.image_stride = level.height * level.row_stride;
      level.channel_stride = 1;
    }
  }
  const auto kernel =
      channels_last ? roi_align_pool_channels_last_cuda<T> : roi_align_forward_cuda<T>;
  kernel(data, rois.as<Accumulator<T>>(), shape, mutable_data_of<T>(pooled), stream);
}

Tensor roi_align_forward(const std::vector<Tensor>& features, const Tensor& rois,
                         const std::optional<Tensor>& levels,
                         const std::vector<double>& spatial_scales, int64_t pooled_height,
                         int64_t pooled_width, int64_t sampling_ratio, bool aligned) {
  RoiAlignShape shape = check_roi_align_forward(
      features, rois, levels, spatial_scales, pooled_height, pooled_width, sampling_ratio, aligned);
  const ScalarType dtype = features[0].scalar_type();
  const Tensor pooled = new_pooled(features[0], shape, dtype);
  if (pooled.numel() > 0) {
    const DeviceGuard guard(pooled.get_device_index());
    const RoiTensors roi_tensors(rois, levels, compute_dtype(dtype));
    dispatch_storage_dtype(
        dtype, [&](auto zero) { pool<decltype(zero)>(features, roi_tensors, shape, pooled); });
  }
  return pooled;
}

template <typename T>
void spread(const Tensor& grad, const RoiTensors& rois, const RoiAlignShape& shape,
            const std::vector<Tensor>& gradients) {
  // The bins of a RoI follow one another, each with all of its channels.
  const bool as_it_is = has_channels_last<T>(grad) &&
                        grad.stride(2) == grad.size(3) * grad.stride(3) &&
                        grad.stride(0) == grad.size(2) * grad.stride(2);
  const Tensor grad_pooled = as_it_is ? grad : with_channels_last<T>(grad);
  const int64_t bin_stride = as_it_is ? grad.stride(3) : whole_vectors<T>(shape.channels);
  const Tensor workspace = empty_strided<1>(grad, {roi_align_backward_workspace<T>(shape.num_rois)},
                                            {1}, ScalarType::Byte);
  PyramidData<T*> data = {};
  for (int i = 0; i < shape.num_levels; ++i) {
    data.levels[i] = mutable_data_of<T>(gradients[i]);
  }
  roi_align_backward_cuda<T>(data_of<T>(grad_pooled), bin_stride, rois.as<Accumulator<T>>(), shape,
                             workspace.mutable_data_ptr(), data, current_cuda_stream(grad));
}

std::vector<Tensor> roi_align_backward(const Tensor& grad, const Tensor& rois,
                                       const std::optional<Tensor>& levels,
                                       const std::vector<double>& spatial_scales,
                                       int64_t batch_size, const std::vector<int64_t>& heights,
                                       const std::vector<int64_t>& widths, int64_t sampling_ratio,
                                       bool aligned, bool channels_last) {
  RoiAlignShape shape = check_roi_align_backward(grad, rois, levels, spatial_scales, batch_size,
                                                 heights, widths, sampling_ratio, aligned);
  const ScalarType dtype = grad.scalar_type();
  const DeviceGuard guard(grad.get_device_index());
  std::vector<Tensor> gradients = new_gradients(grad, channels_last, dtype, shape);
  if (batch_size == 0 || shape.channels == 0) {
    return gradients;
  }
  if (shape.num_rois == 0) {
    for (Tensor& gradient : gradients) {
      torch::stable::zero_(gradient);
    }
    return gradients;
  }
  DETECTRON2_CHECK(roi_align_has_backward(shape),
                   "roi_align_backward: more than CUDA can count in 32 bits: ", shape.num_rois,
                   " RoIs of ", grad.size(2), " x ", grad.size(3), " bins, ", shape.batch_size,
                   " image(s) of ", shape.channels, " channels and ", heights[0], " x ", widths[0],
                   " pixels");
  const RoiTensors roi_tensors(rois, levels, compute_dtype(dtype));
  dispatch_storage_dtype(
      dtype, [&](auto zero) { spread<decltype(zero)>(grad, roi_tensors, shape, gradients); });
  return gradients;
}

}  // namespace
}  // namespace detectron2

STABLE_TORCH_LIBRARY_IMPL(detectron2, CUDA, m) {
  m.impl("roi_align_forward", TORCH_BOX(&detectron2::roi_align_forward));
  m.impl("roi_align_backward", TORCH_BOX(&detectron2::roi_align_backward));
}
