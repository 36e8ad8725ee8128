#include <cstdint>

#include "csrc/resize_bilinear/resize_bilinear.h"
#include "csrc/torch_abi/torch_abi.h"

namespace detectron2 {
namespace {

constexpr const char* kOp = "resize_bilinear";

Tensor resize_bilinear(const Tensor& image, int64_t height, int64_t width) {
  DETECTRON2_CHECK(image.scalar_type() == ScalarType::Byte, kOp, ": image must be uint8, got ",
                   dtype_name(image.scalar_type()));
  check_shape(kOp, "image", image, {-1, -1, -1}, "(C, H, W)");
  constexpr int64_t kLargest = (int64_t{1} << 29) - 1;
  for (const int64_t size : {height, width, image.size(1), image.size(2)}) {
    DETECTRON2_CHECK(size > 0 && size <= kLargest, kOp,
                     ": sizes must be from 1 to 2**29 - 1, got an image of ", image.size(1), " x ",
                     image.size(2), " to be resized to ", height, " x ", width);
  }
  const Tensor resized = new_empty(image, {image.size(0), height, width});
  if (image.size(0) > 0) {
    resize_bilinear_cpu({data_of<uint8_t>(image), image.size(0), image.size(1), image.size(2),
                         image.stride(0), image.stride(1), image.stride(2)},
                        height, width, mutable_data_of<uint8_t>(resized), parallel_for);
  }
  return resized;
}

}  // namespace
}  // namespace detectron2

STABLE_TORCH_LIBRARY_FRAGMENT(detectron2, m) {
  m.def("resize_bilinear(Tensor image, SymInt height, SymInt width) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(detectron2, CPU, m) {
  m.impl("resize_bilinear", TORCH_BOX(&detectron2::resize_bilinear));
}
