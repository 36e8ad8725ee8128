// The gradient of the weight: a matrix product of the output's gradient (output channels by pixels)
// with samples (pixels by taps and channels).
//
// A tile of the result is kOutputs x kColumns: a few columns of taps and lines of channels. The sum
// over pixels of all tiles is cut into as many even runs as there are processors, each a block's
// work, whose sums are added with atomics.

#include <cstdint>
#include <type_traits>

#include "csrc/common/cuda_launch.h"
#include "csrc/common/dependent_launch_cuda.h"
#include "csrc/common/half.h"
#include "csrc/deform_conv/fused.h"
#include "csrc/deform_conv/fused_products.h"
#include "csrc/deform_conv/fused_sampling.h"
#include "csrc/deform_conv/tensor_core.h"

namespace detectron2 {
namespace deform_conv_fused {

constexpr int kColumns = 128;

// Samples of a step, of lines.
constexpr int kStepSamples = 128;

template <int kOutputsValue, int kWarpOutputsValue, int kWarpColumnsValue>
struct WeightTile {
  static constexpr int kOutputs = kOutputsValue;
  static constexpr int kWarpOutputs = kWarpOutputsValue;
  static constexpr int kWarpColumns = kWarpColumnsValue;
  static constexpr int kWarpsAcross = kColumns / kWarpColumns;
  static constexpr int kThreads = kOutputs / kWarpOutputs * kWarpsAcross * 32;
  // A thread takes this many vectors of samples, each during some quarters of the products.
  static constexpr int kPasses = kStepSamples * kLineVectors / kThreads;
  static constexpr int kQuartersPerPass = 4 / kPasses;
  static constexpr int kGradientBytes = kOutputs * kLineBytes;
  static constexpr int kStageBytes = kGradientBytes + kStepSamples * kLineBytes;
  static constexpr int kSharedBytes =
      2 * kStageBytes + 2 * kStepSamples * 20 + 2 * kOutputs * 4 + kColumns * 4 + kLineVectors * 4;
};

// Pixels that a step adds up: a line of the packed gradient.
template <typename T>
constexpr int kStepPixels = kLineChannels<T>;

// A column: the channels of a line for one tap. Columns are numbered by group, by line, by tap.
template <typename T>
constexpr int kTileColumns = kColumns / kLineChannels<T>;

struct WeightArguments {
  SamplingShape sampling;
  PixelOrder order;
  int pixels;  // of an output image
  int steps_per_image;
  int lines;  // of a pixel and group
  int columns;
  int column_tiles;
  int packed_outputs;
  uint32_t pixel_bytes;
  int64_t image_bytes;
  int64_t first_image;
  int64_t tile_steps;   // of each tile: images * steps_per_image
  int64_t total_steps;  // of all tiles
};

// The first step of a run; `runs` cut `total` steps evenly.
__device__ __forceinline__ int64_t first_step(int64_t run, int64_t runs, int64_t total) {
  return total * run / runs;
}

// Adds to two neighbours at an address aligned to both.
__device__ __forceinline__ void add_pair(float* address, float first, float second) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("red.global.add.v2.f32 [%0], {%1, %2};" ::"l"(address), "f"(first), "f"(second)
               : "memory");
#else
  atomicAdd(address, first);
  atomicAdd(address + 1, second);
#endif
}

constexpr int kPackOutputs = 64;  // of a block that packs the gradient

// How the gradient is packed.
template <typename T>
struct GradientPacking {
  const T* grad_output;
  PixelOrder order;
  int pixels;
  int steps;  // of an image
  int out_channels;
  int packed_outputs;
  int64_t image_stride;
  int64_t channel_stride;
  int64_t pixel_stride;
  float* inverse_scales;
  uint16_t* packed;
};

// Packs the gradient for the products: for each step and output channel a line of the step's
// pixels, which for float32 is 32 high parts, then 32 low parts, of the gradient times a power of
// two for that line. Blocks are numbered by image, by output channels, by step, a warp to a line.
template <typename T>
__device__ __forceinline__ void pack_gradient(const GradientPacking<T>& packing, uint32_t block) {
  const auto& [grad_output, order, pixels, steps, out_channels, packed_outputs, image_stride,
               channel_stride, pixel_stride, inverse_scales, packed] = packing;
  constexpr int kPixels = kStepPixels<T>;
  __shared__ int64_t places[kPixels];
  const uint32_t column = block / steps;
  const int image_step = static_cast<int>(block - column * steps);
  const uint32_t output_blocks = packed_outputs / kPackOutputs;
  const int64_t image_index = column / output_blocks;
  const int first_output = static_cast<int>(column % output_blocks) * kPackOutputs;
  const int first = image_step * kPixels;
  if (threadIdx.x < kPixels) {
    int64_t place = -1;
    if (first + static_cast<int>(threadIdx.x) < pixels) {
      const Pixel pixel = pixel_at(order, first + threadIdx.x);
      place = (static_cast<int64_t>(pixel.y) * order.width + pixel.x) * pixel_stride;
    }
    places[threadIdx.x] = place;
  }
  __syncthreads();
  const int lane = threadIdx.x % 32;
  const int64_t step = image_index * steps + image_step;
  const T* image = grad_output + image_index * image_stride;
#pragma unroll 4
  for (int i = threadIdx.x / 32; i < kPackOutputs; i += kPackThreads / 32) {
    const int output = first_output + i;
    const int64_t row = step * packed_outputs + output;
    uint16_t* line = packed + row * (kLineBytes / 2);
    const T* plane = image + output * channel_stride;
    if constexpr (std::is_same_v<T, float>) {
      const int64_t place = output < out_channels ? places[lane] : -1;
      const float value = place < 0 ? 0.0f : plane[place];
      const PowerOfTwo power = scale_to_exponent<13>(largest_in_warp(finite_magnitude(value)));
      const SplitPair parts = split(value * power.scale, 0.0f);
      line[lane] = static_cast<uint16_t>(parts.high & 0xffffu);
      line[32 + lane] = static_cast<uint16_t>(parts.low & 0xffffu);
      if (lane == 0) {
        inverse_scales[row] = power.inverse;
      }
    } else {
      uint32_t pair = 0;
#pragma unroll
      for (int k = 0; k < 2; ++k) {
        const int64_t place = output < out_channels ? places[2 * lane + k] : -1;
        if (place >= 0) {
          pair |= static_cast<uint32_t>(plane[place].bits) << (16 * k);
        }
      }
      reinterpret_cast<uint32_t*>(line)[lane] = pair;
    }
  }
}

constexpr int kClearVectors = 16;  // a thread's

// Clears `vectors` of 16 bytes, the first `clear_blocks` blocks, packs the gradient, the next
// `gradient_blocks`, and the input, all others.
template <typename T>
__global__ void __launch_bounds__(kPackThreads)
    pack_kernel(uint4* cleared, int64_t vectors, uint32_t clear_blocks,
                const __grid_constant__ GradientPacking<T> gradient, uint32_t gradient_blocks,
                const __grid_constant__ InputPacking<T> input) {
  let_dependents_start();
  uint32_t block = blockIdx.x;
  if (block < clear_blocks) {
    const int64_t stride = int64_t{clear_blocks} * kPackThreads;
    for (int64_t i = int64_t{block} * kPackThreads + threadIdx.x; i < vectors; i += stride) {
      cleared[i] = {0, 0, 0, 0};
    }
    return;
  }
  block -= clear_blocks;
  if (block < gradient_blocks) {
    pack_gradient(gradient, block);
  } else {
    pack_input(input, block - gradient_blocks);
  }
}

// Bits of the largest finite magnitude of `values` into `largest`, which starts as zero.
__global__ void __launch_bounds__(kPackThreads)
    largest_kernel(const float* values, int64_t count, uint32_t* largest) {
  uint32_t result = 0;
  const int64_t stride = int64_t{gridDim.x} * kPackThreads;
  for (int64_t i = int64_t{blockIdx.x} * kPackThreads + threadIdx.x; i < count; i += stride) {
    result = max(result, finite_magnitude(values[i]));
  }
  result = largest_in_warp(result);
  if (threadIdx.x % 32 == 0) {
    atomicMax(largest, result);
  }
}

// The same for each channel of (pixels, channels), kChannelPixels of them a block.
constexpr int kChannelPixels = 64;

__global__ void __launch_bounds__(kPackThreads)
    channel_largest_kernel(const float* values, int64_t pixels, int channels, uint32_t* largest) {
  const int64_t first = int64_t{blockIdx.x} * kChannelPixels;
  const int64_t last = first + kChannelPixels < pixels ? first + kChannelPixels : pixels;
  for (int channel = threadIdx.x; channel < channels; channel += kPackThreads) {
    uint32_t result = 0;
    for (int64_t pixel = first; pixel < last; ++pixel) {
      result = max(result, finite_magnitude(values[pixel * channels + channel]));
    }
    atomicMax(largest + channel, result);
  }
}

// Depends on pack_kernel.
template <typename T, typename Tile>
__global__ void __launch_bounds__(Tile::kThreads)
    weight_kernel(const char* gradient, const float* gradient_scales, const char* input,
                  const uint32_t* input_largest, const uint32_t* mask_largest, const T* offset,
                  const T* mask, const char* zeros, WeightArguments arguments, float* total) {
  constexpr bool kSplit = std::is_same_v<T, float>;
  constexpr int kPixels = kStepPixels<T>;
  constexpr int kChannels = kLineChannels<T>;
  constexpr int kRows = Tile::kWarpOutputs / 16;
  constexpr int kWarpBlocks = Tile::kWarpColumns / 8;
  constexpr int kRowsPerPass = Tile::kThreads / kLineVectors;

  extern __shared__ __align__(1024) char shared[];
  float4* table_weights = reinterpret_cast<float4*>(shared + 2 * Tile::kStageBytes);
  uint32_t* table_corners = reinterpret_cast<uint32_t*>(table_weights + 2 * kStepSamples);
  float* row_scales = reinterpret_cast<float*>(table_corners + 2 * kStepSamples);
  float* column_scales = row_scales + 2 * Tile::kOutputs;
  uint32_t* line_places = reinterpret_cast<uint32_t*>(column_scales + kColumns);
  const uint32_t stages = shared_address(shared);

  const int lane = threadIdx.x % 32;
  const int warp = threadIdx.x / 32;
  const int warp_output = warp / Tile::kWarpsAcross * Tile::kWarpOutputs;
  const int warp_column = warp % Tile::kWarpsAcross * Tile::kWarpColumns;
  const SamplingShape& sampling = arguments.sampling;
  const uint32_t pixel_bytes = arguments.pixel_bytes;
  const uint32_t row_bytes = pixel_bytes * sampling.width;

  const LinePlace place;
  const char* thread_input = input + place.vector * 16;
  const char* thread_zeros = zeros + place.vector * 16;

  // Where ldmatrix reads gradients and, transposed, samples.
  const uint32_t gradient_place = swizzled(warp_output + (lane & 15), lane >> 4);
  const uint32_t sample_place =
      swizzled(warp_column / kChannels * kPixels + (lane & 7) + (lane >> 3 & 1) * 8,
               warp_column % kChannels / 8 + (kSplit ? lane >> 4 << 2 : lane >> 4));

  float mask_scale = 1;
  float mask_inverse = 1;
  if constexpr (kSplit) {
    const PowerOfTwo power = scale_to_exponent<0>(*mask_largest);
    mask_scale = power.scale;
    mask_inverse = power.inverse;
  }
  wait_for_dependency();

  int64_t unit = first_step(blockIdx.x, gridDim.x, arguments.total_steps);
  const int64_t last_unit = first_step(blockIdx.x + 1, gridDim.x, arguments.total_steps);
  while (unit < last_unit) {
    const int64_t tile = unit / arguments.tile_steps;
    const int64_t tile_start = tile * arguments.tile_steps;
    const int first = static_cast<int>(unit - tile_start);
    const int64_t rest = last_unit - tile_start;
    const int last = static_cast<int>(rest < arguments.tile_steps ? rest : arguments.tile_steps);
    unit += last - first;
    const int first_output = static_cast<int>(tile / arguments.column_tiles) * Tile::kOutputs;
    const int first_column = static_cast<int>(tile % arguments.column_tiles) * kTileColumns<T>;

    __syncthreads();
    if constexpr (kSplit) {
      if (threadIdx.x < kColumns) {
        const int column = first_column + threadIdx.x / kChannels;
        float scale = 1;
        if (column < arguments.columns) {
          scale = scale_to_exponent<13>(
                      input_largest[column / sampling.taps * kChannels + threadIdx.x % kChannels])
                      .scale;
        }
        column_scales[threadIdx.x] = scale;
      }
    }

    if (threadIdx.x < kTileColumns<T>) {
      const int column = first_column + static_cast<int>(threadIdx.x);
      line_places[threadIdx.x] = static_cast<uint32_t>(column / sampling.taps * kLineBytes);
    }
    auto input_at = [&](int step) {
      return thread_input + step / arguments.steps_per_image * arguments.image_bytes;
    };

    // The sample point that this thread computes in each step: its pixel and column.
    const int point_column = first_column + threadIdx.x / kPixels;
    const int point_line = point_column / sampling.taps;
    const int point_tap = point_column - point_line * sampling.taps;
    const int point_group = point_line / arguments.lines;
    bool point_exists = false;
    OffsetPoint<T> offset_point;
    auto read_point = [&](int step) {
      const int image = step / arguments.steps_per_image;
      const int pixel = (step - image * arguments.steps_per_image) * kPixels +
                        static_cast<int>(threadIdx.x) % kPixels;
      point_exists = threadIdx.x < kStepSamples && point_column < arguments.columns &&
                     pixel < arguments.pixels && step < last;
      if (point_exists) {
        offset_point =
            load_point(offset, mask, sampling, arguments.order, arguments.first_image + image,
                       point_group, point_tap, pixel_at(arguments.order, pixel));
      }
    };
    auto write_point = [&](int step) {
      if (threadIdx.x < kStepSamples) {
        SamplePoint point = {kNowhere, {0, 0, 0, 0}};
        if (point_exists) {
          point = sample_point(offset_point, sampling);
        }
        if constexpr (kSplit) {
          point.weights.x *= mask_scale;
          point.weights.y *= mask_scale;
          point.weights.z *= mask_scale;
          point.weights.w *= mask_scale;
        }
        const int at = ((step - first) & 1) * kStepSamples + threadIdx.x;
        table_corners[at] = point.corner;
        table_weights[at] = point.weights;
      }
    };
    auto copy_gradient = [&](int step, int stage) {
      const uint32_t tile_address = stages + stage * Tile::kStageBytes;
      const int64_t row = int64_t{step} * arguments.packed_outputs + first_output;
      const char* line = gradient + row * kLineBytes + threadIdx.x * 16;
#pragma unroll
      for (int i = 0; i < Tile::kOutputs / kRowsPerPass; ++i) {
        copy_async(tile_address + place.whole + i * (kRowsPerPass * kLineBytes),
                   line + i * (Tile::kThreads * 16));
      }
      if constexpr (kSplit) {
        if (threadIdx.x < Tile::kOutputs / 4) {
          copy_async(shared_address(row_scales + stage * Tile::kOutputs + threadIdx.x * 4),
                     gradient_scales + row + threadIdx.x * 4);
        }
      }
    };
    auto load_samples = [&](Corners& corners, const char* image_input, int stage, int pass) {
      const int row = place.row + pass * kRowsPerPass;
      load_corners(corners, image_input + line_places[row / kPixels], thread_zeros,
                   table_corners[stage * kStepSamples + row], pixel_bytes, row_bytes);
    };
    auto store_samples = [&](const Corners& corners, int pass, int stage) {
      const int row = place.row + pass * kRowsPerPass;
      const uint32_t tile_address = stages + stage * Tile::kStageBytes + Tile::kGradientBytes;
      float sample[16 / sizeof(T)];
      interpolate<T>(sample, corners, table_weights[stage * kStepSamples + row]);
      if constexpr (kSplit) {
        store_split(tile_address + place.split + pass * (kRowsPerPass * kLineBytes), sample,
                    *reinterpret_cast<const float4*>(column_scales + row / kPixels * kChannels +
                                                     place.vector * 4));
      } else {
        store_whole<T>(tile_address + place.whole + pass * (kRowsPerPass * kLineBytes), sample);
      }
    };

    float sums[kRows][kWarpBlocks][4] = {};
    auto multiply = [&](int quarter, int half, int stage) {
      const uint32_t gradients = stages + stage * Tile::kStageBytes + gradient_place;
      const uint32_t samples =
          stages + stage * Tile::kStageBytes + Tile::kGradientBytes + sample_place;
      const uint32_t depth = (kSplit ? quarter / 2 : quarter) * (16 * kLineBytes);
      multiply_quarter<T>(sums, gradients, row_scales + stage * Tile::kOutputs + warp_output,
                          quarter, half, [&](uint32_t (&columns)[4], int block) {
                            const uint32_t vector = block % (kChannels / 8) * 16;
                            const uint32_t lines = block / (kChannels / 8) * (kPixels * kLineBytes);
                            load_matrices_transposed(columns, (samples ^ vector) + lines + depth);
                          });
    };

    Corners corners;
    for (int step = first; step < first + 2; ++step) {
      read_point(step);
      write_point(step);
    }
    copy_gradient(first, 0);
    commit_copies();
    __syncthreads();
#pragma unroll
    for (int pass = 0; pass < Tile::kPasses; ++pass) {
      load_samples(corners, input_at(first), 0, pass);
      store_samples(corners, pass, 0);
    }
    for (int step = first; step < last; ++step) {
      const int stage = (step - first) & 1;
      const bool more = step + 1 < last;
      wait_copies<0>();
      __syncthreads();
      if (more) {
        copy_gradient(step + 1, stage ^ 1);
      }
      commit_copies();
      const char* next_input = input_at(step + 1);
      read_point(step + 2);
      overlap_quarters<T, Tile>(
          more, [&](int pass) { load_samples(corners, next_input, stage ^ 1, pass); },
          [&](int quarter, int half) { multiply(quarter, half, stage); },
          [&](int pass) { store_samples(corners, pass, stage ^ 1); });
      write_point(step + 2);
    }

#pragma unroll
    for (int j = 0; j < kWarpBlocks; ++j) {
      const int column = warp_column + j * 8 + lane % 4 * 2;
      float inverse[2] = {1, 1};
      if constexpr (kSplit) {
        // The inverse of a power of two is exact.
        inverse[0] = 1 / column_scales[column];
        inverse[1] = 1 / column_scales[column + 1];
      }
#pragma unroll
      for (int i = 0; i < 2 * kRows; ++i) {
        const int64_t row = first_output + warp_output + i * 8 + lane / 4;
        const float* sum = sums[i / 2][j] + i % 2 * 2;
        add_pair(total + (row * arguments.column_tiles + tile % arguments.column_tiles) * kColumns +
                     column,
                 sum[0] * inverse[0] * mask_inverse, sum[1] * inverse[1] * mask_inverse);
      }
    }
  }
}

// Writes the sums of output channel blockIdx.x in the order of the weight.
template <typename T>
__global__ void __launch_bounds__(kPackThreads)
    unpack_weight_kernel(const float* total, int column_tiles, int groups, int group_channels,
                         int lines, int taps, T* grad_weight) {
  constexpr int kChannels = kLineChannels<T>;
  const float* row = total + int64_t{blockIdx.x} * column_tiles * kColumns;
  const int count = groups * group_channels * taps;
  for (int i = blockIdx.y * kPackThreads + threadIdx.x; i < count; i += gridDim.y * kPackThreads) {
    const int channel = i / taps;
    const int tap = i - channel * taps;
    const int group = channel / group_channels;
    const int in_group = channel - group * group_channels;
    const int line = in_group / kChannels;
    const int column = (group * lines + line) * taps + tap;
    grad_weight[int64_t{blockIdx.x} * count + i] =
        narrow<T>(row[column * kChannels + in_group - line * kChannels]);
  }
}

using WideWeightTile = WeightTile<256, 64, 64>;
using NarrowWeightTile = WeightTile<128, 64, 32>;

// Where the parts of the work space begin.
struct WeightWorkspace {
  int64_t total;
  int64_t largest;  // zeros first, then the mask's largest, then the channels'
  int64_t gradient_scales;
  int64_t gradient;
  int64_t input;
  int64_t size;
  int64_t images;
  int64_t packed_outputs;
  int64_t column_tiles;
  bool wide;
};

WeightWorkspace weight_workspace(const DeformConvShape& shape, int64_t element_size,
                                 Layout layout) {
  WeightWorkspace space;
  space.wide =
      shape.out_channels > NarrowWeightTile::kOutputs &&
      device_attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin) >= WideWeightTile::kSharedBytes;
  const int64_t tile_outputs = space.wide ? WideWeightTile::kOutputs : NarrowWeightTile::kOutputs;
  space.packed_outputs = divide_up(shape.out_channels, tile_outputs) * tile_outputs;
  const int64_t step_pixels = kLineBytes / element_size;
  const int64_t steps = divide_up(shape.out_height * shape.out_width, step_pixels);
  const int64_t taps = shape.kernel_h * shape.kernel_w;
  const int64_t columns = shape.offset_groups * lines_per_group(shape, element_size) * taps;
  space.column_tiles = divide_up(columns, kColumns / step_pixels);
  const int64_t tiles = space.column_tiles * space.packed_outputs / tile_outputs;
  const int64_t processors = device_attribute(cudaDevAttrMultiProcessorCount);

