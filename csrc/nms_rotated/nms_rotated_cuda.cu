// Greedy NMS is sequential, its order and its IoUs are not.
//
// 1. rank_kernel finds each box's place by descending score and writes it there, prepared for
// pairs.
// 2. overlaps_kernel compares the boxes of one tile of 64 with those of each tile before it: one
//    bit for each pair of which the earlier box would remove the later one.
// 3. select_kernel, one block, settles tile after tile which boxes are kept, and lists them.
//
// So that memory stays bounded, 2 and 3 take the boxes in panels of many tiles. What a panel's
// boxes are up against in earlier panels is settled by then, and needs no bits: it goes into
// `removed` at once.

#include <algorithm>
#include <cstdint>
#include <limits>
#include <type_traits>

#include "csrc/common/cuda_launch.h"
#include "csrc/common/rotated_box.h"
#include "csrc/nms_rotated/nms_rotated.h"

namespace detectron2 {
namespace nms_rotated_detail {

constexpr int kTile = 64;  // bits of a word
constexpr int kWarp = 32;
constexpr unsigned int kAllLanes = 0xffffffffu;

// A panel's words then take 64 MiB.
constexpr int64_t kPanelTiles = 512;

// Ranking compares all pairs of scores. Beyond this many boxes sorting is faster.
constexpr int64_t kMostRanked = 16384;
constexpr int kRankThreads = 256;
constexpr int kRankChunk = 4096;

constexpr int kRowTiles = 2;
constexpr int kOverlapThreads = kRowTiles * kTile;
constexpr int kOverlapBlocks = 8;

constexpr int kSelectThreads = 1024;
static_assert(kSelectThreads >= kPanelTiles, "a thread a tile");

template <typename T>
struct Workspace {
  RotatedBox<T>* boxes;  // tiles * kTile, by descending score; those past the end without area
  int64_t* order;        // tiles * kTile, which box each of them was
  uint64_t* removed;     // tiles: boxes that earlier panels remove, and those past the end
  uint64_t* kept;        // tiles: what is settled
  int64_t* total;        // 1, of boxes kept so far
  uint64_t* words;       // kTile for each pair of tiles of a panel, see pair_of_tiles
  uint16_t* occupied;    // 1 for each such pair, a byte for each half of the later tile: whether
                         // any of its words is not 0, else they are not written
};

// Number of the pair of tiles (earlier, later) of a panel.
__host__ __device__ constexpr int64_t pair_of_tiles(int64_t earlier, int64_t later) {
  return later * (later + 1) / 2 + earlier;
}

// Places the arrays one after the other from `start` on; returns the number of bytes.
template <typename T>
int64_t place(int64_t count, char* start, Workspace<T>& workspace) {
  const int64_t tiles = divide_up(count, kTile);
  const int64_t pairs = pair_of_tiles(0, std::min(tiles, kPanelTiles));
  int64_t offset = 0;
  const auto take = [&](auto*& array, int64_t length) {
    using Element = std::remove_reference_t<decltype(*array)>;
    array = reinterpret_cast<Element*>(start + offset);
    offset += divide_up(length * static_cast<int64_t>(sizeof(Element)), 256) * 256;
  };
  take(workspace.boxes, tiles * kTile);
  take(workspace.order, tiles * kTile);
  take(workspace.removed, tiles);
  take(workspace.kept, tiles);
  take(workspace.total, 1);
  take(workspace.words, pairs * kTile);
  take(workspace.occupied, pairs);
  return offset;
}

// Unsigned integers in the order of scores: NaN above all, -0 equal to 0.
__device__ inline uint32_t score_key(float score) {
  const uint32_t bits = __float_as_uint(score + 0.0f);
  return isnan(score) ? ~0u : bits ^ ((bits >> 31) != 0 ? ~0u : 1u << 31);
}

__device__ inline uint64_t score_key(double score) {
  const uint64_t bits = __double_as_longlong(score + 0.0);
  return isnan(score) ? ~uint64_t{0}
                      : bits ^ ((bits >> 63) != 0 ? ~uint64_t{0} : uint64_t{1} << 63);
}

// Writes box `index` to its place.
template <typename T>
__device__ void put_box(const T* boxes, int64_t index, int64_t place, int64_t count,
                        const Workspace<T>& workspace) {
  if (index < count) {
    workspace.boxes[place] = load_rotated_box(boxes + index * kRotatedBoxSize);
  } else {
    workspace.boxes[place] = make_rotated_box<T>(0, 0, 0, 0, 0);
  }
  workspace.order[place] = index;
  if (place % kTile == 0) {
    workspace.removed[place / kTile] = count - place < kTile ? ~uint64_t{0} << (count - place) : 0;
  }
  if (place == 0) {
    *workspace.total = 0;
  }
}

// Each block ranks as many boxes as a warp has lanes; each of its warps compares them with a share
// of the scores.
template <typename T>
__global__ void __launch_bounds__(kRankThreads)
    rank_kernel(const T* boxes, const T* scores, int count, Workspace<T> workspace) {
  using Key = decltype(score_key(T{}));
  constexpr int kWarps = kRankThreads / kWarp;
  constexpr int kUnroll = 16;
  __shared__ alignas(16) Key keys[kRankChunk];
  __shared__ int ranks[kWarp];
  const int lane = threadIdx.x % kWarp;
  const int warp = threadIdx.x / kWarp;
  const int first = blockIdx.x * kWarp;
  const int index = first + lane;
  if (warp == 0) {
    ranks[lane] = 0;
  }
  const Key key = index < count ? score_key(scores[index]) : 0;
  int rank = 0;
  for (int chunk = 0; chunk < count; chunk += kRankChunk) {
    const int left = count - chunk;
    const int step = kWarps * kUnroll;
    const int length = left < kRankChunk ? (left + step - 1) / step * step : kRankChunk;
    __syncthreads();
#pragma unroll 4
    for (int i = threadIdx.x; i < length; i += kRankThreads) {
      // No key is 0: it is after every score.
      keys[i] = i < left ? score_key(scores[chunk + i]) : 0;
    }
    __syncthreads();
    const int share_length = length / kWarps;
    const int begin = chunk + warp * share_length;
    const Key* share = keys + warp * share_length;
    if (begin + share_length <= first || begin >= first + kWarp) {
      // Of equal scores, those of lower index come first.
      const Key limit = begin < first ? key - 1 : key;
      for (int i = 0; i < share_length; i += kUnroll) {
#pragma unroll
        for (int u = 0; u < kUnroll; ++u) {
          rank += share[i + u] > limit;
        }
      }
    } else {
      for (int i = 0; i < share_length; ++i) {
        rank += share[i] > key || (share[i] == key && begin + i < index);
      }
    }
  }
  atomicAdd(&ranks[lane], rank);
  __syncthreads();
  if (warp == 0) {
    put_box(boxes, index, index < count ? ranks[lane] : index, count, workspace);
  }
}

// The same where the order is known.
template <typename T>
__global__ void __launch_bounds__(kRankThreads)
    gather_kernel(const T* boxes, const int64_t* order, int64_t count, Workspace<T> workspace) {
  const int64_t place = static_cast<int64_t>(blockIdx.x) * kRankThreads + threadIdx.x;
  if (place < (count + kTile - 1) / kTile * kTile) {
    put_box(boxes, place < count ? order[place] : place, place, count, workspace);
  }
}

// A block compares the boxes of tile first_tile + y with those of the kRowTiles tiles from
// x * kRowTiles on, as far as they are not later. A thread has one of the former, its column, and
// a tile of the latter, its rows. Almost no pair passes a cheap test, and those that do are shared
// out among all threads, which then all have an IoU to compute.
template <typename T>
__global__ void __launch_bounds__(kOverlapThreads, kOverlapBlocks)
    overlaps_kernel(T threshold, int64_t first_tile, Workspace<T> workspace) {
  __shared__ PairProbe<T> rows[kOverlapThreads];
  __shared__ uint16_t queue[kOverlapThreads * kTile];
  __shared__ unsigned int hits[2 * kOverlapThreads];
  __shared__ int queued;

  const int64_t column_tile = first_tile + blockIdx.y;
  const int64_t first_row_tile = static_cast<int64_t>(blockIdx.x) * kRowTiles;
  if (first_row_tile > column_tile) {
    return;
  }
  const int thread = threadIdx.x;
  const int lane = thread % kWarp;
  const int column = thread % kTile;
  const int64_t row_tile = first_row_tile + thread / kTile;
  const RotatedBox<T>* row_boxes = workspace.boxes + first_row_tile * kTile;
  const RotatedBox<T>* column_boxes = workspace.boxes + column_tile * kTile;
  const bool is_in_triangle = row_tile <= column_tile;
  if (is_in_triangle) {
    rows[thread] = make_pair_probe(row_boxes[thread]);
  }
  hits[2 * thread] = 0;
  hits[2 * thread + 1] = 0;
  if (thread == 0) {
    queued = 0;
  }
  __syncthreads();

  uint64_t eligible = 0;
  if (is_in_triangle) {
    eligible = row_tile < first_tile ? workspace.kept[row_tile] : ~uint64_t{0};
    if (row_tile == column_tile) {
      eligible &= (uint64_t{1} << column) - 1;
    }
  }
  uint64_t candidates = 0;
  if (threshold < 0) {
    // Any IoU is above it.
    hits[2 * thread] = static_cast<unsigned int>(eligible);
    hits[2 * thread + 1] = static_cast<unsigned int>(eligible >> kWarp);
  } else if (eligible != 0) {
    const ThresholdProbe<T> probe = make_threshold_probe(column_boxes[column], threshold);
    const PairProbe<T>* tile = rows + thread / kTile * kTile;
    unsigned int halves[2] = {0, 0};
#pragma unroll
    for (int half = 0; half < 2; ++half) {
#pragma unroll
      for (int r = 0; r < kWarp; ++r) {
        if (probe.may_exceed(tile[half * kWarp + r])) {
          halves[half] |= 1u << r;
        }
      }
    }
    candidates = (uint64_t{halves[1]} << kWarp | halves[0]) & eligible;
  }

  int before = __popcll(candidates);
  const int own = before;
#pragma unroll
  for (int step = 1; step < kWarp; step *= 2) {
    const int other = __shfl_up_sync(kAllLanes, before, step);
    before += lane >= step ? other : 0;
  }
  int position = 0;
  if (lane == kWarp - 1 && before > 0) {
    position = atomicAdd(&queued, before);
  }
  position = __shfl_sync(kAllLanes, position, kWarp - 1) + before - own;
  for (uint64_t rest = candidates; rest != 0; rest &= rest - 1) {
    queue[position++] = static_cast<uint16_t>(thread * kTile + __ffsll(rest) - 1);
  }
  __syncthreads();

  for (int i = thread; i < queued; i += kOverlapThreads) {
    const int owner = queue[i] / kTile;
    const int row = queue[i] % kTile;
    const RotatedBox<T> a = row_boxes[owner / kTile * kTile + row];
    const RotatedBox<T> b = column_boxes[owner % kTile];
    if (rotated_iou(a, b) > threshold) {
      atomicOr(&hits[2 * owner + row / kWarp], 1u << row % kWarp);
    }
  }
  __syncthreads();

  if (!is_in_triangle) {
    return;
  }
  const uint64_t word = uint64_t{hits[2 * thread + 1]} << kWarp | hits[2 * thread];
  const unsigned int any = __ballot_sync(kAllLanes, word != 0);
  const int half = column / kWarp;
  if (row_tile < first_tile) {
    if (lane == 0 && any != 0) {
      atomicOr(reinterpret_cast<unsigned int*>(workspace.removed + column_tile) + half, any);
    }
    return;
  }
  const int64_t pair = pair_of_tiles(row_tile - first_tile, column_tile - first_tile);
  if (any != 0) {
    workspace.words[pair * kTile + column] = word;
  }
  if (lane == 0) {
    reinterpret_cast<uint8_t*>(workspace.occupied)[2 * pair + half] = any != 0;
  }
}

// What the warps of select_kernel tell one another, by atomics.
struct SettledTiles {
  unsigned int kept[2 * kPanelTiles];
  unsigned int is_settled[kPanelTiles];

