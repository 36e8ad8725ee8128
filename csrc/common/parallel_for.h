// How a CPU kernel, which knows nothing of PyTorch, is handed PyTorch's thread pool.

#pragma once

#include <cstdint>
#include <functional>

namespace detectron2 {

using RangeBody = std::function<void(int64_t begin, int64_t end)>;

// Calls `body` on disjoint ranges that cover [begin, end), each of at least `grain_size` unless it
// is the last, on several threads. `body` must not throw.
using ParallelFor = void (*)(int64_t begin, int64_t end, int64_t grain_size, const RangeBody& body);

}  // namespace detectron2
