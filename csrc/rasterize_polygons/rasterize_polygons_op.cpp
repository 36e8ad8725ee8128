#include <cmath>
#include <cstdint>
#include <limits>

#include "csrc/rasterize_polygons/rasterize_polygons.h"
#include "csrc/torch_abi/torch_abi.h"

namespace detectron2 {
namespace {

constexpr const char* kOp = "rasterize_polygons";
constexpr int64_t kFewestVertices = 3;

Tensor checked_input(const char* name, const Tensor& tensor, ScalarType dtype,
                     std::initializer_list<int64_t> sizes, const char* shape) {
  DETECTRON2_CHECK(tensor.scalar_type() == dtype, kOp, ": ", name, " must be ", dtype_name(dtype),
                   ", got ", dtype_name(tensor.scalar_type()));
  check_shape(kOp, name, tensor, sizes, shape);
  return torch::stable::contiguous(tensor);
}

// Offsets that cut `total` elements into runs of at least `shortest`.
Tensor checked_offsets(const char* name, const Tensor& tensor, int64_t total, int64_t shortest) {
  const Tensor offsets = checked_input(name, tensor, ScalarType::Long, {-1}, "(runs + 1,)");
  const int64_t count = offsets.numel();
  const int64_t* data = data_of<int64_t>(offsets);
  DETECTRON2_CHECK(count > 0 && data[0] == 0 && data[count - 1] == total, kOp, ": ", name,
                   " must go from 0 to ", total);
  for (int64_t i = 0; i + 1 < count; ++i) {
    const int64_t run = data[i + 1] - data[i];
    DETECTRON2_CHECK(run >= shortest && data[i + 1] <= total, kOp, ": ", name,
                     " must cut runs of at least ", shortest, ", got ", data[i], " and ",
                     data[i + 1], " at ", i);
  }
  return offsets;
}

Tensor rasterize_polygons(const Tensor& vertices, const Tensor& polygon_offsets,
                          const Tensor& instance_offsets, int64_t height, int64_t width) {
  const Tensor points = checked_input("vertices", vertices, ScalarType::Double, {-1, 2}, "(V, 2)");
  const double* values = data_of<double>(points);
  for (int64_t i = 0; i < points.numel(); ++i) {
    DETECTRON2_CHECK(std::isfinite(values[i]), kOp, ": vertices must be finite, got ", values[i],
                     " at ", i / 2);
  }
  const Tensor polygons =
      checked_offsets("polygon_offsets", polygon_offsets, points.size(0), kFewestVertices);
  const Tensor instances =
      checked_offsets("instance_offsets", instance_offsets, polygons.numel() - 1, 0);
  constexpr int64_t largest = std::numeric_limits<int32_t>::max();
  DETECTRON2_CHECK(height >= 0 && height <= largest && width >= 0 && width <= largest, kOp,
                   ": height and width must be from 0 to 2**31 - 1, got ", height, " and ", width);
  const int64_t num_instances = instances.numel() - 1;
  const Tensor masks = new_empty(points, {num_instances, height, width}, ScalarType::Bool);
  if (masks.numel() > 0) {
    rasterize_polygons_cpu(
        {values, data_of<int64_t>(polygons), data_of<int64_t>(instances), num_instances}, height,
        width, mutable_data_of<uint8_t>(masks), parallel_for);
  }
  return masks;
}

}  // namespace
}  // namespace detectron2

STABLE_TORCH_LIBRARY_FRAGMENT(detectron2, m) {
  m.def(
      "rasterize_polygons(Tensor vertices, Tensor polygon_offsets, Tensor instance_offsets, "
      "SymInt height, SymInt width) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(detectron2, CPU, m) {
  m.impl("rasterize_polygons", TORCH_BOX(&detectron2::rasterize_polygons));
}