  __device__ uint64_t wait_for(int tile) {
    while (atomicOr(&is_settled[tile], 0u) == 0) {
      __nanosleep(20);
    }
    __threadfence_block();
    return uint64_t{atomicOr(&kept[2 * tile + 1], 0u)} << kWarp | atomicOr(&kept[2 * tile], 0u);
  }

  __device__ void settle(int tile, uint64_t word) {
    atomicExch(&kept[2 * tile], static_cast<unsigned int>(word));
    atomicExch(&kept[2 * tile + 1], static_cast<unsigned int>(word >> kWarp));
    __threadfence_block();
    atomicExch(&is_settled[tile], 1u);
  }
};

__device__ inline uint64_t ballot_of_tile(bool low, bool high) {
  return uint64_t{__ballot_sync(kAllLanes, high)} << kWarp | __ballot_sync(kAllLanes, low);
}

// Each warp settles every so many tiles of the panel, its lanes two boxes each. It waits for a tile
// before it only where a box of that tile may remove one of its own.
template <typename T>
__device__ uint64_t settle_tile(int tile, uint64_t removed, const Workspace<T>& workspace,
                                SettledTiles& settled) {
  const int lane = threadIdx.x % kWarp;
  const int64_t first_pair = pair_of_tiles(0, tile);
  const uint64_t* words = workspace.words + first_pair * kTile + lane;
  const uint16_t* occupied = workspace.occupied + first_pair;
  const auto load = [&](int row_tile, unsigned int halves, uint64_t& low, uint64_t& high) {
    low = (halves & 0xff) != 0 ? words[row_tile * kTile] : 0;
    high = (halves >> 8) != 0 ? words[row_tile * kTile + kWarp] : 0;
  };

  uint64_t within_low;
  uint64_t within_high;
  load(tile, occupied[tile], within_low, within_high);
  bool gone_low = removed >> lane & 1;
  bool gone_high = removed >> (lane + kWarp) & 1;
  unsigned int next_halves = lane < tile ? occupied[lane] : 0;
  for (int first = 0; first < tile; first += kWarp) {
    const unsigned int halves = next_halves;
    next_halves = first + kWarp + lane < tile ? occupied[first + kWarp + lane] : 0;
    unsigned int rest = __ballot_sync(kAllLanes, halves != 0);
    while (rest != 0) {
      // The next few tiles: first their words, then a lane for each waits for it.
      constexpr int kAhead = 8;
      uint64_t low[kAhead];
      uint64_t high[kAhead];
      int awaited = -1;
      unsigned int bits = rest;
#pragma unroll
      for (int i = 0; i < kAhead; ++i) {
        low[i] = 0;
        high[i] = 0;
        if (bits != 0) {
          const int bit = __ffs(bits) - 1;
          bits &= bits - 1;
          load(first + bit, __shfl_sync(kAllLanes, halves, bit), low[i], high[i]);
          awaited = lane == i ? first + bit : awaited;
        }
      }
      rest = bits;
      const uint64_t kept = awaited >= 0 ? settled.wait_for(awaited) : 0;
      __syncwarp();
#pragma unroll
      for (int i = 0; i < kAhead; ++i) {
        const uint64_t kept_of_tile = __shfl_sync(kAllLanes, kept, i);
        gone_low = gone_low || (low[i] & kept_of_tile) != 0;
        gone_high = gone_high || (high[i] & kept_of_tile) != 0;
      }
    }
  }

  uint64_t undecided = ~ballot_of_tile(gone_low, gone_high);
  if (!__any_sync(kAllLanes, (within_low | within_high) != 0)) {
    return undecided;
  }
  // Each round settles at least the first undecided box: it is kept, for every box that could
  // remove it is gone.
  uint64_t kept = 0;
  while (undecided != 0) {
    kept |=
        undecided & ballot_of_tile((within_low & undecided) == 0, (within_high & undecided) == 0);
    undecided &= ~kept;
    undecided &= ~ballot_of_tile((within_low & kept) != 0, (within_high & kept) != 0);
  }
  return kept;
}

// One block settles the panel of `tiles` tiles from first_tile on, and appends what it keeps.
template <typename T>
__global__ void __launch_bounds__(kSelectThreads)
    select_kernel(int64_t first_tile, int tiles, Workspace<T> workspace, int64_t* result,
                  int64_t* total) {
  constexpr int kWarps = kSelectThreads / kWarp;
  __shared__ SettledTiles settled;
  __shared__ int ends[kSelectThreads];
  __shared__ int ends_of_warps[kWarps];
  const int thread = threadIdx.x;
  const int lane = thread % kWarp;
  const int warp = thread / kWarp;
  const int64_t base = *workspace.total;
  for (int tile = thread; tile < tiles; tile += kSelectThreads) {
    settled.is_settled[tile] = 0;
  }
  __syncthreads();
  for (int tile = warp; tile < tiles; tile += kWarps) {
    const uint64_t kept =
        settle_tile(tile, workspace.removed[first_tile + tile], workspace, settled);
    if (lane == 0) {
      settled.settle(tile, kept);
      workspace.kept[first_tile + tile] = kept;
    }
  }
  __syncthreads();

  int end =
      thread < tiles ? __popc(settled.kept[2 * thread]) + __popc(settled.kept[2 * thread + 1]) : 0;
#pragma unroll
  for (int step = 1; step < kWarp; step *= 2) {
    const int other = __shfl_up_sync(kAllLanes, end, step);
    end += lane >= step ? other : 0;
  }
  if (lane == kWarp - 1) {
    ends_of_warps[warp] = end;
  }
  __syncthreads();
  for (int i = 0; i < warp; ++i) {
    end += ends_of_warps[i];
  }
  ends[thread] = end;
  __syncthreads();

  if (thread == kSelectThreads - 1) {
    *workspace.total = base + end;
    *total = base + end;
  }
  // Half a tile a warp.
  for (int half = warp; half < 2 * tiles; half += kWarps) {
    const unsigned int kept = settled.kept[half];
    const int tile = half / 2;
    const int after = half % 2 == 0 ? __popc(settled.kept[half + 1]) : 0;
    const int start = ends[tile] - after - __popc(kept);
    if ((kept >> lane & 1) != 0) {
      const int64_t box = (first_tile * 2 + half) * kWarp + lane;
      result[base + start + __popc(kept & ((1u << lane) - 1))] = workspace.order[box];
    }
  }
}

}  // namespace nms_rotated_detail

bool nms_rotated_wants_order(int64_t count) { return count > nms_rotated_detail::kMostRanked; }

int64_t nms_rotated_workspace(int64_t count, int64_t element_size) {
  using namespace nms_rotated_detail;
  if (element_size == sizeof(double)) {
    Workspace<double> workspace;
    return place(count, nullptr, workspace);
  }
  Workspace<float> workspace;
  return place(count, nullptr, workspace);
}

template <typename T>
int64_t nms_rotated_cuda(const T* boxes, const T* scores, const int64_t* order, int64_t count,
                         double iou_threshold, void* workspace_start, int64_t* kept, int64_t* total,
                         void* stream) {
  using namespace nms_rotated_detail;
  const cudaStream_t cuda_stream = static_cast<cudaStream_t>(stream);
  Workspace<T> workspace;
  place(count, static_cast<char*>(workspace_start), workspace);
  const int64_t tiles = divide_up(count, kTile);
  if (nms_rotated_wants_order(count)) {
    const int64_t blocks = divide_up(tiles * kTile, kRankThreads);
    gather_kernel<T><<<static_cast<unsigned int>(blocks), kRankThreads, 0, cuda_stream>>>(
        boxes, order, count, workspace);
    check_launch("nms_rotated gather_kernel");
  } else {
    const int64_t blocks = tiles * kTile / kWarp;
    rank_kernel<T><<<static_cast<unsigned int>(blocks), kRankThreads, 0, cuda_stream>>>(
        boxes, scores, static_cast<int>(count), workspace);
    check_launch("nms_rotated rank_kernel");
  }
  for (int64_t tile = 0; tile < tiles; tile += kPanelTiles) {
    const int64_t end_tile = std::min(tile + kPanelTiles, tiles);
    const dim3 grid(static_cast<unsigned int>(divide_up(end_tile, kRowTiles)),
                    static_cast<unsigned int>(end_tile - tile));
    overlaps_kernel<T>
        <<<grid, kOverlapThreads, 0, cuda_stream>>>(static_cast<T>(iou_threshold), tile, workspace);
    check_launch("nms_rotated overlaps_kernel");
    select_kernel<T><<<1, kSelectThreads, 0, cuda_stream>>>(tile, static_cast<int>(end_tile - tile),
                                                            workspace, kept, total);
    check_launch("nms_rotated select_kernel");
  }
  wait_for_stream("nms_rotated", cuda_stream);
  return *total;
}

template int64_t nms_rotated_cuda<float>(const float*, const float*, const int64_t*, int64_t,
                                         double, void*, int64_t*, int64_t*, void*);
template int64_t nms_rotated_cuda<double>(const double*, const double*, const int64_t*, int64_t,
                                          double, void*, int64_t*, int64_t*, void*);

}  // namespace detectron2
