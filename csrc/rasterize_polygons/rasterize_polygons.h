// Kernel of torch.ops.detectron2.rasterize_polygons.

#pragma once

#include <cstdint>

#include "csrc/common/parallel_for.h"

namespace detectron2 {

// Polygons of several instances, one after another. Polygon p has the vertices
// [polygon_offsets[p], polygon_offsets[p + 1]), rows (x, y); instance n has the polygons
// [instance_offsets[n], instance_offsets[n + 1]).
struct PackedPolygons {
  const double* vertices;
  const int64_t* polygon_offsets;
  const int64_t* instance_offsets;
  int64_t num_instances;
};

// Fills masks, (num_instances, height, width): 1 where any polygon of the instance covers a pixel.
// Coordinates are finite; height and width are below 2^31.
void rasterize_polygons_cpu(const PackedPolygons& polygons, int64_t height, int64_t width,
                            uint8_t* masks, ParallelFor parallel_for);

}  // namespace detectron2
