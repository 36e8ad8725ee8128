#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "csrc/common/rotated_box.h"
#include "csrc/nms_rotated/nms_rotated.h"

namespace detectron2 {
namespace {

// Boxes that are settled one after the other, before what they remove is looked for on all threads.
constexpr int64_t kTile = 64;

// Boxes that are probed at a time, and the least that a thread is handed: a kept box of the tile
// costs that many probes, so a range costs more than the handing over.
constexpr int64_t kBlock = 256;

template <typename T>
struct SortedBoxes {
  std::vector<RotatedBox<T>> boxes;
  // The probes' values, one array for each, so that consecutive boxes fill a vector register.
  std::vector<T> center_x, center_y, radius, area;

  SortedBoxes(const T* rows, int64_t count)
      : boxes(count), center_x(count), center_y(count), radius(count), area(count) {
    for (int64_t i = 0; i < count; ++i) {
      boxes[i] = load_rotated_box(rows + i * kRotatedBoxSize);
      const PairProbe<T> probe = make_pair_probe(boxes[i]);
      center_x[i] = probe.center_x;
      center_y[i] = probe.center_y;
      radius[i] = probe.radius;
      area[i] = probe.area;
    }
  }
};

// Clears keep[j] for those boxes in [begin, end), at most kBlock, that box i removes.
template <typename T>
void remove_overlapping(const SortedBoxes<T>& sorted, int64_t i, int64_t begin, int64_t end,
                        T threshold, bool* keep) {
  const ThresholdProbe<T> probe = make_threshold_probe(sorted.boxes[i], threshold);
  const int64_t length = end - begin;
  const T* __restrict center_x = sorted.center_x.data() + begin;
  const T* __restrict center_y = sorted.center_y.data() + begin;
  const T* __restrict radius = sorted.radius.data() + begin;
  const T* __restrict area = sorted.area.data() + begin;
  alignas(8) unsigned char may_exceed[kBlock] = {};
  for (int64_t j = 0; j < length; ++j) {
    may_exceed[j] = probe.may_exceed({center_x[j], center_y[j], radius[j], area[j]});
  }
  constexpr int64_t kStep = sizeof(uint64_t);
  for (int64_t first = 0; first < length; first += kStep) {
    uint64_t any;
    std::memcpy(&any, may_exceed + first, kStep);
    if (any == 0) {
      continue;
    }
    for (int64_t j = begin + first; j < std::min(begin + first + kStep, end); ++j) {
      if (may_exceed[j - begin] && keep[j] &&
          rotated_iou(sorted.boxes[i], sorted.boxes[j]) > threshold) {
        keep[j] = false;
      }
    }
  }
}

}  // namespace

template <typename T>
void nms_rotated_cpu(const T* boxes, int64_t count, double iou_threshold, bool* keep,
                     ParallelFor parallel_for) {
  const T threshold = static_cast<T>(iou_threshold);
  if (threshold < 0) {
    // Any IoU is above it.
    std::fill(keep, keep + count, false);
    std::fill(keep, keep + std::min<int64_t>(count, 1), true);
    return;
  }
  std::fill(keep, keep + count, true);
  const SortedBoxes<T> sorted(boxes, count);
  for (int64_t tile = 0; tile < count; tile += kTile) {
    const int64_t tile_end = std::min(tile + kTile, count);
    for (int64_t i = tile; i < tile_end; ++i) {
      if (keep[i]) {
        remove_overlapping(sorted, i, i + 1, tile_end, threshold, keep);
      }
    }
    parallel_for(tile_end, count, kBlock, [&](int64_t begin, int64_t end) {
      for (int64_t block = begin; block < end; block += kBlock) {
        for (int64_t i = tile; i < tile_end; ++i) {
          if (keep[i]) {
            remove_overlapping(sorted, i, block, std::min(block + kBlock, end), threshold, keep);
          }
        }
      }
    });
  }
}

template void nms_rotated_cpu<float>(const float*, int64_t, double, bool*, ParallelFor);
template void nms_rotated_cpu<double>(const double*, int64_t, double, bool*, ParallelFor);

}  // namespace detectron2
