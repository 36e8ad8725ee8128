// Bringing channels that lie in planes side by side in memory. Only .cu files include it.

#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <type_traits>

#include "csrc/common/cuda_launch.h"
#include "csrc/common/dependent_launch_cuda.h"

namespace detectron2 {

// Channels are moved in words: a channel, or two neighbouring ones in half precision.
template <typename T>
using ChannelWord = std::conditional_t<sizeof(T) == sizeof(uint64_t), uint64_t, uint32_t>;
template <typename T>
constexpr int kWordChannels = sizeof(ChannelWord<T>) / sizeof(T);

// Pixels, and words of a pixel, that a block brings into the other order.
constexpr int kSquare = 64;
constexpr int kHalfSquare = kSquare / 2;  // pixels that are left out together
constexpr int kSquareThreads = 256;

// Reads what is read once: the caches are left to what is written.
template <typename Bits>
__device__ __forceinline__ Bits load_once(const void* at) {
  return __ldcs(static_cast<const Bits*>(at));
}

// Copies images (channels, plane) to images (plane, words), channels beyond the last as zeros.
// Leaves out the pixels of half a square that needed(image, first, last), which all threads of a
// block call, does not ask for: bit 0 stands for the first half of the pixels from `first` to
// `last`, bit 1 for the second. `pairs`: two pixels of half precision are read at a time, which
// needs an even number of them. A kernel that comes after this one may be launched as a dependent.
template <typename T, bool pairs, typename Needed>
__global__ void __launch_bounds__(kSquareThreads)
    channels_last_kernel(const T* planes, int64_t channels, int64_t plane, int64_t words,
                         const __grid_constant__ Needed needed, ChannelWord<T>* channels_last) {
  constexpr int kWords = kWordChannels<T>;
  using Word = ChannelWord<T>;
  __shared__ Word square[kSquare][kSquare + 1];
  const int64_t word_blocks = (words + kSquare - 1) / kSquare;
  const int64_t squares = (plane + kSquare - 1) / kSquare;
  const int64_t first_word = blockIdx.x % word_blocks * kSquare;
  const int64_t first_pixel = blockIdx.x / word_blocks % squares * kSquare;
  const int64_t image = blockIdx.x / word_blocks / squares;
  let_dependents_start();
  const unsigned int halves = needed(image, first_pixel, min(first_pixel + kSquare, plane) - 1);
  if (halves == 0) {
    return;
  }
  const auto is_needed = [&](int pixel) { return (halves >> (pixel / kHalfSquare) & 1) != 0; };
  const int pixels = static_cast<int>(min(int64_t{kSquare}, plane - first_pixel));
  const int count = static_cast<int>(min(int64_t{kSquare}, words - first_word));
  const int left = static_cast<int>(min(int64_t{kSquare * kWords}, channels - first_word * kWords));
  planes += (image * channels + first_word * kWords) * plane + first_pixel;
  channels_last += (image * plane + first_pixel) * words + first_word;
  if constexpr (pairs) {
    constexpr int kLanes = kSquare / 2;
    const int pixel = threadIdx.x % kLanes * 2;
    const int first = threadIdx.x / kLanes;
    const bool reads = pixel < pixels && is_needed(pixel);
#pragma unroll
    for (int step = 0; step < kSquare; step += kSquareThreads / kLanes) {
      const int channel = (first + step) * 2;
      const T* at = planes + channel * plane + pixel;
      uint32_t low = 0;
      uint32_t high = 0;
      if (reads && channel < left) {
        low = load_once<uint32_t>(at);
      }
      if (reads && channel + 1 < left) {
        high = load_once<uint32_t>(at + plane);
      }
      square[first + step][pixel] = __byte_perm(low, high, 0x5410);
      square[first + step][pixel + 1] = __byte_perm(low, high, 0x7632);
    }
  } else {
    using Bits = std::conditional_t<kWords == 1, Word, uint16_t>;
    const int pixel = threadIdx.x % kSquare;
    const int first = threadIdx.x / kSquare;
    const bool reads = pixel < pixels && is_needed(pixel);
#pragma unroll
    for (int step = 0; step < kSquare; step += kSquareThreads / kSquare) {
      const int channel = (first + step) * kWords;
      const T* at = planes + channel * plane + pixel;
      Word bits = 0;
      if (reads && channel < left) {
        bits = load_once<Bits>(at);
      }
      if (kWords == 2 && reads && channel + 1 < left) {
        bits |= static_cast<Word>(load_once<Bits>(at + plane)) << 16;
      }
      square[first + step][pixel] = bits;
    }
  }
  __syncthreads();
  const int word = threadIdx.x % kSquare;
  const int first = threadIdx.x / kSquare;
  if (word < count) {
#pragma unroll
    for (int step = 0; step < kSquare; step += kSquareThreads / kSquare) {
      const int pixel = first + step;
      if (pixel < pixels && is_needed(pixel)) {
        channels_last[pixel * words + word] = square[word][pixel];
      }
    }
  }
}

// Blocks that this takes, which must be at most 2**31 - 1.
template <typename T>
int64_t channels_last_blocks(int64_t images, int64_t plane, int64_t pixel_stride) {
  return images * divide_up(plane, kSquare) * divide_up(pixel_stride / kWordChannels<T>, kSquare);
}

// Launches the kernel: (images, channels, plane) to (images, plane, pixel_stride), the latter
// aligned to words.
template <typename T, typename Needed>
void bring_channels_side_by_side(const T* planes, int64_t images, int64_t channels, int64_t plane,
                                 int64_t pixel_stride, const Needed& needed, T* channels_last,
                                 cudaStream_t stream) {
  const bool pairs = kWordChannels<T> == 2 && plane % 2 == 0 &&
                     reinterpret_cast<uintptr_t>(planes) % sizeof(uint32_t) == 0;
  const auto kernel = pairs ? channels_last_kernel<T, kWordChannels<T> == 2, Needed>
                            : channels_last_kernel<T, false, Needed>;
  kernel<<<static_cast<unsigned int>(channels_last_blocks<T>(images, plane, pixel_stride)),
           kSquareThreads, 0, stream>>>(planes, channels, plane, pixel_stride / kWordChannels<T>,
                                        needed, reinterpret_cast<ChannelWord<T>*>(channels_last));
}

}  // namespace detectron2