  // Enough images for every processor to have some steps between start and end of its run.
  constexpr int64_t kLeastSteps = 32;
  space.images = std::min(shape.batch,
                          std::max<int64_t>(1, divide_up(kLeastSteps * processors, tiles * steps)));

  space.total = 0;
  space.largest = space.packed_outputs * space.column_tiles * kColumns * 4;
  const int64_t channels = shape.offset_groups * lines_per_group(shape, element_size) * step_pixels;
  space.gradient_scales = space.largest + align_up(2 * kLineBytes + channels * 4);
  const int64_t gradient_lines = space.images * steps * space.packed_outputs;
  space.gradient = space.gradient_scales + (element_size == 4 ? align_up(gradient_lines * 4) : 0);
  space.input = space.gradient + gradient_lines * kLineBytes;
  space.size = space.input;
  if (!is_packed(shape, element_size, layout)) {
    space.size += space.images * packed_image_bytes(shape, element_size);
  }
  return space;
}

template <typename T, typename Tile>
void launch_weight(const char* base, const WeightWorkspace& space, const char* input,
                   const T* offset, const T* mask, const WeightArguments& arguments, int runs,
                   float* total, cudaStream_t stream) {
  cudaFuncSetAttribute(weight_kernel<T, Tile>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                       Tile::kSharedBytes);
  const uint32_t* largest = reinterpret_cast<const uint32_t*>(base + space.largest);
  const auto kernel = weight_kernel<T, Tile>;
  launch(can_depend(kernel), kernel, static_cast<unsigned int>(runs), Tile::kThreads,
         Tile::kSharedBytes, stream, base + space.gradient,
         reinterpret_cast<const float*>(base + space.gradient_scales), input,
         largest + 2 * kLineBytes / 4, largest + kLineBytes / 4, offset, mask, base + space.largest,
         arguments, total);
  check_launch("deform_conv_fused weight_kernel");
}

}  // namespace deform_conv_fused

