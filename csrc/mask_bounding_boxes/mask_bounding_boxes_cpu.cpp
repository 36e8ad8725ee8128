#include <algorithm>
#include <cstdint>
#include <cstring>

#include "csrc/mask_bounding_boxes/mask_bounding_boxes.h"

namespace detectron2 {
namespace {

// Fewer pixels than this cost less to look at than to hand to a thread.
constexpr int64_t kPixelsPerRange = 1 << 19;

constexpr int64_t kWord = sizeof(uint64_t);
constexpr int64_t kBlock = 8 * kWord;

uint64_t word_at(const uint8_t* pixels) {
  uint64_t word;
  std::memcpy(&word, pixels, kWord);
  return word;
}

// kBlock pixels at once: a compiler makes vector instructions of it.
bool is_block_set(const uint8_t* pixels) {
  uint64_t all = 0;
  for (int64_t i = 0; i < kBlock; i += kWord) {
    all |= word_at(pixels + i);
  }
  return all != 0;
}

// The first pixel in [begin, end) that is set, or `end`.
int64_t first_set(const uint8_t* pixels, int64_t begin, int64_t end) {
  while (end - begin >= kBlock && !is_block_set(pixels + begin)) {
    begin += kBlock;
  }
  while (end - begin >= kWord && word_at(pixels + begin) == 0) {
    begin += kWord;
  }
  while (begin < end && pixels[begin] == 0) {
    ++begin;
  }
  return begin;
}

// One more than the last pixel in [begin, end) that is set, or `begin`.
int64_t last_set(const uint8_t* pixels, int64_t begin, int64_t end) {
  while (end - begin >= kBlock && !is_block_set(pixels + end - kBlock)) {
    end -= kBlock;
  }
  while (end - begin >= kWord && word_at(pixels + end - kWord) == 0) {
    end -= kWord;
  }
  while (begin < end && pixels[end - 1] == 0) {
    --end;
  }
  return end;
}

void bound(const uint8_t* mask, int64_t height, int64_t width, float* box) {
  std::fill(box, box + 4, 0.0f);
  const int64_t pixels = height * width;
  const int64_t first = first_set(mask, 0, pixels);
  if (first == pixels) {
    return;
  }
  const int64_t top = first / width;
  const int64_t bottom = (last_set(mask, first, pixels) - 1) / width + 1;
  // Between these, only what lies beyond the columns found so far is of interest.
  int64_t left = first % width;
  int64_t right = left + 1;
  for (int64_t y = top; y < bottom; ++y) {
    const uint8_t* row = mask + y * width;
    left = first_set(row, 0, left);
    right = last_set(row, right, width);
  }
  box[0] = static_cast<float>(left);
  box[1] = static_cast<float>(top);
  box[2] = static_cast<float>(right);
  box[3] = static_cast<float>(bottom);
}

}  // namespace

void mask_bounding_boxes_cpu(const uint8_t* masks, int64_t count, int64_t height, int64_t width,
                             float* boxes, ParallelFor parallel_for) {
  const int64_t masks_per_range =
      std::max<int64_t>(1, kPixelsPerRange / std::max<int64_t>(1, height * width));
  parallel_for(0, count, masks_per_range, [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n) {
      bound(masks + n * height * width, height, width, boxes + n * 4);
    }
  });
}

}  // namespace detectron2
