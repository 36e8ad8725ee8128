#include "csrc/pairwise_iou/pairwise_iou.h"
#include "csrc/pairwise_iou/pairwise_iou_args.h"
#include "csrc/torch_abi/torch_abi.h"

namespace detectron2 {
namespace {

template <OverlapOf of>
Tensor pairwise(const Tensor& boxes1, const Tensor& boxes2) {
  const PairwiseIouArgs args = pairwise_iou_args(of, boxes1, boxes2);
  if (args.overlaps.numel() == 0) {
    return args.overlaps;
  }
  dispatch_compute_dtype(args.overlaps.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    pairwise_iou_cpu<T>(of, data_of<T>(args.boxes1), args.boxes1.size(0), data_of<T>(args.boxes2),
                        args.boxes2.size(0), mutable_data_of<T>(args.overlaps), parallel_for);
  });
  return args.overlaps;
}

}  // namespace
}  // namespace detectron2

STABLE_TORCH_LIBRARY_FRAGMENT(detectron2, m) {
  m.def("pairwise_iou(Tensor boxes1, Tensor boxes2) -> Tensor");
  m.def("pairwise_ioa(Tensor boxes1, Tensor boxes2) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(detectron2, CPU, m) {
  m.impl("pairwise_iou", TORCH_BOX(&detectron2::pairwise<detectron2::OverlapOf::kUnion>));
  m.impl("pairwise_ioa", TORCH_BOX(&detectron2::pairwise<detectron2::OverlapOf::kSecond>));
}