int64_t deform_conv_fused_backward_weight_workspace(const DeformConvShape& shape,
                                                    int64_t element_size, Layout layout) {
  return deform_conv_fused::weight_workspace(shape, element_size, layout).size;
}

template <typename T>
void deform_conv_fused_backward_weight(const T* grad_output, const T* input, const T* offset,
                                       const T* mask, const DeformConvShape& shape, Layout layout,
                                       void* workspace, T* grad_weight, void* stream) {
  using namespace deform_conv_fused;
  const cudaStream_t cuda_stream = static_cast<cudaStream_t>(stream);
  const WeightWorkspace space = weight_workspace(shape, sizeof(T), layout);
  char* base = static_cast<char*>(workspace);
  uint32_t* largest = reinterpret_cast<uint32_t*>(base + space.largest);
  uint32_t* mask_largest = largest + kLineBytes / 4;
  uint32_t* input_largest = largest + 2 * kLineBytes / 4;
  const int64_t pixels = shape.height * shape.width;
  const int64_t out_pixels = shape.out_height * shape.out_width;
  const int64_t taps = shape.kernel_h * shape.kernel_w;
  const int64_t lines = lines_per_group(shape, sizeof(T));
  const int64_t group_channels = shape.in_channels / shape.offset_groups;
  const bool channels_last = layout == Layout::kNhwc;
  const bool packed = is_packed(shape, sizeof(T), layout);
  const int64_t tile_outputs = space.wide ? WideWeightTile::kOutputs : NarrowWeightTile::kOutputs;

  WeightArguments arguments;
  arguments.sampling = sampling_shape(shape);
  arguments.order = pixel_order(shape);
  arguments.pixels = static_cast<int>(out_pixels);
  arguments.steps_per_image = static_cast<int>(divide_up(out_pixels, kStepPixels<T>));
  arguments.lines = static_cast<int>(lines);
  arguments.columns = static_cast<int>(shape.offset_groups * lines * taps);
  arguments.column_tiles = static_cast<int>(space.column_tiles);
  arguments.packed_outputs = static_cast<int>(space.packed_outputs);
  arguments.pixel_bytes = static_cast<uint32_t>(shape.offset_groups * lines * kLineBytes);
  arguments.image_bytes = packed_image_bytes(shape, sizeof(T));

  GradientPacking<T> gradient_packing;
  gradient_packing.order = arguments.order;
  gradient_packing.pixels = arguments.pixels;
  gradient_packing.steps = arguments.steps_per_image;
  gradient_packing.out_channels = static_cast<int>(shape.out_channels);
  gradient_packing.packed_outputs = arguments.packed_outputs;
  gradient_packing.image_stride = shape.out_channels * out_pixels;
  gradient_packing.channel_stride = channels_last ? 1 : out_pixels;
  gradient_packing.pixel_stride = channels_last ? shape.out_channels : 1;
  gradient_packing.inverse_scales = reinterpret_cast<float*>(base + space.gradient_scales);
  gradient_packing.packed = reinterpret_cast<uint16_t*>(base + space.gradient);

  float* total = reinterpret_cast<float*>(base + space.total);
  for (int64_t first = 0; first < shape.batch; first += space.images) {
    const int64_t images = std::min(space.images, shape.batch - first);
    if (std::is_same_v<T, float>) {
      cudaMemsetAsync(largest, 0, space.gradient_scales - space.largest, cuda_stream);
    }
    if (std::is_same_v<T, float> && mask != nullptr) {
      const int64_t count = shape.offset_groups * taps * out_pixels;
      largest_kernel<<<static_cast<unsigned int>(
                           std::min<int64_t>(divide_up(images * count, kPackThreads), 512)),
                       kPackThreads, 0, cuda_stream>>>(
          reinterpret_cast<const float*>(mask) + first * count, images * count, mask_largest);
      check_launch("deform_conv_fused largest_kernel");
    }
    const T* images_input = input + first * shape.in_channels * pixels;
    const char* packed_input = reinterpret_cast<const char*>(images_input);
    if (packed && std::is_same_v<T, float>) {
      channel_largest_kernel<<<static_cast<unsigned int>(
                                   divide_up(images * pixels, kChannelPixels)),
                               kPackThreads, 0, cuda_stream>>>(
          reinterpret_cast<const float*>(images_input), images * pixels,
          static_cast<int>(shape.in_channels), input_largest);
      check_launch("deform_conv_fused channel_largest_kernel");
    }
    const auto input_packing = deform_conv_fused::input_packing(
        images_input, shape, layout, std::is_same_v<T, float> ? input_largest : nullptr,
        base + space.input);
    if (!packed) {
      packed_input = base + space.input;
    }
    gradient_packing.grad_output = grad_output + first * gradient_packing.image_stride;
    // The sums of all images, and for half precision the zeros that follow.
    const int64_t bytes = space.largest + (std::is_same_v<T, float> ? 0 : kLineBytes);
    const int64_t vectors = first == 0 ? bytes / static_cast<int64_t>(sizeof(uint4)) : 0;
    const int64_t clear_blocks = divide_up(vectors, kClearVectors * kPackThreads);
    const int64_t gradient_blocks =
        arguments.steps_per_image * (space.packed_outputs / kPackOutputs) * images;
    const int64_t input_blocks = packed ? 0 : packing_blocks(input_packing, images);
    pack_kernel<T><<<static_cast<unsigned int>(clear_blocks + gradient_blocks + input_blocks),
                     kPackThreads, 0, cuda_stream>>>(
        reinterpret_cast<uint4*>(base + space.total), vectors, static_cast<uint32_t>(clear_blocks),
        gradient_packing, static_cast<uint32_t>(gradient_blocks), input_packing);
    check_launch("deform_conv_fused pack_kernel");

    arguments.first_image = first;
    arguments.tile_steps = images * arguments.steps_per_image;
    arguments.total_steps =
        arguments.tile_steps * space.column_tiles * (space.packed_outputs / tile_outputs);
    const int runs = static_cast<int>(
        std::min<int64_t>(device_attribute(cudaDevAttrMultiProcessorCount), arguments.total_steps));
    if (space.wide) {
      launch_weight<T, WideWeightTile>(base, space, packed_input, offset, mask, arguments, runs,
                                       total, cuda_stream);
    } else {
      launch_weight<T, NarrowWeightTile>(base, space, packed_input, offset, mask, arguments, runs,
                                         total, cuda_stream);
    }
  }
  unpack_weight_kernel<T>
      <<<dim3(static_cast<unsigned int>(shape.out_channels), 2), kPackThreads, 0, cuda_stream>>>(
          total, arguments.column_tiles, static_cast<int>(shape.offset_groups),
          static_cast<int>(group_channels), static_cast<int>(lines), static_cast<int>(taps),
          grad_weight);
  check_launch("deform_conv_fused unpack_weight_kernel");
}

#define DETECTRON2_INSTANTIATE(T)                     \
  template void deform_conv_fused_backward_weight<T>( \
      const T*, const T*, const T*, const T*, const DeformConvShape&, Layout, void*, T*, void*);
DETECTRON2_INSTANTIATE(float)
DETECTRON2_INSTANTIATE(Half)
DETECTRON2_INSTANTIATE(BFloat16)

}  // namespace detectron2
