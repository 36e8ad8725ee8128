// The forward pass: a matrix product of samples (pixels by taps and channels) with weights.
//
// A block computes kPixels x kOutputs of the output. It steps over blocks of the sum: a line of
// channels for one tap. During the products of a block, the next one's weights are copied and its
// samples are taken, so that memory and tensor cores work at the same time. Taps are the inner
// loop: those of a pixel tile read much the same lines, which stay in the L1 cache.

#include <cstdint>
#include <type_traits>

#include "csrc/common/cuda_launch.h"
#include "csrc/common/dependent_launch_cuda.h"
#include "csrc/common/half.h"
#include "csrc/deform_conv/fused.h"
#include "csrc/deform_conv/fused_products.h"
#include "csrc/deform_conv/fused_sampling.h"
#include "csrc/deform_conv/tensor_core.h"
#include "csrc/deform_conv/warp_group.h"

namespace detectron2 {
namespace deform_conv_fused {

// Taps whose sample points are in shared memory at a time.
constexpr int kTableTaps = 9;

// Output channels are packed in multiples of this.
constexpr int kOutputAlignment = 256;

template <int kPixelsValue, int kOutputsValue, int kWarpPixelsValue, int kWarpOutputsValue>
struct ForwardTile {
  static constexpr int kPixels = kPixelsValue;
  static constexpr int kOutputs = kOutputsValue;
  static constexpr int kWarpPixels = kWarpPixelsValue;
  static constexpr int kWarpOutputs = kWarpOutputsValue;
  static constexpr int kWarpsAcross = kOutputs / kWarpOutputs;
  static constexpr int kThreads = kPixels / kWarpPixels * kWarpsAcross * 32;
  // A thread samples a vector of this many pixels, each during some quarters of the products.
  static constexpr int kPasses = kPixels * kLineVectors / kThreads;
  // Each 64 pixels have a warp group, which can multiply them as such.
  static constexpr bool kWarpGroups = kPixels / 64 * 128 == kThreads && kOutputs % 128 == 0;
  static constexpr int kQuartersPerPass = 4 / kPasses;
  static constexpr int kSampleBytes = kPixels * kLineBytes;
  static constexpr int kStageBytes = kSampleBytes + kOutputs * kLineBytes;
  // Besides two stages: corners and weights of the table, pixels and the scales of two stages.
  static constexpr int kSharedBytes =
      2 * kStageBytes + kTableTaps * kPixels * 20 + kPixels * 4 + 2 * kPixels * 4;
  // That a multiprocessor of sm_90 has memory for.
  static constexpr int kBlocks = 227 * 1024 / (kSharedBytes + 1024);
};

struct ForwardArguments {
  SamplingShape sampling;
  PixelOrder order;
  int pixels;  // of an output image
  int out_channels;
  int lines;  // of a pixel and group
  uint32_t pixel_bytes;
  int64_t image_bytes;
  int64_t first_image;
  int64_t output_image_stride;
  int64_t output_channel_stride;
  int64_t output_pixel_stride;
  int packed_outputs;  // rows of a block of weights
};

// Blocks of the sum are numbered by group, by group of kTableTaps taps, by line, by tap.
__device__ __forceinline__ int first_block(int group, int first_tap, int lines, int taps) {
  return (group * taps + first_tap) * lines;
}

template <typename T>
struct WeightPacking {
  const T* weight;
  int out_channels;
  int packed_outputs;
  int group_channels;
  int groups;
  int lines;
  int taps;
  float* inverse_scales;
  uint32_t* zeros;
  uint16_t* packed;
};

// Packs the weights of an output channel, of packed_outputs: for each block of the sum a line,
// which for float32 is 32 high parts, then 32 low parts of the weights times a power of two.
template <typename T>
__device__ __forceinline__ void pack_weight(const WeightPacking<T>& packing, int output) {
  constexpr int kChannels = kLineChannels<T>;
  __shared__ uint32_t warp_largest[kPackThreads / 32];
  const auto& [weight, out_channels, packed_outputs, group_channels, groups, lines, taps,
               inverse_scales, zeros, packed] = packing;
  const int count = group_channels * groups * taps;
  const T* row = weight + int64_t{output} * count;
  const bool exists = output < out_channels;
  if (output == 0 && threadIdx.x < kLineBytes / 4) {
    zeros[threadIdx.x] = 0;
  }
  float scale = 1;
  if constexpr (std::is_same_v<T, float>) {
    uint32_t largest = 0;
    if (exists) {
      for (int i = threadIdx.x; i < count; i += kPackThreads) {
        largest = max(largest, finite_magnitude(row[i]));
      }
    }
    largest = largest_in_warp(largest);
    if (threadIdx.x % 32 == 0) {
      warp_largest[threadIdx.x / 32] = largest;
    }
    __syncthreads();
    for (int i = 0; i < kPackThreads / 32; ++i) {
      largest = max(largest, warp_largest[i]);
    }
    const PowerOfTwo power = scale_to_exponent<13>(largest);
    scale = power.scale;
    if (threadIdx.x == 0) {
      inverse_scales[output] = power.inverse;
    }
  }
  const int total = groups * taps * lines * kChannels;
  for (int i = threadIdx.x; i < total; i += kPackThreads) {
    const int block = i / kChannels;
    const int lane = i - block * kChannels;
    const int group = block / (taps * lines);
    const int in_group = block - group * taps * lines;
    const int first_tap = in_group / (kTableTaps * lines) * kTableTaps;
    const int tap_count = min(kTableTaps, taps - first_tap);
    const int in_taps = in_group - first_tap * lines;
    const int line = in_taps / tap_count;
    const int tap = first_tap + in_taps - line * tap_count;
    const int channel = line * kChannels + lane;
    T value{};
    if (exists && channel < group_channels) {
      value = row[(group * group_channels + channel) * taps + tap];
    }
    uint16_t* out = packed + (int64_t{block} * packed_outputs + output) * (kLineBytes / 2) + lane;
    if constexpr (std::is_same_v<T, float>) {
      const SplitPair parts = split(value * scale, 0.0f);
      out[0] = static_cast<uint16_t>(parts.high & 0xffffu);
      out[kChannels] = static_cast<uint16_t>(parts.low & 0xffffu);
    } else {
      out[0] = value.bits;
    }
  }
}

// Packs the weight, the first `weight_blocks` blocks, and the input, all others.
template <typename T>
__global__ void __launch_bounds__(kPackThreads)
    pack_kernel(const __grid_constant__ WeightPacking<T> weight, uint32_t weight_blocks,
                const __grid_constant__ InputPacking<T> input) {
  let_dependents_start();
  if (blockIdx.x < weight_blocks) {
    pack_weight(weight, static_cast<int>(blockIdx.x));
  } else {
    pack_input(input, blockIdx.x - weight_blocks);
  }
}

// The products of a step by warp groups, and meanwhile the samples of the next one, if there is
// one: load(corners, pass) starts reading, store(corners, pass) puts what was read into shared
// memory. `scales` are those of the warp's rows.
template <typename T, int kPasses, int kBlocks, typename Load, typename Store>
__device__ __forceinline__ void overlap_groups(float (&sums)[kBlocks][4], uint64_t rows,
                                               uint64_t columns, const float* scales, bool more,
                                               const Load& load, const Store& store) {
  Corners corners[2];
  if constexpr (std::is_same_v<T, float>) {
    // So many columns at a time that their products and all sums fit the registers.
    constexpr int kPartBlocks = 16;
    constexpr int kParts = kBlocks / kPartBlocks;
    constexpr int kPartPasses = kPasses / kParts;
    static_assert(kParts * kPartBlocks == kBlocks && kParts * kPartPasses == kPasses);
    const int row = threadIdx.x % 32 / 4;
    const float row_scales[2] = {scales[row], scales[row + 8]};
    if (more) {
      load(corners[0], 0);
    }
#pragma unroll
    for (int part = 0; part < kParts; ++part) {
      // Tensor cores round sums towards zero, so long sums are float32's own additions.
      float partial[kPartBlocks][4];
      const uint64_t part_columns = columns + part * (kPartBlocks * 8 * kLineBytes / 16);
      begin_products();
      multiply_add<Half>(partial, rows + 4, part_columns, false);
      multiply_add<Half>(partial, rows + 6, part_columns + 2, true);
      multiply_add<Half>(partial, rows, part_columns + 4, true);
      multiply_add<Half>(partial, rows + 2, part_columns + 6, true);
      multiply_add<Half>(partial, rows, part_columns, true);
      multiply_add<Half>(partial, rows + 2, part_columns + 2, true);
      end_products();
      if (more) {
#pragma unroll
        for (int i = 0; i < kPartPasses; ++i) {
          const int pass = part * kPartPasses + i;
          store(corners[0], pass);
          if (pass + 1 < kPasses) {
            load(corners[0], pass + 1);
          }
        }
      }
      wait_products(partial);
#pragma unroll
      for (int j = 0; j < kPartBlocks; ++j) {
#pragma unroll
        for (int k = 0; k < 4; ++k) {
          sums[part * kPartBlocks + j][k] += partial[j][k] * row_scales[k / 2];
        }
      }
    }
  } else {
    if (more) {
      load(corners[0], 0);
    }
    begin_products();
#pragma unroll
    for (int quarter = 0; quarter < 4; ++quarter) {
      multiply_add<T>(sums, rows + 2 * quarter, columns + 2 * quarter, true);
    }
    end_products();
    if (more) {
#pragma unroll
      for (int pass = 0; pass < kPasses; ++pass) {
        if (pass + 1 < kPasses) {
          load(corners[(pass + 1) % 2], pass + 1);
        }
        store(corners[pass % 2], pass);
      }
    }
    wait_products(sums);
  }
}

// Depends on pack_kernel.
template <typename T, typename Tile>
__global__ void __launch_bounds__(Tile::kThreads, std::is_same_v<T, float> ? 1 : Tile::kBlocks)
    forward_kernel(const char* input, const T* offset, const T* mask, const char* weight,
                   const float* inverse_scales, const T* bias, const char* zeros,
                   ForwardArguments arguments, T* output) {
  constexpr bool kSplit = std::is_same_v<T, float>;
  constexpr int kThreads = Tile::kThreads;
  constexpr int kPixels = Tile::kPixels;
  constexpr bool kGroups = kHasWarpGroups && Tile::kWarpGroups;
  constexpr int kWarpPixels = kGroups ? 16 : Tile::kWarpPixels;
  constexpr int kWarpOutputs = kGroups ? Tile::kOutputs : Tile::kWarpOutputs;
  constexpr int kWarpsAcross = Tile::kOutputs / kWarpOutputs;
  constexpr int kWarpRows = kWarpPixels / 16;
  constexpr int kWarpColumns = kWarpOutputs / 8;
  constexpr int kRowsPerPass = kThreads / kLineVectors;

  extern __shared__ __align__(1024) char shared[];
  float4* table_weights = reinterpret_cast<float4*>(shared + 2 * Tile::kStageBytes);
  uint32_t* table_corners = reinterpret_cast<uint32_t*>(table_weights + kTableTaps * kPixels);
  int* pixel_places = reinterpret_cast<int*>(table_corners + kTableTaps * kPixels);
  float* row_scales = reinterpret_cast<float*>(pixel_places + kPixels);
  const uint32_t stages = shared_address(shared);

  const int lane = threadIdx.x % 32;
  const int warp = threadIdx.x / 32;
  const int warp_pixel = warp / kWarpsAcross * kWarpPixels;
  const int warp_output = warp % kWarpsAcross * kWarpOutputs;
  const int first_pixel = blockIdx.x * kPixels;
  const int first_output = blockIdx.y * Tile::kOutputs;
  const int64_t image = arguments.first_image + blockIdx.z;
  const SamplingShape& sampling = arguments.sampling;
  const uint32_t pixel_bytes = arguments.pixel_bytes;
  const uint32_t row_bytes = pixel_bytes * sampling.width;

  for (int i = threadIdx.x; i < kPixels; i += kThreads) {
    int index = -1;
    if (first_pixel + i < arguments.pixels) {
      const Pixel pixel = pixel_at(arguments.order, first_pixel + i);
      index = pixel.y * arguments.order.width + pixel.x;
    }
    pixel_places[i] = index;
  }

  const LinePlace place;
  const char* thread_input = input + blockIdx.z * arguments.image_bytes + place.vector * 16;
  const char* thread_zeros = zeros + place.vector * 16;
  const char* thread_weight = weight + (int64_t{first_output} * kLineVectors + threadIdx.x) * 16;

  // Where ldmatrix reads in a tile.
  const uint32_t sample_place = swizzled(warp_pixel + (lane & 15), lane >> 4);
  const uint32_t weight_place =
      kSplit ? swizzled(warp_output + (lane & 7), (lane >> 3 & 1) + (lane >> 4 << 2))
             : swizzled(warp_output + (lane & 7) + (lane >> 4 << 3), lane >> 3 & 1);

  float sums[kWarpRows][kWarpColumns][4] = {};
  for (int group = 0; group < sampling.offset_groups; ++group) {
    for (int first_tap = 0; first_tap < sampling.taps; first_tap += kTableTaps) {
      const int tap_count = min(kTableTaps, sampling.taps - first_tap);
      const int blocks = arguments.lines * tap_count;
      __syncthreads();
      for (int i = threadIdx.x; i < tap_count * kPixels; i += kThreads) {
        const int tap = i / kPixels;
        const int row = i - tap * kPixels;
        SamplePoint point = {kNowhere, {0, 0, 0, 0}};
        if (first_pixel + row < arguments.pixels) {
          point = sample_point(
              load_point(offset, mask, sampling, arguments.order, image, group, first_tap + tap,
                         pixel_at(arguments.order, first_pixel + row)),
              sampling);
        }
        table_corners[i] = point.corner;
        table_weights[i] = point.weights;
      }

      const char* group_input = thread_input + int64_t{group} * arguments.lines * kLineBytes;
      const char* block_weight =
          thread_weight +
          static_cast<int64_t>(first_block(group, first_tap, arguments.lines, sampling.taps)) *
              arguments.packed_outputs * kLineBytes;

      auto copy_weights = [&](int stage) {
        const uint32_t tile = stages + stage * Tile::kStageBytes + Tile::kSampleBytes;
#pragma unroll
        for (int i = 0; i < Tile::kOutputs / kRowsPerPass; ++i) {
          copy_async(tile + place.whole + i * (kRowsPerPass * kLineBytes),
                     block_weight + i * (kThreads * 16));
        }
        block_weight += static_cast<int64_t>(arguments.packed_outputs) * kLineBytes;
      };
      auto load_samples = [&](Corners& corners, const char* line, int tap, int pass) {
        load_corners(corners, line, thread_zeros,
                     table_corners[tap * kPixels + place.row + pass * kRowsPerPass], pixel_bytes,
                     row_bytes);
      };
      auto store_samples = [&](const Corners& corners, int tap, int pass, int stage) {
        const int row = place.row + pass * kRowsPerPass;
        const uint32_t tile = stages + stage * Tile::kStageBytes;
        float sample[16 / sizeof(T)];
        interpolate<T>(sample, corners, table_weights[tap * kPixels + row]);
        if constexpr (kSplit) {
          // A scale for each pixel and block of the sum: whatever the range of the input, samples
          // keep their precision beside the largest of their 32 channels.
          uint32_t largest = max(max(finite_magnitude(sample[0]), finite_magnitude(sample[1])),
                                 max(finite_magnitude(sample[2]), finite_magnitude(sample[3])));
#pragma unroll
          for (int lanes = 1; lanes < kLineVectors; lanes *= 2) {
            largest = max(largest, __shfl_xor_sync(0xffffffffu, largest, lanes));
          }
          const PowerOfTwo power = scale_to_exponent<13>(largest);
          if (place.vector == 0) {
            row_scales[stage * kPixels + row] = power.inverse;
          }
          store_split(tile + place.split + pass * (kRowsPerPass * kLineBytes), sample,
                      {power.scale, power.scale, power.scale, power.scale});
        } else {
          store_whole<T>(tile + place.whole + pass * (kRowsPerPass * kLineBytes), sample);
        }
      };
      Corners corners;
      const char* line = group_input;
      int tap = 0;
      wait_for_dependency();
      copy_weights(0);
      commit_copies();
      __syncthreads();
#pragma unroll
      for (int pass = 0; pass < Tile::kPasses; ++pass) {
        load_samples(corners, line, tap, pass);
        store_samples(corners, tap, pass, 0);
      }
      for (int block = 0; block < blocks; ++block) {
        const int stage = block & 1;
        const bool more = block + 1 < blocks;
        wait_copies<0>();
        publish_to_tensor_cores();
        __syncthreads();
        if (++tap == tap_count) {
          tap = 0;
          line += kLineBytes;
        }
        if (more) {
          copy_weights(stage ^ 1);
        }
        commit_copies();
        if constexpr (kGroups) {
          const uint32_t tile = stages + stage * Tile::kStageBytes;
          const uint64_t rows = tile_descriptor(tile + warp / 4 * (64 * kLineBytes));
          const uint64_t columns = tile_descriptor(tile + Tile::kSampleBytes);
          overlap_groups<T, Tile::kPasses>(
              sums[0], rows, columns, row_scales + stage * kPixels + warp_pixel, more,
              [&](Corners& next, int pass) { load_samples(next, line, tap, pass); },
              [&](const Corners& loaded, int pass) {
                store_samples(loaded, tap, pass, stage ^ 1);
              });
        } else {
          auto multiply = [&](int quarter, int half) {
            const uint32_t samples = stages + stage * Tile::kStageBytes + sample_place;
            const uint32_t weights =
                stages + stage * Tile::kStageBytes + Tile::kSampleBytes + weight_place;
            const uint32_t step = kSplit ? quarter / 2 * 32 : quarter * 32;
            multiply_quarter<T>(sums, samples, row_scales + stage * kPixels + warp_pixel, quarter,
                                half, [&](uint32_t (&columns)[4], int block) {
                                  load_matrices(columns,
                                                (weights ^ step) + block * (8 * kLineBytes));
                                });
          };
          overlap_quarters<T, Tile>(
              more, [&](int pass) { load_samples(corners, line, tap, pass); },
              [&](int quarter, int half) { multiply(quarter, half); },
              [&](int pass) { store_samples(corners, tap, pass, stage ^ 1); });
        }
      }
    }
  }

  const int thread_row = warp_pixel + lane / 4;
  const int thread_output = first_output + warp_output + lane % 4 * 2;
  T* image_output = output + image * arguments.output_image_stride;
#pragma unroll
  for (int j = 0; j < kWarpColumns; ++j) {
#pragma unroll
    for (int k = 0; k < 2; ++k) {
      const int channel = thread_output + j * 8 + k;
      if (channel >= arguments.out_channels) {
        continue;
      }
      float scale = 1;
      if constexpr (kSplit) {
        scale = inverse_scales[channel];
      }
      const float start = bias == nullptr ? 0.0f : widen(bias[channel]);
      T* plane = image_output + channel * arguments.output_channel_stride;
#pragma unroll
      for (int i = 0; i < 2 * kWarpRows; ++i) {
        const int pixel = pixel_places[thread_row + i * 8];
        if (pixel >= 0) {
          plane[pixel * arguments.output_pixel_stride] =
              narrow<T>(sums[i / 2][j][i % 2 * 2 + k] * scale + start);
        }
      }
    }
  }
}

using WideTile = ForwardTile<128, 256, 64, 64>;
using MiddleTile = ForwardTile<128, 128, 64, 32>;
using SmallTile = ForwardTile<64, 64, 32, 32>;

// Where the parts of the work space begin.
struct ForwardWorkspace {
  int64_t zeros;
  int64_t inverse_scales;
  int64_t weight;
  int64_t input;
  int64_t size;
};

int64_t packed_outputs(const DeformConvShape& shape) {
  return divide_up(shape.out_channels, kOutputAlignment) * kOutputAlignment;
}

// Images whose input is packed at a time: as many as fill the device twice, so that the work space
// does not grow with the batch.
int64_t images_per_launch(const DeformConvShape& shape) {
  const int64_t tiles = divide_up(shape.out_height * shape.out_width, WideTile::kPixels) *
                        divide_up(shape.out_channels, WideTile::kOutputs);
  const int64_t processors = device_attribute(cudaDevAttrMultiProcessorCount);
  const int64_t images = (2 * processors + tiles / 2) / tiles;
  return std::min(shape.batch, std::max<int64_t>(images, 1));
}

ForwardWorkspace forward_workspace(const DeformConvShape& shape, int64_t element_size,
                                   Layout layout) {
  ForwardWorkspace space;
  space.zeros = 0;
  space.inverse_scales = kAlignment;
  space.weight = space.inverse_scales + align_up(packed_outputs(shape) * 4);
  const int64_t blocks =
      shape.offset_groups * lines_per_group(shape, element_size) * shape.kernel_h * shape.kernel_w;
  space.input = space.weight + align_up(blocks * packed_outputs(shape) * kLineBytes);
  space.size = space.input;
  if (!is_packed(shape, element_size, layout)) {
    space.size += images_per_launch(shape) * packed_image_bytes(shape, element_size);
  }
  return space;
}

template <typename T, typename Tile>
void launch_forward(const char* input, const T* offset, const T* mask, const char* weight,
                    const float* inverse_scales, const T* bias, const char* zeros,
                    const ForwardArguments& arguments, int64_t images, T* output,
                    cudaStream_t stream) {
  cudaFuncSetAttribute(forward_kernel<T, Tile>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                       Tile::kSharedBytes);
  const dim3 grid(static_cast<unsigned int>(divide_up(arguments.pixels, Tile::kPixels)),
                  static_cast<unsigned int>(divide_up(arguments.out_channels, Tile::kOutputs)),
                  static_cast<unsigned int>(images));
  const auto kernel = forward_kernel<T, Tile>;
  launch(can_depend(kernel), kernel, grid, Tile::kThreads, Tile::kSharedBytes, stream, input,
         offset, mask, weight, inverse_scales, bias, zeros, arguments, output);
  check_launch("deform_conv_fused forward_kernel");
}

}  // namespace deform_conv_fused

bool deform_conv_fused_supports(const DeformConvShape& shape) {
  using namespace deform_conv_fused;
  constexpr int64_t kMostPixels = int64_t{1} << 29;
  constexpr int64_t kMostBlocks = 65535;
  if (shape.batch == 0 || shape.out_height * shape.out_width == 0) {
    return false;
  }
  if (shape.groups != 1 || shape.in_channels / shape.offset_groups < 16 ||
      shape.out_channels < 16) {
    return false;  // Most of a tile would be filling.
  }
  if (shape.height * shape.width >= kMostPixels ||
      shape.out_height * shape.out_width >= kMostPixels ||
      (shape.in_channels + 32 * shape.offset_groups) * 4 * shape.width >= kMostPixels * 8 ||
      shape.batch > kMostBlocks || shape.in_channels > kMostBlocks ||
      shape.out_channels > kMostBlocks ||
      shape.in_channels * shape.kernel_h * shape.kernel_w >= kMostPixels / 16) {
    return false;
  }
  return device_attribute(cudaDevAttrComputeCapabilityMajor) >= 8;
}

int64_t deform_conv_fused_forward_workspace(const DeformConvShape& shape, int64_t element_size,
                                            Layout layout) {
  return deform_conv_fused::forward_workspace(shape, element_size, layout).size;
}

template <typename T>
void deform_conv_fused_forward(const T* input, const T* offset, const T* mask, const T* weight,
                               const T* bias, const DeformConvShape& shape, Layout layout,
                               void* workspace, T* output, void* stream) {
  using namespace deform_conv_fused;
  const cudaStream_t cuda_stream = static_cast<cudaStream_t>(stream);
  const ForwardWorkspace space = forward_workspace(shape, sizeof(T), layout);
  char* base = static_cast<char*>(workspace);
  const int64_t lines = lines_per_group(shape, sizeof(T));
  float* inverse_scales = reinterpret_cast<float*>(base + space.inverse_scales);
  WeightPacking<T> weight_packing;
  weight_packing.weight = weight;
  weight_packing.out_channels = static_cast<int>(shape.out_channels);
  weight_packing.packed_outputs = static_cast<int>(packed_outputs(shape));
  weight_packing.group_channels = static_cast<int>(shape.in_channels / shape.offset_groups);
  weight_packing.groups = static_cast<int>(shape.offset_groups);
  weight_packing.lines = static_cast<int>(lines);
  weight_packing.taps = static_cast<int>(shape.kernel_h * shape.kernel_w);
  weight_packing.inverse_scales = inverse_scales;
  weight_packing.zeros = reinterpret_cast<uint32_t*>(base + space.zeros);
  weight_packing.packed = reinterpret_cast<uint16_t*>(base + space.weight);

  const int64_t pixels = shape.height * shape.width;
  const int64_t out_pixels = shape.out_height * shape.out_width;
  const bool channels_last = layout == Layout::kNhwc;
  const bool packed = is_packed(shape, sizeof(T), layout);
  ForwardArguments arguments;
  arguments.sampling = sampling_shape(shape);
  arguments.order = pixel_order(shape);
  arguments.pixels = static_cast<int>(out_pixels);
  arguments.out_channels = static_cast<int>(shape.out_channels);
  arguments.lines = static_cast<int>(lines);
  arguments.pixel_bytes = static_cast<uint32_t>(shape.offset_groups * lines * kLineBytes);
  arguments.image_bytes = packed_image_bytes(shape, sizeof(T));
  arguments.output_image_stride = shape.out_channels * out_pixels;
  arguments.output_channel_stride = channels_last ? 1 : out_pixels;
  arguments.output_pixel_stride = channels_last ? shape.out_channels : 1;
  arguments.packed_outputs = static_cast<int>(packed_outputs(shape));

  const int shared_limit = device_attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin);
  const int processors = device_attribute(cudaDevAttrMultiProcessorCount);
  const int64_t step = packed ? shape.batch : images_per_launch(shape);
  for (int64_t first = 0; first < shape.batch; first += step) {
    const int64_t images = std::min(step, shape.batch - first);
    const T* images_input = input + first * shape.in_channels * pixels;
    const char* packed_input = reinterpret_cast<const char*>(images_input);
    const auto input_packing =
        deform_conv_fused::input_packing(images_input, shape, layout, nullptr, base + space.input);
    const int64_t weight_blocks = first == 0 ? packed_outputs(shape) : 0;
    const int64_t input_blocks = packed ? 0 : packing_blocks(input_packing, images);
    pack_kernel<T>
        <<<static_cast<unsigned int>(weight_blocks + input_blocks), kPackThreads, 0, cuda_stream>>>(
            weight_packing, static_cast<uint32_t>(weight_blocks), input_packing);
    check_launch("deform_conv_fused pack_kernel");
    if (!packed) {
      packed_input = base + space.input;
    }
    arguments.first_image = first;
    const auto convolve = [&](auto tile) {
      launch_forward<T, decltype(tile)>(packed_input, offset, mask, base + space.weight,
                                        inverse_scales, bias, base + space.zeros, arguments, images,
                                        output, cuda_stream);
    };
    // The largest tiles that keep at least most of the processors busy.
    const auto tiles = [&](auto tile) {
      return images * divide_up(out_pixels, tile.kPixels) *
             divide_up(shape.out_channels, tile.kOutputs);
    };
    if (shape.out_channels > 128 && shared_limit >= WideTile::kSharedBytes &&
        4 * tiles(WideTile{}) >= 3 * processors) {
      convolve(WideTile{});
    } else if (shape.out_channels > 64 && shared_limit >= MiddleTile::kSharedBytes &&
               4 * tiles(MiddleTile{}) >= 3 * processors) {
      convolve(MiddleTile{});
    } else {
      convolve(SmallTile{});
    }
  }
}

#define DETECTRON2_INSTANTIATE(T)                                                              \
  template void deform_conv_fused_forward<T>(const T*, const T*, const T*, const T*, const T*, \
                                             const DeformConvShape&, Layout, void*, T*, void*);
DETECTRON2_INSTANTIATE(float)
DETECTRON2_INSTANTIATE(Half)
DETECTRON2_INSTANTIATE(BFloat16)

}  // namespace detectron2
